"""Reading apt and packages: what is asked for, what is taken, where it goes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster.build.commands import Commands
from tests.cluster.build.debian import (
    Mirror,
    Package,
    Suite,
    is_shipped,
    merged_path,
    package_entries,
    parse_mirror,
    parse_print_uris,
)
from tests.cluster.build.errors import BuildError
from tests.cluster.build.layers import layer_key
from tests.cluster.build.progress import Progress, duration, status_line
from tests.cluster.build.recipes import ARCHITECTURES, BUILDKIT, LayerRecipe, Text, image_recipes


def test_the_mirror_is_the_machines_own() -> None:
    targets = (
        "http://mirror.test/debian/\tbookworm\tDebian\n"
        "http://mirror.test/debian/\tbookworm-updates\tDebian\n"
        "http://mirror.test/security/\tbookworm-security\tDebian-Security\n"
        "http://elsewhere.test/tools\tstable\tTools\n"
    )
    assert parse_mirror(targets) == Mirror("http://mirror.test/debian", "http://mirror.test/security")
    assert parse_mirror("http://elsewhere.test/tools\tstable\tTools\n") is None


def test_a_suites_sources_are_signed() -> None:
    lines = Mirror("http://m.test/debian", "http://m.test/security").sources(Suite.TRIXIE)
    assert [line.split()[3] for line in lines] == ["trixie", "trixie-updates", "trixie-security"]
    assert all("signed-by=" in line for line in lines)


def test_packages_that_apt_chose() -> None:
    output = (
        "'http://m.test/pool/git_2.47.3-0%2bdeb13u1_amd64.deb' git_1%3a2.47.3-0+deb13u1_amd64.deb 8861572 SHA256:0\n"
        "Reading package lists...\n"
    )
    assert parse_print_uris(output) == (Package("git", "git_1%3a2.47.3-0+deb13u1_amd64.deb"),)


@pytest.mark.parametrize(
    ("path", "shipped"),
    [
        ("usr/bin/node", True),
        ("usr/share/man/man1/node.1.gz", False),
        ("usr/share/doc/nodejs/changelog.gz", False),
        ("usr/share/doc/nodejs/copyright", True),
        ("dev/null", False),
        ("usr/lib/python3.13/EXTERNALLY-MANAGED", False),
    ],
)
def test_what_an_image_has_of_a_package(path: str, *, shipped: bool) -> None:
    assert is_shipped(path, ("usr/lib/python3*/EXTERNALLY-MANAGED",)) is shipped


@pytest.mark.parametrize(
    ("path", "merged"),
    [("./bin/sh", "usr/bin/sh"), ("./lib64/ld.so", "usr/lib64/ld.so"), ("./library/x", "library/x"), ("./", "")],
)
def test_paths_of_a_merged_usr(path: str, merged: str) -> None:
    assert merged_path(path) == merged


def test_a_real_package_is_read_to_its_end(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(
        "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.test>\nDescription: a tool\n"
    )
    for path in ("bin/tool", "usr/share/man/man1/tool.1", "usr/share/doc/tool/copyright"):
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(path)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, tmp_path / "tool.deb"], check=True, capture_output=True
    )
    files = {
        entry.name: content.read().decode()
        for entry, content in package_entries(tmp_path / "tool.deb")
        if content is not None
    }
    assert files == {"usr/bin/tool": "bin/tool", "usr/share/doc/tool/copyright": "usr/share/doc/tool/copyright"}


def test_a_damaged_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tool.deb").write_text("not a package")
    with pytest.raises(BuildError, match=r"cannot unpack .*tool.deb: delete it"):
        list(package_entries(tmp_path / "tool.deb"))


def test_a_layers_key_follows_its_recipe_its_base_and_its_programs() -> None:
    base = LayerRecipe("base", packages=("libc6",))
    recipe = LayerRecipe("tool", below=base, entries=(Text("etc/tool", "1"),))
    changed_base = LayerRecipe("base", packages=("libc6", "zlib1g"))

    def key(layer: LayerRecipe, arch: str = "amd64", program_key: str = "k1") -> str:
        return layer_key(layer, arch, lambda name: Path(program_key, name))

    keys = {
        key(recipe),
        key(recipe, "arm64"),
        key(LayerRecipe("tool", below=base, entries=(Text("etc/tool", "2"),))),
        key(LayerRecipe("tool", below=changed_base, entries=(Text("etc/tool", "1"),))),
    }
    assert len(keys) == 4
    assert key(BUILDKIT) != key(BUILDKIT, program_key="k2")


def test_the_images_that_the_cluster_promises() -> None:
    names = {recipe.name for recipe in image_recipes()}
    assert names >= {
        "library/busybox:1.36",
        "library/debian:bookworm-slim",
        "library/node:20-alpine",
        "library/python:3.12-slim",
        "library/python:3.13-slim",
        "moby/buildkit:v0.32.2-rootless",
    }
    assert ARCHITECTURES == ("amd64", "arm64")


def test_a_failed_command_is_explained_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"Building etcd failed: sh ended with status 3[\s\S]*no such module"):
        Commands(tmp_path).run("etcd", ["sh", "-c", "echo no such module; exit 3"])


def test_nothing_starts_after_a_stop(tmp_path: Path) -> None:
    commands = Commands(tmp_path)
    commands.stop()
    with pytest.raises(BuildError, match="was stopped"):
        commands.run("etcd", ["true"])


def test_progress_says_what_runs_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.plan(["etcd", "helm"])
    with progress.task("etcd"):
        pass
    said = capsys.readouterr().err
    assert "building etcd (2 left)" in said
    assert "built etcd in 0 s (1/2)" in said
    assert status_line({"helm": 61.0}, 1, 2, 90.0) == "1/2 done, 1 min 30 s · building helm 1 min 01 s"
    assert duration(59.9) == "59 s"
