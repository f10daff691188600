"""Any version of the operator reads what any other has stored.

The schema of the version after this one is made from that of this one: a field more in each object, a value more in
each enumeration, more room in each text and list.
"""

import copy
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from multiarchbuild.api import status
from multiarchbuild.api.base import KNOWN, Record
from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.crd import crd, structural
from multiarchbuild.api.provenance import Provenance
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Built, Failure, load
from multiarchbuild.api.spec import CacheMode, Network
from multiarchbuild.api.status import Result, Status, Trigger
from multiarchbuild.api.stored import newer_than_operator, read_build, read_status, undeclared, without
from multiarchbuild.controller.refused import invalid_spec
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.identity import fingerprint
from tests.support.versions import FUTURE, Schema, nodes, one_ahead
from tests.unit.plan.world import FLUX, GIT, INLINE, POLLED, World, manifest

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def resource() -> Schema:
    properties: Schema = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return properties


def documents(schema: Schema) -> st.SearchStrategy[Any]:
    """Return what a structural schema allows, its rules in CEL aside."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "object" if "properties" in schema:
            fields = {name: documents(inside) for name, inside in schema["properties"].items()}
            required = {name: fields.pop(name) for name in schema.get("required", ())}
            return st.fixed_dictionaries(required, optional=fields)
        case "object":
            return st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2)
        case "array":
            return st.lists(documents(schema["items"]), max_size=min(schema.get("maxItems", 3), 3))
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", -10), schema.get("maximum", 1 << 40))
        case "string" if schema.get("format") == "date-time":
            moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1))  # noqa: DTZ001 - zones are no matter here
            return moments.map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
        case "string" if "pattern" in schema:
            return st.sampled_from(["Succeeded", "Failed", "Running", "Retrying", FUTURE])
        case _:
            least, most = schema.get("minLength", 0), schema.get("maxLength", 20)
            sizes = st.sampled_from([least, most])
            return st.text(min_size=least, max_size=10) | sizes.map(lambda size: "x" * size)


def build_with(status: Any, source: Any = INLINE) -> World:
    world = World(resource=manifest(source=source))
    world.resource["status"] = status
    return world


NEXT_STATUS = one_ahead(resource()["status"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(status=documents(NEXT_STATUS), source=st.sampled_from([INLINE, GIT, POLLED, FLUX]))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_status_of_the_next_version_is_read_and_the_build_goes_on(status: Any, source: Any) -> None:
    stored = read_build(build_with(status, source).resource)
    world = build_with(stored.build.status.model_dump(mode="json", by_alias=True, exclude_none=True), source)
    assert world.status == stored.build.status, "what was read can be read again"
    decision = world.decide()
    written = decision.status.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert read_status(written) == (decision.status, ()), "what this version writes it reads as a whole"


@given(status=JSON)
@settings(deadline=None)
def test_nothing_in_a_status_is_unreadable(status: Any) -> None:
    read_status(status)


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_status_of_this_version_loses_nothing(data: st.DataObject) -> None:
    status = data.draw(documents(resource()["status"]))
    _, lost = read_status(status)
    assert lost == ()


STORED: Schema = {
    "observedGeneration": 1,
    "conditions": [],
    "image": {
        "ref": "registry.example.com/app@sha256:1",
        "digest": "sha256:1",
        "size": 1,
        "scannedBy": {"name": "trivy"},
        "platforms": [{"platform": "linux/amd64", "digest": "sha256:2", "size": 1, "layers": 7}],
    },
    "run": {
        "id": "1",
        "trigger": "Scheduled",
        "inputs": "1",
        "startedAt": "2026-01-31T12:00:00Z",
        "reason": "Scanning",
        "warmBuilders": 2,
        "platforms": [{"platform": "linux/amd64", "phase": "Scanning", "mode": "Wasm", "attempt": 1}],
    },
    "history": [
        {
            "id": "0",
            "result": "Expired",
            "reason": "TooOld",
            "scanned": True,
            "startedAt": "2026-01-31T12:00:00Z",
            "finishedAt": "2026-01-31T12:00:00Z",
        }
    ],
}


def test_unknown_values_are_shown_as_they_are() -> None:
    status, lost = read_status(STORED)
    assert lost == ()
    assert status.run
    entry = status.run.platforms[0]
    assert (status.run.trigger, entry.phase, entry.mode, status.run.reason) == (
        "Scheduled",
        "Scanning",
        "Wasm",
        "Scanning",
    )
    assert not entry.phase.known
    assert Trigger.REQUESTED.known


def test_what_a_newer_version_has_said_of_what_is_over_stays() -> None:
    world = build_with(copy.deepcopy(STORED))
    world.reconcile()
    assert world.resource["status"]["image"] == {**STORED["image"], "tags": [], "destinations": []}
    superseded, *before = world.resource["status"]["history"]
    assert superseded["result"] == "Superseded"
    assert before == STORED["history"]


def test_a_run_in_a_phase_that_is_unknown_goes_on_to_its_end() -> None:
    world = World()
    world.reconcile()
    for entry in world.resource["status"]["run"]["platforms"]:
        entry |= {"phase": "Scanning", "reason": "Scanning", "mode": "Wasm"}
    world.settle()
    world.finish()


def test_what_an_older_definition_did_not_store_is_read_from_the_pods_again() -> None:
    world = World()
    world.reconcile()
    for platform in ("linux/amd64", "linux/arm64"):
        world.succeed(world.pod(platform=platform))
        world.reconcile()
        for entry in world.resource["status"]["run"]["platforms"]:
            for name in ("pushed", "digest", "cache"):
                entry.pop(name, None)
    world.settle()
    world.succeed_all(Role.PUBLISH)
    world.settle()
    assert world.status.run
    assert world.status.run.result is Result.SUCCEEDED


def test_a_run_that_ended_in_an_unknown_way_has_ended() -> None:
    world = World()
    world.reconcile()
    world.resource["status"]["run"] |= {"result": "Partial", "reason": "Partial", "finishedAt": "2026-01-31T12:01:00Z"}
    decision = world.decide()
    assert decision.before == ()
    assert decision.status.run
    assert decision.status.run.result == "Partial"
    ready = next(entry for entry in decision.status.conditions if entry.type == ConditionType.READY)
    assert ready.status == "Unknown"
    assert "ended as Partial, which a newer version of the operator wrote" in ready.message
    world.edit(platforms=["linux/amd64"])
    assert world.decide().status.run != decision.status.run, "a changed spec is built"


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        ({"columns": {"platforms": {"done": 1, "wanted": 2}}}, "columns.platforms"),
        ({"run": {**STORED["run"], "message": "x" * 5000}}, "run.message"),
        ({"run": {**STORED["run"], "startedAt": 5.5e300}}, "run.startedAt"),
        ({"conditions": [{"type": "Ready"}]}, "conditions.0"),
        ({"run": {"id": "1"}}, "run"),
    ],
)
def test_what_can_not_be_read_is_left_out_alone(change: Schema, lost: str) -> None:
    status, paths = read_status({**STORED, **change})
    assert lost in paths
    assert status.image == read_status(STORED)[0].image
    assert status.history == read_status(STORED)[0].history


def with_unknown_fields(document: Any) -> Any:
    if isinstance(document, dict):
        inner = {key: with_unknown_fields(value) for key, value in document.items()}
        return inner | {"fromTheFuture": {"value": 1}} if not _is_map_of_texts(document) else document
    return [with_unknown_fields(each) for each in document] if isinstance(document, list) else document


def _is_map_of_texts(document: Schema) -> bool:
    return set(document) in ({"Dockerfile"}, {"memory"})


@pytest.mark.parametrize("source", [INLINE, GIT, POLLED, FLUX])
def test_fields_that_a_newer_definition_has_filled_in_are_ignored(source: Any) -> None:
    scheduling = {"overrides": [{"platform": "linux/arm64"}], "resources": {"limits": {"memory": "1Gi"}}}
    plain = manifest(source=source, scheduling=scheduling, cache={"mode": "Min"})
    assert read_build({**plain, "spec": with_unknown_fields(plain["spec"])}).build == read_build(plain).build


def enumerations() -> list[tuple[tuple[str, ...], str]]:
    """Return the path of each enumeration in spec outside lists and maps, and one of its values."""

    def walk(schema: Schema, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
        for name, inside in schema.get("properties", {}).items():
            if "enum" in inside:
                yield (*path, name), inside["enum"][0]
            yield from walk(inside, (*path, name))

    return [found for found in walk(resource()["spec"], ()) if found[0][0] != "source"]


@pytest.mark.parametrize("path", [path for path, _ in enumerations()], ids=".".join)
def test_a_value_of_a_newer_definition_asks_for_a_newer_operator(path: tuple[str, ...]) -> None:
    document = manifest()
    place = document["spec"]
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = FUTURE
    _says_outdated(document, f"spec.{'.'.join(path)}", FUTURE)


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("platforms", ["linux/amd64", "plan9/amd64"], "spec.platforms.1"),
        ("timeout", "3d", "spec.timeout"),
        ("retries", 1000, "spec.retries"),
        ("suspend", "Gently", "spec.suspend"),
    ],
)
def test_whatever_else_a_newer_definition_accepts(field: str, value: Any, where: str) -> None:
    _says_outdated(manifest(**{field: value}), where, str(value[-1]) if isinstance(value, list) else str(value))


def _says_outdated(document: Schema, field: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read_build(document)
    assert newer_than_operator(caught.value)
    old, _ = read_status(STORED)
    status = invalid_spec(old, caught.value, 2, NOW)
    ready = next(entry for entry in status.conditions if entry.type == ConditionType.READY)
    assert (ready.status, ready.reason) == ("False", Reason.OPERATOR_OUTDATED)
    assert "is older than the CustomResourceDefinition" in ready.message
    assert field in ready.message
    assert value in ready.message
    assert "Upgrade the operator, or change the field." in ready.message
    assert (status.image, status.run, status.history) == (old.image, old.run, old.history), "nothing is lost"


def test_our_own_rules_are_still_mistakes_of_the_spec() -> None:
    with pytest.raises(ValidationError) as caught:
        read_build(manifest(source={"inline": {"files": {"a": "", "a/b": ""}}}))
    assert not newer_than_operator(caught.value)


OLD_WORDS: Schema = {
    "build": {"dockerfile": "Dockerfile", "network": "default"},
    "cache": {"mode": "max", "import": True},
    "attestations": {"provenance": "min", "record": True},
}
"""Values as they were before: defaults, which every stored object has."""


def test_values_that_were_in_lower_case_are_read_and_start_no_run() -> None:
    old, new = read_build(manifest(**OLD_WORDS)).build, read_build(manifest()).build
    assert old.spec == new.spec
    assert fingerprint(old.spec) == fingerprint(new.spec)
    others: Schema = {
        "build": {"network": "none"},
        "cache": {"mode": "disabled"},
        "attestations": {"provenance": "max"},
    }
    spec = read_build(manifest(**others)).build.spec
    found = (spec.build.network, spec.cache.mode, spec.attestations.provenance)
    assert found == (Network.NONE, CacheMode.DISABLED, Provenance.MAX)


def with_secret(**reference: Any) -> Schema:
    return manifest(build={"secrets": [{"id": "npm", **reference}]})


def test_a_secret_under_its_old_name_is_read() -> None:
    where = {"name": "npm-token", "key": "token"}
    assert read_build(with_secret(secretRef=where)) == read_build(with_secret(secretKeyRef=where))


def test_a_secret_whose_old_name_the_definition_has_dropped_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        read_build(with_secret())
    status = invalid_spec(read_status(STORED)[0], caught.value, 2, NOW)
    ready = next(entry for entry in status.conditions if entry.type == ConditionType.READY)
    assert ready.reason == Reason.INVALID_SPEC
    assert "spec.build.secrets.0: Value error, secretKeyRef is missing. It was called secretRef" in ready.message


@pytest.mark.parametrize("left", [{}, {"keyless": False}])
def test_a_build_whose_keyless_the_definition_has_dropped_is_not_published_unsigned(left: Schema) -> None:
    with pytest.raises(ValidationError) as caught:
        read_build(manifest(output={"image": "registry.example.com/a", "signing": left}))
    status = invalid_spec(read_status(STORED)[0], caught.value, 2, NOW)
    ready = next(entry for entry in status.conditions if entry.type == ConditionType.READY)
    assert ready.reason == Reason.INVALID_SPEC
    assert "spec.output.signing: Value error, neither secretRef nor keyless is set" in ready.message
    assert "apply the build again" in ready.message


def test_a_build_signs_by_a_key_or_without_and_not_by_both() -> None:
    both = {"secretRef": {"name": "key"}, "keyless": True}
    with pytest.raises(ValidationError, match="and not both"):
        read_build(manifest(output={"image": "registry.example.com/a", "signing": both}))


def test_status_has_no_closed_enumeration_but_that_of_conditions() -> None:
    closed = [node["enum"] for node in nodes(structural(Status)) if "enum" in node]
    assert closed == [["True", "False", "Unknown"]]
    assert not any(KNOWN in node for node in nodes(structural(Status)))


def test_results_of_another_version_of_a_step_are_read() -> None:
    failure = load('{"result":{"kind":"failure","reason":"ScanFailed","message":"no","layer":3},"version":2}')
    assert isinstance(failure, Failure)
    assert failure.reason == "ScanFailed"
    assert not failure.reason.retryable
    digest = f"sha256:{'1' * 64}"
    built = load(f'{{"result":{{"kind":"built","digest":"{digest}","layers":[1]}}}}')
    assert isinstance(built, Built)
    assert load('{"result":{"kind":"failure","reason":"not a\\nword","message":"no"}}') is None
    assert load('{"result":{"kind":"scanned"}}') is None


def test_what_an_older_definition_does_not_have_is_left_out() -> None:
    refusal = (
        "failed to create typed patch object (a/app; multiarch.build/v1alpha1, Kind=MultiArchBuild): errors:\n"
        '  .status.history[id="0"].scanned: field not declared in schema\n'
        '  .status.image.platforms[platform="linux/amd64"].layers: field not declared in schema\n'
        "  .status.image.scannedBy: field not declared in schema"
    )
    fields = undeclared(refusal)
    assert fields == {("history", "scanned"), ("image", "platforms", "layers"), ("image", "scannedBy")}
    known = without(STORED, fields)
    assert "scanned" not in known["history"][0]
    assert known["image"] == {
        **{key: value for key, value in STORED["image"].items() if key != "scannedBy"},
        "platforms": [{"platform": "linux/amd64", "digest": "sha256:2", "size": 1}],
    }
    assert known["run"] == STORED["run"]
    assert "scannedBy" in STORED["image"], "it is a copy"


@pytest.mark.parametrize("refusal", ["", "etcdserver: leader changed", ".spec.a: field not declared in schema"])
def test_other_refusals_are_no_reason_to_leave_anything_out(refusal: str) -> None:
    assert undeclared(refusal) == frozenset()
    assert without(STORED, undeclared(refusal)) == STORED


def test_what_is_kept_of_a_newer_version_is_kept_as_a_whole() -> None:
    lacking = [
        f"{kind.__name__}.{name}: {part.__name__}"
        for kind in vars(status).values()
        if isinstance(kind, type) and issubclass(kind, Record)
        for name, field in kind.model_fields.items()
        for part in _models(field.annotation)
        if not issubclass(part, Record)
    ]
    assert lacking == []


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
