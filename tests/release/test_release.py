"""A release, made whole, and then installed from the registry and from nowhere else."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.install import NAMESPACE, RELEASE
from hack.release.images import NAMESPACE as BUILDS
from hack.release.images import STAGES
from hack.release.release import PLATFORMS
from hack.target import CommandError, Target
from multiarchbuild import __version__
from multiarchbuild.api.platforms import Platform
from multiarchbuild.plan.identity import digest
from tests.release.conftest import helm
from tests.support.images import Images
from tests.support.signing import PASSWORD, KeyPair, key_pair, openssl_verifies, verified
from tests.support.tenant import Tenant

pytestmark = [
    *(pytest.mark.e2e, pytest.mark.release, pytest.mark.xdist_group("alone")),
    pytest.mark.timeout(2400),  # images are built, on a slow machine without a cache
]

ROOT = Path(__file__).parents[2]


def test_a_release_is_made_and_installed_from_its_registry_alone(
    tenant: Tenant,
    target: Target,
    operator: str,
    reinstalled: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, out, pair = f"{target.facts.registry}/{tenant.namespace}", tmp_path / "out", key_pair()
    (tmp_path / "cosign.key").write_text(pair.key, encoding="utf-8")
    borrow_cache(target, registry)
    helm(target, "uninstall", RELEASE, "--wait", "--timeout=5m")
    make_release(target, registry, out, tmp_path / "cosign.key")
    # The cluster had no operator and has none now, nor the key.
    assert helm(target, "list", "--short").split() == []
    assert target.kubectl("get", "secrets", "-n", BUILDS, "-o", "name").split() == []

    # What there is.
    told = json.loads((out / "release.json").read_text(encoding="utf-8"))
    names = {path.name for path in out.iterdir()}
    assert names >= {
        f"multiarchbuild-{__version__}.tgz",
        f"multiarchbuild-{__version__}-py3-none-any.whl",
        f"multiarchbuild-{__version__}.tar.gz",
        f"kubectl-mab_v{__version__}.tar.gz",
        "packages.txt",
        *("mab.yaml", "multiarchbuild-crds.yaml", "RELEASE_NOTES.md", "release.json", "SHA256SUMS", "SHA256SUMS.sig"),
    }
    sums = dict(line.split()[::-1] for line in (out / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    assert names - {*sums, "SHA256SUMS", "SHA256SUMS.sig"} == {"RELEASE_NOTES.md"}
    for name, expected in sums.items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == expected, name
    for name in STAGES:
        assert_image(tenant.images, told["images"][name], f"{registry}/{name}:{__version__}", told["commit"])
    assert {value.partition(":")[0] for value in told["bases"].values()} == {"@sha256"}
    listed = {tuple(line.split()[:3]) for line in (out / "packages.txt").read_text(encoding="utf-8").splitlines()}
    for platform in PLATFORMS:
        assert {("multiarchbuild", platform, name) for name in ("git", "git-lfs", "openssh-client")} <= listed
        assert ("multiarchbuild-qemu", platform, "qemu-user") in listed
    image, _, index = told["images"]["multiarchbuild"].partition("@")
    chart, _, manifest = told["chart"].partition("@")
    for repository, signed in ((image, index), (chart, manifest)):
        assert signed_by(tenant.images, pair, repository, signed) == ["us"]
    sums_signature = subprocess.run(["base64", "-d", out / "SHA256SUMS.sig"], capture_output=True, check=True).stdout
    assert openssl_verifies(pair.public, (out / "SHA256SUMS").read_bytes(), sums_signature)

    # From the registry, and from there only.
    monkeypatch.chdir(tmp_path)
    policy = {key: value for key, value in reinstalled["policy"].items() if key != "images"}
    values = {"policy": policy, "test": {"image": tenant.image("selftest"), "namespace": tenant.namespace}}
    plain = ["--plain-http"] if target.facts.registry_insecure else []
    source = (f"oci://{registry}/charts/multiarchbuild", "--version", __version__, *plain)
    helm(target, "install", RELEASE, *source, "--wait", "--timeout=5m", values=values)
    pods = json.loads(target.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]
    running = {container["image"] for pod in pods for container in pod["spec"]["containers"]}
    assert running == {told["images"]["multiarchbuild"]}
    log = helm(target, "test", RELEASE, "--logs")
    assert f"OK: {values['test']['image']}@sha256:" in log
    assert target.run("helm", "show", "readme", *source).count(f"oci://{registry}/charts/multiarchbuild --version") == 1

    newer = f"{operator.rpartition(':')[0]}@{tenant.images.digest(operator)}"
    assert upgraded(target, next_chart(target, out, tmp_path, newer)) == (policy, newer)

    # The command line of the release, and its definition.
    (tmp_path / "bin").mkdir()
    target.run("tar", "-xzf", str(out / f"kubectl-mab_v{__version__}.tar.gz"), "-C", str(tmp_path / "bin"))
    environment = {**target.environment, "PATH": f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment["PATH"] += f":{target.facts.bin}"
    environment.pop("PYTHONPATH", None)
    argv = ["kubectl", "mab", "list", "-n", BUILDS, "-o", "name"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {f"multiarchbuild.multiarch.build/{name}" for name in STAGES} <= set(done.stdout.split())
    said = target.kubectl("apply", "--dry-run=server", "-f", str(out / "multiarchbuild-crds.yaml"))
    assert "multiarchbuilds.multiarch.build" in said


def make_release(target: Target, registry: str, out: Path, key: Path) -> None:
    """Run `make release`, with the plain words of somebody who tries it."""
    argv = ["make", "release", f"VERSION={__version__}", f"REGISTRY={registry}", f"OUT={out}", f"SIGNING_KEY={key}"]
    environment = target.environment | {"COSIGN_PASSWORD": PASSWORD, "DRAFT": "1", "SBOM": "0"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr[-3000:]


def upgraded(target: Target, chart: Path) -> tuple[Any, str]:
    """Upgrade as docs/versions.md says; return the policy, which somebody has set, and the operator's image then."""
    helm(target, "upgrade", RELEASE, str(chart), *upgrade_flags(), "--wait", "--timeout=5m")
    values = json.loads(helm(target, "get", "values", RELEASE, "--output", "json"))
    return values["policy"], target.kubectl("get", "deployments", "-n", NAMESPACE, "-o", "jsonpath={..image}").strip()


