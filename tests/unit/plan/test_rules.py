"""What the policy forbids, and what it says of it."""

import re
from fractions import Fraction
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.conditions import ConditionType
from multiarchbuild.api.durations import format_duration
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.resource import REBUILD_ANNOTATION
from multiarchbuild.api.scheduling import Quantity
from multiarchbuild.api.schema import Keyword
from multiarchbuild.api.status import Result
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.patterns import Pattern
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.quantities import quantity
from multiarchbuild.plan.rules import WHO, refusal
from tests.unit.plan.world import World, build, kstatus

TEAM = {"namespaces": ["team-*"], "registries": ["registry.example.com/{namespace}/*", "cache.example.com/*"]}
ELSEWHERE = {"output": {"image": "registry.example.com/team-b/app"}}


def policy(**fields: Any) -> Policy:
    return Policy.model_validate(fields)


VOLUMES = {"maxSize": "50Gi", "storageClasses": ["fast-*", "{namespace}"]}


def keeping(size: str | int, name: str | None = None) -> dict[str, Any]:
    return {"cache": {"volume": {"size": size, **({"storageClassName": name} if name else {})}}}


def asking(**resources: Any) -> dict[str, Any]:
    return {"scheduling": {"resources": resources}}


@pytest.mark.parametrize(
    ("rules", "spec", "expected"),
    [
        ({}, ELSEWHERE, ""),
        ({"outputs": [TEAM]}, {}, ""),
        (
            {"outputs": [TEAM]},
            ELSEWHERE,
            (
                "output.image is registry.example.com/team-b/app, but builds of namespace team-a may push to "
                "registry.example.com/{namespace}/*, cache.example.com/* (policy: outputs)"
            ),
        ),
        ({"outputs": [TEAM]}, {"cache": {"repository": "cache.example.com/x"}}, ""),
        (
            {"outputs": [TEAM]},
            {"cache": {"repository": "registry.example.com/team-b/cache"}},
            "cache.repository is registry.example.com/team-b/cache, but",
        ),
        (
            {"outputs": [TEAM]},
            {
                "output": {
                    "image": "cache.example.com/app",
                    "destinations": [{"image": "registry.example.com/team-b/app"}],
                }
            },
            "output.destinations[0].image is registry.example.com/team-b/app, but",
        ),
        ({"outputs": [TEAM, {"namespaces": ["*"], "registries": ["registry.example.com/team-b/*"]}]}, ELSEWHERE, ""),
        ({"outputs": [{**TEAM, "namespaces": ["other"]}]}, {}, "may push to nowhere (policy: outputs)"),
        # The policy's own cache is the policy's business.
        ({"outputs": [TEAM], "cache": {"repository": "elsewhere.example.com/{namespace}/{name}"}}, {}, ""),
        ({"maxResources": {"memory": "4Gi"}}, asking(limits={"memory": "4096Mi"}), ""),
        (
            {"maxResources": {"memory": "4Gi"}},
            asking(limits={"memory": "4097Mi"}),
            "scheduling.resources.limits.memory is 4097Mi, but at most 4Gi is allowed (policy: maxResources)",
        ),
        (
            {"maxResources": {"cpu": 2}},
            asking(requests={"cpu": "2001m"}),
            "scheduling.resources.requests.cpu is 2001m, but at most 2 is allowed",
        ),
        ({"maxResources": {"cpu": 2}}, asking(requests={"memory": "1Ti"}), ""),
        (
            {"maxResources": {"cpu": "500m"}},
            {"scheduling": {"overrides": [{"platform": "linux/arm64", "resources": {"limits": {"cpu": 1}}}]}},
            "scheduling.overrides[linux/arm64].resources.limits.cpu is 1, but at most 500m is allowed",
        ),
        ({"maxTimeout": "1h"}, {"timeout": "60m"}, ""),
        ({"maxTimeout": "30m"}, {}, ""),
        ({"maxTimeout": "1h"}, {"timeout": "1h1s"}, "timeout is 1h1s, but at most 1h is allowed (policy: maxTimeout)"),
        (
            {},
            keeping("1Gi"),
            "cache.volume is set, but builds of namespace team-a may have no volume (policy: cacheVolumes.maxSize)",
        ),
        ({"cacheVolumes": VOLUMES}, keeping("50Gi"), ""),
        (
            {"cacheVolumes": VOLUMES},
            keeping("51Gi"),
            "size is 51Gi, but at most 50Gi is allowed (policy: cacheVolumes.m",
        ),
        (
            {"cacheVolumes": VOLUMES},
            keeping("0"),
            "cache.volume.size is 0, which is not an amount of bytes: write 20Gi",
        ),
        ({"cacheVolumes": VOLUMES}, keeping("1Gi", "fast-1"), ""),
        ({"cacheVolumes": VOLUMES}, keeping("1Gi", "team-a"), ""),
        (
            {"cacheVolumes": VOLUMES},
            keeping("1Gi", "team-b"),
            (
                "cache.volume.storageClassName is team-b, but builds of namespace team-a may use fast-*, {namespace} "
                "(policy: cacheVolumes.storageClasses)"
            ),
        ),
        (
            {"cacheVolumes": VOLUMES, "tenants": [{"namespaces": ["x"]}, {"namespaces": ["*"], "cacheVolumes": {}}]},
            keeping("1Gi"),
            "builds of namespace team-a may have no volume (policy: tenants[1].cacheVolumes.maxSize)",
        ),
        ({"tenants": [{"namespaces": ["team-a"], "cacheVolumes": {"maxSize": "9Gi"}}]}, keeping("9Gi"), ""),
        ({"emulation": {"allowed": False}}, {"scheduling": {"strategy": "Auto"}}, ""),
        (
            {"emulation": {"allowed": False}},
            {"scheduling": {"strategy": "Emulated"}},
            "scheduling.strategy is Emulated, but QEMU is not allowed here (policy: emulation.allowed is false)",
        ),
        ({"emulation": {"namespaces": ["team-*"]}}, {"scheduling": {"strategy": "Emulated"}}, ""),
        (
            {"emulation": {"namespaces": ["lab-*", "team-b"]}},
            {"scheduling": {"overrides": [{"platform": "linux/arm64", "strategy": "Emulated"}]}},
            (
                "scheduling.overrides[linux/arm64].strategy is Emulated, but QEMU is not allowed here "
                "(policy: emulation.namespaces does not name team-a)"
            ),
        ),
    ],
)
def test_a_rule_and_what_it_says(rules: dict[str, Any], spec: dict[str, Any], expected: str) -> None:
    message = refusal(build(**spec), policy(**rules))
    assert expected in message
    assert bool(message) == bool(expected)
    assert not message or message.endswith(f"{WHO}.")


