"""The images, built by MultiArchBuild itself in the cluster that is there."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hack import registry
from hack.image import NAMESPACE as IMAGE_NAMESPACE
from hack.image import build_image, native
from hack.install import NAMESPACE as OPERATOR_NAMESPACE
from hack.install import RELEASE as OPERATOR
from hack.install import install
from hack.target import Target, start_registry

from .errors import ReleaseError
from .release import HOME, PLATFORMS, Release

NAMESPACE: Final = "multiarchbuild-release"
SIGNING_SECRET: Final = "multiarchbuild-signing"
_HELPERS: Final = (OPERATOR_NAMESPACE, IMAGE_NAMESPACE, registry.NAMESPACE)
"""Namespaces that a temporary operator needs."""
STAGES: Final[Mapping[str, str]] = {"multiarchbuild": "operator", "multiarchbuild-qemu": "qemu"}
"""Stage of the Dockerfile by the name of the image."""
_TITLES = {
    "multiarchbuild": ("MultiArchBuild", "Operator and build steps: multi-architecture container builds in Kubernetes"),
    "multiarchbuild-qemu": ("MultiArchBuild QEMU", "Registers QEMU on Kubernetes nodes, verifies it and labels them"),
}


@dataclass(frozen=True, slots=True)
class Options:
    """What a release asks of its builds besides their content."""

    sbom: bool = True
    registry_secret: str = ""
    """Secret in NAMESPACE with which the builders pull and push."""
    signed: bool = False
    plain_http: bool = False
    """The registry has no TLS."""
    no_cache: bool = False


def labels(release: Release, name: str) -> dict[str, str]:
    """Return the labels of an image, which its index has as annotations too.

    Source: https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md
    """
    title, description = _TITLES[name]
    values = {
        "title": title,
        "description": description,
        "version": release.version,
        "revision": release.commit,
        "created": release.created,
        "source": HOME,
        "url": HOME,
        "documentation": f"{HOME}/tree/v{release.version}/docs",
        "licenses": "Apache-2.0",
        "vendor": "MultiArchBuild",
    }
    return {f"org.opencontainers.image.{key}": value for key, value in values.items()}


def command(release: Release, name: str, bases: Mapping[str, str], options: Options) -> list[str]:
    """Return the arguments of `kubectl mab` that build an image."""
    argv = ["build", str(release.tree), "--namespace", NAMESPACE, "--name", name, "--target", STAGES[name]]
    argv += ["--platform", ",".join(PLATFORMS), "--tag", f"{release.image(name)}:{release.version}"]
    for key, value in labels(release, name).items():
        argv += ["--label", f"{key}={value}", "--annotation", f"{key}={value}"]
    for key, value in bases.items():
        argv += ["--build-arg", f"{key}={value}"]
    argv += ["--provenance", "max", "--progress", "plain"]
    argv += ["--sbom"] if options.sbom else []
    argv += ["--registry-secret", options.registry_secret] if options.registry_secret else []
    argv += ["--signing-secret", SIGNING_SECRET] if options.signed else []
    argv += ["--plain-http"] if options.plain_http else []
    argv += ["--no-cache"] if options.no_cache else []
    return argv


def build(target: Target, release: Release, name: str, bases: Mapping[str, str], options: Options) -> str:
    """Build and push an image; return the digest of its index.

    Raises:
        ReleaseError: it failed; why is on standard error.
    """
    environment = target.environment | {
        "PYTHONPATH": str(release.tree / "operator"),
        "SOURCE_DATE_EPOCH": str(release.epoch),
    }
    argv = [sys.executable, "-m", "multiarchbuild", "cli", *command(release, name, bases, options)]
    done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{name} was not built: see above")
    return done.stdout.strip().rpartition("@")[2]


@contextlib.contextmanager
def prepared(target: Target, *secrets: Mapping[str, Any]) -> Iterator[None]:
    """Have an operator, and the namespace of the builds with the Secrets that they use.

    At the end the Secrets are deleted: nobody needs a signing key in the cluster until the next release.

    Raises:
        CommandError: the cluster refuses it.
    """
    target.kubectl("apply", "-f", "-", stdin=_namespace(NAMESPACE))
    try:
        for secret in secrets:
            target.kubectl("apply", "-f", "-", stdin=json.dumps(secret))
        with _operator(target):
            yield
    finally:
        for secret in secrets:
            target.kubectl("delete", "secret", secret["metadata"]["name"], "-n", NAMESPACE, "--ignore-not-found")


@contextlib.contextmanager
def _operator(target: Target) -> Iterator[None]:
    """Have an operator: where there is none, that of this tree is installed, and removed at the end.

    So the release can be installed next, under the name that the README gives it.
    """
    selector = "app.kubernetes.io/name=multiarchbuild"
    if target.kubectl("get", "deployments", "--all-namespaces", "-l", selector, "-o", "name").strip():
        yield
        return
    print("==> no operator here: installing that of this tree until the images are built", flush=True)
    new = [
        name for name in _HELPERS if not target.kubectl("get", "namespace", name, "--ignore-not-found", "-o", "name")
    ]
    try:
        if target.facts.registry_forwarded:
            start_registry(target)
        # On the local cluster every node runs images for amd64: without QEMU this takes a third of the time.
        platforms = ("linux/amd64",) if target.facts.instance else native(target)
        install(target, build_image(target, platforms), policy={"keptBuilders": {"default": "0s"}})
        yield
    finally:
        print("==> removing the operator of this tree", flush=True)
        target.run("helm", "uninstall", OPERATOR, "-n", OPERATOR_NAMESPACE, "--ignore-not-found", "--wait")
        if new:
            target.kubectl("delete", "namespace", *new, "--ignore-not-found")


def _namespace(name: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


def signing_secret(key: Path, password: str) -> dict[str, Any]:
    """Return the Secret with the key in a file, and its password."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SIGNING_SECRET, "namespace": NAMESPACE},
        "stringData": {"cosign.key": key.read_text(encoding="utf-8"), "cosign.password": password},
    }
