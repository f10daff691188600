"""An API server and a registry with builds to look at: what `kubectl mab ui` reads, without a cluster.

It answers as they do what the page asks: lists, watches, pods, logs with times, manifests, blobs and referrers. Real
ones are asked by the tests in tests/cli.
"""

import hashlib
import json
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes.client import Configuration

from multiarchbuild.api.record import (
    MEDIA_TYPE,
    BuilderRecord,
    BuildRecord,
    Material,
    StepRecord,
    WarningRecord,
    Why,
    dump,
)
from multiarchbuild.api.results import CacheUse
from multiarchbuild.cli.kube import Cluster

PLATFORMS = ("linux/amd64", "linux/arm64")
Object = dict[str, Any]
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
NOW = datetime.now(UTC).replace(microsecond=0)


def ago(**amount: float) -> str:
    """Return a time in the past, as Kubernetes writes it."""
    return (NOW - timedelta(**amount)).isoformat().replace("+00:00", "Z")


@dataclass
class Stage:
    """What there is, and the server that says so."""

    builds: dict[str, Object] = field(default_factory=dict)
    pods: list[Object] = field(default_factory=list)
    logs: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """By digest or tag: type and content."""
    referrers: dict[str, list[Object]] = field(default_factory=dict)
    port: int = 0
    asked: list[str] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _changes: list[Object] = field(default_factory=list)
    _closed: bool = False

    @property
    def cluster(self) -> Cluster:
        """A client of it, as the command line makes one."""
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{self.port}"
        return Cluster(configuration, "team-a")

    def put(self, build: Object, kind: str = "MODIFIED") -> None:
        """Store a build, and tell it to whoever watches."""
        with self._changed:
            self.builds[build["metadata"]["name"]] = build
            version = str(len(self._changes) + 1)
            told = {**build, "metadata": {**build["metadata"], "resourceVersion": version}}
            self._changes.append({"type": kind, "object": told})
            self._changed.notify_all()

    def say(self, pod: str, *lines: str) -> None:
        """Let a pod print lines now."""
        log = self.logs.setdefault(pod, [])
        for number, line in enumerate(lines):
            at = datetime.now(UTC) + timedelta(microseconds=number)
            log.append((at.isoformat(timespec="microseconds").replace("+00:00", "000Z"), line))

    def store(self, media_type: str, content: Any, tag: str = "") -> Object:
        """Store a manifest or a blob; return its descriptor."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        self.blobs[digest] = (media_type, raw)
        if tag:
            self.blobs[tag] = (media_type, raw)
        return {"mediaType": media_type, "digest": digest, "size": len(raw)}

    @contextmanager
    def serving(self) -> Iterator["Stage"]:
        """Serve until the block ends."""
        with ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) as server:
            server.daemon_threads = True
            self.port = server.server_port
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            yield self
            with self._changed:
                self._closed = True
                self._changed.notify_all()
            server.shutdown()

    def _handler(self) -> type["Handler"]:
        return type("Handler", (Handler,), {"stage": self})

    def news(self, sent: int) -> list[Object]:
        """Wait for what has changed after the first `sent` changes; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._changes) > sent)
            return [] if self._closed else self._changes[sent:]

    @property
    def version(self) -> int:
        """Number of changes so far."""
        return len(self._changes)