@pytest.mark.parametrize(
    ("allowed", "metadata", "expected"),
    [
        (None, {"labels": {"kueue.x-k8s.io/queue-name": "q"}}, ""),
        (None, {"labels": {"app": "x"}}, "podMetadata.labels has app, but allowed is kueue.x-k8s.io/queue-name, kueue"),
        (None, {"annotations": {"linkerd.io/inject": "enabled"}}, "podMetadata.annotations has linkerd.io/inject, but"),
        (["example.com/*"], {"labels": {"example.com/team": "a"}, "annotations": {"example.com/x": "b"}}, ""),
        (["example.com/*"], {"labels": {"kueue.x-k8s.io/queue-name": "q"}}, "but allowed is example.com/* (policy: bu"),
        ([], {"labels": {"kueue.x-k8s.io/queue-name": "q"}}, "but allowed is none (policy: buildMetadata)"),
    ],
)
def test_labels_and_annotations_of_builders(allowed: list[str] | None, metadata: dict[str, Any], expected: str) -> None:
    own = policy() if allowed is None else policy(buildMetadata=allowed)
    message = refusal(build(scheduling={"podMetadata": metadata}), own)
    assert expected in message
    assert bool(message) == bool(expected)


def test_all_that_is_wrong_is_said_at_once() -> None:
    wrong: dict[str, Any] = {**ELSEWHERE, "timeout": "2h"}
    message = refusal(build(**wrong), policy(outputs=[TEAM], maxTimeout="1h"))
    assert "output.image" in message
    assert "timeout" in message


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("*", "", True),
        ("team-*", "team-", True),
        ("team-*", "my-team-a", False),
        ("*-prod", "a-prod", True),
        ("registry.example.com/*", "registry.example.com/a/b", True),
        ("registry.example.com/*", "registryXexample.com/a", False),
        ("registry.example.com/*", "registry.example.com.evil.test/a", False),
        ("r.test/{namespace}/*", "r.test/a/app", True),
        ("r.test/{namespace}/*", "r.test/ab/app", False),
        ("r.test/{namespace}", "r.test/a", True),
    ],
)
def test_patterns(pattern: str, subject: str, *, fits: bool) -> None:
    assert Pattern(pattern).matches(subject, namespace="a") is fits


