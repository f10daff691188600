"""Making layers from their recipes, each kept in the cache under the content key of its recipe."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.cluster.build import packages
from tests.cluster.build.cache import content_key, publish, staging
from tests.cluster.build.commands import Commands
from tests.cluster.build.debian import (
    Apt,
    Mirror,
    Package,
    bootstrap,
    host_mirror,
    package_entries,
    system_entries,
)
from tests.cluster.build.errors import BuildError
from tests.cluster.build.oci import Digest, Layer, LayerWriter
from tests.cluster.build.recipes import (
    Directory,
    Entry,
    LayerRecipe,
    Link,
    NodeModule,
    ProgramFile,
    Special,
    Text,
    file_capability,
    host_trust,
)

# Part of every key: raise it when the code below makes another layer from the same recipe.
_FORMAT = "1"
_NATIVE = "amd64"
# Not dpkg-deb --extract: it replaces the tree's links, such as lib64, by directories.
_UNPACK = 'dpkg-deb --fsys-tarfile "$1" | tar --extract --keep-directory-symlink --directory "$2"'

ProgramPath = Callable[[str], Path]
"""Gives the path of a program by name; when a layer is made it may wait until the program is there."""


def program_name(name: str, arch: str) -> str:
    """Return what a program is called when it is built for an architecture."""
    return name if arch == _NATIVE else f"{name}-{arch}"


def layer_key(recipe: LayerRecipe, arch: str, program_path: ProgramPath) -> str:
    """Return what decides a layer's content: its recipe, those below it, its programs and this machine's trust."""
    below = layer_key(recipe.below, arch, program_path) if recipe.below else ""
    parts: list[bytes | str] = [_FORMAT, arch, below, repr(replace(recipe, below=None))]
    for entry in recipe.entries:
        if isinstance(entry, ProgramFile):
            parts.append(program_path(program_name(entry.program, arch)).parent.name)
        elif entry is Special.TRUST:
            bundle, added = host_trust()
            parts += [path.read_bytes() for path in (bundle, *added) if path.exists()]
    return content_key(parts)


class Workshop:
    """Makes layers and keeps them. Not for use by two threads at once.

    ``program_path`` tells where a program is or will be; ``program`` waits until it is built.
    """

    def __init__(self, cache: Path, commands: Commands, program_path: ProgramPath, program: ProgramPath) -> None:
        self._cache = cache
        self._commands = commands
        self._program_path = program_path
        self._program = program
        self._apts: dict[tuple[str, str], Apt] = {}
        self._mirror: Mirror | None = None

    def directory(self, recipe: LayerRecipe, arch: str) -> Path:
        """Return where a layer is, or will be once it is made."""
        name = f"{recipe.name.replace(' ', '-')}-{arch}"
        return self._cache / "layers" / name / layer_key(recipe, arch, self._program_path)

    def layer(self, recipe: LayerRecipe, arch: str) -> Layer:
        """Return a layer, made if the cache lacks it. Raises BuildError when it cannot be made."""
        final = self.directory(recipe, arch)
        if not final.exists():
            if recipe.below is not None:
                self.layer(recipe.below, arch)
            with staging(self._cache) as work:
                result = work / "result"
                result.mkdir()
                layer = self._write(recipe, arch, work, result)
                description = {"digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size}
                (result / "layer.json").write_text(json.dumps(description))
                publish(result, final)
        found = json.loads((final / "layer.json").read_text())
        return Layer(final / "layer.tar.gz", Digest(found["digest"]), Digest(found["diff_id"]), int(found["size"]))

    def _write(self, recipe: LayerRecipe, arch: str, work: Path, result: Path) -> Layer:
        with LayerWriter(result / "layer.tar.gz") as writer:
            if recipe.bootstrap:
                tar = work / "system.tar"
                mirror = self._get_mirror()
                bootstrap(tar, recipe.suite, arch, mirror, self._commands, native=arch == _NATIVE)
                for entry, content in system_entries(tar, recipe.exclude):
                    writer.copy(entry, content)
                (result / "dpkg-status").write_bytes(_member(tar, "./var/lib/dpkg/status"))
            for deb in self._apt(recipe, arch).download(self._packages(recipe, arch)) if recipe.packages else ():
                self._copy_package(recipe, deb, writer)
            for added in recipe.entries:
                self._add(added, recipe, arch, work, writer)
        if writer.layer is None:
            raise BuildError(f"layer {recipe.name} was not finished")
        return writer.layer

    def _copy_package(self, recipe: LayerRecipe, deb: Path, writer: LayerWriter) -> None:
        capabilities = {path: file_capability(number) for path, number in recipe.capabilities}
        for entry, content in package_entries(deb, recipe.exclude):
            writer.copy(entry, content, capability=capabilities.get(entry.name, b""))

    def _packages(self, recipe: LayerRecipe, arch: str) -> list[Package]:
        """Return the packages whose files the recipe's layer has: what it asks for less what lies below it."""
        if not recipe.packages:
            return []
        below, installed = recipe.below, None
        known = set(recipe.without)
        while below is not None:
            if below.bootstrap:
                installed = self.directory(below, arch) / "dpkg-status"
            known |= {package.name for package in self._packages(below, arch)}
            below = below.below
        chosen = self._apt(recipe, arch).resolve(recipe.packages, installed)
        return [package for package in chosen if package.name not in known]

    def _add(self, entry: Entry, recipe: LayerRecipe, arch: str, work: Path, writer: LayerWriter) -> None:
        match entry:
            case Directory(path, mode, uid):
                writer.directory(path, mode=mode, uid=uid)
            case Text(path, text):
                writer.file(path, text.encode())
            case Link(path, target):
                writer.symlink(path, target)
            case ProgramFile(path, program):
                writer.file(path, self._program(program_name(program, arch)), mode=0o755)
            case NodeModule():
                self._add_node_module(entry, work, writer)
            case Special.TRUST:
                _add_trust(writer)
            case Special.BUSYBOX_APPLETS:
                self._add_applets(recipe, work, writer)
            case Special.PIP:
                self._add_pip(recipe, work, writer)

    def _add_node_module(self, module: NodeModule, work: Path, writer: LayerWriter) -> None:
        if shutil.which("npm") is None:
            packages.ensure(["npm"])
        spec = f"{module.name}@{module.version}"
        self._commands.run(spec, ["npm", "pack", "--silent", "--pack-destination", work, spec], cwd=work)
        archive = work / f"{module.name}-{module.version}.tgz"
        found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{found}" != module.integrity:
            raise BuildError(
                f"{spec} is not the package that was pinned: its SHA-512 is {found}, not {module.integrity}"
            )
        with tarfile.open(archive) as source:
            for member in source:
                member.name = f"usr/local/lib/node_modules/{module.name}/{member.name.partition('/')[2]}"
                member.uid = member.gid = 0
                if member.isreg():
                    writer.copy(member, source.extractfile(member))

    def _add_applets(self, recipe: LayerRecipe, work: Path, writer: LayerWriter) -> None:
        tree = self._unpacked(recipe, work)
        program = tree / "usr" / "bin" / "busybox"
        listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
        for applet in sorted(set(listed.split()) - {"busybox"}):
            writer.symlink(f"usr/bin/{applet}", "busybox")

    def _add_pip(self, recipe: LayerRecipe, work: Path, writer: LayerWriter) -> None:
        tree = self._unpacked(recipe, work)
        python: list[str | Path] = ["chroot", tree, "/usr/bin/python3"]
        # pip reads its authorities even when it fetches nothing.
        (tree / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(host_trust()[0], tree / "etc/ssl/certs/ca-certificates.crt")
        # Not Debian's package of pip: pip cannot upgrade that one.
        wheels = ["--no-index", "--find-links=/usr/share/python-wheels", "--no-compile", "--break-system-packages"]
        pip_in_wheel = next(tree.glob("usr/share/python-wheels/pip-*.whl")).relative_to(tree)
        self._commands.run("pip", [*python, f"/{pip_in_wheel}/pip", "install", *wheels, "pip"])
        for path in sorted(tree.glob("usr/local/**/*")):
            if path.is_file() and path.suffix != ".pyc":
                mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
                writer.file(str(path.relative_to(tree)), path, mode=mode)

    def _unpacked(self, recipe: LayerRecipe, work: Path) -> Path:
        """Return a directory with the recipe's packages for this machine, and all they need, unpacked."""
        tree = work / "tree"
        for name in ("bin", "lib", "lib64", "sbin"):
            (tree / "usr" / name).mkdir(parents=True)
            (tree / name).symlink_to(f"usr/{name}")
        native = self._apt(recipe, _NATIVE)
        for deb in native.download(native.resolve(recipe.packages)):
            self._commands.run("unpack", ["sh", "-ec", _UNPACK, "sh", deb, tree])
        return tree

    def _apt(self, recipe: LayerRecipe, arch: str) -> Apt:
        key = (recipe.suite.value, arch)
        if key not in self._apts:
            self._apts[key] = Apt(self._cache / "apt", recipe.suite, arch, self._get_mirror(), self._commands)
        return self._apts[key]

    def _get_mirror(self) -> Mirror:
        if self._mirror is None:
            self._mirror = host_mirror()
        return self._mirror


def _add_trust(writer: LayerWriter) -> None:
    bundle, added = host_trust()
    if not bundle.exists():
        raise BuildError(f"{bundle} is missing: install the Debian package ca-certificates.")
    writer.file("etc/ssl/certs/ca-certificates.crt", bundle)
    # OpenSSL looks here, the rest at the bundle itself.
    writer.symlink("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt")
    for path in added:
        # update-ca-certificates in a container rewrites the bundle from Debian's authorities and these.
        writer.file(f"usr/local/share/ca-certificates/{path.name}", path)


def _member(tar: Path, name: str) -> bytes:
    with tarfile.open(tar) as archive:
        content = archive.extractfile(name)
        if content is None:
            raise BuildError(f"{name} in {tar} is no file")
        return content.read()
