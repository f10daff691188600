"use strict";
// What makes the page live. Text of others is put in as text only; HTML comes from our own server, which has escaped it.
const $ = (id) => document.getElementById(id);
const live = (well) => { const at = $("live"); if (at) { at.textContent = well ? "live" : "connection lost"; at.classList.toggle("lost", !well); } };

async function ask(url, form) {
  try {
    const answer = await fetch(url, { headers: { Accept: form === "json" ? "application/json" : "text/html" } });
    if (!answer.ok) { live(answer.status < 500); return null; }
    const content = form === "json" ? await answer.json() : await answer.text();
    live(true);
    return content;
  } catch { live(false); return null; }
}

// Repeats `work` while the page is seen; it says how many milliseconds to wait for the next time.
function repeat(work) {
  const go = async () => { let pause = 2000; if (!document.hidden) pause = (await work()) ?? 2000; if (pause) setTimeout(go, pause); };
  setTimeout(go, 1000);
}

function parsed(html) { const holder = document.createElement("template"); holder.innerHTML = html; return holder.content; }

function list() {
  const rows = $("rows"), filter = $("filter"), count = $("count");
  const texts = new WeakMap();
  const textOf = (row) => { if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase()); return texts.get(row); };
  const apply = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows.children) { row.hidden = !words.every((word) => textOf(row).includes(word)); shown += !row.hidden; }
    count.textContent = words.length ? `${shown} of ${rows.children.length}` : `${rows.children.length}`;
    $("none").hidden = rows.children.length > 0;
  };
  filter.addEventListener("input", apply);
  document.addEventListener("keydown", (event) => { if (event.key === "/" && event.target === document.body) { event.preventDefault(); filter.focus(); } });
  apply();
  let version = rows.dataset.version;
  repeat(async () => {
    const news = await ask(`/rows?since=${encodeURIComponent(version)}`, "json");
    if (!news) return 4000;
    version = news.version;
    $("error").textContent = news.error; $("error").hidden = !news.error;
    for (const id of news.gone) $(`b-${id}`)?.remove();
    if (news.whole) {
      const there = new Set(news.rows.map((each) => `b-${each.id}`));
      for (const row of [...rows.children]) if (!there.has(row.id)) row.remove();
    }
    for (const each of news.rows) {
      const old = $(`b-${each.id}`), row = parsed(each.html).querySelector("tr"), held = old?.contains(document.activeElement);
      if (old) old.replaceWith(row); else rows.prepend(row);
      if (held) row.querySelector("a").focus({ preventScroll: true });
    }
    if (news.rows.length || news.gone.length || news.whole) apply();
    return 2000;
  });
}

const CHUNK = 200;

