"""The chart: of this version, with the images of this release by digest, as an OCI artifact."""

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hack import chart_readme
from hack.target import Target

from .errors import ReleaseError
from .release import Release
from .tree import date

_DIGEST = re.compile(r"^Digest: (sha256:[0-9a-f]{64})$", re.MULTILINE)


def values(text: str, images: Mapping[str, tuple[str, str]]) -> str:
    """Return the text of values.yaml with the images of the release, (repository, digest) by name, as defaults.

    Raises:
        ReleaseError: the file has another form than expected.
    """
    for name, indent in (("multiarchbuild", "  "), ("multiarchbuild-qemu", "    ")):
        repository, digest = images[name]
        for pattern, new in (
            (rf"^{indent}repository: \S+/{name}$", f"{indent}repository: {repository}"),
            (rf'^{indent}digest: ""$', f"{indent}digest: {digest}"),
        ):
            text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
            if count != 1:
                raise ReleaseError(f"values.yaml has {count} lines like {pattern!r}, not one")
    return text


def metadata(chart: Mapping[str, Any], release: Release, images: Mapping[str, tuple[str, str]], changes: str) -> Any:
    """Return Chart.yaml of the release.

    Source: https://artifacthub.io/docs/topics/annotations/helm/
    """
    listed = [
        {"name": name, "image": f"{repository}@{digest}", "platforms": ["linux/amd64", "linux/arm64"]}
        for name, (repository, digest) in images.items()
    ]
    secure = any(change["kind"] == "security" for change in yaml.safe_load(changes) or ())
    own = {
        "artifacthub.io/images": yaml.safe_dump(listed, sort_keys=False),
        "artifacthub.io/changes": changes,
        "artifacthub.io/containsSecurityUpdates": str(secure).lower(),
    }
    annotations = {**chart.get("annotations", {}), **own}
    return {**chart, "version": release.version, "appVersion": release.version, "annotations": annotations}


def package(target: Target, release: Release, images: Mapping[str, tuple[str, str]], changes: str) -> Path:
    """Write the chart's archive into the release, and return its path.

    Raises:
        ReleaseError: the chart has another form than expected.
        CommandError: Helm does not take it.
    """
    folder = release.out / ".chart" / "multiarchbuild"
    shutil.copytree(release.tree / "charts" / "multiarchbuild", folder)
    chart = metadata(yaml.safe_load((folder / "Chart.yaml").read_text(encoding="utf-8")), release, images, changes)
    text = values((folder / "values.yaml").read_text(encoding="utf-8"), images)
    location = f"oci://{release.charts}/multiarchbuild --version {release.version}"
    files = {
        "Chart.yaml": yaml.safe_dump(chart, sort_keys=False, allow_unicode=True, width=10_000),
        "values.yaml": text,
        "README.md": chart_readme.readme(chart, text, location),
    }
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    date(folder, release.epoch)
    target.run("helm", "lint", "--strict", str(folder))
    target.run("helm", "package", str(folder), "--destination", str(release.out))
    shutil.rmtree(folder.parent)
    archive = release.out / f"multiarchbuild-{release.version}.tgz"
    os.utime(archive, (release.epoch, release.epoch))  # helm push dates the artifact by it
    return archive


def push(target: Target, release: Release, archive: Path, *, plain_http: bool) -> str:
    """Push the chart; return the digest of its manifest.

    Raises:
        CommandError: the registry refuses it.
    """
    plain = ["--plain-http"] if plain_http else []
    said = target.run("helm", "push", str(archive), f"oci://{release.charts}", *plain, stderr=True)
    found = _DIGEST.search(said)
    if not found:
        raise ReleaseError(f"helm push named no digest: {said.strip()}")
    return found[1]
