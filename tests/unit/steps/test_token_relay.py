"""Which login the relay uses for which scopes; tests/steps/test_logins.py asks buildctl and a registry."""

from pathlib import Path

import pytest

from multiarchbuild.oci.client import pool
from multiarchbuild.oci.credentials import Credentials
from multiarchbuild.oci.errors import DeniedError
from multiarchbuild.oci.names import Repository
from multiarchbuild.steps.token_relay import Registries, Relay

LOGINS = {"team/app": Credentials("app", "1"), "team/tools": Credentials("app", "1"), "base": Credentials("base", "2")}


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    registries = Registries(lambda repository: LOGINS.get(repository.path), lambda _: pool(None), lambda _: False)
    return Relay(registries, tmp_path)


@pytest.mark.parametrize(
    ("scopes", "user", "kept"),
    [
        (["repository:base:pull"], "base", ["repository:base:pull"]),
        # What is pushed decides, also where a repository to mount from stands before it.
        (["repository:base:pull", "repository:team/app:pull,push"], "app", ["repository:team/app:pull,push"]),
        (
            ["repository:team/app:push,pull", "repository:team/tools:pull"],
            "app",
            ["repository:team/app:push,pull", "repository:team/tools:pull"],
        ),
        (["repository:public:pull", "repository:base:pull"], None, ["repository:public:pull"]),
        ([], None, []),
    ],
)
def test_the_login_of_what_is_pushed_or_pulled_first_counts(
    relay: Relay, scopes: list[str], user: str | None, kept: list[str]
) -> None:
    login, wanted = relay._choose("r.test", scopes)
    assert (login.username if login else None) == user
    assert list(wanted) == kept


def test_a_placeholder_of_another_build_gets_no_token(relay: Relay, tmp_path: Path) -> None:
    other = Relay(relay.registries, tmp_path).placeholder("r.test")
    with pytest.raises(DeniedError, match="has not asked"):
        relay.token("https://r.test/token", "s", ["repository:base:pull"], other)


def test_a_placeholder_tells_nothing_of_the_login(relay: Relay) -> None:
    assert Repository.parse("r.test/base").path in LOGINS
    given = relay.placeholder("r.test")
    assert given.password.endswith(" r.test")
    assert relay._secret not in repr(relay)
    assert relay.placeholder("r.test") == given
