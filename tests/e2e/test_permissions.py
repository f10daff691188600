"""What the installed operator may do, and what its pods ask for."""

import re

import pytest

from hack.install import NAMESPACE, RELEASE
from hack.target import CommandError, Target
from tests.support.tenant import AMD64, Tenant

pytestmark = [pytest.mark.e2e, pytest.mark.usefixtures("operator")]

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")


@pytest.mark.parametrize("where", [NAMESPACE, "default", "kube-system"])
def test_the_operator_has_no_verb_on_secrets(target: Target, where: str) -> None:
    table = target.kubectl("auth", "can-i", "--list", f"--as={ACCOUNT}", "-n", where)
    resources = {line.split()[0] for line in table.splitlines()[1:] if not line.startswith(" ")}
    assert "multiarchbuilds.multiarch.build" in resources, "it is the account that works here"
    assert not {resource for resource in resources if resource.startswith("secrets") or "*" in resource}
    for verb in VERBS:
        answer = target.run(
            "sh", "-c", f"kubectl auth can-i {verb} secrets --as={ACCOUNT} -n {where} 2>/dev/null || true"
        )
        assert answer.strip() == "no"


def test_the_operator_runs_where_only_restricted_pods_may(target: Target) -> None:
    label = r"jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}"
    assert target.kubectl("get", "namespace", NAMESPACE, "-o", label) == "restricted"
    (pod,) = target.kubectl(
        "get", "pods", "-n", NAMESPACE, "-o", "name", "--field-selector=status.phase=Running"
    ).split()
    target.kubectl("wait", pod, "-n", NAMESPACE, "--for=condition=Ready", "--timeout=300s")
    with pytest.raises(CommandError, match="violates PodSecurity"):
        target.kubectl("run", "other", "-n", NAMESPACE, "--image=busybox:1.36", "--dry-run=server")


def test_of_the_pods_of_a_run_only_the_builder_needs_more_than_restricted(tenant: Tenant) -> None:
    status = tenant.build(platforms=[AMD64]).succeeded()
    label = "kubectl label --dry-run=server --overwrite namespace"
    warnings = tenant.target.run(
        "sh", "-c", f"{label} {tenant.namespace} pod-security.kubernetes.io/enforce=restricted 2>&1"
    )
    found = dict(re.findall(r"^Warning: (\S+?)(?: \(and .*\))?: (.*)$", warnings, flags=re.MULTILINE))
    # docs/security.md says what for.
    assert found == {
        status["run"]["platforms"][0]["pod"]: "forbidden AppArmor profile, allowPrivilegeEscalation != false, "
        "unrestricted capabilities, seccompProfile"
    }
