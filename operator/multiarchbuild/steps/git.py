"""The git command line, for the one commit that a run builds.

The steps fetch for themselves, not BuildKit: its git context takes only http URLs that end in `.git`, and here a wrong
ref or password is reported while the builder is still starting.
"""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Source
from multiarchbuild.api.source import GitSource
from multiarchbuild.oci.proxies import Proxies

from . import git_errors, ssh
from .credentials import BearerToken, git_credentials, git_ssh
from .errors import StepError
from .mounts import Mounts
from .trust import ca_file

_PORTS = {"http": 80, "https": 443, "ssh": 22}
_CONNECT_TIMEOUT = 10.0
"""Seconds; git itself waits for minutes."""
_STALL = {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "30"}
"""Less than 1000 bytes a second for 30 seconds is a server that has stopped answering."""
_SHA256_COMMIT = re.compile("[0-9a-f]{64}")
_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_SHA256 = "mismatched algorithms: client sha1; server sha256"
_NO_UNADVERTISED = "does not allow request for unadvertised object"


class Wanted(StrEnum):
    """How much of a commit is fetched, as git's filter of what is left out."""

    COMMIT = "tree:0"
    TREES = "blob:none"
    """Names of files, and what tells their contents apart."""
    FILES = ""


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
    _init(remote, "sha1")
    return remote


def _init(remote: Remote, object_format: str) -> None:
    """Make the local repository anew."""
    if remote.folder.exists():
        shutil.rmtree(remote.folder)
    remote.folder.mkdir(parents=True)
    _git(remote, "init", "--quiet", f"--object-format={object_format}", ".")
    _git(remote, "remote", "add", "origin", remote.source.url)


def fetch(remote: Remote, ref: str, *, wanted: Wanted) -> Source:
    """Fetch the commit behind `ref`, with as much of it as is `wanted`, and return it. Servers may send all.

    Raises:
        StepError: there is no such ref or commit, the server refuses, or it cannot be reached.
    """
    only = [f"--filter={wanted}"] if wanted else []
    if _SHA256_COMMIT.fullmatch(ref):
        # In a repository of SHA-1 it would be the name of a branch.
        _init(remote, "sha256")
    try:
        found = _fetch(remote, ref, only)
    except StepError as error:
        if _SHA256 not in error.log_tail:
            raise
        _init(remote, "sha256")
        found = _fetch(remote, ref, only)
    described = _git(remote, "log", "-1", "--format=%H%n%ct%n%an <%ae>", f"{found}^{{commit}}")
    commit, time, author = described.rstrip("\n").split("\n")
    return Source(commit=commit, ref=remote.source.ref, author=author, time=int(time))


def _fetch(remote: Remote, ref: str, only: list[str]) -> str:
    """Fetch `ref` and return what names it in the local repository."""
    *before, last = _names(ref)
    for name in before:
        try:
            return _fetch_name(remote, name, only)
        except StepError as error:
            if error.reason is not Reason.GIT_REF_NOT_FOUND:
                raise
    return _fetch_name(remote, last, only)


def _names(ref: str) -> list[str]:
    """Return what `ref` may mean on the server, the first that exists counts.

    Of a branch and a tag with the same name it is the branch, as for `git checkout` and `docker buildx build URL#ref`.
    `git fetch` would take the tag.
    """
    if ref == "HEAD" or ref.startswith("refs/") or _COMMIT.fullmatch(ref):
        return [ref]
    return [f"refs/heads/{ref}", f"refs/tags/{ref}", f"refs/{ref}"]


def _fetch_name(remote: Remote, name: str, only: list[str]) -> str:
    try:
        _git(remote, "fetch", "--quiet", "--no-tags", "--depth=1", *only, "origin", name)
    except StepError as error:
        if _NO_UNADVERTISED not in error.log_tail:
            raise
        # The server hands out tips only: a commit behind them comes with all history.
        _git(remote, "fetch", "--quiet", "--tags", *only, "origin", "+refs/heads/*:refs/remotes/origin/*")
        return name
    return "FETCH_HEAD"


