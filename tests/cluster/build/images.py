"""The images of the local cluster: a storage directory that a registry can serve, and the pause image for a node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.build import packages, store
from tests.cluster.build.cache import content_key, publish, staging, writing
from tests.cluster.build.commands import Commands
from tests.cluster.build.layers import ProgramPath, Workshop, program_name
from tests.cluster.build.oci import PlatformImage, Settings, platform_image, write_archive
from tests.cluster.build.programs import ensure_programs, open_store, selected
from tests.cluster.build.progress import Progress
from tests.cluster.build.recipes import (
    ARCHITECTURES,
    PAUSE,
    PAUSE_REFERENCE,
    PAUSE_SETTINGS,
    ImageRecipe,
    LayerRecipe,
    ProgramFile,
    image_recipes,
)


@dataclass(frozen=True)
class ImageStore:
    """All images, in the cache, not to be written to.

    Attributes:
        root: a registry's storage directory (``filesystem.rootdirectory`` of CNCF Distribution).
        digests: the digest of each image's index by its name in the registry, such as ``library/node:20-alpine``.
        pause_reference: the name of the image that holds a pod's namespaces.
        pause_archive: that image as an OCI archive, for ``ctr images import``.
    """

    root: Path
    digests: Mapping[str, str]
    pause_reference: str
    pause_archive: Path

    def copy_to(self, directory: Path) -> None:
        """Fill a registry's storage directory, moving these images' tags; all else that is there stays.

        Blobs are hard links where the file system allows it.
        """
        store.copy(self.root, directory)


class ImageBuilder:
    """Makes the image store of a cache from layers, which it makes when they are missing."""

    def __init__(self, cache: Path, workshop: Workshop) -> None:
        self._cache = cache
        self._workshop = workshop
        self._recipes = image_recipes()

    def stored(self) -> ImageStore | None:
        """Return the store when the cache has it complete, else None."""
        directory = self._directory()
        if not directory.exists():
            return None
        digests = json.loads((directory / "digests.json").read_text())
        return ImageStore(directory / "registry", digests, PAUSE_REFERENCE, directory / "pause.tar")

    def tasks(self) -> list[str]:
        """Return the names of the layers that have to be made."""
        return [_task(recipe, arch) for recipe, arch in self._layers() if not self._made(recipe, arch)]

    def build(self, progress: Progress) -> ImageStore:
        """Return the store, made if the cache lacks it. Raises BuildError when a layer cannot be made."""
        packages.ensure(packages.BUILD_PACKAGES)
        for recipe, arch in self._layers():
            if not self._made(recipe, arch):
                with progress.task(_task(recipe, arch)):
                    self._workshop.layer(recipe, arch)
        if self.stored() is None:
            with staging(self._cache) as work:
                result = work / "images"
                digests = {
                    recipe.name: store.add_image(
                        result / "registry", recipe.name, self._platforms(recipe.layers, recipe.settings)
                    )
                    for recipe in self._recipes
                }
                write_archive(result / "pause.tar", PAUSE_REFERENCE, self._platforms((PAUSE,), PAUSE_SETTINGS))
                (result / "digests.json").write_text(json.dumps(digests, indent=1))
                publish(result, self._directory())
        made = self.stored()
        if made is None:
            raise FileNotFoundError(self._directory())
        return made

    def _platforms(self, layers: Sequence[LayerRecipe], settings: Settings) -> list[PlatformImage]:
        return [
            platform_image(arch, settings, [self._workshop.layer(recipe, arch) for recipe in layers])
            for arch in ARCHITECTURES
        ]

    def _layers(self) -> list[tuple[LayerRecipe, str]]:
        """Return every layer once, those that wait for programs last."""
        wanted = {
            (layer, arch): None
            for arch in ARCHITECTURES
            for layer in (*(layer for image in self._recipes for layer in image.layers), PAUSE)
        }
        return sorted(wanted, key=lambda item: bool(_programs_of(item[0])))

    def _made(self, recipe: LayerRecipe, arch: str) -> bool:
        return self._workshop.directory(recipe, arch).exists()

    def _directory(self) -> Path:
        layers = [f"{self._workshop.directory(recipe, arch)}" for recipe, arch in self._layers()]
        described = [_description(recipe) for recipe in self._recipes]
        return self._cache / "images" / content_key([*layers, *described, PAUSE_REFERENCE, repr(PAUSE_SETTINGS)])


def image_programs() -> tuple[str, ...]:
    """Return the names of the programs that the images contain."""
    layers = {layer for image in image_recipes() for layer in image.layers} | {PAUSE}
    return tuple(
        sorted(program_name(name, arch) for layer in layers for name in _programs_of(layer) for arch in ARCHITECTURES)
    )


def ensure_images(cache: Path, *, progress: Progress | None = None) -> ImageStore:
    """Return the images, making those that the cache lacks and the programs that they contain.

    Raises BuildError when a Debian package, a program or a mirror is missing and cannot be had.
    """
    progress = progress or Progress()
    ensure_programs(cache, image_programs(), progress=progress)
    commands = Commands(cache / "logs")
    program_path = program_paths(cache, commands)
    builder = ImageBuilder(cache, Workshop(cache, commands, program_path, program_path))
    found = builder.stored()
    if found is not None:
        return found
    with writing(cache, progress.note), progress.shown():
        progress.plan(builder.tasks())
        try:
            return builder.build(progress)
        finally:
            commands.stop()


def program_paths(cache: Path, commands: Commands) -> ProgramPath:
    """Return the function that tells where the cache has, or will have, a program."""
    programs = open_store(cache, commands)
    known = {program.name: programs.path(program) for program in selected(image_programs())}
    return known.__getitem__


def _programs_of(recipe: LayerRecipe) -> list[str]:
    return [entry.program for entry in recipe.entries if isinstance(entry, ProgramFile)]


def _task(recipe: LayerRecipe, arch: str) -> str:
    return f"layer {recipe.name} {arch}"


def _description(recipe: ImageRecipe) -> str:
    return repr((recipe.name, [layer.name for layer in recipe.layers], recipe.settings))
