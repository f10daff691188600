"""Programs and images made side by side: the compiler in one thread, the images in another."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.build.cache import writing
from tests.cluster.build.commands import Commands
from tests.cluster.build.errors import BuildError
from tests.cluster.build.images import ImageBuilder, ImageStore
from tests.cluster.build.layers import Workshop
from tests.cluster.build.programs import Program, ProgramStore, open_store, selected
from tests.cluster.build.progress import Progress


@dataclass(frozen=True)
class Built:
    """Everything the cluster is made of: the path of each program by name, and the images."""

    programs: Mapping[str, Path]
    images: ImageStore


def ensure(cache: Path, *, extra: Collection[str] = (), progress: Progress | None = None) -> Built:
    """Return the programs and images, making what the cache lacks; at once when it lacks nothing.

    Args:
        cache: the cache directory; made if absent.
        extra: names of optional programs that are wanted too.
        progress: where to show what happens; None for standard error.

    Raises:
        BuildError: when something cannot be made; the message says what to do. What was made until then is kept.
    """
    progress = progress or Progress()
    commands = Commands(cache / "logs")
    store = open_store(cache, commands)
    programs = selected(extra=extra)
    build = _Build(cache, store, programs, commands)
    found = build.found()
    if found is not None:
        return found
    with writing(cache, progress.note), progress.shown():
        try:
            return build.run(progress)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise BuildError(
                f"The disk that holds {cache} is full. Free some space or set MAB_CACHE to a directory elsewhere, "
                "then try again: what was finished is kept."
            ) from error


class _Build:
    """One build: what it makes and the threads that make it."""

    def __init__(self, cache: Path, store: ProgramStore, programs: Collection[Program], commands: Commands) -> None:
        self._store = store
        self._programs = programs
        self._commands = commands
        self._paths = {program.name: store.path(program) for program in programs}
        self._built: dict[str, Future[Path]] = {program.name: Future() for program in programs}
        workshop = Workshop(cache, commands, self._paths.__getitem__, lambda name: self._built[name].result())
        self._images = ImageBuilder(cache, workshop)

    def found(self) -> Built | None:
        """Return the result when there is nothing to make."""
        images = self._images.stored()
        if images is None or not all(path.exists() for path in self._paths.values()):
            return None
        return Built(self._paths, images)

    def run(self, progress: Progress) -> Built:
        """Make what is missing. The first failure ends the other side too and is the one that is raised."""
        progress.plan([name for name, path in self._paths.items() if not path.exists()])
        progress.plan(self._images.tasks())
        with ThreadPoolExecutor(max_workers=2) as pool:
            compiling = pool.submit(self._compile, progress)
            imaging = pool.submit(self._images.build, progress)
            sides: list[Future[Any]] = [compiling, imaging]
            try:
                done, _ = wait(sides, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            finally:
                self._commands.stop()
                self._abandon()
        return Built(self._paths, imaging.result())

    def _compile(self, progress: Progress) -> None:
        for program in self._programs:
            if not self._paths[program.name].exists():
                with progress.task(program.name):
                    self._store.build(program, self._commands)
            self._built[program.name].set_result(self._paths[program.name])

    def _abandon(self) -> None:
        """Let nobody wait for a program that will not come."""
        for name, future in self._built.items():
            if not future.done():
                future.set_exception(BuildError(f"{name} was not built because another part of the build failed."))
