"""The step of a pod that stays: build after build in one pod, or image after image, each as if it were the first.

The first process only waits, and starts a child for each: what a build has in memory ends with it. Between two
builds no other process is left, the work folder is empty, and where RUNs have no process namespace of their own, what
they left behind is ended too (`pods/supervisor.py`). Where any of that can't be had, the pod ends.

A result that the operator does not take note of in time ends the pod as well: then it stands in the termination
message, as that of every other step.
"""

import errno
import os
import secrets
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.answers import NONCE_ENV, REQUEST_ENV, TAKEN, answer_line
from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.requests import RequestHead
from multiarchbuild.api.results import Failure, load

from .changes import Changes
from .log import say
from .mounts import Mounts

NOTED_SECONDS = 5.0
"""How long a result may wait for the operator to take note of it."""
_SWEEP_SECONDS = 5.0
_SWEEP_POLL = 0.01


@dataclass(frozen=True, slots=True)
class Keep:
    """How a pod stays."""

    idle: float
    """Seconds that it waits for the next request."""
    sweep: bool = False
    """Whether the supervisor of buildkitd has to end what a RUN left behind."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a pod that stays does. Both tell what came of it, and return the exit code."""

    first: Callable[[], int]
    """What it was created for."""
    handed: Callable[[Mounts, str], int]
    """What a request, as JSON, asks for, whose inputs are to be written to `handed` of the mounts."""


class UncleanError(Exception):
    """Something of the last build can't be removed."""


def serve(mounts: Mounts, work: Work, keep: Keep) -> int:
    """Do what the pod was created for and what it is asked for after that; return the exit code of the last."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    name, job = os.environ[REQUEST_ENV], work.first
    while True:
        code = _in_child(job)
        if code and not _is_usable(mounts, name):
            return code
        try:
            clean(mounts, keep)
        except UncleanError as error:
            say(f"this pod ends: {error}")
            return code
        text = _next(mounts, name, keep.idle)
        if text is None:
            return code
        name = RequestHead.model_validate_json(text).name
        if nonce := os.environ.get(NONCE_ENV):
            say(answer_line(nonce, name, TAKEN.encode()))
        job = _handed(mounts, work, name, text)


def _is_usable(mounts: Mounts, name: str) -> bool:
    """Return whether what has failed is the Dockerfile, so that the next build may go on with what there is."""
    try:
        came = load(mounts.termination_log.read_text(), name)
    except (OSError, UnicodeDecodeError):
        return False
    return isinstance(came, Failure) and came.reason.leaves_builder_usable


def _handed(mounts: Mounts, work: Work, name: str, text: str) -> Callable[[], int]:
    """Return what a request asks for. Only its child reads more of it than the name."""

    def job() -> int:
        os.environ[REQUEST_ENV] = name
        return work.handed(replace(mounts, handed=mounts.work / "request"), text)

    return job


def write_inputs(mounts: Mounts, inputs: Inputs, contents: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write what the run's ConfigMap would hold: `inputs`, and the contents of inline files by their keys."""
    folder = mounts.inputs_folder
    folder.mkdir()
    (folder / paths.INPUTS_FILE).write_text(inputs.model_dump_json(by_alias=True, exclude_none=True))
    for key, content in contents.items():
        (folder / key).write_text(content)


def _in_child(job: Callable[[], int]) -> int:
    """Run `job` in a process of its own, which leads a session of its own, and return its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            code = job()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        finally:
            sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _end_others(child)
    return code if code >= 0 else 128 - code


def _end_others(child: int) -> None:
    """End what a build has left running in this container."""
    with suppress(ProcessLookupError):
        # As first process of the container: everything else in it.
        os.kill(-1, signal.SIGKILL) if os.getpid() == 1 else os.killpg(child, signal.SIGKILL)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


def clean(mounts: Mounts, keep: Keep) -> None:
    """Remove what the last build has left, in this container and in that of buildkitd.

    Raises:
        UncleanError: something is left.
    """
    try:
        empty(mounts.work)
    except OSError as error:
        raise UncleanError(f"the work folder can't be emptied: {error}") from error
    if keep.sweep:
        _sweep(mounts.socket.parent)


def empty(folder: Path) -> None:
    """Remove all that is in `folder`, also from folders that must not be written to.

    Raises:
        OSError: something is left.
    """
    for path, folders, _ in os.walk(folder):
        for each in (Path(path, name) for name in folders):
            if not each.is_symlink():
                each.chmod(stat.S_IRWXU)
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


def _sweep(folder: Path) -> None:
    """Have the supervisor of buildkitd end what RUNs have left, and wait until it says that nothing is."""
    token, until = secrets.token_hex(8), time.monotonic() + _SWEEP_SECONDS
    asked = False
    while time.monotonic() < until:
        asked = asked or _ask(folder / paths.SWEEP_FILE, token)
        with suppress(FileNotFoundError):
            if (folder / paths.SWEPT_FILE).read_text().strip() == token:
                return
        time.sleep(_SWEEP_POLL)
    raise UncleanError("processes of the last build may still run beside buildkitd")


def _ask(fifo: Path, token: str) -> bool:
    try:
        opened = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.ENOENT}:
            return False  # nobody reads it yet
        raise UncleanError(f"the supervisor of buildkitd can't be asked: {error}") from error
    with os.fdopen(opened, "w") as pipe:
        pipe.write(f"{token}\n")
    return True


def _next(mounts: Mounts, last: str, idle: float) -> str | None:
    """Return the request after that of the name `last`; None where none comes, or its result is not taken note of."""
    info, now = mounts.at(paths.POD_INFO), time.monotonic()
    noted_by, until = now + NOTED_SECONDS, now + idle
    noted, seen = False, ""
    with Changes(info) as changes:
        while True:
            text = (info / paths.REQUEST_FILE).read_text()
            if text != seen and _name(text) not in (None, last):
                return text
            seen = text
            noted = noted or (info / paths.IDLE_FILE).read_text() == last
            now, end = time.monotonic(), until if noted else min(until, noted_by)
            if now > end:
                return None
            changes.wait(end - now)


def _name(text: str) -> str | None:
    try:
        return RequestHead.model_validate_json(text).name
    except ValidationError:
        return None