class Handler(BaseHTTPRequestHandler):
    """Answers as an API server and a registry do."""

    stage: Stage
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.stage.asked.append(self.path)
        if query.get("watch"):
            self._watch()
        elif url.path.startswith("/v2/"):
            self._registry(url.path)
        else:
            self._kubernetes(url.path, query)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, status: int, content: bytes, kind: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode())

    def _kubernetes(self, path: str, query: dict[str, str]) -> None:
        if match := re.fullmatch(r"/api/v1/namespaces/[^/]+/pods/([^/]+)/log", path):
            since = query.get("sinceTime", "")
            lines = [f"{at} {line}\n" for at, line in self.stage.logs.get(match[1], ()) if at >= since]
            self._send(200, "".join(lines[-int(query.get("tailLines", "0")) :]).encode(), "text/plain")
        elif re.fullmatch(r"/api/v1/namespaces/[^/]+/pods", path):
            wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
            found = [pod for pod in self.stage.pods if wanted.items() <= pod["metadata"]["labels"].items()]
            self._json({"items": found, "metadata": {"resourceVersion": "1"}})
        elif match := re.search(r"/multiarchbuilds/([^/]+)$", path):
            if match[1] in self.stage.builds:
                self._json(self.stage.builds[match[1]])
            else:
                self._send(404, json.dumps({"message": f'multiarchbuilds "{match[1]}" not found'}).encode())
        else:
            _, _, name = query.get("fieldSelector", "").partition("metadata.name=")
            found = [each for each in self.stage.builds.values() if name in ("", each["metadata"]["name"])]
            self._json({"items": found, "metadata": {"resourceVersion": str(self.stage.version)}})

    def _watch(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = self.stage.version
        while news := self.stage.news(sent):
            sent += len(news)
            for change in news:
                text = json.dumps(change).encode() + b"\n"
                self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")

    def _registry(self, path: str) -> None:
        reference = path.rpartition("/")[2]
        if "/referrers/" in path:
            content = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.stage.referrers.get(reference, [])}
            self._send(200, json.dumps(content).encode(), INDEX)
        elif reference in self.stage.blobs:
            kind, raw = self.stage.blobs[reference]
            self._send(200, raw, kind, Docker_Content_Digest=f"sha256:{hashlib.sha256(raw).hexdigest()}")
        else:
            self._send(404, b"{}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Print nothing."""


def build(name: str, result: str = "Succeeded", **status: Any) -> Object:
    """Return a build whose last run has ended so, or goes on (an empty result)."""
    run: Object = {
        "id": hashlib.sha256(name.encode()).hexdigest()[:8],
        "trigger": "SourceChanged",
        "startedAt": ago(minutes=4),
        "source": {"ref": "main", "commit": hashlib.sha1(name.encode()).hexdigest()},
        "platforms": [
            {"platform": each, "phase": result or "Running", "mode": "Native", "startedAt": ago(minutes=3.9)}
            for each in PLATFORMS
        ],
    }
    if result:
        run |= {"result": result, "finishedAt": ago(minutes=2)}
    ready = {"Succeeded": "True", "": "Unknown"}.get(result, "False")
    reason = result or "Building"
    return {
        "apiVersion": "multiarch.build/v1alpha1",
        "kind": "MultiArchBuild",
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"uid-{name}",
            "generation": 1,
            "creationTimestamp": ago(days=30),
        },
        "spec": {
            "platforms": list(PLATFORMS),
            "source": {"git": {"url": "https://git.example.com/shop.git", "ref": "main"}},
            "output": {"image": f"registry.example.com/team-a/{name}"},
        },
        "status": {
            "observedGeneration": 1,
            "conditions": [
                {
                    "type": "Ready",
                    "status": ready,
                    "reason": reason,
                    "message": "published" if result == "Succeeded" else "2/2",
                }
            ],
            "run": run,
            "columns": {"platforms": f"{2 if result == 'Succeeded' else 1}/2", "digest": run["source"]["commit"][:12]},
            "history": history(name, run) if result else history(name, run)[1:],
            **status,
        },
    }


def history(name: str, run: Object) -> list[Object]:
    """Return runs that have ended, the newest first."""
    chance = random.Random(name)
    found = [
        {
            "id": run["id"],
            "result": run.get("result", "Succeeded"),
            "reason": run.get("result", "Succeeded"),
            "startedAt": run["startedAt"],
            "finishedAt": run.get("finishedAt", ago(minutes=1)),
            "cache": {"hits": 7, "total": 10},
        }
    ]
    for number in range(1, 9):
        result = chance.choices(["Succeeded", "Failed"], [9, 1])[0]
        hits = chance.choice([0, 2, 5, 8, 8, 9])
        took = 170 - 12 * hits + chance.randrange(30)
        found.append(
            {
                "id": hashlib.sha256(f"{name}{number}".encode()).hexdigest()[:8],
                "result": result,
                "reason": result,
                "startedAt": ago(hours=5 * number, seconds=took),
                "finishedAt": ago(hours=5 * number),
                "cache": {"hits": hits, "total": 10},
            }
        )
    return found


def pod(owner: Object, platform: str, **fields: Any) -> Object:
    """Return the builder of a platform, which runs; with `ended` it has ended."""
    run = owner["status"]["run"]["id"]
    name = f"{owner['metadata']['name']}-{run}-{platform.rpartition('/')[2] or 'publish'}-1"
    state: Object = {"running": {"startedAt": ago(minutes=3.8)}}
    if fields.get("ended"):
        state = {
            "terminated": {
                "exitCode": 0,
                "reason": "Completed",
                "startedAt": ago(minutes=3.8),
                "finishedAt": ago(minutes=2.1),
            }
        }
    return {
        "metadata": {
            "name": name,
            "namespace": "team-a",
            "uid": f"uid-{name}",
            "creationTimestamp": ago(minutes=4),
            "labels": {
                "multiarch.build/build-uid": owner["metadata"]["uid"],
                "multiarch.build/run": run,
                "multiarch.build/role": "build" if platform else "publish",
                "multiarch.build/attempt": "1",
            },
            "annotations": {"multiarch.build/platforms": platform, "multiarch.build/mode": "Native"},
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "step", "env": []}]},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": ago(minutes=3.95)}],
            "containerStatuses": [{"name": "step", "state": state}],
        },
    }


