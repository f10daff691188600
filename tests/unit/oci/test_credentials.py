import base64
import json
from typing import Any

import pytest

from multiarchbuild.oci.credentials import Credentials, InvalidConfigError, Keychain
from multiarchbuild.oci.names import Repository


def config(**auths: Any) -> str:
    return json.dumps({"auths": auths})


def encoded(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    "key",
    ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io", "https://docker.io"],
)
def test_every_name_of_docker_hub_is_docker_hub(key: str) -> None:
    keychain = Keychain.load([config(**{key: encoded("u", "p")})])
    assert keychain.find(Repository.parse("docker.io/team/app")) == Credentials("u", "p")


def test_the_longest_path_that_matches_counts() -> None:
    auths = {
        "r.test": encoded("host", "p"),
        "r.test/team": encoded("team", "p"),
        "r.test/team/app": encoded("app", "p"),
        "r.test/team/application": encoded("other", "p"),
    }
    keychain = Keychain.load([config(**auths)])
    users = {
        name: found.username
        for name in ("r.test/x", "r.test/team/x", "r.test/team/app", "r.test/teamwork/app")
        if (found := keychain.find(Repository.parse(name)))
    }
    assert users == {
        "r.test/x": "host",
        "r.test/team/x": "team",
        "r.test/team/app": "app",
        "r.test/teamwork/app": "host",
    }


def test_of_two_secrets_for_one_registry_the_first_counts() -> None:
    keychain = Keychain.load([config(**{"r.test": encoded("a", "1")}), config(**{"other.test": encoded("b", "2")})])
    assert keychain.find(Repository.parse("r.test/x")) == Credentials("a", "1")
    both = Keychain.load([config(**{"r.test": encoded("a", "1")}), config(**{"r.test": encoded("b", "2")})])
    assert both.find(Repository.parse("r.test/x")) == Credentials("a", "1")


def test_a_password_may_hold_colons_and_letters_of_any_script() -> None:
    keychain = Keychain.load([config(**{"r.test": encoded("u", "a:b:ü")})])
    assert keychain.find(Repository.parse("r.test/x")) == Credentials("u", "a:b:ü")


def test_user_and_password_may_stand_by_themselves() -> None:
    keychain = Keychain.load([config(**{"r.test": {"username": "u", "password": "p", "email": ""}})])
    assert keychain.find(Repository.parse("r.test/x")) == Credentials("u", "p")


def test_credential_helpers_are_passed_over() -> None:
    text = json.dumps({"auths": {"r.test": {}}, "credsStore": "desktop", "credHelpers": {"r.test": "ecr-login"}})
    keychain = Keychain.load([text])
    assert keychain.find(Repository.parse("r.test/x")) is None
    assert keychain.docker_config([]) == '{"auths": {}}'


def test_the_docker_config_has_one_entry_a_host() -> None:
    auths = {"r.test": encoded("host", "1"), "r.test/team": encoded("team", "2"), "docker.io": encoded("hub", "3")}
    written = json.loads(
        Keychain.load([config(**auths)]).docker_config(
            [Repository.parse("r.test/team/app"), Repository.parse("r.test/x")]
        )
    )
    assert written == {"auths": {"r.test": encoded("team", "2"), "https://index.docker.io/v1/": encoded("hub", "3")}}


def test_tokens_are_kept() -> None:
    auths = {"a.test": {"identitytoken": "refresh"}, "b.test": {"registrytoken": "bearer"}}
    keychain = Keychain.load([config(**auths)])
    assert json.loads(keychain.docker_config([])) == {"auths": auths}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "it is not JSON"),
        ("[]", "`auths` must be an object"),
        ('{"auths": []}', "`auths` must be an object"),
        ('{"auths": {"r.test": "x"}}', "an object of strings"),
        ('{"auths": {"r.test": {"auth": "!"}}}', "is not base64"),
        ('{"auths": {"r.test": {"auth": "eA=="}}}', "not user:password"),
        ('{"auths": {"r.test": {"registrytoken": "a\\nb"}}}', "must be one line"),
        ('{"auths": {"r.test": {"identitytoken": "\u00fc"}}}', "must be one line"),
        ("[" * 100_000, "it is not JSON"),
    ],
)
def test_what_is_no_docker_config_is_refused_without_being_quoted(text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        Keychain.load([text])


def test_a_password_is_not_printed() -> None:
    assert "hidden" not in repr(Credentials("u", "hidden", "hidden", "hidden"))
