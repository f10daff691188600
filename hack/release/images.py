"""The images, built by MultiArchBuild itself in the cluster that is there."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hack.image import build_image
from hack.install import install
from hack.target import Target

from .errors import ReleaseError
from .release import HOME, PLATFORMS, Release

NAMESPACE: Final = "multiarchbuild-release"
SIGNING_SECRET: Final = "multiarchbuild-signing"
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
        raise ReleaseError(f"{name} was not built: see above, and kubectl mab status {name} -n {NAMESPACE}")
    return done.stdout.strip().rpartition("@")[2]


def prepare(target: Target, *secrets: Mapping[str, Any]) -> None:
    """Make the namespace of the builds with the Secrets that they use, and an operator if there is none.

    Raises:
        CommandError: the cluster refuses it.
    """
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    for document in (namespace, *secrets):
        target.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    selector = "app.kubernetes.io/name=multiarchbuild"
    if not target.kubectl("get", "deployments", "--all-namespaces", "-l", selector, "-o", "name").strip():
        print("==> no operator here yet: installing that of this tree", flush=True)
        install(target, build_image(target))


def signing_secret(key: Path, password: str) -> dict[str, Any]:
    """Return the Secret with the key in a file, and its password."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SIGNING_SECRET, "namespace": NAMESPACE},
        "stringData": {"cosign.key": key.read_text(encoding="utf-8"), "cosign.password": password},
    }