STEPS: tuple[tuple[str, float, float, dict[str, Any]], ...] = (
    ("[internal] load build definition from Dockerfile", 0.0, 0.1, {}),
    ("[internal] load metadata for docker.io/library/node:22", 0.1, 0.8, {}),
    ("importing cache manifest from registry.example.com/team-a/shop:cache-amd64", 0.9, 0.3, {}),
    ("[internal] load build context", 0.9, 0.6, {"bytes": 4_812_331}),
    ("[build 1/6] FROM docker.io/library/node:22@sha256:" + "4f" * 32, 0.9, 4.2, {"bytes": 61_300_200}),
    ("[build 2/6] WORKDIR /app", 5.1, 0.0, {"cached": True, "inputs": (4,)}),
    ("[build 3/6] COPY package.json package-lock.json ./", 5.1, 0.0, {"cached": True, "inputs": (5, 3)}),
    ("[build 4/6] RUN npm ci", 5.1, 0.0, {"cached": True, "inputs": (6,)}),
    ("[build 5/6] COPY . .", 5.2, 0.9, {"why": Why.FILES_CHANGED, "because": 3, "inputs": (7, 3)}),
    ("[build 6/6] RUN npm run build", 6.1, 38.4, {"why": Why.INPUT_RAN, "because": 8, "inputs": (8,)}),
    ("[stage-1 2/4] RUN apk add --no-cache tini", 5.2, 3.1, {"why": Why.NOT_CACHED, "inputs": (4,)}),
    (
        "[stage-1 3/4] COPY --from=build /app/dist /srv",
        44.5,
        0.7,
        {"why": Why.INPUT_RAN, "because": 9, "inputs": (10, 9)},
    ),
    ("exporting to image", 45.2, 6.3, {"inputs": (11,)}),
    ("exporting cache to registry", 46.0, 7.9, {"inputs": (11,)}),
)


def record(owner: Object) -> BuildRecord:
    """Return what happened in the last run of a build; arm64 is slower."""

    def builder(platform: str, slower: float) -> BuilderRecord:
        steps = [
            StepRecord(name=name, at=at * slower, seconds=seconds * slower, id=f"{number:016x}", **fields)
            for number, (name, at, seconds, fields) in enumerate(STEPS)
        ]
        return BuilderRecord(
            platforms=(platform,),
            mode="Native",
            node_architecture=platform.rpartition("/")[2],
            attempt=1,
            phases={"schedule": 1, "pull": 3.2 * slower, "start": 1.4, "build": 54.1 * slower},
            steps=tuple(steps),
            cache=CacheUse(hits=3, total=8),
            cache_imported=True,
            transferred=4_812_331,
            pulled=61_300_200,
            size=54_000_000,
            warnings=(
                WarningRecord(
                    rule="JSONArgsRecommended",
                    text="JSONArgsRecommended: JSON arguments recommended for CMD (line 14)",
                    file="Dockerfile",
                    line=14,
                ),
            ),
            materials=(Material(uri="docker.io/library/node:22", digest=f"sha256:{'4f' * 32}"),),
        )

    return BuildRecord(
        name=owner["metadata"]["name"],
        namespace="team-a",
        run=owner["status"]["run"]["id"],
        trigger="SourceChanged",
        phases={"queue": 6.0, "resolve": 2.1, "publish": 1.3},
        builders=(builder(PLATFORMS[0], 1.0), builder(PLATFORMS[1], 1.4)),
    )


def publish(stage: Stage, owner: Object) -> None:
    """Give a build an image in the registry, with its record attached."""
    image = f"127.0.0.1:{stage.port}/team-a/{owner['metadata']['name']}"
    manifests = [entry for number, platform in enumerate(PLATFORMS) for entry in _image(stage, number, platform)]
    index = stage.store(INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, "main")
    attached, earlier = (_attached(stage, each) for each in (record(owner), before(owner)))
    owner["spec"]["output"]["image"] = image
    known = {"digest": index["digest"], "record": attached["digest"]}
    owner["status"]["image"] = {"ref": f"{image}@{index['digest']}", "tags": ["main"], **known}
    owner["status"]["history"][0] |= known
    owner["status"]["history"][2] |= {"digest": index["digest"], "record": earlier["digest"], "result": "Succeeded"}


def _attached(stage: Stage, content: BuildRecord) -> Object:
    blob = stage.store(MEDIA_TYPE, dump(content))
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": MEDIA_TYPE, "config": blob}
    return stage.store(MANIFEST, {**document, "layers": [blob]})


