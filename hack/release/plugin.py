"""The plugin of kubectl as one file, its archive, and its manifest for krew.

The file is a zip application: it needs Python and the packages that it names when they are missing. Most of them hold
compiled code, which Python cannot load from a zip.
"""

import hashlib
import io
import re
import tomllib
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from .release import HOME, Release
from .tree import tar_gz

PACKAGES: Final = ("aiohttp", "jinja2", "kubernetes", "pydantic", "python-jsonpath", "pyyaml", "rich", "urllib3")
"""What the command line imports, by name in pyproject.toml."""
_PARTS = ("api", "cli", "oci", "plan", "pods")
_MAIN = Path(__file__).with_name("plugin_main.py")


def needs(pyproject: str) -> list[str]:
    """Return the requirements of the command line, as pyproject.toml with this text states them."""
    stated = tomllib.loads(pyproject)["project"]["dependencies"]
    by_name = {re.split(r"[<>=; ]", requirement)[0]: requirement for requirement in stated}
    return [by_name[name] for name in PACKAGES]


def program(release: Release) -> bytes:
    """Return the executable file `kubectl-mab`."""
    package = release.tree / "operator" / "multiarchbuild"
    required = needs((release.tree / "pyproject.toml").read_text(encoding="utf-8"))
    main = _MAIN.read_text(encoding="utf-8")
    main = re.sub(r"^NEEDS: .*$", f"NEEDS: list[str] = {required!r}", main, flags=re.MULTILINE)
    main = re.sub(r'^WHEEL = ""$', f"WHEEL = {release.wheel!r}", main, flags=re.MULTILINE)
    files = {"__main__.py": main.encode(), "multiarchbuild/__init__.py": (package / "__init__.py").read_bytes()}
    for part in _PARTS:
        for path in sorted((package / part).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"multiarchbuild/{path.relative_to(package).as_posix()}"] = path.read_bytes()
    stamp = datetime.fromtimestamp(max(release.epoch, 315_619_200), UTC).timetuple()[:6]  # a zip begins with 1980
    to = io.BytesIO(b"#!/usr/bin/env python3\n")
    to.seek(0, io.SEEK_END)
    with zipfile.ZipFile(to, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in sorted(files.items()):
            info = zipfile.ZipInfo(name, stamp)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, content)
    return to.getvalue()


def archive(release: Release) -> Path:
    """Write the archive with the plugin and its licence into the release; return its path."""
    licence = (release.tree / "LICENSE").read_bytes()
    path = release.out / f"kubectl-mab_v{release.version}.tar.gz"
    path.write_bytes(tar_gz({"kubectl-mab": (program(release), 0o755), "LICENSE": (licence, 0o644)}, release.epoch))
    return path


def manifest(release: Release, packed: Path) -> dict[str, Any]:
    """Return the manifest for krew.

    Source: https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/
    """
    required = needs((release.tree / "pyproject.toml").read_text(encoding="utf-8"))
    systems = {"key": "os", "operator": "In", "values": ["darwin", "linux"]}
    platform = {
        "selector": {"matchExpressions": [systems]},
        "uri": release.url(packed.name),
        "sha256": hashlib.sha256(packed.read_bytes()).hexdigest(),
        "files": [{"from": "kubectl-mab", "to": "."}, {"from": "LICENSE", "to": "."}],
        "bin": "kubectl-mab",
    }
    quoted = " ".join(f"'{each}'" for each in required)
    spec = {
        "version": f"v{release.version}",
        "homepage": HOME,
        "shortDescription": "Build multi-architecture images in the cluster",
        "description": (
            "Builds a local folder for several architectures with the MultiArchBuild operator, follows runs,\n"
            "prints their logs and shows what a registry has. The operator must be installed in the cluster.\n"
        ),
        "caveats": (
            "The plugin needs python3 (3.11 or newer) on PATH, with these packages:\n"
            f"  python3 -m pip install {quoted}\n"
            f"Or install it with all of them: pipx install {release.wheel}\n"
        ),
        "platforms": [platform],
    }
    return {
        "apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
        "kind": "Plugin",
        "metadata": {"name": "mab"},
        "spec": spec,
    }


def write(release: Release) -> list[str]:
    """Write archive and manifest into the release; return their names."""
    packed = archive(release)
    text = yaml.safe_dump(manifest(release, packed), sort_keys=False, width=10_000)
    (release.out / "mab.yaml").write_text(text, encoding="utf-8")
    return [packed.name, "mab.yaml"]
