from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Resolved, Source
from tests.steps.conftest import Pods, Services

FILES = {"Dockerfile": "FROM busybox:1.36\n"}


def git(services: Services, name: str, **more: Any) -> dict[str, Any]:
    return {"git": {"url": services.git.url(name), **more}}


def resolved(outcome: object) -> Source:
    assert isinstance(outcome, Resolved), outcome
    return outcome.source


@pytest.mark.parametrize("ref", ["main", "HEAD", "refs/heads/main", "v1", "refs/tags/v1"])
def test_each_way_to_name_a_commit_finds_it(pod: Pods, services: Services, ref: str) -> None:
    name = "refs-" + ref.replace("/", "-")
    commit = services.git.commit(name, FILES)
    services.git.tag(name, "v1")
    found = resolved(pod(source=git(services, name, ref=ref)).run("resolve"))
    assert (found.commit, found.ref, found.author) == (commit, ref, "Ada Lovelace <ada@example.com>")
    assert found.time is not None


def test_commits_are_told_apart_by_the_files_that_count(pod: Pods, services: Services) -> None:
    paths = '--paths={"include":["services/api"]}'

    def of(files: dict[str, str], **more: Any) -> str | None:
        services.git.commit("paths", {**FILES, "services/api/m.py": "1", **files})
        return resolved(pod(source=git(services, "paths", **more)).run("resolve", paths)).paths

    first = of({"docs/a.md": "1"})
    assert first
    assert of({"docs/a.md": "2"}) == first
    assert of({"services/api/m.py": "2"}) != first
    assert of({"docs/b.md": "1"}) == first, "what was taken back is no change"
    assert of({"Dockerfile": "FROM busybox:1.36\nUSER 1\n"}) != first
    # A server that filters nothing sends all.
    services.git._git(services.git.root / "paths", "config", "uploadpack.allowFilter", "false")
    assert of({"docs/c.md": "1"}) == first


def test_a_branch_that_has_moved_is_found_where_it_is_now(pod: Pods, services: Services) -> None:
    first = services.git.commit("moved", FILES)
    second = services.git.commit("moved", {**FILES, "f": "2"})
    source = git(services, "moved")
    assert resolved(pod(source=source).run("resolve")).commit == second
    # The first commit can still be built, though no branch ends at it.
    assert pod(source=source).built(source=Source(commit=first)).digest


def test_a_server_that_hands_out_tips_only_still_gives_a_commit_behind_them(pod: Pods, services: Services) -> None:
    first = services.git.commit("tips", FILES)
    services.git.commit("tips", {**FILES, "f": "2"})
    # Protocol 2 hands out any commit; an old server speaks protocol 0 and refuses.
    services.git._git(services.git.root / "tips", "config", "protocol.version", "0")
    services.git._git(services.git.root / "tips", "config", "uploadpack.advertiseRefs", "true")
    assert pod(source=git(services, "tips")).built(source=Source(commit=first)).digest


def test_a_private_repository(pod: Pods, services: Services) -> None:
    commit = services.git.commit("secret", FILES)
    source = git(services, "private/secret", secretRef={"name": "git"})
    secrets = {"git": {"username": services.git.user, "password": f"{services.git.password}\n"}}
    assert resolved(pod(secrets, source=source).run("resolve")).commit == commit


def test_a_token_is_enough_where_the_server_takes_any_user(pod: Pods, services: Services) -> None:
    services.git.commit("token", FILES)
    source = git(services, "private/token", secretRef={"name": "git"})
    outcome = pod({"git": {"username": services.git.user, "token": services.git.password}}, source=source).run(
        "resolve"
    )
    assert isinstance(outcome, Resolved)


@pytest.mark.parametrize(
    ("path", "more", "secrets", "reason", "words"),
    [
        ("app", {"ref": "none"}, {}, Reason.GIT_REF_NOT_FOUND, "has no branch, tag or commit 'none'"),
        ("app", {"ref": "f" * 40}, {}, Reason.GIT_REF_NOT_FOUND, "in full, 40 hexadecimal digits"),
        ("none", {}, {}, Reason.GIT_REPOSITORY_NOT_FOUND, "correct source.git.url"),
        ("private/app", {}, {}, Reason.GIT_AUTHENTICATION_FAILED, "source.git.secretRef"),
        (
            "private/app",
            {"secretRef": {"name": "s"}},
            {"git": {"username": "ci", "password": "wrong"}},
            Reason.GIT_AUTHENTICATION_FAILED,
            "the credentials in the Secret 's' are not accepted",
        ),
        ("app", {"secretRef": {"name": "s"}}, {}, Reason.SECRET_NOT_FOUND, "'s'"),
        ("app", {"secretRef": {"name": "s"}}, {"git": {"user": "x"}}, Reason.SECRET_INVALID, "has `user`"),
        (
            "app",
            {"secretRef": {"name": "s"}},
            {"git": {"password": "a\nb"}},
            Reason.SECRET_INVALID,
            "one line",
        ),
    ],
)
def test_failures_have_their_reasons(
    pod: Pods, services: Services, path: str, more: Any, secrets: Any, reason: Reason, words: str
) -> None:
    services.git.commit("app", FILES)
    failure = pod(secrets, source=git(services, path, **more)).failed("resolve")
    assert (failure.reason, words in failure.message) == (reason, True), failure.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/app", "http://no.such.host.invalid/app"])
def test_a_server_that_is_not_there_is_told_at_once(pod: Pods, url: str) -> None:
    failure = pod(source={"git": {"url": url}}).failed("resolve")
    assert failure.reason is Reason.GIT_UNREACHABLE
    assert "cannot be reached" in failure.message
