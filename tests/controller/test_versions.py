"""Any version of the operator reads what any other has stored: definitions and objects of others, on a real API server.

The definition of the next version has a field more in each object and a value more in each enumeration; that of the
version before lacks fields that this one writes. Kubelet and nodes are played by the rig.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.crd import NAME, crd
from multiarchbuild.controller.kube import FIELD_MANAGER
from multiarchbuild.plan.children import Pod, Role
from tests.faults.rig import campaign
from tests.faults.rig.api import ApiError, Object
from tests.faults.rig.campaign import Rig
from tests.faults.rig.kubelet import Behaviour, Hang, Place
from tests.faults.rig.proxy import Script
from tests.faults.rig.scenarios import BUILDS, SCENARIOS, Case, manifest
from tests.support.versions import (
    FUTURE,
    changed_definition,
    definition_with_old_words,
    next_definition,
    one_behind,
)

from .conftest import eventually

pytestmark = pytest.mark.api

DEFINITION = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{NAME}"
MARKER = "marker"
COMES = {"fromTheFuture": {"value": 7}}
"""What the next version stores in an object besides what this one knows."""
NEW_FIELDS = frozenset({"pushed", "signature", "columns", "cache", "failedAttempts"})
"""What the version before did not have in its status."""


def definition_before() -> Object:
    return changed_definition(lambda schema: one_behind(schema, NEW_FIELDS), "status")


@dataclass
class Cluster:
    """A namespace of the rig, and which definition is served."""

    rig: Rig
    namespace: str
    place: Place = field(default_factory=Place)
    script: Script = field(default_factory=Script)
    _definitions: int = 0

    async def define(self, definition: Object) -> None:
        """Let the API server serve a definition, and return once it does.

        It fills in a field of its own in every object, the stored ones too, as a newer definition may.
        """
        self._definitions += 1
        (version,) = definition["spec"]["versions"]
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        spec["properties"][MARKER] = {"type": "integer", "default": self._definitions}
        await self._serve(definition, self._definitions)

    async def restore(self) -> None:
        """Serve the definition of this version, as other tests expect it."""
        await self._serve(crd(), None)

    async def _serve(self, definition: Object, marker: int | None) -> None:
        await self.rig.api.apply(DEFINITION, definition)

        async def served() -> bool:
            answer = await self.rig.api.create(f"{BUILDS.format(self.namespace)}?dryRun=All", self.manifest("probe"))
            return bool(answer["spec"].get(MARKER) == marker)

        await eventually("the definition is served", served)

    def manifest(self, name: str, scenario: str = "build", **spec: Any) -> Object:
        made = manifest(SCENARIOS[scenario], self.namespace)
        return {**made, "metadata": {"name": name}, "spec": {**made["spec"], **spec}}

    async def build(self, name: str = "app", scenario: str = "build", **spec: Any) -> Case:
        """Make a build."""
        case = Case(self.rig.api, self.namespace, self.place, campaign.SECONDS, name=name)
        case.activity = lambda: (len(self.script.requests), self.script.events, len(self.place.pods))
        self.rig.cases[f"{self.namespace}/{name}"] = case
        await self.rig.api.create(BUILDS.format(self.namespace), self.manifest(name, scenario, **spec))
        return case

    async def stored(self, case: Case) -> Object:
        """Return a build as it is stored: a watch from before a new definition shows it by the old one."""
        found: Object = await self.rig.api.get(case.path)
        return found

    def behave(self, behaviour: Behaviour) -> None:
        self.place.behaviour = behaviour

    def status_writes(self, case: Case) -> int:
        """Return how often the operator has written the status of a build, refusals aside."""
        return sum(
            " PATCH " in line and f"/{case.name}/status" in line and line.endswith(" -> 200")
            for line in self.script.requests
        )

    async def write_as_newer_operator(self, case: Case, **run: Any) -> Object:
        """Store in the status of a build what the next version of the operator would; return it."""
        status: Object = with_future(case.status)
        status["run"] |= run
        document = {"apiVersion": "multiarch.build/v1alpha1", "kind": "MultiArchBuild", "status": status}
        document["metadata"] = {"name": case.name, "namespace": self.namespace}
        stored = await self.rig.api.apply(f"{case.path}/status", document, FIELD_MANAGER)
        assert stored["status"] == status, "the definition has room for it"
        return status


def with_future(document: Any) -> Any:
    """Return a document with a field more in each object."""
    if isinstance(document, dict):
        return {**{key: with_future(value) for key, value in document.items()}, **COMES}
    return [with_future(each) for each in document] if isinstance(document, list) else document


@pytest.fixture
async def cluster(kubeconfig: Path, namespace: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    """See the class."""
    async with campaign.rig(kubeconfig, tmp_path) as rig:
        made = Cluster(rig, namespace)
        rig.kubelet.places[namespace], rig.proxy.scripts[namespace] = made.place, made.script
        try:
            yield made
            assert campaign.operators_problems(rig) == []
        finally:
            await made.restore()
            await rig.shared.kill()


def held(until: asyncio.Event, role: Role = Role.BUILD) -> Behaviour:
    """Return what lets a step end only once `until` is set."""

    def behave(pod: Pod) -> Hang | None:
        return Hang(until) if pod.role is role and not until.is_set() else None

    return behave


def running(case: Case) -> Callable[[], bool]:
    return lambda: any(entry.get("phase") == "Running" for entry in case.run("platforms") or ())


def ready(case: Case) -> Object:
    return next((entry for entry in case.status.get("conditions", ()) if entry["type"] == "Ready"), {})


def says(case: Case, **condition: str) -> Callable[[], bool]:
    """Return a check that Ready has these values."""
    return lambda: condition.items() <= ready(case).items()


@pytest.mark.parametrize("meanwhile", [False, True])
async def test_a_definition_one_field_ahead_is_no_matter(cluster: Cluster, *, meanwhile: bool) -> None:
    opened = asyncio.Event()
    cluster.behave(held(opened))
    old = await cluster.build("old", "git")
    if not meanwhile:
        await cluster.define(next_definition())
    await old.until(running(old))
    if meanwhile:
        await cluster.define(next_definition())
    new = await cluster.build("new", "git", **COMES, build={"args": {"VERSION": "2"}, **COMES})
    await new.until(running(new))
    opened.set()
    for case in (old, new):
        await case.until(case.ended())
        assert case.results == [("Succeeded", "Succeeded")]
    assert {MARKER, "fromTheFuture"} <= set((await cluster.stored(new))["spec"])
    pods = [pod["metadata"]["labels"]["multiarch.build/run"] for pod in cluster.place.pods.values()]
    assert len(set(pods)) == 2, "a field that is filled in is no other spec"


async def test_a_value_that_only_a_newer_operator_knows_asks_for_one(cluster: Cluster) -> None:
    await cluster.define(next_definition())
    done, never = await cluster.build("done"), await cluster.build("never", scheduling={"strategy": FUTURE})
    await done.until(done.ended())
    published = done.status["image"]
    await done.edit(scheduling={"strategy": FUTURE})
    for case in (done, never):
        await case.until(says(case, reason="OperatorOutdated"))
        condition = ready(case)
        assert condition["status"] == "False"
        assert "is older than the CustomResourceDefinition and does not understand" in condition["message"]
        assert f"scheduling.strategy ('{FUTURE}')" in condition["message"]
        assert case.status["observedGeneration"] == case.build["metadata"]["generation"]
    assert (done.status["image"], done.results) == (published, [("Succeeded", "Succeeded")]), "nothing is lost"
    counted = []
    # The first one gives the log of requests time: a status is seen before its write is logged.
    for name in ("other", "another"):
        other = await cluster.build(name)
        await other.until(other.ended())
        assert other.results == [("Succeeded", "Succeeded")], "no other build is affected"
        counted.append([cluster.status_writes(case) for case in (done, never)])
    assert counted[0] == counted[1]
    for case in (done, never):
        await case.edit(scheduling={"strategy": "Auto"})
        await case.until(says(case, status="True"))


async def test_after_a_rollback_runs_go_on_and_nothing_that_is_over_is_lost(cluster: Cluster) -> None:
    await cluster.define(next_definition())
    done, app = await cluster.build("done"), await cluster.build("app")
    for case in (done, app):
        await case.until(case.ended())
    opened = asyncio.Event()
    cluster.behave(held(opened))
    await app.annotate(rebuild_requested_at="2026-01-31T12:00:00Z")
    await app.until(running(app))

    await cluster.rig.shared.kill()
    await cluster.write_as_newer_operator(done, trigger="Scheduled")
    (platform,) = app.run("platforms")
    scanning = {**platform, "phase": "Scanning", "reason": "Scanning", "mode": "Wasm"}
    await cluster.write_as_newer_operator(app, trigger="Scheduled", platforms=[scanning])
    writes = cluster.status_writes(done)
    cluster.rig.shared.start()

    await app.until(lambda: app.run("platforms")[0]["phase"] == "Running")
    # What the operator keeps of the newer one the definition has no room for any more.
    await cluster.define(crd())
    opened.set()
    await app.until(app.ended(2))
    assert app.results == [("Succeeded", "Succeeded")] * 2
    assert app.status["image"]["digest"] == cluster.place.published[app.run()]
    assert [pod["metadata"]["labels"]["multiarch.build/attempt"] for pod in cluster.place.pods.values()] == ["1"] * 6
    assert cluster.status_writes(done) == writes, "what says nothing new is not written again"


async def test_what_a_newer_operator_has_said_of_what_is_over_stays(cluster: Cluster) -> None:
    await cluster.define(next_definition())
    app = await cluster.build("app")
    await app.until(app.ended())
    await cluster.rig.shared.kill()
    written = await cluster.write_as_newer_operator(app)
    cluster.behave(held(asyncio.Event()))
    await app.annotate(rebuild_requested_at="2026-01-31T12:00:00Z")
    cluster.rig.shared.start()
    await app.until(running(app))
    assert app.status["image"] == written["image"]
    assert app.status["history"] == written["history"]


@pytest.mark.parametrize("scenario", ["git", "retry"])
async def test_a_definition_that_is_older_than_the_operator_makes_no_difference(
    cluster: Cluster, scenario: str
) -> None:
    cluster.behave(lambda pod: SCENARIOS[scenario].behaviour(now, pod))
    now = await cluster.build("now", scenario)
    await now.until(now.ended())
    await cluster.define(definition_before())
    before = await cluster.build("before", scenario)
    await before.until(before.ended())
    assert before.results == now.results == [("Succeeded", "Succeeded")]
    assert "pushed" not in before.run("platforms")[0]
    assert cluster.status_writes(before) <= cluster.status_writes(now) + 2
    await cluster.define(crd())
    await before.annotate(rebuild_requested_at="2026-01-31T12:00:00Z")
    await before.until(before.ended(2))
    assert (await cluster.stored(before))["status"]["run"]["platforms"][0]["pushed"]


async def test_what_is_stored_in_words_of_before_is_built(cluster: Cluster) -> None:
    await cluster.define(definition_with_old_words())
    where = {"name": "token", "key": "token"}
    plain = await cluster.build("plain", cache={"mode": "disabled"})
    secret = await cluster.build("secret", cache={}, build={"secrets": [{"id": "npm", "secretRef": where}]})
    for case in (plain, secret):
        await case.until(case.ended())
        assert case.results == [("Succeeded", "Succeeded")], "an operator is ahead of its definition"
    await cluster.define(crd())
    stored = (await cluster.stored(plain))["spec"]
    words = (stored["cache"]["mode"], stored["attestations"]["provenance"], stored["build"]["network"])
    assert words == ("disabled", "min", "default")
    with pytest.raises(ApiError, match="Unsupported value"):
        await cluster.rig.api.create(BUILDS.format(cluster.namespace), cluster.manifest("new", cache={"mode": "max"}))

    # The API server keeps what nobody changes, in spec and when status is written.
    await plain.edit(retries=3)
    await plain.annotate(rebuild_requested_at="2026-01-31T12:00:00Z")
    await plain.until(plain.ended(2))
    assert plain.results == [("Succeeded", "Succeeded")] * 2
    published = secret.status["image"]
    # As an upgrade does it. A watch from before shows the object by the definition of before.
    await cluster.rig.shared.crash()
    await secret.until(says(secret, reason="InvalidSpec"))
    assert "It was called secretRef until now" in ready(secret)["message"]
    assert secret.status["image"] == published
    await secret.edit(build={"secrets": [{"id": "npm", "secretKeyRef": where}]})
    await secret.until(says(secret, status="True"))
