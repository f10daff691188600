"""What changed, from the changelog."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import yaml

from .errors import ReleaseError
from .release import Release

UNRELEASED: Final = "Unreleased"
_SECTION = re.compile(r"^## \[([^\]]+)\].*$", re.MULTILINE)
_KINDS = {"added", "changed", "deprecated", "removed", "fixed", "security"}


def section(changelog: str, version: str, *, draft: bool) -> str:
    """Return the section of a version without its heading; of a draft, that of what is not released yet.

    Raises:
        ReleaseError: there is none.
    """
    found = list(_SECTION.finditer(changelog))
    ends = [match.start() for match in found[1:]] + [len(changelog)]
    texts = {match[1]: changelog[match.end() : end].strip() for match, end in zip(found, ends, strict=True)}
    for name in (version, UNRELEASED) if draft else (version,):
        if texts.get(name):
            return texts[name]
    raise ReleaseError(f"CHANGELOG.md has no section [{version}]: rename [{UNRELEASED}], and begin a new one above it")


def changes(text: str) -> str:
    """Return a section as the value of `artifacthub.io/changes`."""
    listed = [{"kind": kind, "description": description} for kind, description in _entries(text)]
    return str(yaml.safe_dump(listed, sort_keys=False, allow_unicode=True, width=10_000))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        kind, _, body = part.partition("\n")
        for entry in re.split(r"^- ", body, flags=re.MULTILINE)[1:]:
            if kind.strip().lower() in _KINDS:
                yield kind.strip().lower(), " ".join(entry.split())


def page(release: Release, text: str, images: Mapping[str, tuple[str, str]], *, signed: bool) -> str:
    """Return the release notes: how to install this version, what it consists of, and its section of the changelog."""
    chart = f"oci://{release.charts}/multiarchbuild --version {release.version}"
    listed = "\n".join(f"| `{name}` | `{repository}@{digest}` |" for name, (repository, digest) in images.items())
    verify = _VERIFY.format(image="@".join(images["multiarchbuild"])) if signed else ""
    return _PAGE.format(
        version=release.version, chart=chart, images=listed, changes=text, verify=verify, wheel=release.wheel
    )


_PAGE = """\
# MultiArchBuild {version}

```console
$ helm install multiarchbuild {chart} --namespace multiarchbuild-system --create-namespace
```

The command line: `pipx install {wheel}`,
or `kubectl krew install --manifest=mab.yaml` with the file `mab.yaml` below (it needs python3 and says which packages).

| image | |
|---|---|
{images}

`SHA256SUMS` has the checksums of all files: `sha256sum --check --ignore-missing SHA256SUMS`.
{verify}
## Changes

{changes}
"""

_VERIFY = """
Images, chart and checksums are signed:

```console
$ cosign verify --key cosign.pub --insecure-ignore-tlog=true {image}
$ cosign verify-blob --key cosign.pub --insecure-ignore-tlog=true --signature SHA256SUMS.sig SHA256SUMS
```
"""
