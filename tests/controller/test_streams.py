"""Streams of a real API server, behind a proxy that answers as servers, proxies and networks do on bad days."""

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from multiarchbuild.controller import kube as client
from multiarchbuild.controller import stream
from multiarchbuild.controller.kube import BUILDS, Kube
from multiarchbuild.controller.stream import Stream
from tests.faults.rig.api import upstream
from tests.faults.rig.operator import kubeconfig as kubeconfig_for
from tests.faults.rig.proxy import Proxy, Script
from tests.support.bad_days import BAD, BAD_WATCHES, Answer, error, events, reset, status

from .conftest import Kubectl, Operator, OperatorFactory, build, eventually, new_namespace

pytestmark = pytest.mark.api

OUTAGE = 33.0
"""Seconds for which an API server that is restarted, or whose etcd elects a leader, answers with errors."""
OLDEST = "1"
"""A resource version that no API server remembers the events after."""


def is_watch(request: web.Request) -> bool:
    return request.query.get("watch") == "true"


async def no_answer(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


@dataclass
class Follower:
    """A stream of the builds of a namespace, whose answers may be others than those of the API server."""

    name: str
    bad: list[Answer] = field(default_factory=list)
    """The next answers, the first one first."""
    bad_watches: list[Answer] = field(default_factory=list)
    """The next answers to watches."""
    too_old: int = 0
    """Next watches in which the API server is asked for what it does not remember."""
    versions: dict[str, str] = field(default_factory=dict)
    """What the stream has told, as a copy of what exists."""
    told: list[tuple[str, str]] = field(default_factory=list)
    lists: int = 0
    watched_at: list[float] = field(default_factory=list)
    stream: Stream = field(init=False)

    def __call__(self, kind: str, manifest: Any) -> None:
        meta = manifest["metadata"]
        self.told.append((kind, meta["name"]))
        if kind == "DELETED":
            self.versions.pop(meta["name"], None)
        else:
            self.versions[meta["name"]] = meta["resourceVersion"]

    async def instead(self, request: web.Request) -> web.StreamResponse | str | None:
        """Answer as it was told to, or leave it to the API server."""
        if not is_watch(request):
            self.lists += 1
        else:
            self.watched_at.append(time.monotonic())
            if self.too_old:
                self.too_old -= 1
                old = request.rel_url.update_query(resourceVersion=OLDEST)
                return str(old).removeprefix(f"/plan/{self.name}")
            if self.bad_watches:
                return await self.bad_watches.pop(0)(request)
        return await self.bad.pop(0)(request) if self.bad else None

    @property
    def had_its_bad_day(self) -> bool:
        """Whether all that it was told to answer was asked for."""
        return not (self.bad or self.bad_watches or self.too_old)


@dataclass
class Place:
    """A namespace with builds."""

    kube: Kube
    kubectl: Kubectl
    namespace: str
    proxy: Proxy

    async def create(self, *names: str) -> None:
        for name in names:
            await self.kube.create(BUILDS, self.namespace, json.loads(build(self.namespace, name)))

    async def change(self, name: str) -> None:
        change = "mab", self.namespace, name, "example.com/changed", uuid.uuid4().hex
        await asyncio.to_thread(self.kubectl.annotate, *change)

    async def delete(self, name: str) -> None:
        uid = (await self.kube.get(BUILDS, self.namespace, name))["metadata"]["uid"]
        await self.kube.delete(BUILDS, self.namespace, name, uid=uid)

    async def told(self, *followers: Follower) -> None:
        """Wait until what was told is what exists."""
        differs: list[str] = []

        async def check() -> bool:
            exist = await self.kube.list(BUILDS, self.namespace)
            versions = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in exist}
            differs[:] = [each.name for each in followers if not (each.had_its_bad_day and each.versions == versions)]
            return not differs

        try:
            await eventually("streams tell all that exists", check)
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {differs}") from problem

    async def watched(self, *followers: Follower) -> None:
        """Wait until their watches are open: from a list nobody can know what comes after it."""
        await self.told(*followers)
        await self.create("seen-by-a-watch")
        await self.told(*followers)

    @asynccontextmanager
    async def following(self, *followers: Follower) -> AsyncIterator[None]:
        """Run their streams, which never end."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._follow(each)) for each in followers]
            yield
            assert [follower.name for follower, task in zip(followers, tasks, strict=True) if task.done()] == []
            for task in tasks:
                task.cancel()

    async def _follow(self, follower: Follower) -> None:
        self.proxy.scripts[follower.name] = Script(instead=follower.instead)
        async with Kube(Configuration(host=f"{self.proxy.url}/plan/{follower.name}")) as kube:
            follower.stream = Stream(kube, BUILDS, self.namespace, follower, page=2)
            await follower.stream.run()


@pytest.fixture
async def proxy(kubeconfig: Path, kubectl: Kubectl) -> AsyncIterator[Proxy]:
    """A proxy in front of the API server."""
    del kubectl  # for the CRD
    async with Proxy(upstream(kubeconfig)) as made:
        yield made


@pytest.fixture
def place(proxy: Proxy, kube: Kube, kubectl: Kubectl, namespace: str) -> Place:
    """See the class."""
    return Place(kube, kubectl, namespace, proxy)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are a tenth of what they are, and nothing is waited for longer than a slow machine needs."""
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE", "STABLE_SECONDS"):
        monkeypatch.setattr(stream, name, getattr(stream, name) / 10)
    monkeypatch.setattr(stream, "SILENCE_SECONDS", 4.0)
    monkeypatch.setattr(client, "REQUEST_SECONDS", 8.0)