@given(st.text("ab*", max_size=8), st.text("ab\n", max_size=8))
def test_a_star_stands_for_any_characters(pattern: str, subject: str) -> None:
    meaning = ".*".join(map(re.escape, pattern.split("*")))
    assert Pattern(pattern).matches(subject) == (re.fullmatch(meaning, subject) is not None)


@pytest.mark.timeout(60)
def test_no_pattern_and_no_subject_take_long() -> None:
    assert not Pattern("*a" * 127).matches("a" * 126)
    assert not Pattern(f"{'*a' * 100}*b").matches("a" * 200 + "c")
    assert Pattern("*a" * 127).matches("ba" * 127)


@given(st.text("ab*{}.", max_size=8), st.text("ab.", max_size=8))
def test_a_star_is_the_only_thing_that_matches_more_than_itself(pattern: str, subject: str) -> None:
    expected = pattern == subject if "*" not in pattern else None
    found = Pattern(pattern).matches(subject)
    assert expected is None or found is expected


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 1),
        (2, 2),
        ("500m", "0.5"),
        ("1Ki", 1024),
        ("1.5Gi", 1610612736),
        ("1k", 1000),
        ("1e3", 1000),
        (".5", "0.5"),
    ],
)
def test_quantities(text: str | int, amount: Any) -> None:
    found = quantity(text)
    assert found is not None
    assert str(found.normalize()) == str(type(found)(amount).normalize())


@pytest.mark.parametrize(
    "text", ["", "much", "-1", "+1", "1GiB", "1 Gi", "1e", "1e9999", "1e-4294967284", "1" * 65, "٣", "1\n", "1e+", "."]
)
def test_what_is_not_a_quantity(text: str) -> None:
    assert quantity(text) is None


_ACCEPTED = next(part.value for part in get_args(Quantity) if isinstance(part, Keyword) and part.name == "pattern")
ACCEPTED = st.from_regex(str(_ACCEPTED).removesuffix("$") + r"\Z", alphabet=st.characters(max_codepoint=127)).filter(
    lambda text: len(text) <= 32
)
"""What the pattern of the CRD accepts, with its bound of 32 characters."""


def as_kubernetes(text: str) -> Fraction:
    """Return the amount that Kubernetes reads (apimachinery, pkg/api/resource/quantity.go): number, suffix."""
    match = re.fullmatch(r"([0-9.]+)(.*)", text)
    assert match
    number = Fraction(f"0{match[1]}" if match[1].startswith(".") else match[1].removesuffix("."))
    suffix = match[2]
    if suffix.endswith("i"):
        return number * Fraction(1024) ** (1 + "KMGTPE".index(suffix[0]))
    if len(suffix) > 1:
        return number * Fraction(10) ** int(suffix[1:])
    powers = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
    return number * Fraction(1000) ** powers[suffix]


@given(ACCEPTED)
def test_whatever_the_crd_accepts_is_read_as_kubernetes_does(text: str) -> None:
    found = quantity(text)
    assert found is not None
    assert Fraction(found) == as_kubernetes(text)


@given(ACCEPTED, ACCEPTED)
def test_nothing_that_is_more_than_the_policy_allows_passes(amount: str, most: str) -> None:
    rules = policy(maxResources={"memory": most})
    build_ = build(scheduling={"resources": {"limits": {"memory": amount}}})
    denied = refusal(build_, rules)
    assert bool(denied) is (as_kubernetes(amount) > as_kubernetes(most))


