"""What tests install for the whole cluster, such as CRDs, beside what its owner has installed."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.target import Target

LABEL = "example.com/multiarchbuild-tests"
"""Of what tests install for the whole cluster: true. What has it may be replaced and deleted by tests."""
_SECONDS = 300.0


def establish(target: Target, files: Iterable[Path]) -> None:
    """Install the CRDs in files, and return once the API server serves them. They stay: other tests may use them.

    Those that the owner of the cluster has installed are left as they are.
    """
    load = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = [crd for file in files for crd in yaml.load_all(file.read_text(encoding="utf-8"), load) if crd]
    names = [f"crd/{crd['metadata']['name']}" for crd in found]
    taken = owners(target, *names)
    if ours := [crd for crd, name in zip(found, names, strict=True) if name not in taken]:
        apply(target, ours)
    await_established(target.kubectl, *names)


def apply(target: Target, objects: Iterable[dict[str, Any]]) -> None:
    """Apply objects that are there for the whole cluster, with the label of what tests install."""
    ours = [{**each, "metadata": _labelled(each["metadata"])} for each in objects]
    manifests = json.dumps({"apiVersion": "v1", "kind": "List", "items": ours})
    target.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)


def _labelled(metadata: dict[str, Any]) -> dict[str, Any]:
    return {**metadata, "labels": {**(metadata.get("labels") or {}), LABEL: "true"}}


def owners(target: Target, *names: str) -> set[str]:
    """Return which of these objects (`kind/name`) exist and were not installed by tests.

    The local cluster is there for tests alone.
    """
    if target.facts.instance:
        return set()
    return {name for name in names if _is_owners(target.kubectl("get", name, "--ignore-not-found", "--output=json"))}


def _is_owners(found: str) -> bool:
    return bool(found.strip()) and LABEL not in json.loads(found)["metadata"].get("labels", {})


def skip_beside(target: Target, *names: str) -> None:
    """Skip the test where any of these objects (`kind/name`) is the owner's: the test would replace or delete it."""
    if taken := owners(target, *names):
        pytest.skip(f"the cluster has {', '.join(sorted(taken))}, which tests have not installed")


def await_established(kubectl: Callable[..., str], *what: str) -> None:
    """Return once the API server serves the CRDs that the arguments of `kubectl get` name.

    `kubectl wait` will not do: of a CRD that has no conditions yet it says that there is an error, in whatever words it
    is asked.
    """
    deadline = time.monotonic() + _SECONDS
    while missing := _not_established(json.loads(kubectl("get", *what, "--output=json"))):
        if time.monotonic() > deadline:
            raise AssertionError(f"not established within {_SECONDS:.0f} s: {', '.join(missing)}")
        time.sleep(0.1)


def _not_established(found: dict[str, Any]) -> list[str]:
    return [
        crd["metadata"]["name"]
        for crd in found.get("items", [found])
        if not any(
            condition["type"] == "Established" and condition["status"] == "True"
            for condition in crd.get("status", {}).get("conditions") or ()
        )
    ]
