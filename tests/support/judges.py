"""What other tools make of a build, by their own code: kstatus, Argo CD, cosign, and Podman's policy of signatures."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.cluster.build import ensure_programs
from tests.cluster.layout import cache_directory

Object = Mapping[str, Any]
ARGOCD_CM = Path(__file__).parents[2] / "examples" / "argocd" / "argocd-cm.yaml"
"""The settings that users are told to give to Argo CD."""


@cache
def program(name: str) -> Path:
    """Return an optional program of the local cluster, compiled where the cache lacks it."""
    return ensure_programs(cache_directory(os.environ), {name})[name]


def kstatus(objects: Iterable[Object]) -> list[str]:
    """Return the status of each object: Current, InProgress, Failed, Terminating."""
    return [answer["status"] for answer in _ask([str(program("kstatus"))], objects)]


def argocd(objects: Iterable[Object], action: str = "", settings: Path = ARGOCD_CM) -> list[dict[str, Any]]:
    """Return what Argo CD makes of each object.

    That is `health` (status, message), `actions` (whether each may be run now) and, with an action, `changed`: the
    objects as they are after it.
    """
    requests = ({"object": each, "action": action} for each in objects)
    return _ask([str(program("argocd-lua")), str(settings)], requests)


def signed(image: str, key: str, judge: str) -> dict[str, Any]:
    """Return what a verifier says of `host/name@sha256:…`: `error`, how many it has `verified`, and their `predicates`.

    `key` is the public one (PEM); `judge` is `signature` (`cosign verify` of cosign 2), `bundle` (`cosign verify` and
    `verify-attestation` of cosign 3) or `policy` (policy.json of Podman and CRI-O, which demands the key).
    """
    with tempfile.TemporaryDirectory() as folder:
        (answer,) = _ask([str(program("sigcheck"))], [{"judge": judge, "image": image, "key": key, "folder": folder}])
    return answer


def _ask(argv: list[str], questions: Iterable[Object]) -> list[dict[str, Any]]:
    stdin = "\n".join(map(json.dumps, questions))
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
