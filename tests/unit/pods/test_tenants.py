"""No pod has what the policy forbids, and none takes a node's disk or memory without a bound."""

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.plan.actions import EnsureInputs
from multiarchbuild.plan.children import Role
from multiarchbuild.plan.policy import Policy
from multiarchbuild.plan.quantities import quantity
from multiarchbuild.plan.rules import refusal
from multiarchbuild.pods import render
from tests.unit.plan.world import World, manifest

AMD64, ARM64 = Platform.parse("linux/amd64"), Platform.parse("linux/arm64")
TAINTS = ["dedicated", "gpu", "node-role.kubernetes.io/control-plane", "node.kubernetes.io/unschedulable", ""]
CLASSES = ["low", "high", "system-node-critical", "system-cluster-critical"]
NAMES = ["default", "builder", "admin"]
PATTERNS = st.lists(st.sampled_from(["*", "low", "builder", "default", "d*", "system-*", "own-*"]), max_size=2)
LABELS = st.dictionaries(
    st.sampled_from(["pool", "zone", "node-role.kubernetes.io/control-plane"]), st.sampled_from(["a", "b"]), max_size=2
)
RESOURCES = st.fixed_dictionaries(
    {},
    optional={
        kind: st.dictionaries(
            st.sampled_from(["cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"]),
            st.sampled_from(["1", "1Gi", "64Gi"]),
            max_size=3,
        )
        for kind in ("requests", "limits")
    },
)
TOLERATIONS = st.lists(
    st.one_of(
        st.fixed_dictionaries({"key": st.sampled_from(TAINTS), "operator": st.just("Exists")}),
        st.fixed_dictionaries({"key": st.sampled_from(TAINTS[:-1]), "value": st.sampled_from(["a", "b"])}),
    ),
    max_size=2,
)
PLACE = {"nodeSelector": LABELS, "tolerations": TOLERATIONS, "resources": RESOURCES}
SCHEDULING = st.fixed_dictionaries(
    {},
    optional={
        **PLACE,
        "priorityClassName": st.sampled_from(CLASSES),
        "serviceAccountName": st.sampled_from(NAMES),
        "strategy": st.sampled_from(["Auto", "Native", "Cross"]),
        "overrides": st.fixed_dictionaries({"platform": st.just("linux/arm64")}, optional=PLACE).map(
            lambda entry: [entry]
        ),
    },
)
NODES = st.fixed_dictionaries(
    {},
    optional={
        "nodeSelector": st.dictionaries(st.sampled_from(["pool", "zone"]), st.sampled_from(["a", "b"]), max_size=2),
        "tolerations": st.just([{"operator": "Exists", "effect": "NoSchedule"}]),
    },
)
MOST = st.dictionaries(
    st.sampled_from(["memory", "ephemeral-storage", "nvidia.com/gpu"]),
    st.sampled_from(["1", "2Gi", "64Gi"]),
    max_size=3,
)
ENTRY = st.fixed_dictionaries(
    {"namespaces": st.just(["team-*"])},
    optional={
        "priorityClasses": PATTERNS,
        "serviceAccounts": PATTERNS,
        "secrets": PATTERNS,
        "tolerations": st.lists(st.sampled_from(["*", "gpu", "dedicated=a"]), max_size=2),
        "maxResources": MOST,
        "placement": NODES,
        "signing": NODES,
        "volumes": st.just({"work": "1Gi", "builder": "2Gi"}),
    },
)
POLICY = st.fixed_dictionaries(
    {"isolation": st.sampled_from(["Rootless", "UserNamespace", "Privileged"])},
    optional={"tenants": ENTRY.map(lambda entry: [entry]), "maxResources": MOST},
)
SECRETS = st.sampled_from(["own-key", "own-token", "stolen"])


@given(scheduling=SCHEDULING, rules=POLICY, secret=SECRETS, signing=SECRETS)
def test_no_pod_of_an_accepted_build_is_beyond_the_policy(
    scheduling: dict[str, Any], rules: dict[str, Any], secret: str, signing: str
) -> None:
    policy = Policy.model_validate(rules)
    output = {
        "image": "registry.example.com/team-a/app",
        "secretRefs": [{"name": secret}],
        "signing": {"secretRef": {"name": signing}},
    }
    source = {"git": {"url": "https://git.example.com/a", "interval": "1m"}}
    resource = manifest(scheduling=scheduling, output=output, source=source)
    assume(not refusal(MultiArchBuild.model_validate(resource), policy))
    world = World(resource, policy=policy)
    world.settle()
    for role in (Role.RESOLVE, Role.BUILD, Role.PUBLISH):
        world.succeed_all(role)
        world.settle()
    world.advance(120)
    world.settle()
    seen = world.pods.values()
    assert seen, "nothing was created"
    for pod in seen:
        _check(pod, rules, policy)