def next_chart(target: Target, out: Path, folder: Path, image: str) -> Path:
    """Return the chart of the release as that of the next version, with another image."""
    target.run("tar", "-xzf", str(out / f"multiarchbuild-{__version__}.tgz"), "-C", str(folder))
    chart = folder / "multiarchbuild"
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    values["image"] |= dict(zip(("repository", "digest"), image.split("@"), strict=True))
    (chart / "values.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return chart


def upgrade_flags() -> list[str]:
    """Return how the page about versions has Helm treat values."""
    page = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^\$ helm upgrade (.*?)\n```", page, re.MULTILINE | re.DOTALL)
    return [word for word in command.split() if word.startswith(("--reset", "--reuse"))]


def signed_by(images: Images, pair: KeyPair, repository: str, digest: str) -> list[str]:
    """Return whose signatures a manifest has."""
    signature = images.manifest(f"{repository}:{digest.replace(':', '-')}.sig")
    return verified(signature, lambda each: images.blob(f"{repository}@{each}"), {"us": pair}, repository, digest)


def borrow_cache(target: Target, registry: str) -> None:
    """Let the builders of the release find what the image of the operator under test has left in the cache.

    It is the same Dockerfile; without it the test would take as long as the packages of Debian take in QEMU.
    """
    for name in STAGES:
        for platform in PLATFORMS:
            slug = Platform.parse(platform).slug
            to = f"{registry}/{name}:cache-{digest(BUILDS, name)[:20]}-main-{slug}"
            try:
                target.crane("copy", f"{target.facts.registry}/{name}:build-cache", to)
            except CommandError as error:
                print(f"no cache of {name}: {error}")


def assert_image(images: Images, ref: str, tag: str, commit: str) -> None:
    """An image has both platforms, says what it is, and where it comes from."""
    index = images.manifest(ref)
    assert images.digest(tag) == ref.partition("@")[2]
    assert index["annotations"]["org.opencontainers.image.revision"] == commit
    entries = [entry for entry in index["manifests"] if entry["platform"]["architecture"] != "unknown"]
    assert [f"linux/{entry['platform']['architecture']}" for entry in entries] == list(PLATFORMS)
    for entry in entries:
        config = images.config(f"{ref.partition('@')[0]}@{entry['digest']}")
        labels = config["config"]["Labels"]
        assert labels["org.opencontainers.image.version"] == __version__
        assert config["created"] == labels["org.opencontainers.image.created"]