BAD_DAYS: dict[str, dict[str, Any]] = {
    **{name: {"bad": answers} for name, answers in BAD.items()},
    **{name: {"bad_watches": answers} for name, answers in BAD_WATCHES.items()},
    "no answer": {"bad": [no_answer]},
    "really too old": {"too_old": 2},
    "all of it": {
        "bad": [reset, status(503)],
        "bad_watches": [events(error(410)), events(then="silence"), events(), status(500, "InternalError")],
        "too_old": 1,
    },
}


@pytest.mark.usefixtures("hurry")
async def test_cold_and_warm_no_event_is_lost(place: Place) -> None:
    followers = [Follower(name.replace(" ", "-")) for name in BAD_DAYS]

    def bad_day() -> None:
        for follower, day in zip(followers, BAD_DAYS.values(), strict=True):
            follower.bad, follower.bad_watches = list(day.get("bad", ())), list(day.get("bad_watches", ()))
            follower.too_old = day.get("too_old", 0)

    await place.create("stays", "changes", "goes")
    bad_day()
    async with place.following(*followers):
        await place.watched(*followers)
        bad_day()
        place.proxy.cut()
        # What happens while nobody listens, or just before.
        await place.create("comes")
        await place.change("changes")
        await place.delete("goes")
        await place.told(*followers)
        assert [each.name for each in followers if ("DELETED", "goes") not in each.told] == []
        await place.create("later")
        await place.change("comes")
        await place.delete("stays")
        await place.told(*followers)

        async def all_ready() -> bool:
            return all(each.stream.ready for each in followers)

        await eventually("all are ready", all_ready)
        assert all(each.stream.alive for each in followers)


async def test_the_api_server_does_not_remember_all_events(place: Place) -> None:
    follower = Follower("copy")
    async with place.following(follower):
        await place.watched(follower)
        lists, follower.too_old = follower.lists, 1
        place.proxy.cut()
        await place.create("app")
        await place.told(follower)
        assert follower.lists == lists + 1, "what happened meanwhile is in another list only"


@pytest.mark.usefixtures("hurry")
async def test_where_no_watch_lasts_lists_tell_what_is_new(place: Place) -> None:
    refused = {"503": status(503), "reset": reset, "410": events(error(410)), "500": events(error(500))}
    followers = [Follower(name, bad_watches=[answer] * 1000) for name, answer in refused.items()]

    async def told(name: str) -> None:
        async def check() -> bool:
            return all(list(each.versions) == [name] for each in followers)

        await eventually(f"all know {name} and nothing else", check)

    await place.create("first")
    async with place.following(*followers):
        await told("first")
        await place.create("second")
        await place.delete("first")
        await told("second")


