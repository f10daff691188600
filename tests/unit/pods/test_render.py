import json
import subprocess
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from multiarchbuild.api import mounts
from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.nodes import APP_ARMOR_PROFILE, APP_ARMOR_PROFILE_LABEL, PROFILE_VERSION
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.results import Pushed, PushedImage, Source
from multiarchbuild.api.status import CacheVolumeUse, Mode
from multiarchbuild.api.token_services import TokenServices
from multiarchbuild.plan.actions import CacheRefs, EnsureInputs, Placement, StartBuild, StartPublish, StartResolve
from multiarchbuild.plan.children import Role, pod_from
from multiarchbuild.plan.policy import MAX_BUNDLES, Policy
from multiarchbuild.pods import render, template

ARM64 = Platform.parse("linux/arm64")
COMMIT = "0123456789012345678901234567890123456789"
RESOLVE = StartResolve(name="r", run_id="run1", attempt=1, inputs="in", deadline=60)
DIGEST = f"sha256:{'0' * 64}"
PUBLISH = StartPublish(
    name="p",
    run_id="run1",
    attempt=1,
    inputs="in",
    deadline=60,
    tags=("latest", "v1"),
    built=Pushed(images=(PushedImage(platform="linux/arm64", digest=DIGEST),)),
)


def start(**fields: Any) -> StartBuild:
    defaults: dict[str, Any] = {
        "name": "b",
        "run_id": "run1",
        "attempt": 2,
        "inputs": "in",
        "deadline": 3600,
        "until": datetime(2026, 1, 1, tzinfo=UTC),
        "platforms": (ARM64,),
        "placement": Placement(Mode.NATIVE, (("kubernetes.io/arch", "arm64"),)),
        "cache": CacheRefs("r.test/c:a", ("r.test/c:a", "r.test/c:b")),
        "source": None,
    }
    return StartBuild(**{**defaults, **fields})