def before(owner: Object) -> BuildRecord:
    """Return what happened in a run in which the build itself came from the cache."""

    def quicker(builder: BuilderRecord) -> BuilderRecord:
        steps = [
            step.model_copy(update={"cached": True, "seconds": 0.0, "why": None, "because": None})
            if "] RUN" in step.name
            else step
            for step in builder.steps
        ]
        return builder.model_copy(update={"steps": tuple(steps), "phases": {**builder.phases, "build": 14.0}})

    now = record(owner)
    builders = tuple(quicker(builder) for builder in now.builders)
    return now.model_copy(update={"run": owner["status"]["history"][2]["id"], "builders": builders})


def _image(stage: Stage, number: int, platform: str) -> Iterator[Object]:
    """Yield the descriptors of an image and of what attests to it."""
    architecture = platform.rpartition("/")[2]
    made_by = [
        {"created_by": "ADD alpine-minirootfs.tar.gz / # buildkit"},
        {"created_by": 'CMD ["node"]', "empty_layer": True},
        {"created_by": "RUN /bin/sh -c apk add --no-cache tini # buildkit"},
        {"created_by": "COPY /app/dist /srv # buildkit"},
    ]
    layers = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": f"sha256:{each:064x}", "size": size}
        for each, size in enumerate((48_200_411, 212_004, 5_800_121), 10 * number)
    ]
    config = {"architecture": architecture, "os": "linux", "history": made_by}
    blob = stage.store("application/vnd.oci.image.config.v1+json", config)
    document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": blob}
    entry = stage.store(MANIFEST, {**document, "layers": layers})
    yield {**entry, "platform": {"os": "linux", "architecture": architecture}}
    attested = {"https://slsa.dev/provenance/v1": 8_211, "https://spdx.dev/Document": 402_111}
    predicates = [
        {
            "mediaType": "application/vnd.in-toto+json",
            "digest": f"sha256:{'5' * 64}",
            "size": size,
            "annotations": {"in-toto.io/predicate-type": kind},
        }
        for kind, size in attested.items()
    ]
    about = {
        "vnd.docker.reference.digest": entry["digest"],
        "vnd.docker.reference.type": "attestation-manifest",
    }
    attestation = stage.store(MANIFEST, {**document, "layers": predicates})
    yield {**attestation, "annotations": about, "platform": {"os": "unknown", "architecture": "unknown"}}


LOG = (
    "#1 [internal] load build definition from Dockerfile",
    "#2 [internal] load metadata for docker.io/library/node:22",
    "#3 importing cache manifest from registry.example.com/team-a/shop:cache-amd64",
    "#4 [internal] load build context",
    "#5 [build 1/6] FROM docker.io/library/node:22@sha256:" + "4f" * 32,
    "#6 [build 2/6] WORKDIR /app",
    "#6 CACHED",
    "#7 [build 3/6] COPY package.json package-lock.json ./",
    "#7 CACHED",
    "#8 [build 4/6] RUN npm ci",
    "#8 CACHED",
    "#9 [build 5/6] COPY . .",
    "#9 DONE 0.9s",
    "#10 [build 6/6] RUN npm run build",
    "#10 0.412 > shop@4.2.0 build",
    "#10 0.412 > vite build",
    "#10 3.900 transforming (812) src/pages/cart/Summary.tsx",
)


MORE = ("#10 DONE 38.4s", "#11 [stage-1 2/4] RUN apk add --no-cache tini", "#11 DONE 3.1s")
TAIL = """#10 3.9 src/pages/cart/Summary.tsx:14:7 - error TS2322
#10 3.9 Type 'string' is not assignable to type 'number'.
Dockerfile:9
   9 | >>> RUN npm run build
error: process "/bin/sh -c npm run build" did not complete successfully: exit code: 1"""


def furnished(stage: Stage, *, builds: int = 24) -> None:
    """Put builds on the stage: one that succeeded, one that runs, one that failed, and others."""
    done, running, failed = build("shop"), build("checkout", ""), build("search", "Failed")
    publish(stage, done)
    for platform in PLATFORMS:
        stage.pods += [pod(done, platform, ended=True), pod(running, platform)]
    for each in stage.pods:
        name = each["metadata"]["name"]
        stage.say(name, *LOG, *(MORE if name.startswith("shop") else ()))
    said = "[build 6/6] RUN npm run build failed with exit code 1: its last lines are in logTail."
    failed["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "reason": "BuildFailed", "message": f"linux/arm64: {said}"},
        {"type": "Stalled", "status": "True", "reason": "BuildFailed", "message": "no run follows until it is edited"},
    ]
    failed["status"]["run"]["platforms"][1] |= {"reason": "BuildFailed", "message": said, "logTail": TAIL}
    failed["status"]["run"]["platforms"][0]["phase"] = "Succeeded"
    for each in (done, running, failed):
        stage.put(each)
    for number in range(builds - 3):
        stage.put(build(f"service-{number:03}", "Succeeded" if number % 9 else "Failed"))
