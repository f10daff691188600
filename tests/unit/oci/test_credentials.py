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


def test_credentials_in_the_store_of_another_machine_are_named() -> None:
    auths = {"r.test": {}, "own.test": encoded("u", "p")}
    text = json.dumps({"auths": auths, "credsStore": "desktop", "credHelpers": {"ecr.test": "ecr-login"}})
    keychain = Keychain.load([text])
    missing = {
        name: keychain.missing_helper(Repository.parse(f"{name}/x"))
        for name in ("r.test", "ecr.test", "public.test", "own.test")
        if keychain.find(Repository.parse(f"{name}/x")) is None
    }
    assert missing == {"r.test": "desktop", "ecr.test": "ecr-login", "public.test": ""}
    # Another Secret has them.
    both = Keychain.load([text, config(**{"r.test": encoded("v", "q")})])
    assert both.find(Repository.parse("r.test/x")) == Credentials("v", "q")


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
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "an object with `auths`"),
        ("null", "an object with `auths`"),
        ('{"auths": []}', "`auths` must be an object"),
        ('{"auths": {}, "credHelpers": 1}', "`credHelpers` must be an object"),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_not_a_docker_config_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        Keychain.load([text])


USER = Credentials("foo", "bar")
ENTRIES: dict[str, Credentials | str | None] = {
    # As in Kubernetes' own tests of its keyring (pkg/credentialprovider/config_test.go).
    '{"username": "foo", "password": "bar", "email": "foo@example.com"}': USER,
    '{"auth": "Zm9vOmJhcg==", "email": "foo@example.com"}': USER,
    '{"username": "ping", "password": "pong", "auth": "Zm9vOmJhcg=="}': USER,
    '{"auth": "Zm9vOmJhcg"}': USER,
    '{"auth": "Zm9vOm\\nJhcg==\\n"}': USER,
    '{"auth": "Zm9v\\r\\nOmJhcg=="}': USER,
    '{"auth": "Zm9vOmJhcgo="}': Credentials("foo", "bar\n"),
    '{"auth": "pants"}': "is not base64",
    '{"auth": "cGFudHM="}': "is not user:password in base64",
    # What Go's reader of JSON takes.
    '{"Auth": "Zm9vOmJhcg=="}': USER,
    '{"auth": "Zm9vOmJhcg==", "email": null, "more": [1]}': USER,
    '{"auth": null, "username": "foo", "password": "bar"}': USER,
    "{}": None,
    "null": None,
    '{"auth": ""}': None,
    # What docker has besides.
    '{"identitytoken": "t"}': Credentials(identity_token="t"),
    '{"registrytoken": "t"}': Credentials(registry_token="t"),
    '{"auth": "Zm9vOmJhcgA="}': USER,
    # Bytes that are not text.
    '{"auth": "Zm9vOv8="}': Credentials("foo", "\udcff"),
    '{"auth": 1}': "`auth` of 'r.test' must be a string",
    '{"password": {}}': "`password` of 'r.test' must be a string",
    '"x"': "`auths` of 'r.test' must be an object",
    '{"auth": "hunter2 hunter2"}': "is not base64",
    '{"registrytoken": "a\\nb"}': "must be one line",
    '{"identitytoken": "\u00fc"}': "must be one line",
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_is_read_as_by_the_kubelet_and_matters_only_where_it_is_needed(entry: str) -> None:
    expected = ENTRIES[entry]
    other = json.dumps(encoded("other", "p"))
    keychain = Keychain.load([f'{{"auths": {{"r.test": {entry}, "o.test": {other}}}}}'])
    assert keychain.find(Repository.parse("o.test/x")) == Credentials("other", "p")
    assert "o.test" in keychain.docker_config([Repository.parse("o.test/x")])
    if isinstance(expected, str):
        with pytest.raises(InvalidConfigError, match=expected) as raised:
            keychain.find(Repository.parse("r.test/x"))
        assert "hunter2" not in str(raised.value)
    else:
        assert keychain.find(Repository.parse("r.test/x")) == expected


def test_bytes_that_are_not_text_are_sent_as_they_are() -> None:
    (found,) = [entry.credentials for entry in Keychain.load(['{"auths": {"r.test": {"auth": "Zm9vOv8="}}}']).entries]
    assert found is not None
    assert found.basic() == "Basic Zm9vOv8="


@pytest.mark.parametrize("auths", ["null", "{}", '{"[bad": {"auth": "Zm9vOmJhcg=="}, "": {}, "https://[": null}'])
def test_nothing_that_could_be_used_is_nothing(auths: str) -> None:
    keychain = Keychain.load([f'{{"auths": {auths}}}', "{}"])
    assert keychain.find(Repository.parse("r.test/x")) is None


MATCHES = [
    # As in Kubernetes' own tests of its keyring (pkg/credentialprovider/keyring_test.go).
    ("*.kubernetes.io", "prefix.kubernetes.io", True),
    ("prefix.*.io", "prefix.kubernetes.io", True),
    ("prefix.kubernetes.*", "prefix.kubernetes.io", True),
    ("*-good.kubernetes.io", "prefix-good.kubernetes.io", True),
    ("*.kubernetes.io/blah", "prefix.kubernetes.io/blah", True),
    ("prefix.*.io/foo", "prefix.kubernetes.io/foo/bar", True),
    ("*.kubernetes.io:1111/blah", "prefix.kubernetes.io:1111/blah", True),
    ("prefix.*.io:1111/foo", "prefix.kubernetes.io:1111/foo/bar", True),
    ("*.kubernetes.io", "kubernetes.io", False),
    ("*.*.kubernetes.io", "prefix.kubernetes.io", False),
    ("*.*.kubernetes.io", "kubernetes.io", False),
    ("kubernetes.io", "kubernetes.com", False),
    ("k*.io", "quay.io", False),
    ("*.kubernetes.io:1234/blah", "prefix.kubernetes.io:1111/blah", False),
    ("prefix.*.io/foo", "prefix.kubernetes.io:1111/foo/bar", False),
    ("https://hello.kubernetes.io", "hello.kubernetes.io", True),
    ("http://hello.kubernetes.io", "hello.kubernetes.io", True),
    ("https://*.docker.io/v1/", "prefix.docker.io/path", True),
    ("https://*.docker.io/v2/", "prefix.docker.io/path", True),
    ("https://hello.kubernetes.io/", "hello.kubernetes.io/foo", True),
    ("https://prefix.docker.c*", "prefix.docker.io", False),
    ("suffix.*.io", "prefix.docker.io", False),
    ("https://hello.kubernetes.io", "world.mesos.org/foo/bar", False),
    # What people have.
    ("*.dkr.ecr.*.amazonaws.com", "123.dkr.ecr.eu-west-1.amazonaws.com/team/app", True),
    ("https://*.dkr.ecr.us-east-1.amazonaws.com/v2/", "123.dkr.ecr.us-east-1.amazonaws.com/app", True),
    ("REGISTRY.test", "registry.test/app", True),
    ("r[0-9].test", "r1.test/app", True),
    ("r[^0-9].test", "r1.test/app", False),
    ("user@r.test", "r.test/app", True),
    ("r.test/team", "r.test/teamwork/app", False),
    ("r.test/team/app", "r.test/team", False),
    ("localhost:5000", "localhost:5000/app", True),
    ("*", "r.test/app", False),
]


@pytest.mark.parametrize(("key", "name", "matches"), MATCHES)
def test_a_key_is_for_the_repositories_that_the_kubelet_takes_it_for(key: str, name: str, *, matches: bool) -> None:
    keychain = Keychain.load([config(**{key: encoded("u", "p")})])
    repository = Repository.parse(f"{name}/foo/bar")
    assert (keychain.find(repository) is not None) is matches
    written = json.loads(keychain.docker_config([repository]))["auths"]
    assert (repository.registry in written) is matches


def test_of_several_secrets_the_most_specific_entry_counts_and_then_the_first() -> None:
    first = config(**{"*.test": encoded("pattern", "1"), "r.test/team": {"auth": "!"}, "r.test": encoded("one", "2")})
    second = config(**{"r.test": encoded("two", "3"), "r.test/team": encoded("team", "4"), "s.test": encoded("s", "5")})
    keychain = Keychain.load([first, second])
    users = {
        name: found.username
        for name in ("r.test/x", "r.test/team/x", "s.test/x", "t.test/x")
        if (found := keychain.find(Repository.parse(name)))
    }
    # The entry of the first Secret for r.test/team is unusable, but another has one.
    assert users == {"r.test/x": "one", "r.test/team/x": "team", "s.test/x": "s", "t.test/x": "pattern"}


def test_an_unusable_entry_says_in_which_file_it_is() -> None:
    keychain = Keychain.load([config(**{"o.test": {}}), config(**{"r.test": {"auth": "!"}})])
    with pytest.raises(InvalidConfigError) as raised:
        keychain.find(Repository.parse("r.test/x"))
    assert raised.value.config == 1


def test_a_password_is_not_printed() -> None:
    assert "hidden" not in repr(Credentials("u", "hidden", "hidden", "hidden"))


def test_hosts_with_logins_by_path_are_known_and_may_be_given_something_else() -> None:
    auths = {"r.test/team": encoded("a", "1"), "r.test": encoded("b", "2"), "o.test": encoded("c", "3")}
    keychain = Keychain.load([config(**auths, **{"*.p.test/x": encoded("d", "4"), "e.test/x": {}})])
    assert keychain.hosts_by_path() == ("r.test",)
    written = keychain.docker_config([Repository.parse("r.test/team/app")], {"r.test": Credentials("given", "x")})
    assert json.loads(written)["auths"] == {"r.test": encoded("given", "x"), "o.test": encoded("c", "3")}