def resource(**parts: Any) -> MultiArchBuild:
    spec = {
        "platforms": ["linux/arm64"],
        "source": {"git": {"url": "https://git.test/app", "secretRef": {"name": "git-token"}}},
        "output": {"image": "r.test/team/app", "secretRefs": [{"name": "one"}, {"name": "two"}]},
        **parts,
    }
    metadata = {
        "name": "n" * 253,
        "namespace": "team",
        "uid": "u1",
        "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return MultiArchBuild.model_validate({"metadata": metadata, "spec": spec})


def policy(**fields: Any) -> Policy:
    return Policy.model_validate(fields)


def step(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["spec"]["containers"]
    found: dict[str, Any] = container
    return found


def daemon(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["spec"]["initContainers"]
    found: dict[str, Any] = container
    return found


def test_children_belong_to_their_build() -> None:
    for action in (EnsureInputs("in", "run1"), RESOLVE, start(), PUBLISH):
        meta = render(action, resource(), policy())["metadata"]
        (owner,) = meta["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("u1", True, False)
        assert meta["namespace"] == "team"
        assert meta["labels"]["multiarch.build/run"] == "run1"
        assert all(len(value) <= 63 for value in meta["labels"].values())


def test_what_is_rendered_is_what_observe_reads() -> None:
    manifest = render(start(source=Source(commit=COMMIT, ref="main")), resource(), policy())
    manifest["metadata"] |= {"uid": "p1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    pod = pod_from(manifest)
    assert (pod.role, pod.run_id, pod.attempt, pod.platforms, pod.mode) == ("build", "run1", 2, (ARM64,), "Native")
    assert Source.model_validate_json(pod.source_annotation) == Source(commit=COMMIT, ref="main")


def test_inputs_give_back_the_spec_and_the_files() -> None:
    build = resource(source={"inline": {"files": {"Dockerfile": "FROM scratch", "src/ü.js": "1"}}})
    data = render(EnsureInputs("in", "run1"), build, policy(caBundle="PEM"))["data"]
    inputs = Inputs.model_validate_json(data["inputs.json"])
    assert {path: data[key] for path, key in inputs.files.items()} == {"Dockerfile": "FROM scratch", "src/ü.js": "1"}
    assert inputs.spec.output == build.spec.output
    assert "FROM scratch" not in data["inputs.json"]
    assert data["ca.crt"] == "PEM"


def test_buildkitd_is_told_how_registries_are_reached() -> None:
    registries = [
        {"host": "r.test:5000", "plainHttp": True},
        {"host": "docker.io", "mirrors": ["r.test:5000", 'odd"host']},
    ]
    data = render(EnsureInputs("in", "run1"), resource(), policy(registries=registries))["data"]
    document = tomllib.loads(data["buildkitd.toml"])
    room = {"gc": True, "maxUsedSpace": str(20 << 30), "reservedSpace": "0", "minFreeSpace": "0"}
    assert document.pop("worker") == {"oci": room}
    assert document == {
        "registry": {
            "r.test:5000": {"http": True},
            "docker.io": {"http": False, "mirrors": ["r.test:5000", 'odd"host']},
        }
    }


@pytest.mark.parametrize(
    ("scheduling", "own", "most"),
    [
        ({}, {}, 20 << 30),
        ({"resources": {"limits": {"ephemeral-storage": "9Gi"}}}, {}, 3 << 30),
        (
            {"overrides": [{"platform": "linux/arm64", "resources": {"limits": {"ephemeral-storage": "9Gi"}}}]},
            {},
            3 << 30,
        ),
        ({}, {"volumes": {"builder": "30Gi"}}, 10 << 30),
        ({}, {"keptBuilders": {"cache": "1Gi"}}, 1 << 30),
    ],
)
def test_buildkit_keeps_no_more_than_a_third_of_its_volume(
    scheduling: dict[str, Any], own: dict[str, Any], most: int
) -> None:
    data = render(EnsureInputs("in", "run1"), resource(scheduling=scheduling), policy(**own))["data"]
    assert tomllib.loads(data["buildkitd.toml"])["worker"]["oci"]["maxUsedSpace"] == str(most)


CACHED = {"cache": {"volume": {"size": "10Gi"}}}
VOLUMES = {"cacheVolumes": {"maxSize": "10Gi"}}


def test_a_volume_is_where_buildkitd_keeps_its_state_and_nobody_else_mounts_it() -> None:
    for isolation, path in (
        ("Rootless", "/home/user/.local/share/buildkit"),
        ("UserNamespace", "/var/lib/buildkit"),
        ("Privileged", "/var/lib/buildkit"),
    ):
        own = policy(isolation=isolation, **VOLUMES)
        pod = render(start(claim="c", volume=CacheVolumeUse.USED), resource(**CACHED), own)
        claimed = [each for each in pod["spec"]["volumes"] if "persistentVolumeClaim" in each]
        assert claimed == [{"name": "buildkitd-state", "persistentVolumeClaim": {"claimName": "c"}}]
        everybody = pod["spec"]["initContainers"] + pod["spec"]["containers"]
        mounted = {
            container["name"]: mount["mountPath"]
            for container in everybody
            for mount in container["volumeMounts"]
            if mount["name"] == "buildkitd-state"
        }
        assert mounted == {"buildkitd": path, **({"volume": path} if isolation == "Rootless" else {})}
        assert "fsGroup" not in json.dumps(pod)
        seen = pod_from(
            {**pod, "metadata": {**pod["metadata"], "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"}}
        )
        assert (seen.claim, seen.volume) == ("c", CacheVolumeUse.USED)
        assert "--cache-volume" in step(pod)["args"]


def test_what_makes_a_volume_its_own_may_do_nothing_else() -> None:
    pod = render(start(claim="c"), resource(**CACHED), policy(**VOLUMES))
    first, second = pod["spec"]["initContainers"]
    assert (first["name"], second["name"]) == ("volume", "buildkitd")
    assert "restartPolicy" not in first, "it ends before buildkitd starts"
    security = first["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert [mount["name"] for mount in first["volumeMounts"]] == ["buildkitd-state"]


def test_buildkit_keeps_half_of_a_volume_of_its_own() -> None:
    document = render(EnsureInputs("in", "run1"), resource(**CACHED), policy(**VOLUMES))["data"]
    most = {key: tomllib.loads(document[key])["worker"]["oci"]["maxUsedSpace"] for key in _TOMLS}
    assert most == {"buildkitd.toml": str(20 * 2**30), "buildkitd-volume.toml": str(5 * 2**30)}
    pod = render(start(claim="c"), resource(**CACHED), policy(**VOLUMES))
    (config,) = (each for each in pod["spec"]["volumes"] if each["name"] == "buildkitd-config")
    assert config["configMap"]["items"] == [{"key": "buildkitd-volume.toml", "path": "buildkitd.toml"}]
    assert "buildkitd-volume.toml" not in render(EnsureInputs("in", "run1"), resource(), policy())["data"]


_TOMLS = ("buildkitd.toml", "buildkitd-volume.toml")


def test_a_builder_with_another_volume_takes_no_request_for_this_one() -> None:
    def of(claim: str, use: CacheVolumeUse) -> str:
        return template(start(claim=claim, volume=use), resource(**CACHED), policy(**VOLUMES))

    assert of("c", CacheVolumeUse.NEW) == of("c", CacheVolumeUse.USED)
    assert of("c", CacheVolumeUse.NEW) != of("d", CacheVolumeUse.NEW)
    assert of("c", CacheVolumeUse.NEW) != of("", CacheVolumeUse.FAILED)


def test_every_step_meets_the_restricted_pod_security_standard() -> None:
    for action in (RESOLVE, start(), PUBLISH):
        pod = render(action, resource(), policy())
        assert step(pod)["securityContext"] == {
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert pod["spec"]["automountServiceAccountToken"] is False


def test_the_pod_leaves_the_folders_of_buildkitd_as_they_are() -> None:
    for action in (RESOLVE, start(), PUBLISH):
        assert "securityContext" not in render(action, resource(), policy())["spec"]


def test_rootless_buildkitd_is_not_privileged_and_not_root() -> None:
    context = daemon(render(start(), resource(), policy()))["securityContext"]
    assert context["runAsNonRoot"] is True
    assert "privileged" not in context


LOADED = Placement(Mode.NATIVE, ((APP_ARMOR_PROFILE_LABEL, PROFILE_VERSION),), "apparmor")


@pytest.mark.parametrize(
    ("rootless", "placement", "profile"),
    [
        ({}, None, {"type": "Unconfined"}),
        ({"profile": "Localhost"}, None, None),
        ({"profile": "Localhost"}, LOADED, {"type": "Localhost", "localhostProfile": APP_ARMOR_PROFILE}),
        (
            {"profile": "Localhost", "appArmorProfile": "our-own"},
            None,
            {"type": "Localhost", "localhostProfile": "our-own"},
        ),
    ],
)
def test_a_builder_names_the_app_armor_profile_of_the_node_that_it_goes_to(
    rootless: dict[str, str], placement: Placement | None, profile: dict[str, str] | None
) -> None:
    action = start(placement=placement) if placement else start()
    pod = render(action, resource(), policy(rootless=rootless))
    assert daemon(pod)["securityContext"].get("appArmorProfile") == profile
    assert "appArmorProfile" not in step(pod)["securityContext"], "the step makes do with what the runtime gives it"


def test_privileged_buildkitd_opens_its_socket_to_the_step() -> None:
    container = daemon(render(start(), resource(), policy(isolation="Privileged")))
    assert container["securityContext"]["privileged"] is True
    assert container["args"][-2:] == ["--group", "1000"]
    assert "--oci-worker-no-process-sandbox" not in container["args"]


def test_root_of_a_user_namespace_is_privileged_in_it_and_never_outside() -> None:
    pod = render(start(), resource(), policy(isolation="UserNamespace"))
    assert pod["spec"]["hostUsers"] is False
    container = daemon(pod)
    assert container["securityContext"]["privileged"] is True
    script = container["command"][2]
    for mapping, starts in (("0 0 4294967295", False), ("0 1048576 65536", True)):
        checked = script.replace("/proc/self/uid_map", "/dev/stdin").replace("exec buildkitd", "echo starts")
        done = subprocess.run(
            ["sh", "-ec", checked, "buildkitd", "--addr"],
            input=f"{mapping}\n",
            text=True,
            capture_output=True,
            check=False,
        )
        assert (done.returncode == 0, done.stdout) == (starts, "starts --addr\n" if starts else "")


@pytest.mark.parametrize("isolation", ["Rootless", "Privileged"])
def test_other_builders_stay_in_the_namespace_of_the_node(isolation: str) -> None:
    assert "hostUsers" not in render(start(), resource(), policy(isolation=isolation))["spec"]


@pytest.mark.parametrize(
    ("isolation", "image"),
    [
        ("Rootless", "moby/buildkit:v0.32.2-rootless"),
        ("UserNamespace", "moby/buildkit:v0.32.2"),
        ("Privileged", "moby/buildkit:v0.32.2"),
    ],
)
def test_the_image_of_buildkit_is_that_of_the_isolation(isolation: str, image: str) -> None:
    container = daemon(render(start(), resource(), policy(isolation=isolation)))
    assert container["image"] == image
    assert {mount["mountPath"] for mount in container["volumeMounts"]} & {
        "/var/lib/buildkit" if image.endswith(".2") else "/home/user/.local/share/buildkit"
    }
    own = policy(isolation=isolation, images={"buildkit": "mirror.test/buildkit:1"})
    assert daemon(render(start(), resource(), own))["image"] == "mirror.test/buildkit:1"


def test_the_builder_is_a_native_sidecar_without_a_probe() -> None:
    container = daemon(render(start(), resource(), policy()))
    assert container["restartPolicy"] == "Always"
    assert "startupProbe" not in container


def test_steps_get_the_secrets_that_they_need_and_no_others() -> None:
    def secrets(pod: dict[str, Any]) -> set[str]:
        return {volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume}

    build = resource(build={"secrets": [{"id": "npm", "secretKeyRef": {"name": "npm-token", "key": "token"}}]})
    assert secrets(render(RESOLVE, build, policy())) == {"git-token"}
    assert secrets(render(start(), build, policy())) == {"git-token", "one", "two", "npm-token"}
    assert secrets(render(PUBLISH, build, policy())) == {"one", "two"}


def test_only_the_publish_pod_gets_a_token_that_is_good_for_a_signature() -> None:
    keyless = {"fulcio": "https://fulcio.example.com", "timestampAuthority": "https://tsa.example.com"}
    build = resource(output={"image": "r.test/a", "signing": {"keyless": True}})
    for audience in ("sigstore", "other"):
        signing = {"keyless": {**keyless, "audience": audience, "caBundle": "PEM"}}
        found = policy(tenants=[{"namespaces": ["*"], "signing": signing}])
        for action in (RESOLVE, start()):
            assert "serviceAccountToken" not in json.dumps(render(action, build, found)["spec"])
        pod = render(PUBLISH, build, found)
        (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == "signing")
        token = {"audience": audience, "expirationSeconds": 600, "path": "token"}
        assert volume["projected"] == {"sources": [{"serviceAccountToken": token}]}
        # Nor where the build does not ask for it.
        assert "serviceAccountToken" not in json.dumps(render(PUBLISH, resource(), found)["spec"])
    assert "serviceAccountToken" not in json.dumps(render(PUBLISH, build, policy())["spec"])


def told(pod: dict[str, Any]) -> TokenServices:
    """Return where a pod is told to send its tokens."""
    text = "".join(each.removeprefix("--services=") for each in step(pod)["args"] if each.startswith("--services="))
    return TokenServices.model_validate_json(text.replace("$$", "$") or "{}")


def test_where_tokens_are_sent_is_in_the_pod_which_nobody_can_change() -> None:
    """Who may delete and create ConfigMaps could put in another one before the pod mounts it."""
    keyless = {"fulcio": "https://fulcio.test", "timestampAuthority": "https://tsa.test", "caBundle": "SIGNING-PEM"}
    role = {"provider": "AWS", "role": "arn:aws:iam::123456789012:role/a"}
    build = resource(output={"image": "r.test/a", "identity": role, "signing": {"keyless": True}})
    found = policy(
        caBundle="PEM",
        identities={"aws": {"sts": "https://sts.test"}},
        tenants=[{"namespaces": ["*"], "identities": ["*"], "signing": {"keyless": keyless}}],
    )
    check = replace(RESOLVE, role=Role.CHECK_BASES, bases=("r.test/base:1",))
    for action in (check, start(), PUBLISH):
        services = told(render(action, build, found))
        assert services.identities == found.identities
        assert services.ca_bundle == "PEM"
        assert services.keyless == (found.tenants[0].signing.keyless if action is PUBLISH else None)
    inputs = json.dumps(render(EnsureInputs("in", "run1"), build, found)["data"])
    for each in ("fulcio.test", "tsa.test", "sts.test", "SIGNING-PEM"):
        assert each not in inputs
    assert "--services" not in json.dumps([render(action, resource(), found) for action in (check, start(), PUBLISH)])


@pytest.mark.parametrize("signing", [{"secretRef": {"name": "key"}}, {"keyless": True}], ids=str)
def test_pods_that_sign_go_to_the_nodes_for_that(signing: dict[str, Any]) -> None:
    keyless = {"fulcio": "https://fulcio.test", "timestampAuthority": "https://tsa.test"}
    toleration = {"key": "signing", "operator": "Exists"}
    nodes = {"nodeSelector": {"pool": "signing"}, "tolerations": [toleration], "keyless": keyless}
    found = policy(tenants=[{"namespaces": ["*"], "placement": {"nodeSelector": {"zone": "a"}}, "signing": nodes}])
    for signs in (True, False):
        build = resource(output={"image": "r.test/a", **({"signing": signing} if signs else {})})
        for action in (RESOLVE, start(), PUBLISH):
            spec = render(action, build, found)["spec"]
            assert spec["nodeSelector"]["zone"] == "a"
            here = signs and action is PUBLISH
            assert (spec["nodeSelector"].get("pool") == "signing", toleration in spec["tolerations"]) == (here, here)


def test_a_policy_that_changes_in_a_run_gives_no_token_to_the_service_of_another() -> None:
    build = resource(output={"image": "r.test/a", "signing": {"keyless": True}})
    for name in ("old", "new"):
        keyless = {"fulcio": f"https://{name}.test", "timestampAuthority": "https://tsa.test", "audience": name}
        pod = render(PUBLISH, build, policy(tenants=[{"namespaces": ["*"], "signing": {"keyless": keyless}}]))
        services = told(pod)
        assert services.keyless
        assert (services.keyless.fulcio, services.keyless.audience) == (f"https://{name}.test", name)
        assert f'"audience": "{name}"' in json.dumps(pod["spec"]["volumes"])


def test_no_argument_is_longer_than_linux_takes() -> None:
    pem = "$é\n" * (MAX_BUNDLES // 4)
    role = {"provider": "AWS", "role": "arn:aws:iam::123456789012:role/a"}
    pod = render(PUBLISH, resource(output={"image": "r.test/a", "identity": role}), policy(caBundle=pem))
    assert max(len(each.encode()) for each in step(pod)["args"]) < 128 * 1024, "MAX_ARG_STRLEN, see execve(2)"
    assert told(pod).ca_bundle == pem


def test_a_missing_secret_does_not_keep_the_pod_from_starting() -> None:
    volumes = render(start(), resource(), policy())["spec"]["volumes"]
    assert all(volume["secret"]["optional"] for volume in volumes if "secret" in volume)


def test_every_mount_has_its_volume() -> None:
    for action in (RESOLVE, start(), PUBLISH):
        spec = render(action, resource(), policy(caBundle="PEM"))["spec"]
        names = [volume["name"] for volume in spec["volumes"]]
        containers = [*spec["containers"], *spec.get("initContainers", ())]
        mounted = {mount["name"] for container in containers for mount in container["volumeMounts"]}
        assert sorted(mounted) == sorted(names)


def test_arguments_reach_the_step_as_they_are() -> None:
    cache = CacheRefs("r.test/c:$(HOME)", ())
    arguments = step(render(start(cache=cache), resource(), policy()))["args"]
    assert (arguments[:2], arguments[-1]) == (["build", "--platform=linux/arm64"], "--cache-to=r.test/c:$$(HOME)")


def test_a_build_step_knows_when_it_will_be_ended() -> None:
    arguments = step(render(start(), resource(), policy()))["args"]
    assert {"--seconds=3600", "--until=2026-01-01T00:00:00+00:00"} <= set(arguments)


@pytest.mark.parametrize("isolation", ["Rootless", "UserNamespace", "Privileged"])
def test_a_build_step_knows_which_ids_its_builder_has(isolation: str) -> None:
    small = "--small-ids" in step(render(start(), resource(), policy(isolation=isolation)))["args"]
    assert small == (isolation != "Privileged")


@pytest.mark.parametrize("isolation", ["Rootless", "UserNamespace", "Privileged"])
def test_where_a_run_has_no_process_namespace_a_supervisor_ends_what_it_leaves(isolation: str) -> None:
    container = daemon(render(start(), resource(), policy(isolation=isolation)))
    shared = "--oci-worker-no-process-sandbox" in container["args"]
    command = container.get("command", [])
    assert shared == (command[-3:] == ["supervise", "rootlesskit", "buildkitd"])
    assert {"name": "BUILDKIT_STEP_LOG_MAX_SPEED", "value": "-1"} in container["env"]
    published = step(render(PUBLISH, resource(), policy()))["args"]
    assert published == ["publish", "--tag=latest", "--tag=v1"]


def test_a_publish_pod_prefers_a_node_and_does_without() -> None:
    assert "affinity" not in render(PUBLISH, resource(), policy())["spec"]
    near = render(replace(PUBLISH, near="n-1"), resource(), policy())["spec"]
    (preferred,) = near["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["preference"] == {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n-1"]}]}
    assert near["affinity"].keys() == {"nodeAffinity"}
    assert near["nodeSelector"] == {"kubernetes.io/os": "linux"}, "nothing is demanded of it"


def test_a_publish_pod_is_handed_what_was_built_at_once_or_later() -> None:
    at_once = render(PUBLISH, resource(), policy())
    assert Pushed.model_validate_json(at_once["metadata"]["annotations"]["multiarch.build/built"]) == PUBLISH.built
    early = render(replace(PUBLISH, built=None), resource(), policy())
    assert mounts.BUILT_ANNOTATION not in early["metadata"]["annotations"]
    (item,) = next(volume for volume in early["spec"]["volumes"] if volume["name"] == "pod")["downwardAPI"]["items"]
    assert item == {"path": "built", "fieldRef": {"fieldPath": "metadata.annotations['multiarch.build/built']"}}


def test_scheduling_of_the_build_and_of_the_platform() -> None:
    scheduling = {
        "nodeSelector": {"pool": "builders"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "resources": {"limits": {"memory": "4Gi"}},
        "priorityClassName": "low",
        "overrides": [
            {
                "platform": "linux/arm64",
                "nodeSelector": {"pool": "graviton"},
                "resources": {"limits": {"memory": "8Gi"}},
                "tolerations": [{"key": "arm", "value": "yes"}],
            }
        ],
    }
    placement = Placement(Mode.NATIVE, (("kubernetes.io/arch", "arm64"), ("pool", "graviton")), "on-arm64")
    pod = render(start(placement=placement), resource(scheduling=scheduling), policy())
    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/arch": "arm64", "pool": "graviton"}
    assert pod["metadata"]["annotations"]["multiarch.build/placement"] == "on-arm64"
    assert [entry["key"] for entry in pod["spec"]["tolerations"]][:2] == ["dedicated", "arm"]
    assert pod["spec"]["priorityClassName"] == "low"
    assert daemon(pod)["resources"] == {"limits": {"memory": "8Gi"}}


def test_a_pod_does_not_wait_long_for_a_node_that_is_lost() -> None:
    for action in (RESOLVE, start(), PUBLISH):
        tolerations = render(action, resource(), policy())["spec"]["tolerations"]
        seconds = {entry["key"]: entry["tolerationSeconds"] for entry in tolerations}
        assert seconds == {"node.kubernetes.io/not-ready": 15, "node.kubernetes.io/unreachable": 15}


@pytest.mark.parametrize("key", ["node.kubernetes.io/unreachable", ""])
def test_how_long_it_waits_may_be_said(key: str) -> None:
    own = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    tolerations = render(start(), resource(scheduling={"tolerations": [own]}), policy())["spec"]["tolerations"]
    assert [entry["tolerationSeconds"] for entry in tolerations if entry.get("key", "") == key] == [300]
    assert len(tolerations) == (2 if key else 1)


def test_the_affinity_of_a_platform_takes_the_place_of_that_of_all() -> None:
    def preferring(zone: str) -> dict[str, Any]:
        preference = {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}
        preferred = [{"weight": 1, "preference": preference}]
        return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}

    scheduling = {"affinity": preferring("a"), "overrides": [{"platform": "linux/arm64", "affinity": preferring("b")}]}
    pod = render(start(), resource(scheduling=scheduling), policy())
    assert pod["spec"]["affinity"] == preferring("b")


def test_what_has_a_maximum_has_a_limit() -> None:
    limited = policy(maxResources={"memory": "8Gi"}, defaultResources={"requests": {"cpu": "1"}})
    usual = {"requests": {"cpu": "1", "memory": "0"}, "limits": {"memory": "8Gi"}}
    assert daemon(render(start(), resource(), limited))["resources"] == usual
    own = {"resources": {"limits": {"memory": "2Gi"}}}
    assert daemon(render(start(), resource(scheduling=own), limited))["resources"] == {"limits": {"memory": "2Gi"}}
    only_cpu = {"resources": {"requests": {"cpu": "2"}}}
    found = daemon(render(start(), resource(scheduling=only_cpu), limited))["resources"]
    assert found == {"requests": {"cpu": "2", "memory": "0"}, "limits": {"memory": "8Gi"}}


@pytest.mark.parametrize(
    ("action", "name", "memory"),
    [(RESOLVE, "resolve", "1Gi"), (start(), "build", "2Gi"), (PUBLISH, "publish", "512Mi")],
)
def test_the_resources_of_a_step_are_the_policys(action: Any, name: str, memory: str) -> None:
    usual = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": memory}}
    assert step(render(action, resource(), policy()))["resources"] == usual
    own = policy(stepResources={name: {"limits": {"memory": "4Gi", "cpu": 2}}})
    found = step(render(action, resource(), own))["resources"]
    assert found == {**usual, "limits": {"memory": "4Gi", "cpu": 2}}
    # What spec.scheduling.resources says is for the builder.
    asking = resource(scheduling={"resources": {"limits": {"memory": "16Gi"}}})
    assert step(render(action, asking, own))["resources"] == found


@pytest.mark.parametrize("action", [RESOLVE, replace(RESOLVE, role=Role.CHECK), start(), PUBLISH])
def test_webhooks_are_asked_to_add_nothing_to_a_pod_unless_the_policy_allows_it(action: Any) -> None:
    meta = render(action, resource(), policy())["metadata"]
    off = {
        "labels": {
            "sidecar.istio.io/inject": "false",
            "kuma.io/sidecar-injection": "disabled",
            "admission.datadoghq.com/enabled": "false",
        },
        "annotations": {
            "sidecar.istio.io/inject": "false",
            "linkerd.io/inject": "disabled",
            "vault.hashicorp.com/agent-inject": "false",
            "consul.hashicorp.com/connect-inject": "false",
            "appmesh.k8s.aws/sidecarInjectorWebhook": "disabled",
            "sidecar.opentelemetry.io/inject": "false",
            "instrumentation.opentelemetry.io/inject-python": "false",
            "dynatrace.com/inject": "false",
        },
    }
    for kind, entries in off.items():
        assert entries.items() <= meta[kind].items()
    allowed = render(action, resource(), policy(injection="Allowed"))["metadata"]
    foreign = {key for kind in ("labels", "annotations") for key in allowed.get(kind, {}) if "multiarch" not in key}
    autoscalers = {"cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt"}
    assert foreign == {"app.kubernetes.io/managed-by", *autoscalers}


@pytest.mark.parametrize("action", [RESOLVE, start(), PUBLISH])
def test_labels_and_annotations_of_the_policy_are_on_every_pod(action: Any) -> None:
    own = {
        "labels": {"kueue.x-k8s.io/queue-name": "builds"},
        "annotations": {"example.com/owner": "platform team", "linkerd.io/inject": "enabled"},
    }
    meta = render(action, resource(), policy(podMetadata=own))["metadata"]
    plain = render(action, resource(), policy())["metadata"]
    assert meta["labels"] == {**plain["labels"], **own["labels"]}
    assert meta["annotations"] == {**plain["annotations"], **own["annotations"]}


def test_labels_and_annotations_of_a_build_are_on_its_builders_only_and_change_nothing_of_the_operator() -> None:
    own = {
        "labels": {"kueue.x-k8s.io/queue-name": "team-a", "multiarch.build/run": "forged"},
        "annotations": {"example.com/owner": "team a", "multiarch.build/mode": "forged"},
    }
    build = resource(scheduling={"podMetadata": own})
    queues = policy(podMetadata={"labels": {"kueue.x-k8s.io/queue-name": "default"}})
    meta = render(start(), build, queues)["metadata"]
    assert meta["labels"]["kueue.x-k8s.io/queue-name"] == "team-a", "a build may name another queue than the policy"
    assert meta["annotations"]["example.com/owner"] == "team a"
    assert (meta["labels"]["multiarch.build/run"], meta["annotations"]["multiarch.build/mode"]) == ("run1", "Native")
    for action in (RESOLVE, PUBLISH):
        assert render(action, build, queues) == render(action, resource(), queues)


@pytest.mark.parametrize("action", [RESOLVE, start(), PUBLISH])
def test_no_autoscaler_takes_the_node_of_a_step_away(action: Any) -> None:
    annotations = render(action, resource(), policy())["metadata"]["annotations"]
    assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"


def test_the_ca_of_one_registry_is_trusted_for_that_one_only() -> None:
    trusting = policy(registries=[{"host": "a.test"}, {"host": "b.test", "caBundle": "PEM-B"}], caBundle="PEM")
    data = render(EnsureInputs("in", "run1"), resource(), trusting)["data"]
    assert tomllib.loads(data["buildkitd.toml"])["registry"]["b.test"]["ca"] == [
        "/run/mab/registry-ca/registry-1.ca.crt"
    ]
    assert data["registry-1.ca.crt"] == "PEM-B"
    container = daemon(render(start(), resource(), trusting))
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted["buildkitd-registry-ca"] == "/run/mab/registry-ca"
    assert {"name": "SSL_CERT_DIR", "value": "/etc/ssl/certs:/run/mab/ca"} in container["env"]


def test_manifests_are_json() -> None:
    for action in (EnsureInputs("in", "run1"), RESOLVE, start(), PUBLISH):
        manifest = render(action, resource(), policy(caBundle="PEM"))
        assert json.loads(json.dumps(manifest)) == manifest


def test_without_a_proxy_nothing_says_so() -> None:
    pod = render(start(), resource(), policy())
    assert not [each["name"] for each in [*step(pod)["env"], *daemon(pod)["env"]] if "proxy" in each["name"].lower()]


def test_a_proxy_is_told_to_every_container_and_to_the_build() -> None:
    proxied = policy(proxy={"http": "http://p.test:1", "https": "http://p.test:2", "noProxy": [".example.com"]})
    for action in (RESOLVE, start(), PUBLISH):
        pod = render(action, resource(), proxied)
        for container in (step(pod), *pod["spec"].get("initContainers", ())):
            env = {each["name"]: each["value"] for each in container["env"]}
            assert (env["HTTP_PROXY"], env["https_proxy"]) == ("http://p.test:1", "http://p.test:2")
            assert env["no_proxy"] == env["NO_PROXY"] == "localhost,127.0.0.1,::1,.svc,.cluster.local,.example.com"
    data = render(EnsureInputs("in", "run1"), resource(), proxied)["data"]
    told = Inputs.model_validate_json(data["inputs.json"]).proxy
    assert sorted(told) == ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"]


def test_secrets_of_further_destinations_are_for_the_step_alone() -> None:
    output = {
        "image": "r.test/team/app",
        "destinations": [{"image": "m.test/a"}, {"image": "m.test/b", "secretRefs": [{"name": "x"}, {"name": "y"}]}],
    }
    for action in (start(), PUBLISH):
        pod = render(action, resource(output=output), policy())
        mounted = {each["mountPath"]: each["name"] for each in step(pod)["volumeMounts"]}
        volumes = {each["name"]: each.get("secret", {}).get("secretName") for each in pod["spec"]["volumes"]}
        folders = {path: volumes[name] for path, name in mounted.items() if path.startswith(mounts.DESTINATIONS)}
        assert folders == {f"{mounts.DESTINATIONS}/1/0": "x", f"{mounts.DESTINATIONS}/1/1": "y"}
        for beside in pod["spec"].get("initContainers", ()):
            assert not [each for each in beside["volumeMounts"] if each["mountPath"].startswith(mounts.DESTINATIONS)]


IDENTITY = {"provider": "AWS", "role": "arn:aws:iam::123456789012:role/builds"}


def tokens(pod: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the sources of tokens by the containers that mount them."""
    volumes = {each["name"]: each["projected"]["sources"] for each in pod["spec"]["volumes"] if "projected" in each}
    containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
    return {
        each["name"]: [source for mount in each["volumeMounts"] for source in volumes.get(mount["name"], ())]
        for each in containers
    }


def test_tokens_for_identities_are_in_the_step_alone() -> None:
    build = resource(output={"image": "r.test/team/app", "identity": IDENTITY}, cache={"mode": "Min"})
    expected = {"audience": "sts.amazonaws.com", "expirationSeconds": 3600}
    for action in (start(), PUBLISH):
        found = tokens(render(action, build, policy()))
        (only,) = found.pop("step")
        assert only == {"serviceAccountToken": {**expected, "path": only["serviceAccountToken"]["path"]}}
        assert not any(found.values()), "no other container has any"
    # It looks up a branch.
    assert tokens(render(RESOLVE, build, policy())) == {"step": []}


def test_two_identities_of_one_provider_have_one_token() -> None:
    pool = "projects/42/locations/global/workloadIdentityPools/clusters/providers/test"
    google = {"provider": "Google", "workloadIdentityProvider": pool}
    other = {**IDENTITY, "role": "arn:aws:iam::123456789012:role/cache"}
    build = resource(
        output={"image": "r.test/team/app", "identity": IDENTITY},
        cache={"repository": "r.test/team/cache", "identity": other},
        build={"identity": {**google, "registries": ["europe-docker.pkg.dev"]}},
        source={"oci": {"image": "r.test/team/source:1", "identity": {"provider": "Google"}}},
    )
    for action in (start(), RESOLVE):
        sources = tokens(render(action, build, policy()))["step"]
        audiences = [source["serviceAccountToken"]["audience"] for source in sources]
        assert audiences == ["sts.amazonaws.com", f"https://iam.googleapis.com/{pool}"]


def test_a_build_without_an_identity_has_no_token() -> None:
    assert not any(tokens(render(start(), resource(), policy())).values())


def test_a_publish_pod_knows_where_its_image_goes_whatever_is_edited_meanwhile() -> None:
    destinations = [{"image": "mirror.test/app"}, {"image": "r.test/copy"}]
    build = resource(output={"image": "r.test/team/app", "destinations": destinations})
    made, stored = [render(PUBLISH, each, policy()) for each in (build, resource())], {"uid": "p1"}
    stored["creationTimestamp"] = "2026-01-01T00:00:00Z"
    pods = [pod_from({**each, "metadata": {**each["metadata"], **stored}}) for each in made]
    assert [(pod.image, pod.destinations) for pod in pods] == [
        ("r.test/team/app", ("mirror.test/app", "r.test/copy")),
        ("r.test/team/app", ()),
    ]
