"""What a release is made of, as far as no cluster and no registry is needed."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from hack import chart_readme
from hack.release import bases, chart, images, notes, packages, plugin, python_dist
from hack.release.errors import ReleaseError
from hack.release.release import VERSION_FILE, Release, check_version
from hack.release.tree import export, tar_gz
from multiarchbuild import __version__

ROOT = Path(__file__).parents[3]
EPOCH = 1_764_140_400
DIGEST = f"sha256:{'a' * 64}"
BUILT = {name: (f"registry.example.com/x/{name}", DIGEST) for name in images.STAGES}


@pytest.fixture
def release(tmp_path: Path) -> Release:
    export(ROOT, tmp_path / "tree", EPOCH)
    (tmp_path / "out").mkdir()
    return Release(__version__, "registry.example.com/x", tmp_path / "tree", tmp_path / "out", "c" * 40, EPOCH)


def test_the_version_is_that_of_the_tree() -> None:
    text = (ROOT / VERSION_FILE).read_text(encoding="utf-8")
    check_version(__version__, text)
    with pytest.raises(ReleaseError, match=rf"the tree is version {__version__}: change .*__init__.py"):
        check_version("9.9.9", text)
    with pytest.raises(ReleaseError, match="is not a version"):
        check_version("v1", text)


def test_the_tree_has_what_git_tracks_and_one_time(release: Release) -> None:
    files = [path for path in release.tree.rglob("*") if not path.is_symlink()]
    assert {path.stat().st_mtime for path in files} == {EPOCH}
    assert (release.tree / "Dockerfile").is_file()
    assert not (release.tree / ".venv").exists()


def test_every_base_image_is_pinned() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    found = bases.images(dockerfile)
    assert all("{" not in image and ":" in image for image in found.values()), found
    froms = [line for line in dockerfile.splitlines() if line.startswith("FROM ")]
    assert froms
    assert all(any(f"${{{argument}}}" in line for argument in found) for line in froms), "each names its digest"
    assert bases.pinned(found, lambda _: DIGEST)["PYTHON_DIGEST"] == f"@{DIGEST}"


def test_a_base_image_that_no_registry_has_ends_the_release() -> None:
    resolve = bases.resolver([{"host": "127.0.0.1:9", "plainHttp": True}])
    with pytest.raises(ReleaseError, match=r"base image 127.0.0.1:9/none:1 has no digest to pin: .* cannot be reached"):
        resolve("127.0.0.1:9/none:1")


def test_the_packages_of_an_image_are_those_that_dpkg_has_recorded_in_its_layers() -> None:
    stanzas = (
        "Package: git\nStatus: install ok installed\nVersion: 1:2.47.3-0+deb13u1\nDescription: fast\n Version: no",
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1",
        "Package: libc6\nStatus: install ok installed\nVersion: 2.41-12",
    )
    files = {
        "var/lib/dpkg/status": ("\n\n".join(stanzas).encode() + b"\n", 0o644),
        "var/lib/dpkg/status.d/qemu-user": (b"Package: qemu-user\nVersion: 1:10.0.2\n", 0o644),
        "usr/share/doc/git/copyright": (b"Package: other\n", 0o644),
    }
    records = packages.recorded(io.BytesIO(tar_gz(files, EPOCH)))
    assert dict(pair for record in records.values() for pair in packages.versions(record)) == {
        "git": "1:2.47.3-0+deb13u1",
        "libc6": "2.41-12",
        "qemu-user": "1:10.0.2",
    }


def test_images_say_what_they_are(release: Release) -> None:
    for name in images.STAGES:
        labels = images.labels(release, name)
        assert labels["org.opencontainers.image.revision"] == release.commit
        assert labels["org.opencontainers.image.created"] == "2025-11-26T07:00:00Z"
        command = images.command(release, name, {"PYTHON_DIGEST": f"@{DIGEST}"}, images.Options())
        assert command[command.index("--target") + 1] == images.STAGES[name]
        for key, value in labels.items():
            assert command.count(f"{key}={value}") == 2, "label of the images, annotation of the index"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (images.Options(), ["--sbom"]),
        (images.Options(sbom=False), []),
        (images.Options(signed=True, registry_secret="push"), ["--sbom", "--signing-secret", "--registry-secret"]),
        (images.Options(plain_http=True, no_cache=True), ["--sbom", "--plain-http", "--no-cache"]),
    ],
)
def test_what_is_asked_of_a_release_is_asked_of_its_builds(
    release: Release, options: images.Options, expected: list[str]
) -> None:
    command = images.command(release, "multiarchbuild", {}, options)
    optional = ("--sbom", "--signing-secret", "--registry-secret", "--plain-http", "--no-cache")
    assert {word for word in command if word in optional} == set(expected)


def test_the_chart_names_the_images_of_the_release_by_digest() -> None:
    text = (chart_readme.CHART / "values.yaml").read_text(encoding="utf-8")
    found = yaml.safe_load(chart.values(text, BUILT))
    for image, name in ((found["image"], "multiarchbuild"), (found["qemu"]["image"], "multiarchbuild-qemu")):
        assert (image["repository"], image["digest"]) == BUILT[name]
    with pytest.raises(ReleaseError, match="not one"):
        chart.values("image: {}\n", BUILT)


def test_the_chart_tells_artifact_hub_what_is_in_it(release: Release) -> None:
    before = yaml.safe_load((chart_readme.CHART / "Chart.yaml").read_text(encoding="utf-8"))
    own = chart.metadata(before, release, BUILT, notes.changes("### Added\n\n- One\n  line.\n\n### Fixed\n\n- Two.\n"))
    told = own["annotations"]
    assert yaml.safe_load(told["artifacthub.io/changes"]) == [
        {"kind": "added", "description": "One line."},
        {"kind": "fixed", "description": "Two."},
    ]
    assert [entry["image"] for entry in yaml.safe_load(told["artifacthub.io/images"])] == [
        f"{repository}@{digest}" for repository, digest in BUILT.values()
    ]
    assert all(isinstance(value, str) for value in told.values()), "annotations of a chart are strings"
    assert told["artifacthub.io/operatorCapabilities"] in {
        *("Basic Install", "Seamless Upgrades", "Full Lifecycle", "Deep Insights", "Auto Pilot")
    }
    assert {"name", "url"} == {key for link in yaml.safe_load(told["artifacthub.io/links"]) for key in link}
    for picture in yaml.safe_load(told["artifacthub.io/screenshots"]):
        assert (ROOT / picture["url"].partition("/main/")[2]).is_file(), f"{picture['title']} is in the repository"
    assert told["artifacthub.io/containsSecurityUpdates"] == "false"
    fixed = chart.metadata(before, release, BUILT, notes.changes("### Security\n\n- A hole.\n"))
    assert fixed["annotations"]["artifacthub.io/containsSecurityUpdates"] == "true"
    (crd,) = yaml.safe_load(told["artifacthub.io/crds"])
    assert crd["name"] == "multiarchbuilds.multiarch.build"


def test_the_notes_are_the_section_of_the_changelog() -> None:
    sections = (
        "# Changelog",
        "## [Unreleased]",
        "- New.",
        "## [0.1.0] - 2026-11-26",
        "### Added",
        "- All.",
        "## [0.0.1]",
    )
    text = "\n\n".join(sections)
    assert notes.section(text, "0.1.0", draft=False) == "### Added\n\n- All."
    assert notes.section(text, "0.2.0", draft=True) == "- New."
    with pytest.raises(ReleaseError, match=r"no section \[0.2.0\]: rename \[Unreleased\]"):
        notes.section(text, "0.2.0", draft=False)


def test_the_notes_say_how_to_install_and_to_verify(release: Release) -> None:
    page = notes.page(release, "- All.", BUILT, signed=True)
    assert "helm install multiarchbuild oci://registry.example.com/x/charts/multiarchbuild --version 0.1.0" in page
    assert f"registry.example.com/x/multiarchbuild@{DIGEST}" in page
    assert "cosign verify-blob" in page
    assert "cosign" not in notes.page(release, "- All.", BUILT, signed=False)


def test_the_plugin_is_the_same_bytes_for_the_same_commit(release: Release) -> None:
    first = plugin.archive(release).read_bytes()
    for path in release.tree.rglob("*.py"):
        os.utime(path, (1, 1))
    assert plugin.archive(release).read_bytes() == first
    with tarfile.open(fileobj=io.BytesIO(first)) as tar:
        assert {entry.name: entry.mode for entry in tar} == {"kubectl-mab": 0o755, "LICENSE": 0o644}


def test_wheel_and_sdist_are_the_same_bytes_for_the_same_commit(release: Release) -> None:
    names = python_dist.build(release)
    assert names == [f"multiarchbuild-{__version__}-py3-none-any.whl", f"multiarchbuild-{__version__}.tar.gz"]
    first = [(release.out / name).read_bytes() for name in names]
    for path in [*release.out.iterdir(), *release.tree.rglob("*.py")]:
        os.utime(path, (1, 1))
    python_dist.build(release)
    assert [(release.out / name).read_bytes() for name in names] == first


def test_krew_finds_the_plugin_by_its_checksum(release: Release) -> None:
    names = plugin.write(release)
    assert names == [f"kubectl-mab_v{__version__}.tar.gz", "mab.yaml"]
    manifest = yaml.safe_load((release.out / "mab.yaml").read_text(encoding="utf-8"))
    (platform,) = manifest["spec"]["platforms"]
    assert platform["sha256"] == hashlib.sha256((release.out / names[0]).read_bytes()).hexdigest()
    assert platform["uri"].endswith(f"/releases/download/v{__version__}/{names[0]}")
    assert manifest["spec"]["version"] == f"v{__version__}"
    assert len(manifest["spec"]["shortDescription"]) <= 50, "krew's rule"


def test_the_plugin_runs_from_its_file_where_its_packages_are(release: Release, tmp_path: Path) -> None:
    file = tmp_path / "kubectl-mab"
    file.write_bytes(plugin.program(release))
    assert _run(file, "--version") == (0, f"{__version__}\n", "")
    code, out, _ = _run(file, "explain", "NoBuilder")
    assert (code, "NoBuilder" in out) == (0, True), "data files are read from within it"
    script = f"import sys; sys.path.insert(0, {os.fspath(file)!r}); from multiarchbuild.cli.ui import pages; "
    script += "print(pages.failure('gone'), pages.asset('app.js'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd="/", env={}, check=False)
    assert "gone" in done.stdout, done.stderr


def test_the_plugin_names_what_is_missing(release: Release, tmp_path: Path) -> None:
    file = tmp_path / "kubectl-mab"
    file.write_bytes(plugin.program(release))
    code, out, err = _run(file, "--version", flags=["-S"])  # without site-packages
    assert (code, out) == (2, "")
    assert "needs Python packages" in err
    for package in plugin.PACKAGES:
        assert f"'{package}>=" in err
    assert f"pipx install {release.wheel}" in err


def test_the_plugin_needs_no_other_packages(release: Release, tmp_path: Path) -> None:
    """All modules of the command line are imported while only the packages that it names can be found."""
    file = tmp_path / "kubectl-mab"
    file.write_bytes(plugin.program(release))
    with zipfile.ZipFile(file) as archive:
        modules = [
            name.removesuffix(".py").replace("/", ".")
            for name in archive.namelist()
            if name.startswith("multiarchbuild/cli/") and name.endswith(".py") and "__init__" not in name
        ]
    others = ["cryptography", "nacl", "prometheus_client", "structlog"]
    script = f"import sys\nsys.modules.update(dict.fromkeys({others!r}))\nsys.path.insert(0, {os.fspath(file)!r})\n"
    script += f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    script += "print(sys.modules['multiarchbuild'].__file__)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd="/", env={}, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(os.fspath(file))


def test_archives_have_one_time_and_no_owner() -> None:
    files: Mapping[str, tuple[bytes, int]] = {"b": (b"2", 0o644), "a": (b"1", 0o755)}
    content = tar_gz(files, EPOCH)
    assert content == tar_gz(dict(sorted(files.items())), EPOCH)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert [(entry.name, entry.mtime, entry.uid) for entry in tar] == [("a", EPOCH, 0), ("b", EPOCH, 0)]


def _run(file: Path, *arguments: str, flags: list[str] | None = None) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, *(flags or []), file, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd="/",
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_metadata_is_json(release: Release) -> None:
    assert json.dumps(plugin.manifest(release, plugin.archive(release)))
