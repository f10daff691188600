"""Following logs over a real connection, to a server that cuts, refuses and forges."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration

from multiarchbuild.api.answers import answer_line, exporting_line, record_lines, unpack_record
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, CacheUse, Failure, dump
from multiarchbuild.controller import answers
from multiarchbuild.controller.answers import Answers, add_nonce
from multiarchbuild.controller.kube import Kube
from multiarchbuild.controller.metrics import Metrics
from multiarchbuild.controller.watch import Key
from multiarchbuild.plan.children import Ended, Pod, pod_from
from tests.unit.plan.world import START, digest_of, timestamp

KEY = Key("team-a", "app")
BUILT = dump(Built(digest=digest_of("image"), cache=CacheUse(hits=1, total=2)))
Handler = Callable[[web.StreamResponse], Awaitable[None]]


@dataclass
class ApiServer:
    """Serves logs: each request is answered by the next of `handlers`, the last one again and again."""

    handlers: list[Handler] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    status: int = 200
    connections: set[object] = field(default_factory=set)

    async def log(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.match_info["pod"])
        self.connections.add(request.transport)
        if self.status != 200:
            return web.json_response({"message": "no"}, status=self.status)
        response = web.StreamResponse()
        await response.prepare(request)
        await self.handlers[min(len(self.asked), len(self.handlers)) - 1](response)
        return response


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    found = ApiServer()
    app = web.Application()
    app.router.add_get("/api/v1/namespaces/team-a/pods/{pod}/log", found.log)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]  # type: ignore[attr-defined]
    yield found
    await runner.cleanup()


@pytest.fixture
async def kube(server: ApiServer) -> AsyncIterator[Kube]:
    configuration = Configuration(host=f"http://127.0.0.1:{server.port}")  # type: ignore[attr-defined]
    async with Kube(configuration, streams=4) as client:
        yield client


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(answers, "END_SECONDS", 0.1)


def pod(name: str = "app-1-amd64-1", *, ended: bool = False, started: bool = True) -> Pod:
    manifest: dict[str, Any] = {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": timestamp(START),
            "labels": {"multiarch.build/role": "build", "multiarch.build/run": "1", "multiarch.build/attempt": "1"},
        },
        "spec": {"containers": [{"name": "step", "env": [{"name": "MAB_ANSWER_NONCE", "value": NONCES[name]}]}]},
    }
    if started:
        state: dict[str, Any] = {"running": {"startedAt": timestamp(START)}}
        if ended:
            state = {"terminated": {"exitCode": 0, "message": BUILT.decode()}}
        manifest["status"] = {"containerStatuses": [{"name": "step", "state": state}]}
    return pod_from(manifest)


NONCES = {f"app-1-amd64-{number}": f"{number:032x}" for number in range(1, 9)}


def line(name: str = "app-1-amd64-1", message: bytes = BUILT, nonce: str = "") -> bytes:
    return answer_line(nonce or NONCES[name], name, message).encode() + b"\n"


def says(*chunks: bytes) -> Handler:
    async def handle(response: web.StreamResponse) -> None:
        for chunk in chunks:
            await response.write(chunk)

    return handle


async def goes_on(response: web.StreamResponse) -> None:
    await response.write(b"#1 building\n")
    await asyncio.sleep(60)


async def is_cut(response: web.StreamResponse) -> None:
    await response.write(b"#1 building\n" + line()[:50])
    assert response._req is not None
    assert response._req.transport is not None
    response._req.transport.abort()


class Followed:
    """`Answers`, and what it has called for."""

    def __init__(self, kube: Kube, streams: int = 4) -> None:
        self.called: list[Key] = []
        self.event = asyncio.Event()
        self.answers = Answers(kube, self._changed, Metrics(), streams=streams)

    def _changed(self, key: Key) -> None:
        self.called.append(key)
        self.event.set()

    async def answer(self, *pods: Pod) -> list[str]:
        """Follow `pods` until one has answered, and return what each has answered."""
        self.event.clear()
        self.answers.known(KEY, pods)
        await asyncio.wait_for(self.event.wait(), 60)
        return [each.answer for each in self.answers.known(KEY, pods)]


async def eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            if check():
                return
            await asyncio.sleep(0.01)


async def test_an_answer_is_known_when_it_is_printed(server: ApiServer, kube: Kube) -> None:
    async def handle(response: web.StreamResponse) -> None:
        await response.write(b"#1 building\n" + line())
        await asyncio.sleep(60)  # the stream itself goes on

    server.handlers = [handle]
    followed = Followed(kube)
    assert not followed.answers.has_succeeded(pod().uid)
    assert await followed.answer(pod()) == [BUILT.decode()]
    assert followed.answers.has_succeeded(pod().uid)
    assert followed.called == [KEY]
    await eventually(lambda: followed.answers.open == 0)
    assert followed.called == [KEY]


async def test_of_builders_that_push_their_images_the_first_is_news(server: ApiServer, kube: Kube) -> None:
    names = ("app-1-amd64-1", "app-1-amd64-2")

    def pushes(name: str) -> Handler:
        async def handle(response: web.StreamResponse) -> None:
            told = exporting_line(NONCES[name], name).encode() + b"\n"
            await response.write(told + told)
            await asyncio.sleep(60)

        return handle

    server.handlers = [pushes(names[0])]
    followed, pods = Followed(kube), [pod(name) for name in names]
    followed.answers.known(KEY, pods[:1])
    await asyncio.wait_for(followed.event.wait(), 10)
    server.handlers = [pushes(names[1])]
    await eventually(lambda: all(each.exporting for each in followed.answers.known(KEY, pods)))
    assert followed.called == [KEY]
    assert [each.answer for each in followed.answers.known(KEY, pods)] == ["", ""]


@pytest.mark.parametrize("lost", [True, False])
async def test_a_builder_that_pushes_in_place_of_one_that_was_lost_is_news(
    server: ApiServer, kube: Kube, *, lost: bool
) -> None:
    names = ("app-1-amd64-1", "app-1-amd64-2")

    def pushes(name: str) -> Handler:
        async def handle(response: web.StreamResponse) -> None:
            await response.write(exporting_line(NONCES[name], name).encode() + b"\n")
            if not lost:
                await response.write(answer_line(NONCES[name], name, b"{}").encode() + b"\n")
            await asyncio.sleep(60)

        return handle

    followed, told = Followed(kube), []
    other = replace(pod(names[0]), uid="other", name="app-1-arm64-1")
    for name in names:
        server.handlers = [pushes(name) if followed.called else goes_on, pushes(name)]
        followed.answers.known(KEY, [other])
        before = len(followed.called)
        pods = [other, pod(name)]

        def is_known(pods: list[Pod] = pods) -> bool:
            seen = followed.answers.known(KEY, pods)[1]
            return seen.exporting and (lost or bool(seen.answer))

        await eventually(is_known)
        told.append(len(followed.called) - before)
    answered = 0 if lost else 1
    assert told == [1 + answered, int(lost) + answered]


async def test_logs_that_have_ended_leave_their_connection_to_others(server: ApiServer, kube: Kube) -> None:
    followed = Followed(kube)
    for number in (1, 2, 3):
        name = f"app-1-amd64-{number}"
        server.handlers = [says(b"#1 building\n" + line(name))]
        await followed.answer(pod(name))
        await eventually(lambda: followed.answers.open == 0)
    assert len(server.asked) == 3
    assert len(server.connections) == 1, "each new one is a TLS handshake"


async def test_a_stream_that_was_cut_is_read_again_from_its_beginning(server: ApiServer, kube: Kube) -> None:
    server.handlers = [is_cut, is_cut, says(b"#1 building\n", line()[:60], line()[60:])]
    assert await Followed(kube).answer(pod()) == [BUILT.decode()]
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(line(nonce="f" * 32), id="with another nonce"),
        pytest.param(b"#7 1.234 " + line(), id="with the true nonce, as output of a RUN"),
        pytest.param(line("app-1-amd64-2"), id="of another pod"),
        pytest.param(
            answer_line(NONCES["app-1-amd64-1"], "app-0-amd64-1", BUILT).encode() + b"\n", id="of another run"
        ),
        pytest.param(b"x" * 1_000_000 + line(), id="at the end of an endless line"),
    ],
)
async def test_a_forged_line_fools_nobody(server: ApiServer, kube: Kube, forged: bytes) -> None:
    true = dump(Failure(reason=Reason.BUILD_FAILED, message="RUN false failed"))
    server.handlers = [says(forged, line(message=true))]
    assert await Followed(kube).answer(pod()) == [true.decode()]


async def test_what_a_builder_that_fails_has_recorded_stays_known_when_its_pod_has_ended(
    server: ApiServer, kube: Kube
) -> None:
    name = "app-1-amd64-1"
    failure = dump(Failure(reason=Reason.BUILD_FAILED, message="RUN false failed"))
    record = b"what happened " * 5000
    lines = [f"{each}\n".encode() for each in record_lines(NONCES[name], name, record)]
    server.handlers = [says(*forged_record(), *lines, line(message=failure))]
    followed = Followed(kube)
    await followed.answer(pod())
    ended = replace(pod(), ended=Ended(1, "Error", failure.decode(), None, None))
    for _ in range(2):
        (seen,) = followed.answers.known(KEY, [ended])
        assert unpack_record(seen.record) == record


def forged_record() -> list[bytes]:
    """Return a record as a RUN may print one."""
    return [f"{each}\n".encode() for each in record_lines("f" * 32, "app-1-amd64-1", b"forged")]


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_a_log_that_is_not_served_now_is_asked_for_again(server: ApiServer, kube: Kube, status: int) -> None:
    server.status = status
    server.handlers = [says(line())]
    followed = Followed(kube)
    followed.answers.known(KEY, [pod()])
    await eventually(lambda: len(server.asked) >= 2)
    server.status = 200
    assert await followed.answer(pod()) == [BUILT.decode()]


async def test_without_the_right_to_read_logs_nothing_more_is_asked_for(server: ApiServer, kube: Kube) -> None:
    server.status = 403
    followed = Followed(kube)
    followed.answers.known(KEY, [pod()])
    await eventually(lambda: not followed.answers.open)
    assert [each.answer for each in followed.answers.known(KEY, [pod(), pod("app-1-amd64-2")])] == ["", ""]
    await asyncio.sleep(0.05)
    assert server.asked == ["app-1-amd64-1"]


async def test_streams_are_bounded_and_a_free_one_is_used(server: ApiServer, kube: Kube) -> None:
    server.handlers = [goes_on]
    followed = Followed(kube, streams=2)
    pods = [pod(f"app-1-amd64-{number}") for number in (1, 2, 3)]
    followed.answers.known(KEY, pods)
    await eventually(lambda: len(server.asked) >= 2)
    assert followed.answers.open == 2
    server.handlers = [says(line("app-1-amd64-3"))]
    assert (await followed.answer(pod(ended=True), *pods[1:]))[2] == BUILT.decode()
    assert server.asked[2] == "app-1-amd64-3"


async def test_what_has_ended_or_gone_is_not_followed(server: ApiServer, kube: Kube) -> None:
    server.handlers = [goes_on]
    followed = Followed(kube)
    followed.answers.known(KEY, [pod(), pod("app-1-amd64-2"), pod("app-1-amd64-3", started=False)])
    await eventually(lambda: len(server.asked) >= 2)
    assert sorted(server.asked) == ["app-1-amd64-1", "app-1-amd64-2"], "one that has not started has no log"
    followed.answers.known(KEY, [pod(ended=True)])
    await eventually(lambda: followed.answers.open == 0)
    followed.answers.known(KEY, [pod()])
    followed.answers.forget(KEY)
    await eventually(lambda: followed.answers.open == 0)
    assert followed.called == []


def test_every_pod_has_a_nonce_of_its_own() -> None:
    manifests = [{"spec": {"containers": [{"name": "other"}, {"name": "step"}]}} for _ in range(2)]
    for manifest in manifests:
        add_nonce(manifest)
    nonces = {manifest["spec"]["containers"][1]["env"][0]["value"] for manifest in manifests}  # type: ignore[index]
    assert len(nonces) == 2
    assert all(len(nonce) == 32 for nonce in nonces)
    assert "env" not in manifests[0]["spec"]["containers"][0]
