"""What other tools make of a build, by their own code: kstatus, Argo CD, cosign, Podman's policy, Flux and Kyverno."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.build import ensure_programs
from tests.cluster.layout import cache_directory

from .markdown import ROOT, blocks

Object = Mapping[str, Any]
ARGOCD_CM = ROOT / "examples" / "argocd" / "argocd-cm.yaml"
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


SLSA = "https://slsa.dev/provenance/v1"
COSIGN = "https://sigstore.dev/cosign/sign/v1"
VERIFIERS: Mapping[str, set[str]] = {
    "signature": set(),
    "bundle": {COSIGN, SLSA},
    "policy": set(),
    "flux": set(),
    "kyverno": set(),
    "kyverno-bundle": {SLSA},
    "kyverno-image": {SLSA},
}
"""Who verifies images, and the types of statements they tell of one with signed provenance.

* `signature`: `cosign verify` of cosign 2
* `bundle`: `cosign verify` and `verify-attestation` of cosign 3
* `policy`: the policy.json of Podman and CRI-O
* `flux`: `verify` of an OCIRepository
* `kyverno`, `kyverno-bundle`: `verifyImages` of a ClusterPolicy, of type Cosign and of type SigstoreBundle
* `kyverno-image`: an ImageValidatingPolicy
"""
_HOW_TO_SIGN = ROOT / "docs" / "how-to" / "sign.md"


def signed(image: str, key: str, judge: str) -> dict[str, Any]:
    """Return what a verifier says of `host/name@sha256:…`: `error`, how many it has `verified`, and their `predicates`.

    `key` is the public one (PEM), which the judge, one of `VERIFIERS`, demands. Kyverno is told what users are told.
    """
    policies = _policies_of_kyverno()
    keys, attestor = policies["keys"], policies["attestor"]
    attestor["cosign"]["key"]["data"] = key
    question = {"judge": judge, "image": image, "key": key, "keys": keys, "attestor": attestor}
    with tempfile.TemporaryDirectory() as folder:
        (answer,) = _ask([str(program("sigcheck"))], [{**question, "folder": folder}])
    return answer


KEYLESS = {"signature": "signature", "bundle": "bundle", "kyverno": "kyverno-keyless"}
"""Who of `VERIFIERS` takes a certificate and a timestamp without a transparency log, and what it is called there."""


def certified(image: str, judge: str, *, subject: str, issuer: str, roots: str, timestamps: str) -> dict[str, Any]:
    """Return what one of `KEYLESS` says of `host/name@sha256:…`, see `signed`.

    It demands a certificate for `subject` by `issuer` that leads to `roots`, and a timestamp by an authority whose
    certificates are `timestamps` (chains, PEM).
    """
    demanded = {"subject": subject, "issuer": issuer, "roots": roots, "timestamps": timestamps}
    told = _policies_of_kyverno()["keyless"]
    # By these names; tests/docs/test_yaml.py holds them to Kyverno's CRDs.
    assert {"subject", "issuer", "roots"} <= set(told)
    assert "tsaCertChain" in told["ctlog"]
    question = {"judge": KEYLESS[judge], "image": image, "keyless": demanded, "keys": told}
    (answer,) = _ask([str(program("sigcheck"))], [question])
    return answer


def _policies_of_kyverno() -> dict[str, Any]:
    """Return what the documentation tells Kyverno: two rules, with and without a key, and an ImageValidatingPolicy."""
    found = (yaml.safe_load(block.text) for block in blocks(_HOW_TO_SIGN) if block.label == "kyverno")
    rule, keyless, policy = (each["attestors"][0] for each in found)
    return {"keys": rule["entries"][0]["keys"], "keyless": keyless["entries"][0]["keyless"], "attestor": policy}


def _ask(argv: list[str], questions: Iterable[Object]) -> list[dict[str, Any]]:
    stdin = "\n".join(map(json.dumps, questions))
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
