"""Which builds a change of a Flux object concerns, and what is said of one that can't be read."""

import asyncio
from typing import Any, cast

import pytest

from multiarchbuild.api.source import FluxKind
from multiarchbuild.controller.flux import Follower, Ref, Sources
from multiarchbuild.controller.kube import Forbidden, Kind, Kube, KubeError, NotFound, Transient
from multiarchbuild.controller.watch import Key
from tests.unit.plan.world import FLUX, INLINE, build, flux_object

KEY = Key("team-a", "app")
REF = Ref(FluxKind.GIT_REPOSITORY, "team-a", "app")


class Server:
    """An API server with one answer."""

    def __init__(self, answer: dict[str, Any] | KubeError) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str]] = []

    async def get(self, kind: Kind, namespace: str, name: str) -> dict[str, Any]:
        self.asked.append((kind.path(namespace, name), namespace, name))
        if isinstance(self.answer, KubeError):
            raise self.answer
        return self.answer


def sources(answer: dict[str, Any] | KubeError, *, enabled: bool = True) -> tuple[Sources, Server]:
    server = Server(answer)
    return Sources(cast("Kube", server), enabled=enabled), server


async def test_a_change_of_an_object_concerns_the_builds_that_use_it() -> None:
    found, server = sources(flux_object("a" * 40))
    artifact = await found.artifact_for(KEY, build(source=FLUX))
    assert artifact
    assert artifact.source
    assert server.asked[0][0] == "/apis/source.toolkit.fluxcd.io/v1/namespaces/team-a/gitrepositories/app"
    assert list(found.seen(REF, 1)) == [KEY]
    assert list(found.seen(REF._replace(namespace="team-b"), 1)) == []
    assert list(found.seen(REF._replace(kind=FluxKind.BUCKET), 1)) == []


async def test_it_is_known_before_it_is_read_so_that_no_change_is_missed() -> None:
    found, _ = sources(Transient("away"))
    with pytest.raises(Transient):
        await found.artifact_for(KEY, build(source=FLUX))
    assert list(found.seen(REF, 1)) == [KEY]


async def test_an_answer_from_before_the_last_change_is_not_taken() -> None:
    def at(version: int, revision: str) -> dict[str, Any]:
        found = flux_object(revision * 40)
        return {**found, "metadata": {"resourceVersion": str(version)}}

    found, server = sources(at(7, "a"))
    await found.artifact_for(KEY, build(source=FLUX))
    assert list(found.seen(REF, 8)) == [KEY]
    with pytest.raises(Transient, match="GitRepository team-a/app was read as it was before its last change"):
        await found.artifact_for(KEY, build(source=FLUX))
    server.answer = at(8, "b")
    artifact = await found.artifact_for(KEY, build(source=FLUX))
    assert artifact
    assert artifact.source
    assert artifact.source.commit == "b" * 40


async def test_a_build_that_uses_another_source_or_is_gone_is_forgotten() -> None:
    found, _ = sources(flux_object("a" * 40))
    await found.artifact_for(KEY, build(source=FLUX))
    await found.artifact_for(KEY, build(source={"flux": {**FLUX["flux"], "name": "other"}}))
    assert list(found.seen(REF, 1)) == []
    await found.artifact_for(KEY, build(source=INLINE))
    assert list(found.seen(REF._replace(name="other"), 1)) == []
    await found.artifact_for(KEY, build(source=FLUX))
    found.forget(KEY)
    found.forget(KEY)
    assert list(found.seen(REF, 1)) == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (NotFound("app not found", status=404, reason="NotFound"), "does not exist in namespace 'team-a'"),
        (NotFound("HTTP 404", status=404), "install Flux (source.toolkit.fluxcd.io/v1)"),
        (Forbidden("no"), "chart: flux.enabled"),
        ({"metadata": {"resourceVersion": "1"}}, "has no artifact yet"),
    ],
)
async def test_what_can_not_be_had_is_said_with_the_remedy(answer: dict[str, Any] | KubeError, words: str) -> None:
    found, _ = sources(answer)
    artifact = await found.artifact_for(KEY, build(source=FLUX))
    assert artifact
    assert artifact.source is None
    assert words in artifact.problem


async def test_an_operator_without_flux_asks_nothing() -> None:
    found, server = sources(flux_object("a" * 40), enabled=False)
    artifact = await found.artifact_for(KEY, build(source=FLUX))
    assert artifact
    assert "--flux" in artifact.problem
    assert server.asked == []


class Watches:
    """What is being watched."""

    def __init__(self) -> None:
        self.begun: list[FluxKind] = []
        self.going: set[FluxKind] = set()

    async def __call__(self, kind: FluxKind) -> None:
        self.begun.append(kind)
        self.going.add(kind)
        try:
            await asyncio.Future()
        finally:
            self.going.remove(kind)


class Discovery:
    """An API server that serves these plurals."""

    def __init__(self, *plurals: str) -> None:
        self.plurals: frozenset[str] | KubeError = frozenset(plurals)

    async def served(self, group_version: str) -> frozenset[str]:
        assert group_version == "source.toolkit.fluxcd.io/v1"
        if isinstance(self.plurals, KubeError):
            raise self.plurals
        return self.plurals


async def test_kinds_are_watched_as_they_come_and_go() -> None:
    watches, discovery = Watches(), Discovery()
    follower = Follower(cast("Kube", discovery), watches)

    async def look() -> None:
        await follower.look()
        await asyncio.sleep(0)

    await look()
    assert watches.begun == []
    discovery.plurals = frozenset({"gitrepositories", "buckets", "helmcharts"})
    await look()
    await look()
    assert sorted(watches.begun) == [FluxKind.BUCKET, FluxKind.GIT_REPOSITORY]
    discovery.plurals = Transient("away")
    await look()
    assert watches.going == set(watches.begun), "what is not known is no reason to stop"
    discovery.plurals = frozenset({"gitrepositories"})
    await look()
    assert watches.going == {FluxKind.GIT_REPOSITORY}
    running = asyncio.create_task(follower.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    await asyncio.sleep(0)
    assert watches.going == set()