def tree(remote: Remote, source: Source) -> Iterator[tuple[str, str]]:
    """Yield each file of a commit that was fetched with its trees: its path, its mode and the name of its content."""
    assert source.commit is not None
    for line in _git(remote, "ls-tree", "-r", "-z", "--full-tree", source.commit).split("\0"):
        if line:
            what, _, path = line.partition("\t")
            yield path, what


def check_out(remote: Remote, source: Source) -> None:
    """Leave the files of `source` in the remote's folder: submodules and LFS too, but `.git` only where asked for."""
    assert source.commit is not None
    _git(remote, "checkout", "--quiet", "--detach", source.commit)
    if (remote.folder / ".gitmodules").is_file():
        _git(remote, "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1", "--jobs=4")
    if remote.source.keep_git_dir:
        _forget_when(remote)
        return
    for path in list(remote.folder.rglob(".git")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _forget_when(remote: Remote) -> None:
    """Leave nothing in `.git` that says when and where it was fetched: COPY would make other layers each time.

    The index of a checkout holds times and inodes of its files. One that was read from a tree holds none, and git looks
    at the files themselves.
    """
    _git(remote, "read-tree", "HEAD")
    _git(remote, "submodule", "--quiet", "foreach", "--recursive", "git read-tree HEAD")
    (remote.folder / ".git" / "FETCH_HEAD").unlink(missing_ok=True)


def _environment(mounts: Mounts, source: GitSource) -> dict[str, str]:
    url = urlsplit(source.url)
    config = {
        "init.defaultBranch": "main",
        "core.hooksPath": os.devnull,
        "core.logAllRefUpdates": "false",
        "protocol.version": "2",
        "submodule.recurse": "false",
        # `required`: without git-lfs, or without its server, there is an error and never a file of pointers.
        "filter.lfs.process": "git-lfs filter-process",
        "filter.lfs.smudge": "git-lfs smudge -- %f",
        "filter.lfs.clean": "git-lfs clean -- %f",
        "filter.lfs.required": "true",
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
    if url.scheme == "ssh":
        env |= {"GIT_ALLOW_PROTOCOL": "http:https:ssh", "GIT_SSH_COMMAND": _ssh_command(mounts, source)}
    elif isinstance(credentials := git_credentials(mounts), BearerToken):
        env["GIT_CONFIG_GLOBAL"] = str(_bearer(mounts, f"{url.scheme}://{url.netloc}", credentials))
    elif credentials:
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


def _bearer(mounts: Mounts, origin: str, token: BearerToken) -> Path:
    """Write the configuration that sends `token` to `origin`; nobody else reads it, as they may the environment."""
    file = mounts.work / "gitconfig"
    file.touch(mode=0o600)
    # Git chooses its headers by the URL that it begins with, and sends them to where that redirects too.
    section, header = (_quote(text) for text in (origin, f"Authorization: Bearer {token.value}"))
    file.write_text(f"[http {section}]\n\textraHeader = {header}\n\tfollowRedirects = false\n")
    return file


def _quote(text: str) -> str:
    r"""Return `text`, one line, in quotes, in which git's configuration knows two special characters: \ and "."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ssh_command(mounts: Mounts, source: GitSource) -> str:
    assert source.secret_ref is not None
    try:
        return ssh.command(git_ssh(mounts), mounts.work / "ssh")
    except ssh.UnusableKeyError as error:
        raise StepError(
            Reason.SECRET_INVALID,
            f"The Secret {source.secret_ref.name!r} of source.git.secretRef cannot be used: {error}.",
        ) from error


def _check_host(url: str) -> None:
    parts = urlsplit(url)
    if Proxies.read(os.environ).of(url):
        return
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
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
        raise git_errors.failure(remote.source, arguments, done.stderr, code=done.returncode, folder=remote.folder)
    return done.stdout
