"""The git command line itself: what a name means, and what each failure of a submodule or of LFS is told as."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.inputs import Inputs
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.source import GitSource
from multiarchbuild.api.spec import Spec
from multiarchbuild.steps import git
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.mounts import Mounts
from tests.cluster.build import packages
from tests.steps.servers import GitServer
from tests.support.ports import free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    packages.ensure(("git", "git-lfs"))
    found = GitServer(tmp_path_factory.mktemp("git"))
    with ThreadingHTTPServer(("127.0.0.1", 0), found.handler()) as listening:
        found.port = listening.server_port
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield found
        listening.shutdown()


def checked_out(folder: Path, url: str, ref: str = "main", **more: Any) -> Path:
    """Return the folder with the files of what `ref` means."""
    source: dict[str, Any] = {"url": url, "ref": ref, **more}
    spec = {"platforms": ["linux/amd64"], "source": {"git": source}, "output": {"image": "registry.test/team/app"}}
    inputs = Inputs(namespace="team", name="app", run="r", spec=Spec.model_validate(spec))
    mounts = Mounts(folder)
    for path in (paths.INPUTS, paths.WORK):
        mounts.at(path).mkdir(parents=True)
    (mounts.at(paths.INPUTS) / paths.INPUTS_FILE).write_text(inputs.model_dump_json(by_alias=True, exclude_none=True))
    resolving = git.connect(mounts, GitSource.model_validate(source), mounts.work / "history")
    commit = git.fetch(resolving, ref, wanted=git.Wanted.COMMIT).commit
    assert commit is not None
    remote = git.connect(mounts, GitSource.model_validate(source), mounts.work / "context")
    git.check_out(remote, git.fetch(remote, commit, wanted=git.Wanted.FILES))
    return remote.folder


def refused(folder: Path, url: str, ref: str = "main") -> StepError:
    """Return why it cannot be checked out."""
    with pytest.raises(StepError) as raised:
        checked_out(folder, url, ref)
    return raised.value


# Names


@pytest.fixture(scope="module")
def named(server: GitServer) -> str:
    """A repository whose branch and tag have one name, and branches with names that need care."""
    server.commit("named", {"which": "tag"})
    for tag in ("v1", "only-tag", "t/#1,a=b%20"):
        server.tag("named", tag)
    server.commit("named", {"which": "branch"})
    work, bare = server.root / ".work-named", str(server.root / "named")
    names = ("v1", "fix/#12", "a,b=c%20d", "+plus", "größe", "refs/heads/odd", "heads/main", "x" * 200)
    server._git(work, "push", "--quiet", bare, *(f"HEAD:refs/heads/{name}" for name in names), "HEAD:refs/pull/7/head")
    return server.url("named")


@pytest.mark.parametrize(
    ("ref", "which"),
    [
        ("v1", "branch"),
        ("refs/heads/v1", "branch"),
        ("refs/tags/v1", "tag"),
        ("tags/v1", "tag"),
        ("only-tag", "tag"),
        ("t/#1,a=b%20", "tag"),
        *((name, "branch") for name in ("fix/#12", "a,b=c%20d", "+plus", "größe", "HEAD", "heads/main", "pull/7/head")),
        ("refs/heads/refs/heads/odd", "branch"),
        ("x" * 200, "branch"),
    ],
)
def test_a_name_means_the_branch_before_the_tag(tmp_path: Path, named: str, ref: str, which: str) -> None:
    assert (checked_out(tmp_path, named, ref) / "which").read_text() == which


@pytest.mark.parametrize("ref", ["none", "refs/heads/none", "refs/tags/only-branch", "#", "1" * 40])
def test_a_name_that_is_not_there_is_told(tmp_path: Path, named: str, ref: str) -> None:
    error = refused(tmp_path, named, ref)
    assert error.reason is Reason.GIT_REF_NOT_FOUND
    assert f"{named} has no branch, tag or commit {ref!r}" in error.message


# The repository itself


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_repository_is_left_out_unless_asked_for(tmp_path: Path, server: GitServer) -> None:
    lib = server.commit("kept-lib", {"text": "lib"})
    commit = parent(server, "kept", "../kept-lib", lib)
    url = server.url("kept")
    assert not [path for path in contents(checked_out(tmp_path / "without", url)) if ".git/" in f"{path}/"]

    folder = checked_out(tmp_path / "kept", url, keepGitDir=True)
    assert server._git(folder, "rev-parse", "HEAD").strip() == commit
    assert server._git(folder, "describe", "--always", "--dirty", "--abbrev=40").strip() == commit
    assert server._git(folder / "lib", "rev-parse", "HEAD").strip() == lib


def test_a_kept_repository_is_the_same_bytes_each_time_and_holds_no_password(tmp_path: Path, server: GitServer) -> None:
    lib = server.commit("twice-lib", {"text": "lib"})
    parent(server, "twice", "../twice-lib", lib)
    kept = [contents(checked_out(tmp_path / name, server.url("twice"), keepGitDir=True)) for name in ("one", "two")]
    assert [path for path in kept[0] if kept[0][path] != kept[1].get(path)] == []
    assert any(path.startswith(".git/objects/") for path in kept[0])


# Submodules


def parent(server: GitServer, name: str, url: str, commit: str, *, path: str = "lib", also: str = "") -> str:
    """Make a repository whose submodule `path` is at `url`, and whose folder `also` is one without a url."""
    server.commit(name, {".gitmodules": f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n'})
    work = server.root / f".work-{name}"
    for folder in filter(None, (path, also)):
        server._git(work, "update-index", "--add", "--cacheinfo", f"160000,{commit},{folder}")
    server._git(work, "commit", "--quiet", "--message=submodule")
    server._git(work, "push", "--quiet", str(server.root / name), "HEAD:refs/heads/main")
    return server._git(work, "rev-parse", "HEAD").strip()


def test_a_submodule_that_fails_is_named_with_its_reason(tmp_path: Path, server: GitServer) -> None:
    lib = server.commit("lib", {"text": ""})
    nowhere = f"http://127.0.0.1:{free_port()}/lib"
    parent(server, "sub-no-url", "../lib", lib, also="vendor/old")
    parent(server, "sub-missing", "../none", lib)
    parent(server, "sub-no-commit", "../lib", "1" * 40)
    parent(server, "sub-private", server.url("private/lib"), lib)
    parent(server, "sub-nowhere", nowhere, lib)
    parent(server, "sub-ssh", "ssh://git@127.0.0.1/lib", lib)
    inner = parent(server, "sub-inner", "../none", lib, path="deep/er")
    parent(server, "sub-outer", "../sub-inner", inner)
    none, missing = server.url("none"), Reason.GIT_REPOSITORY_NOT_FOUND
    for name, reason, words in (
        ("sub-no-url", Reason.SOURCE_INVALID, "The submodule 'vendor/old' of"),
        ("sub-missing", missing, f"The submodule 'lib' ({none}) of {server.url('sub-missing')} does not exist"),
        (
            "sub-no-commit",
            Reason.GIT_REF_NOT_FOUND,
            f"The submodule 'lib' of {server.url('sub-no-commit')} has no commit",
        ),
        ("sub-private", Reason.GIT_AUTHENTICATION_FAILED, f"The submodule 'lib' ({server.url('private/lib')}) of"),
        ("sub-nowhere", Reason.GIT_UNREACHABLE, f"Fetching the submodule 'lib' ({nowhere}) of"),
        ("sub-ssh", Reason.GIT_AUTHENTICATION_FAILED, "give it a relative URL in .gitmodules"),
        ("sub-outer", missing, f"The submodule 'lib/deep/er' ({none}) of {server.url('sub-outer')} does not exist"),
    ):
        error = refused(tmp_path / name, server.url(name))
        assert (error.reason, words in error.message) == (reason, True), f"{name}: {error.message}"


# LFS


def test_a_failure_of_lfs_names_file_and_repository(tmp_path: Path, server: GitServer) -> None:
    content = b"lost"
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{hashlib.sha256(content).hexdigest()}\nsize 4\n"

    def made(name: str, lfs_url: str = "") -> str:
        files = {".gitattributes": "*.bin filter=lfs -text\n", "big.bin": pointer}
        return server.commit(name, files | ({".lfsconfig": f"[lfs]\n\turl = {lfs_url}\n"} if lfs_url else {}))

    lost = made("lfs-lost")
    made("lfs-private", server.url("private/lfs-private/info/lfs"))
    made("lfs-nowhere", f"http://127.0.0.1:{free_port()}/x")
    made("lfs-wrong", server.url("none/lfs"))
    parent(server, "lfs-outer", "../lfs-lost", lost)
    for name, reason, words in (
        ("lfs-lost", Reason.GIT_LFS_FAILED, "Object does not exist"),
        ("lfs-private", Reason.GIT_LFS_FAILED, "Name a Secret in source.git.secretRef"),
        ("lfs-nowhere", Reason.GIT_UNREACHABLE, "connection refused"),
        ("lfs-wrong", Reason.GIT_LFS_FAILED, "not found"),
        ("lfs-outer", Reason.GIT_LFS_FAILED, f"a file in git LFS of the submodule 'lib' of {server.url('lfs-outer')}"),
    ):
        error = refused(tmp_path / name, server.url(name))
        found = (error.reason, words in error.message, "'big.bin'" in error.message)
        assert found == (reason, True, True), f"{name}: {error.message}"