async def test_what_fails_at_once_is_asked_for_less_and_less(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FIRST_PAUSE", stream.FIRST_PAUSE / 10)
    fails = {"ended": events(), "reset": events(then="reset"), "503": status(503), "500": events(error(500))}
    followers = [Follower(name) for name in fails]
    async with place.following(*followers):
        await place.watched(*followers)
        for follower, answer in zip(followers, fails.values(), strict=True):
            follower.watched_at.clear()
            follower.bad_watches = [answer] * 6
        place.proxy.cut()
        await place.create("app")
        await place.told(*followers)
    # Half of the nominal pause is the least. However slow the machine, it only makes them longer. A stream that has
    # been open for a while ends without a failure when it is cut, so that the first of these may be the first of all.
    least = [stream.FIRST_PAUSE / 2 * 2**failures for failures in range(5)]
    for follower in followers:
        pauses = [later - before for before, later in pairwise(follower.watched_at[:6])]
        assert len(pauses) == len(least)
        assert all(pause >= bound for pause, bound in zip(pauses, least, strict=True)), (follower.name, pauses)


# The operator as a whole


@pytest.fixture
def elsewhere(kubectl: Kubectl) -> Iterator[str]:
    """A second namespace."""
    with new_namespace(kubectl) as name:
        yield name


async def test_an_operator_outlives_half_a_minute_of_503_warm_and_cold(
    proxy: Proxy,
    kube: Kube,
    kubectl: Kubectl,
    namespace: str,
    elsewhere: str,
    operator: OperatorFactory,
    tmp_path: Path,
) -> None:
    asked: Counter[str] = Counter()

    async def unavailable(request: web.Request) -> web.StreamResponse:
        asked[f"{request.method} {request.path}"] += 1
        return await status(503, "ServiceUnavailable")(request)

    def start(place: str) -> Operator:
        proxy.scripts[place] = Script()
        through = tmp_path / f"through-{place}"
        through.write_text(json.dumps(kubeconfig_for(f"{proxy.url}/plan/{place}", place)))
        return operator("--namespace", place, "--no-leader-elect", kubeconfig=through)

    warm = await start(namespace).leading()
    kubectl("create", "-f", "-", stdin=build(namespace, "before"))
    await building(kube, namespace, "before")

    cold = start(elsewhere)
    for script in proxy.scripts.values():
        script.instead = unavailable
    proxy.cut()
    began = time.monotonic()
    for place in (namespace, elsewhere):
        kubectl("create", "-f", "-", stdin=build(place, "meanwhile"))
    await asyncio.sleep(OUTAGE)
    for each in (warm, cold):
        assert each.process.poll() is None, each.log.read_text()
        assert each.get("/healthz")[0] == 200, "that the API server is away is no reason to restart the operator"
        assert each.get("/readyz")[0] == 503
    # Streams pause for twice as long after each failure, and who waits for the definition asks every five seconds.
    assert {path.split("/")[2] for path in asked} == {namespace, elsewhere}
    assert max(asked.values()) <= 4 + (time.monotonic() - began) / 4, asked

    for script in proxy.scripts.values():
        script.instead = None
    for place in (namespace, elsewhere):
        await building(kube, place, "meanwhile")
    for each in (warm, cold):
        await each.leading()
        assert not [line for line in each.lines(level="error") if "bug" in line["event"]]


async def building(kube: Kube, namespace: str, name: str) -> None:
    async def check() -> bool:
        conditions = (await kube.get(BUILDS, namespace, name)).get("status", {}).get("conditions", ())
        return any((entry["type"], entry["reason"]) == ("Ready", "Building") for entry in conditions)

    await eventually(f"{name} is being built", check)
