"""Programs of the local cluster that are compiled of the same packages."""

import re

from tests.cluster.build.programs import MODULES

_REQUIRED = re.compile(r"^(?:require )?\s*(\S+) (v\S+)(?: // indirect)?$", re.MULTILINE)


def required(program: str) -> dict[str, str]:
    """Return the versions of the modules that the go.mod of a program asks for."""
    return dict(_REQUIRED.findall((MODULES / program / "go.mod").read_text(encoding="utf-8")))


def test_the_provisioner_has_the_modules_of_kubernetes_and_costs_seconds_beside_it() -> None:
    """With versions of its own a cold `make test` compiles client-go and the API once more."""
    own, shared = required("local-path-provisioner"), required("kubernetes")
    both = own.keys() & shared.keys()
    assert "k8s.io/client-go" in both
    assert {name: own[name] for name in both} == {name: shared[name] for name in both}