def _check(pod: dict[str, Any], rules: dict[str, Any], policy: Policy) -> None:
    spec = pod["spec"]
    entry = (rules.get("tenants") or [{}])[0]
    signs = any(volume["name"] == "signing" for volume in spec["volumes"])
    _check_bounds(spec)
    _check_identity(spec, entry)
    forced = {**entry.get("placement", {}).get("nodeSelector", {})}
    if signs:
        forced |= entry.get("signing", {}).get("nodeSelector", {})
    assert forced.items() <= spec["nodeSelector"].items()
    assert not any("control-plane" in key for key in spec["nodeSelector"])
    granted = [*entry.get("placement", {}).get("tolerations", [])]
    granted += entry.get("signing", {}).get("tolerations", []) if signs else []
    for toleration in spec["tolerations"]:
        key = toleration.get("key", "")
        assert key or toleration in granted, "nothing tolerates everything but what the policy itself gives"
        assert key not in TAINTS[2:4]
    most = {**policy.max_resources, **entry.get("maxResources", {})}
    daemon: dict[str, Any] = next(iter(spec.get("initContainers", ())), {"resources": {}})
    for amounts in daemon["resources"].values():
        for name, amount in amounts.items():
            assert name in {"cpu", "memory", "ephemeral-storage"} or name in most
            have, limit = quantity(amount), quantity(most.get(name, amount))
            assert have is not None
            assert limit is not None
            assert have <= limit
    for name in most.keys() & {"cpu", "memory", "ephemeral-storage"} if "initContainers" in spec else ():
        assert name in daemon["resources"]["limits"], f"{name} has a maximum and so a limit"


def _check_bounds(spec: dict[str, Any]) -> None:
    for volume in spec["volumes"]:
        assert set(volume) - {"name"} <= {"emptyDir", "secret", "configMap", "downwardAPI"}
        if "emptyDir" in volume:
            size = quantity(volume["emptyDir"]["sizeLimit"])
            assert size is not None
            assert size > 0
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        assert container["resources"].get("requests") or container["resources"].get("limits")
    assert spec["containers"][0]["resources"]["limits"]["memory"]
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def _fits(patterns: list[str], name: str) -> bool:
    """Return whether a pattern of this test, a name or a beginning with a star, fits."""
    return any(name == text or (text.endswith("*") and name.startswith(text[:-1])) for text in patterns)


def _check_identity(spec: dict[str, Any], entry: dict[str, Any]) -> None:
    if (priority := spec.get("priorityClassName")) is not None:
        allowed = entry.get("priorityClasses", ["*"])
        assert _fits(allowed, priority)
        assert not priority.startswith("system-") or "system-*" in allowed
    assert _fits(entry.get("serviceAccounts", ["*"]), spec["serviceAccountName"])
    for volume in spec["volumes"]:
        if "secret" in volume:
            assert _fits(entry.get("secrets", ["*"]), volume["secret"]["secretName"])


def test_a_builder_keeps_as_much_as_its_container_may_write() -> None:
    def size(**scheduling: Any) -> str:
        world = World(manifest(scheduling=scheduling))
        world.settle()
        volumes = {volume["name"]: volume for volume in world.pod()["spec"]["volumes"]}
        assert volumes["work"]["emptyDir"] == {"sizeLimit": "50Gi"}
        return str(volumes["buildkitd-state"]["emptyDir"]["sizeLimit"])

    assert size() == "100Gi"
    assert size(resources={"limits": {"ephemeral-storage": "300Gi"}}) == "300Gi"


def test_a_builder_of_which_nobody_says_anything_has_requests() -> None:
    world = World()
    world.settle()
    (daemon,) = world.pod()["spec"]["initContainers"]
    assert daemon["resources"] == {"requests": {"cpu": "50m", "memory": "64Mi"}}


def test_the_maximum_of_what_is_scarce_is_given_to_nobody_who_does_not_ask() -> None:
    world = World(policy=Policy.model_validate({"maxResources": {"nvidia.com/gpu": 2, "memory": "4Gi"}}))
    world.settle()
    (daemon,) = world.pod()["spec"]["initContainers"]
    assert daemon["resources"] == {"requests": {"memory": "0"}, "limits": {"memory": "4Gi"}}


def test_a_config_map_is_the_same_for_every_tenant() -> None:
    world = World()
    action = EnsureInputs("in", "run1")
    own = Policy.model_validate({"tenants": [{"namespaces": ["team-*"]}]})
    assert render(action, world.build, own) == render(action, world.build, Policy())
