"""The git command line, for the one commit that a run builds.

The steps fetch for themselves, not BuildKit: its git context takes only http URLs that end in `.git`, and here a wrong
ref or password is reported while the builder is still starting.
"""

import os
import shlex
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Source
from multiarchbuild.api.source import GitSource

from .credentials import git_credentials
from .errors import StepError
from .mounts import Mounts
from .trust import ca_file

_CONNECT_TIMEOUT = 10.0
"""Seconds; git itself waits for minutes."""
_STALL = {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "30"}
"""Less than 1000 bytes a second for 30 seconds is a server that has stopped answering."""
_NO_UNADVERTISED = "does not allow request for unadvertised object"
_REF_UNKNOWN = ("couldn't find remote ref", "not our ref", "unadvertised object", "reference is not a tree")
_AUTHENTICATION = ("authentication failed", "could not read username", "returned error: 401", "returned error: 403")
_UNKNOWN_REPOSITORY = ("' not found", "returned error: 404", "not valid: is this a git repository")


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository that can be fetched from, with what git needs for it."""

    source: GitSource
    env: dict[str, str]
    folder: Path
    """Local repository, made by `connect`."""


def connect(mounts: Mounts, source: GitSource, folder: Path) -> Remote:
    """Make an empty local repository in `folder` for `source` and check that its host answers.

    Raises:
        StepError: the Secret cannot be used, or the host cannot be connected to.
    """
    remote = Remote(source, _environment(mounts, source), folder)
    _check_host(source.url)
    folder.mkdir(parents=True)
    _git(remote, "init", "--quiet", ".")
    _git(remote, "remote", "add", "origin", source.url)
    return remote


def fetch(remote: Remote, ref: str, *, history_only: bool) -> Source:
    """Fetch the commit behind `ref` and return it; without its files when `history_only`.

    Raises:
        StepError: there is no such ref or commit, the server refuses, or it cannot be reached.
    """
    only = ["--filter=tree:0"] if history_only else []
    try:
        _git(remote, "fetch", "--quiet", "--no-tags", "--depth=1", *only, "origin", ref)
        found = "FETCH_HEAD"
    except StepError as error:
        if _NO_UNADVERTISED not in error.log_tail:
            raise
        # The server hands out tips only: a commit behind them comes with all history.
        _git(remote, "fetch", "--quiet", "--tags", *only, "origin", "+refs/heads/*:refs/remotes/origin/*")
        found = ref
    described = _git(remote, "log", "-1", "--format=%H%n%ct%n%an <%ae>", f"{found}^{{commit}}")
    commit, time, author = described.rstrip("\n").split("\n")
    return Source(commit=commit, ref=remote.source.ref, author=author, time=int(time))


def check_out(remote: Remote, source: Source) -> None:
    """Leave the files of `source` in the remote's folder: submodules too, without `.git`, dated by the commit."""
    assert source.commit is not None
    assert source.time is not None
    _git(remote, "checkout", "--quiet", "--detach", source.commit)
    if (remote.folder / ".gitmodules").is_file():
        _git(remote, "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", "--jobs=4")
    for path in list(remote.folder.rglob(".git")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in (remote.folder, *remote.folder.rglob("*")):
        os.utime(path, (source.time, source.time), follow_symlinks=False)


def _environment(mounts: Mounts, source: GitSource) -> dict[str, str]:
    url = urlsplit(source.url)
    config = {
        "init.defaultBranch": "main",
        "core.hooksPath": os.devnull,
        "protocol.version": "2",
        "submodule.recurse": "false",
    }
    env = {
        **os.environ,
        **_STALL,
        "HOME": str(mounts.work),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "http:https",
    }
    if credentials := git_credentials(mounts):
        env["MULTIARCHBUILD_GIT_USER"], env["MULTIARCHBUILD_GIT_PASSWORD"] = credentials
        # Bound to the origin: a submodule or a redirect elsewhere is not handed the password.
        config[f"credential.{url.scheme}://{url.netloc}.helper"] = (
            '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n" '
            '"$MULTIARCHBUILD_GIT_USER" "$MULTIARCHBUILD_GIT_PASSWORD"; }; f'
        )
    if trusted := ca_file(mounts):
        env["GIT_SSL_CAINFO"] = trusted
    for number, (key, value) in enumerate(config.items()):
        env[f"GIT_CONFIG_KEY_{number}"], env[f"GIT_CONFIG_VALUE_{number}"] = key, value
    env["GIT_CONFIG_COUNT"] = str(len(config))
    return env


def _check_host(url: str) -> None:
    parts = urlsplit(url)
    if any(os.environ.get(name) for name in (f"{parts.scheme}_proxy", f"{parts.scheme.upper()}_PROXY")):
        return
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), _CONNECT_TIMEOUT).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: no host can be named so
        said = getattr(error, "strerror", None) or error
        raise StepError(
            Reason.GIT_UNREACHABLE,
            f"The git server {host}:{port} cannot be reached: {said}. Check source.git.url, and "
            "that pods may connect to it.",
        ) from error


def _git(remote: Remote, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=remote.folder,
        env=remote.env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise failure(remote.source, arguments, done.stderr)
    return done.stdout


def failure(source: GitSource, arguments: tuple[str, ...], said: str) -> StepError:
    """Return how a step fails whose `git <arguments>` printed `said` on standard error."""
    text = said.lower()
    last = next((line for line in reversed(said.splitlines()) if line.strip()), f"git {shlex.join(arguments)} failed")
    last = last.removeprefix("fatal: ").removeprefix("remote: ")
    if any(words in text for words in _REF_UNKNOWN):
        return StepError(
            Reason.GIT_REF_NOT_FOUND,
            f"{source.url} has no branch, tag or commit {source.ref!r}: correct source.git.ref (a commit is written "
            "in full, 40 hexadecimal digits).",
            said,
        )
    if any(words in text for words in _AUTHENTICATION):
        remedy = (
            f"the credentials in the Secret {source.secret_ref.name!r} are not accepted: renew them"
            if source.secret_ref
            else "name a Secret with `username` and `password`, or `token`, in source.git.secretRef"
        )
        return StepError(Reason.GIT_AUTHENTICATION_FAILED, f"{source.url} may not be read ({last}): {remedy}.", said)
    if any(words in text for words in _UNKNOWN_REPOSITORY):
        return StepError(
            Reason.GIT_REPOSITORY_NOT_FOUND,
            f"There is no git repository at {source.url} ({last}): correct source.git.url; if it is private, name "
            "a Secret in source.git.secretRef.",
            said,
        )
    return StepError(Reason.GIT_UNREACHABLE, f"Fetching {source.url} failed: {last}.", said)
