"""Programs of the local cluster that are compiled of the same packages."""

import re

import pytest

from tests.cluster.build.programs import MODULES

_REQUIRED = re.compile(r"^(?:require )?\s*(\S+) (v\S+)(?: // indirect)?$", re.MULTILINE)


def required(program: str) -> dict[str, str]:
    """Return the versions of the modules that the go.mod of a program asks for."""
    text, _, _excluded = (MODULES / program / "go.mod").read_text(encoding="utf-8").partition("\nexclude (")
    return dict(_REQUIRED.findall(text))


@pytest.mark.parametrize("program", ["local-path-provisioner", "kueue"])
def test_it_has_the_modules_of_kubernetes_and_costs_little_beside_it(program: str) -> None:
    """With versions of its own a cold `make test` compiles client-go and the API once more."""
    own, shared = required(program), required("kubernetes")
    both = own.keys() & shared.keys()
    assert "k8s.io/client-go" in both
    assert {name: own[name] for name in both} == {name: shared[name] for name in both}
