"""What builders keep on volumes, made by a real provisioner: it outlives their pods, and fails no build."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_path import storage_class
from tests.support.tenant import AMD64, Build, Status, Tenant, inline, platform

pytestmark = pytest.mark.e2e

DOCKERFILE = """\
FROM busybox:1.36
COPY version /version
RUN --mount=type=cache,target=/cache touch /cache/seen && cp /cache/seen /before && cat /version >> /cache/seen
"""


@pytest.fixture
def volumes(tenant: Tenant, tmp_path: Path) -> Iterator[str]:
    """The name of a StorageClass."""
    with storage_class(tenant.target, tenant.namespace, tmp_path) as name:
        yield name
        # Its volumes go with their claims, as long as it is there.
        tenant.kubectl("delete", "multiarchbuilds", "--all")
        tenant.kubectl("wait", "pvc", "--all", "--for=delete", "--timeout=120s")
        for volume in of_class(tenant, name):
            tenant.target.kubectl("wait", f"persistentvolume/{volume}", "--for=delete", "--timeout=120s")


def of_class(tenant: Tenant, name: str) -> list[str]:
    found = json.loads(tenant.target.kubectl("get", "persistentvolumes", "-o", "json"))["items"]
    return [each["metadata"]["name"] for each in found if each["spec"]["storageClassName"] == name]


def cached(tenant: Tenant, storage_class_name: str, **spec: Any) -> Build:
    """Make a build that keeps its cache on a volume of this class."""
    volume = {"size": "1Gi", "storageClassName": storage_class_name}
    cache = {"repository": tenant.image("cache"), "mode": "Min", "volume": volume}
    return tenant.build(source=inline(DOCKERFILE, version="1"), cache=cache, platforms=[AMD64], **spec)


def changed(build: Build, after: Status, version: str, **spec: Any) -> Status:
    """Change a file, and return how it was built."""
    build.patch(source=inline(DOCKERFILE, version=version), **spec)
    return build.succeeded(after=after["run"]["id"])


def before(tenant: Tenant, status: Status) -> str:
    """Return what the cache mount held when the image was built."""
    return tenant.images.file(f"{tenant.image()}@{platform(status, AMD64)['digest']}", "/before")


def claims(tenant: Tenant) -> list[str]:
    return [each["metadata"]["name"] for each in tenant.list("persistentvolumeclaims", "multiarch.build/role=cache")]


def await_idle(tenant: Tenant, pod: str) -> None:
    path = r"jsonpath={.metadata.annotations.cluster-autoscaler\.kubernetes\.io/safe-to-evict}=true"
    tenant.kubectl("wait", f"pod/{pod}", f"--for={path}", "--timeout=60s")


def test_a_cache_mount_outlives_the_pod_and_goes_with_the_build(tenant: Tenant, volumes: str) -> None:
    build = cached(tenant, volumes, scheduling={"keepBuilder": "10m"})
    first = build.succeeded()
    assert platform(first, AMD64)["volume"] == "New"
    assert before(tenant, first) == ""
    (claim,) = claims(tenant)
    # The builder that has stayed is lost: what it had is not.
    pod = platform(first, AMD64)["pod"]
    await_idle(tenant, pod)
    tenant.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    second = changed(build, first, "2")
    entry = platform(second, AMD64)
    assert (entry["volume"], entry["attempt"]) == ("Used", 1)
    assert entry["pod"] != pod
    assert before(tenant, second) == "1"
    # It waits, and another pod is needed: it has to let go first.
    await_idle(tenant, entry["pod"])
    third = changed(build, second, "3", scheduling={"resources": {"limits": {"memory": "3Gi"}}})
    last = platform(third, AMD64)
    assert (last["builder"], last["volume"], last["attempt"]) == ("TemplateChanged", "Used", 1)
    assert before(tenant, third) == "12"
    assert claims(tenant) == [claim]
    assert of_class(tenant, volumes)
    build.delete()
    tenant.kubectl("wait", f"pvc/{claim}", "--for=delete", "--timeout=60s")


def corrupt(tenant: Tenant, claim: str) -> None:
    """Overwrite the databases of a buildkitd that does not run."""
    script = "cd /state && find . -name '*.db' | grep . && for file in $(find . -name '*.db'); do echo x > $file; done"
    mounts = [{"name": "state", "mountPath": "/state"}]
    command = ["/bin/sh", "-ec", script]
    container = {"name": "vandal", "image": "busybox:1.36", "command": command, "volumeMounts": mounts}
    volume = {"name": "state", "persistentVolumeClaim": {"claimName": claim}}
    spec = {"restartPolicy": "Never", "containers": [container], "volumes": [volume]}
    tenant.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "vandal"}, "spec": spec})
    tenant.kubectl("wait", "pod/vandal", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    tenant.kubectl("delete", "pod", "vandal")


def test_what_buildkitd_can_not_read_costs_one_try_and_the_next_run_begins_anew(tenant: Tenant, volumes: str) -> None:
    build = cached(tenant, volumes, retries=0)
    first = build.succeeded()
    (claim,) = claims(tenant)
    corrupt(tenant, claim)
    second = changed(build, first, "2")
    entry = platform(second, AMD64)
    assert entry["volume"] == "Failed"
    assert [tried["reason"] for tried in entry["failedAttempts"]] == ["CacheVolumeFailed"]
    assert before(tenant, second) == ""
    build.events(CacheVolumeNotUsed=1)
    tenant.kubectl("wait", f"pvc/{claim}", "--for=delete", "--timeout=60s")
    third = changed(build, second, "3")
    assert platform(third, AMD64)["volume"] == "New"
    fourth = changed(build, third, "4")
    assert platform(fourth, AMD64)["volume"] == "Used"
    assert before(tenant, fourth) == "3"


def test_a_volume_that_nobody_makes_holds_up_no_build_for_long(tenant: Tenant) -> None:
    build = cached(tenant, "test-missing", scheduling={"nativeWait": "0s"})
    status = build.succeeded()
    assert platform(status, AMD64)["volume"] == "Unavailable"
    assert platform(status, AMD64)["attempt"] == 1
    assert claims(tenant) == []


def test_one_that_the_policy_does_not_allow_is_refused_and_says_who_can_change_it(tenant: Tenant) -> None:
    build = cached(tenant, "fast")
    refused = build.until(lambda status: any(each["reason"] == "PolicyDenied" for each in status["conditions"]))
    (ready,) = (each for each in refused["conditions"] if each["type"] == "Ready")
    assert "cache.volume.storageClassName is fast" in ready["message"]
    assert "(policy: cacheVolumes.storageClasses)" in ready["message"]
    assert "Ask an administrator" in ready["message"]
