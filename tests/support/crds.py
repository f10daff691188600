"""Custom resources that the API server has just been told of."""

import json
import time
from collections.abc import Callable
from typing import Any

_SECONDS = 300.0


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
