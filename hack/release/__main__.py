"""Make a release of the commit that is checked out: everything that a user installs.

Images and chart are pushed to the registry; CRD bundle, wheel, sdist, plugin, checksums and notes are written to the
output folder. The images are built by MultiArchBuild in the cluster that KUBECONFIG names, or in the local one.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hack.target import CommandError, Target, from_environment, own_registry

from . import bases, chart, images, notes, packages, plugin, python_dist
from .errors import ReleaseError
from .images import Options
from .login import SECRET, Login
from .release import PLATFORMS, VERSION_FILE, Release, check_version, head
from .signing import Signer
from .tree import export

ROOT = Path(__file__).parents[2]
CRDS = "multiarchbuild-crds.yaml"


def main(argv: Sequence[str] | None = None) -> int:
    """Make the release that the command line asks for."""
    arguments = _arguments(argv)
    started = time.monotonic()
    try:
        target = from_environment(unnamed=own_registry)
        release = make(target, arguments)
    except (ReleaseError, CommandError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    print(f"==> {release.version} is in {release.registry} and {release.out} ({time.monotonic() - started:.0f} s)")
    plain = " --plain-http" if target.plain_http(release.registry) else ""
    print(
        f"    helm install multiarchbuild oci://{release.charts}/multiarchbuild --version {release.version}{plain} "
        "--namespace multiarchbuild-system --create-namespace"
    )
    return 0


def make(target: Target, arguments: argparse.Namespace) -> Release:
    """Make and publish a release.

    Raises:
        ReleaseError, CommandError: something of it cannot be made; what was made before stays.
    """
    draft: bool = arguments.draft
    check_version(arguments.version, (ROOT / VERSION_FILE).read_text(encoding="utf-8"))
    changelog = notes.section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), arguments.version, draft=draft)
    commit, epoch = head(ROOT, draft=draft)
    password = os.environ.get("COSIGN_PASSWORD", "")
    signer = Signer.load(arguments.signing_key, password) if arguments.signing_key else None
    out = Path(arguments.out or ROOT / "dist" / f"release-{arguments.version}")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        export(ROOT, tree, epoch)
        registry = arguments.registry.rstrip("/")
        release = Release(arguments.version, registry, tree, out.resolve(), commit, epoch, arguments.downloads)
        _make(target, release, _options(target, release, arguments, signed=signer is not None), changelog, signer)
    return release


def _make(target: Target, release: Release, options: Options, changelog: str, signer: Signer | None) -> None:
    plain = options.plain_http
    pins = bases.pinned(
        bases.images((release.tree / "Dockerfile").read_text(encoding="utf-8")), bases.resolver(target.registries)
    )
    login = Login.find(os.environ, release.registry)
    secrets = [images.signing_secret(signer.path, signer.password)] if signer else []
    if login:
        login.use(release.tree.parent)
        secrets.append(login.secret(images.NAMESPACE))
        options = replace(options, registry_secret=options.registry_secret or SECRET)
    built = {}
    with images.prepared(target, *secrets):
        for name in images.STAGES:
            _say(f"image {release.image(name)}:{release.version}")
            built[name] = (release.image(name), images.build(target, release, name, pins, options))
    _say("versions of the packages in the images")
    listed = packages.text(built, PLATFORMS, plain_http=plain)
    (release.out / packages.FILE).write_text(listed, encoding="utf-8")
    _say("chart")
    archive = chart.package(target, release, built, notes.changes(changelog))
    chart_digest = chart.push(target, release, archive, plain_http=plain)
    _say("resource definition, wheel, sdist, plugin")
    crds = sorted((release.tree / "crds").glob("*.yaml"))
    (release.out / CRDS).write_text("---\n".join(path.read_text(encoding="utf-8") for path in crds), encoding="utf-8")
    python_dist.build(release)
    plugin.write(release)
    facts = {
        "version": release.version,
        "commit": release.commit,
        "created": release.created,
        "images": {name: "@".join(image) for name, image in built.items()},
        "chart": f"{release.charts}/multiarchbuild@{chart_digest}",
        "bases": pins,
    }
    (release.out / "release.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    sums = _checksums(release.out)
    page = notes.page(release, changelog, built, signed=signer is not None)
    (release.out / "RELEASE_NOTES.md").write_text(page, encoding="utf-8")
    if signer:
        _say("signatures of chart and checksums")
        signer.sign_manifest(f"{release.charts}/multiarchbuild", chart_digest, plain_http=plain)
        signer.sign_file(sums)


def _checksums(folder: Path) -> Path:
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.iterdir())]
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(lines), encoding="utf-8")
    return sums


def _options(target: Target, release: Release, arguments: argparse.Namespace, *, signed: bool) -> Options:
    return Options(
        sbom=arguments.sbom,
        registry_secret=arguments.registry_secret,
        signed=signed,
        plain_http=target.plain_http(release.registry),
        no_cache=arguments.no_cache,
    )


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hack.release", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--version", required=True, help="version of the tree")
    add("--registry", required=True, help="registry, or a path in one, for images and chart")
    add("--out", help="folder of the files, by default dist/release-VERSION")
    add("--downloads", default="", help="URL from which the files will be downloaded, for the manifest of krew")
    add("--draft", action="store_true", help="take uncommitted changes and the unreleased section of the changelog")
    add("--no-sbom", dest="sbom", action="store_false", help="without SBOMs, where their generator cannot be pulled")
    add("--no-cache", action="store_true", help="build without the cache of layers")
    add("--signing-key", type=Path, help="private key that signs images, chart and checksums; COSIGN_PASSWORD opens it")
    add("--registry-secret", default="", help=f"Secret in namespace {images.NAMESPACE} for pulling and pushing")
    return parser.parse_args(argv)


def _say(text: str) -> None:
    print(f"==> {text}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