@pytest.mark.parametrize("amount", ["1e4294967308", "1e-4294967284", "much", "1" * 70, "-1"])
def test_an_amount_that_cannot_be_read_is_refused(amount: str) -> None:
    # The CRD refuses these, but not the one of an older version.
    build_ = build(scheduling={"resources": {"limits": {"memory": amount}}})
    assert f"scheduling.resources.limits.memory is {amount}, which is not a quantity" in refusal(
        build_, policy(maxResources={"memory": "1Gi"})
    )
    assert not refusal(build_, policy(maxResources={"cpu": "1"})), "what has no bound is left to the API server"


@given(st.integers(0, 10**9))
def test_mebibytes_are_ordered_as_bytes_are(amount: int) -> None:
    assert quantity(f"{amount}Mi") == quantity(amount * 1024 * 1024)


def test_the_time_for_a_run_that_names_none() -> None:
    assert [
        format_duration(policy(**rules).timeout(own))
        for rules, own in (
            ({}, None),
            ({"maxTimeout": "30m"}, None),
            ({"defaultTimeout": "1h30m"}, None),
            ({"defaultTimeout": "90s"}, "3h"),
        )
    ] == ["1h", "30m", "1h30m", "3h"]


def denied(world: World) -> str:
    """Return the message of a build that the policy refuses, once status is as it must be."""
    conditions = {entry.type: entry for entry in world.status.conditions}
    ready = conditions[ConditionType.READY]
    assert (ready.status, ready.reason) == ("False", Reason.POLICY_DENIED)
    assert conditions[ConditionType.STALLED].reason == Reason.POLICY_DENIED
    assert kstatus(world.status, world.build.metadata.generation) == "Failed"
    return ready.message


def test_a_refused_build_starts_nothing_and_says_so_once() -> None:
    world = World(policy=policy(outputs=[TEAM]))
    world.edit(**ELSEWHERE)
    first = world.reconcile()
    assert [event.reason for event in first.events] == [Reason.POLICY_DENIED]
    assert (world.pods, world.config_maps, first.wake_after) == ({}, {}, None)
    assert "policy: outputs" in denied(world)
    assert world.reconcile().events == ()


def test_it_starts_once_the_policy_allows_it() -> None:
    world = World(policy=policy(outputs=[TEAM]))
    world.edit(**ELSEWHERE)
    world.settle()
    world.policy = Policy()
    world.settle()
    assert world.status.run
    assert world.status.run.result is None


def test_an_image_that_exists_stays_ready_under_a_stricter_policy() -> None:
    world = World()
    world.settle()
    for role in (Role.BUILD, Role.PUBLISH):
        world.succeed_all(role)
        world.settle()
    world.policy = policy(outputs=[{"namespaces": ["other"], "registries": ["*"]}])
    world.settle()
    assert kstatus(world.status, 2) != "Failed"
    world.annotate(REBUILD_ANNOTATION, "2026-01-31T12:00:00Z")
    world.settle()
    denied(world)
    assert world.status.image, "the image is still there"


def test_a_run_that_goes_on_is_not_ended_by_the_policy_but_by_an_edit() -> None:
    world = World()
    world.settle()
    run = world.status.run
    assert run
    world.policy = policy(maxTimeout="1m")
    world.settle()
    assert world.status.run
    assert world.status.run.result is None
    world.edit(timeout="2m")
    world.settle()
    assert world.status.run.id == run.id
    assert world.status.run.result is Result.SUPERSEDED
    assert "timeout is 2m" in denied(world)
    assert world.pods == {} or all("deletionTimestamp" in pod["metadata"] for pod in world.pods.values())


def test_auto_does_not_fall_back_where_qemu_is_not_allowed() -> None:
    world = World(policy=policy(emulation={"namespaces": ["lab"]}), nodes=World().nodes[:1])
    world.settle()
    world.advance(600)
    world.settle()
    assert world.status.run
    (arm64,) = [entry for entry in world.status.run.platforms if entry.platform == "linux/arm64"]
    assert arm64.reason is Reason.NO_BUILDER
    assert "emulation.namespaces does not name team-a" in (arm64.message or "")