function log(section) {
  const view = $("lines"), pods = $("pod"), steps = $("step"), find = $("find"), tail = $("tail"), told = $("matches");
  let lines = [], names = new Map(), since = "", ended = false, round = 0, hits = [], at = -1;
  const numberOf = (text) => { const match = /^#(\d+) /.exec(text); return match ? match[1] : ""; };

  const line = (text) => {
    const element = document.createElement("div");
    element.className = "l";
    if (/^#\d+ \[/.test(text)) element.classList.add("step");
    else if (/^#\d+ ERROR|^ERROR /.test(text)) element.classList.add("err");
    element.textContent = text;
    return element;
  };
  const append = (texts) => {
    let chunk = view.lastElementChild;
    for (const text of texts) {
      if (!chunk || chunk.childElementCount >= CHUNK) { chunk?.classList.add("full"); chunk = document.createElement("div"); chunk.className = "chunk"; view.append(chunk); }
      chunk.append(line(text));
    }
  };
  const wanted = (text) => !steps.value || numberOf(text) === steps.value;
  const take = (texts) => {
    for (const text of texts) {
      const match = /^#(\d+) (\[.+|exporting .+|importing .+)$/.exec(text);
      if (match && !names.has(match[1])) {
        names.set(match[1], match[2]);
        const option = document.createElement("option");
        option.value = match[1]; option.textContent = `#${match[1]} ${match[2]}`.slice(0, 90);
        steps.append(option);
      }
    }
    lines.push(...texts);
    const stay = !tail.checked;
    append(texts.filter(wanted));
    if (!stay) view.scrollTop = view.scrollHeight;
    if (find.value) mark(false);
  };
  const redraw = () => { view.replaceChildren(); append(lines.filter(wanted)); if (tail.checked && !steps.value) view.scrollTop = view.scrollHeight; else view.scrollTop = 0; mark(true); };
  const elements = () => view.querySelectorAll(".l");
  const mark = (jump) => {
    const text = find.value.toLowerCase();
    hits = [];
    for (const element of elements()) {
      const hit = text !== "" && element.textContent.toLowerCase().includes(text);
      element.classList.toggle("hit", hit); element.classList.remove("at");
      if (hit) hits.push(element);
    }
    at = hits.length ? Math.min(Math.max(at, 0), hits.length - 1) : -1;
    if (text && jump) { at = hits.length ? 0 : -1; show(); } else tell();
  };
  const tell = () => { told.textContent = find.value ? (hits.length ? `${at + 1} of ${hits.length}` : "nothing found") : ""; };
  const show = () => { for (const hit of hits) hit.classList.remove("at"); if (hits[at]) { tail.checked = false; hits[at].classList.add("at"); hits[at].scrollIntoView({ block: "center" }); } tell(); };
  const step = (by) => { if (hits.length) { at = (at + by + hits.length) % hits.length; show(); } };

  const read = async () => {
    if (!pods.value) return 2000;
    const mine = round;
    const part = await ask(`${section.dataset.url}?pod=${encodeURIComponent(pods.value)}&since=${encodeURIComponent(since)}`, "json");
    if (mine !== round) return 0;
    if (!part) return 4000;
    since = part.since; ended = part.ended;
    if (part.error && !lines.length) take([part.error]); else take(part.lines);
    return ended ? 0 : 2000;
  };
  const begin = () => {
    round += 1; lines = []; names = new Map(); since = ""; ended = false;
    steps.replaceChildren(steps.firstElementChild); view.replaceChildren();
    const mine = round;
    const go = async () => { if (mine !== round) return; const pause = document.hidden ? 2000 : await read(); if (pause && mine === round) setTimeout(go, pause); };
    return go();
  };
  pods.addEventListener("change", begin);
  steps.addEventListener("change", redraw);
  let later = 0;
  find.addEventListener("input", () => { clearTimeout(later); later = setTimeout(() => mark(true), 120); });
  find.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); step(event.shiftKey ? -1 : 1); } });
  $("next").addEventListener("click", () => step(1));
  $("prev").addEventListener("click", () => step(-1));
  view.addEventListener("scroll", () => { if (view.scrollTop + view.clientHeight < view.scrollHeight - 40) tail.checked = tail.checked && document.activeElement !== view && !view.matches(":hover"); });
  document.addEventListener("keydown", (event) => {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") { event.preventDefault(); find.focus(); }
    if (event.key === "n") step(1);
    if (event.key === "N") step(-1);
  });
  begin();
  return {
    // Shows what one step of a platform has said.
    async of(platform, name) {
      const option = [...pods.options].findLast((each) => each.dataset.platform === platform);
      if (!option) return;
      if (pods.value !== option.value) { pods.value = option.value; await begin(); }
      const short = (text) => text.replace(/^\[[^\]]*\] ?/, "");
      const found = [...names].find(([, each]) => each === name) ?? [...names].find(([, each]) => short(each) === short(name));
      steps.value = found ? found[0] : "";
      redraw(); section.scrollIntoView({ block: "start" }); view.focus({ preventScroll: true });
    },
    add(fresh) {
      const known = new Set([...pods.options].map((each) => each.value));
      if (fresh.length) section.hidden = false;
      for (const [value, platform] of fresh) if (!known.has(value)) {
        const option = document.createElement("option");
        option.value = value; option.dataset.platform = platform; option.textContent = platform || value;
        pods.append(option);
        if (pods.options.length === 1) begin();
      }
    },
  };
}

function build(details) {
  const panel = log($("log"));
  let last = "", every = false;
  const restore = () => { const box = $("minor"); if (box) { box.checked = every; document.querySelector(".steps")?.classList.toggle("every", every); } };
  details.addEventListener("change", (event) => { if (event.target.id === "minor") { every = event.target.checked; restore(); } });
  details.addEventListener("click", (event) => { const cell = event.target.closest("button.cell"); if (cell) panel.of(cell.dataset.platform, cell.dataset.step); });
  const waits = (event, on) => {
    const cell = event.target.closest?.("button.cell");
    if (!cell) return;
    const names = new Set(on && cell.dataset.waits ? cell.dataset.waits.split("\n") : []);
    for (const row of details.querySelectorAll(".steps tbody tr")) row.classList.toggle("waited", names.has(row.firstElementChild.title));
  };
  for (const [type, on] of [["mouseover", true], ["mouseout", false], ["focusin", true], ["focusout", false]]) details.addEventListener(type, (event) => waits(event, on));
  const parts = ["details", "more"];
  const alike = (one) => [...document.querySelectorAll(`main ${one.tagName}`)].find((each) => each.id === one.id
    && each.dataset.step === one.dataset.step && each.dataset.platform === one.dataset.platform && each.getAttribute("href") === one.getAttribute("href"));
  repeat(async () => {
    const html = await ask(details.dataset.url, "html");
    if (html === null) return 5000;
    const active = document.activeElement, held = parts.some((id) => $(id).contains(active));
    // Of what is read by scrolling in it, the place would be lost.
    if (html !== last && !(held && active.tagName === "PRE")) {
      last = html;
      const fresh = parsed(html);
      for (const id of parts) $(id).replaceChildren(...fresh.querySelector(`#${id}`).childNodes);
      restore();
      if (held) alike(active)?.focus({ preventScroll: true });
    }
    const data = details.querySelector("#state");
    if (data) panel.add(JSON.parse(data.dataset.pods));
    return data?.dataset.active === "yes" ? 2000 : 10000;
  });
  const image = $("image"), compare = $("compare");
  if (!image.hidden) ask(image.dataset.url, "html").then((html) => { if (html !== null) image.replaceChildren(parsed(html)); });
  ask(compare.dataset.url, "html").then((html) => { if (html?.trim()) { compare.replaceChildren(parsed(html)); compare.hidden = false; } });
}

if ($("rows")) list();
if ($("details")) build($("details"));
