"""A cluster that knows every kind that the documentation shows."""

from pathlib import Path

import pytest

from hack.target import Target
from tests.cluster.locks import locked
from tests.support import flux
from tests.support.crds import establish
from tests.support.go_modules import crds, pinned

_ARGOCD = "github.com/argoproj/argo-cd/v3"


@pytest.fixture(scope="session")
def kinds(target: Target, operator: str, shared: Path) -> None:
    """The CRDs of the operator, of Flux and of Argo CD. They stay, as other tests may use them."""
    del operator
    with locked(shared / "kinds.lock", waiting="waiting for another worker to install CRDs"):
        flux.install_crds(target)
        establish(target, crds(_ARGOCD, pinned("argocd", _ARGOCD), "manifests/crds/application-crd.yaml"))
