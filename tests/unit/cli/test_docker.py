"""The user's docker config, with helpers that are real programs."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.cli.docker import Logins
from multiarchbuild.cli.errors import UsageError
from multiarchbuild.oci.credentials import Credentials
from multiarchbuild.oci.names import Repository

APP = Repository.parse("r.test/team/app")
Write = Callable[..., Logins]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a config, and helpers by their name, and return the config as it is read."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def write(config: dict[str, Any], **helpers: str) -> Logins:
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        for name, script in helpers.items():
            program = tmp_path / f"docker-credential-{name}"
            program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            program.chmod(0o755)
        return Logins.load()

    return write


def answer(user: str, secret: str) -> str:
    return f"""echo '{json.dumps({"ServerURL": "", "Username": user, "Secret": secret})}'"""


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


NONE = "echo 'credentials not found in native keychain'; exit 1"


def test_without_a_config_there_are_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "none.json"))
    assert Logins.load().find(APP) is None


def test_the_files_of_podman_come_after_that_of_docker_and_the_one_that_is_named_before(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def auths(path: str, **users: str) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"auths": {host: auth(user, "p") for host, user in users.items()}}))
        return file

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    auths("run/containers/auth.json", **{"r.test": "podman", "r.test/team": "podman-team", "second.test": "podman"})
    auths(".config/containers/auth.json", **{"second.test": "kept", "third.test": "kept"})
    config = write({"auths": {"docker.test": auth("docker", "p")}})

    def user(name: str) -> str | None:
        found = config.find(Repository.parse(name))
        return found.username if found else None

    assert user("r.test/team/app") == "podman-team"
    assert [user(f"{host}.test/x") for host in ("docker", "second", "third", "fourth")] == [
        "docker",
        "podman",
        "kept",
        None,
    ]
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(auths("own.json", **{"docker.test": "named"})))
    config = Logins.load()
    assert [user("docker.test/x"), user("third.test/x")] == ["named", "kept"]
    assert config.path == tmp_path / "own.json"


def test_a_helper_is_asked_for_its_registry_and_no_other(write: Write, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    config = write(
        {"credHelpers": {"r.test": "one"}, "auths": {"other.test": auth("u", "p")}},
        one=f"echo $1 >> {asked}; cat >> {asked}; {answer('helped', 's')}",
    )
    assert config.find(APP) == Credentials("helped", "s")
    assert config.find(Repository.parse("other.test/x")) == Credentials("u", "p")
    assert asked.read_text() == "get\nr.test"


def test_the_helper_of_a_registry_goes_before_the_store_and_the_store_before_the_file(write: Write) -> None:
    config = write(
        {"credsStore": "store", "credHelpers": {"r.test": "own"}, "auths": {"third.test": auth("u", "p")}},
        own=answer("own", "s"),
        store=f'read server; [ "$server" = other.test ] || {{ {NONE}; }}; {answer("stored", "s")}',
    )
    assert config.find(APP) == Credentials("own", "s")
    assert config.find(Repository.parse("other.test/x")) == Credentials("stored", "s")
    assert config.find(Repository.parse("third.test/x")) == Credentials("u", "p")


def test_docker_hub_is_asked_for_by_its_old_name(write: Write) -> None:
    config = write({"credsStore": "store"}, store='read s; echo "{\\"Username\\": \\"$s\\", \\"Secret\\": \\"x\\"}"')
    assert config.find(Repository.parse("docker.io/team/app")) == Credentials("https://index.docker.io/v1/", "x")


def test_the_user_token_means_that_the_secret_is_one(write: Write) -> None:
    assert write({"credsStore": "t"}, t=answer("<token>", "refresh")).find(APP) == Credentials(identity_token="refresh")


@pytest.mark.parametrize(
    ("config", "helpers", "message"),
    [
        ({"credsStore": "missing"}, {}, "names the credential helper docker-credential-missing, which is not on PATH"),
        ({"credsStore": "bad"}, {"bad": "echo locked >&2; exit 1"}, "failed for r.test: locked"),
        ({"credsStore": "bad"}, {"bad": "echo nonsense"}, "did not answer with user and secret"),
    ],
)
def test_a_helper_that_fails_says_so(
    write: Write, config: dict[str, Any], helpers: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write(config, **helpers).find(APP)


def test_a_file_that_is_no_config_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(UsageError, match=r"config\.json: it is not a docker config file"):
        Logins.load()
