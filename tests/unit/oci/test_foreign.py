"""What others send in JSON has bounds wherever it is read: whatever it is, it ends in an error that is expected."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api import results
from multiarchbuild.api.foreign import DEEPEST, LARGEST, NonsenseError, parse_json, parse_object
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.cli import docker as cli_docker
from multiarchbuild.cli import kube as cli_kube
from multiarchbuild.cli.errors import CliError, UsageError
from multiarchbuild.cli.inspect import Image, _with_layers
from multiarchbuild.controller.kube import Transient, _event, _status
from multiarchbuild.oci import auth, bundle, client, provenance, slsa
from multiarchbuild.oci.credentials import InvalidConfigError, Keychain
from multiarchbuild.oci.errors import RefusedError
from multiarchbuild.oci.http import Answer
from multiarchbuild.oci.identity import azure, requests
from multiarchbuild.oci.index import MANIFEST, Manifest, digest_of
from multiarchbuild.oci.keys import InvalidKeyError, load
from multiarchbuild.plan import expiry
from multiarchbuild.steps import bases, build_record
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.progress import Progress
from multiarchbuild.steps.publish import _fetch
from tests.support.signing import PASSWORD, key_pair
from tests.unit.steps.test_robust import spec

NONSENSE: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{'a': 1}",
    "cut off": b'{"a": [1, 2',
    "no object": b"[1]",
    "a word": b'"a"',
    "null": b"null",
    "no UTF-8": b'{"a": "\xff\xfe"}',
    "half a character": b'{"a": "\\ud800"}',
    "deep": b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
    "deep objects": b'{"a":' * 150 + b"1" + b"}" * 150,
    "as deep as Python reads": b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
    "deeper": b'{"a":' + b"[" * 200_000,
    "a long number": b'{"a": 1' + b"0" * 5000 + b"}",
    "a large number": b'{"a": 1' + b"0" * 30 + b"}",
    "infinite": b'{"a": 1e999}',
    "Infinity": b'{"a": -Infinity}',
    "no number": b'{"a": NaN}',
}
KEY = load(key_pair().key.encode(), PASSWORD.encode())
URL = "https://elsewhere.test/token"


class Registry:
    """Has one image whose configuration is what it was made with, and one blob."""

    repository = "registry.test/app"

    def __init__(self, config: bytes) -> None:
        self.config = config
        layer = {"mediaType": "x", "digest": digest_of(b""), "size": 0}
        document = {"config": {**layer, "digest": digest_of(config)}, "layers": [layer]}
        self.manifest = Manifest(MANIFEST, json.dumps(document).encode())

    def get(self, _: str) -> Manifest:
        return self.manifest

    def small_blob(self, _: str) -> bytes:
        return self.config


def fetched(sent: bytes, platform: str = "linux/amd64") -> None:
    registry: Any = Registry(sent)
    with pytest.raises(StepError) as raised:
        _fetch(registry, Platform.parse(platform), registry.manifest.digest, spec=spec())
    assert raised.value.reason is Reason.REGISTRY_ERROR
    assert f"cannot be read: the image's configuration {digest_of(sent)} " in raised.value.message


def layers(sent: bytes) -> None:
    registry: Any = Registry(sent)
    assert [part.made_by for part in _with_layers(registry, Image("-", "", 1, 0, ())).parts] == [""]


def docker_config(sent: bytes, folder: Path) -> None:
    (folder / "config.json").write_bytes(sent)
    with pytest.raises(UsageError):
        cli_docker.DockerConfig.load(folder / "config.json")


def refuses(error: type[Exception], read: Callable[[], object]) -> None:
    with pytest.raises(error):
        read()


def secret(sent: str) -> Keychain:
    try:
        return Keychain.load([sent])
    except InvalidConfigError:
        return Keychain()


def answer(sent: bytes) -> Answer:
    return Answer(200, "OK", {}, sent, URL)


def text(sent: bytes) -> str:
    return sent.decode(errors="replace")


def cosign_key(sent: bytes) -> bytes:
    middle = base64.b64encode(sent)
    return b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n%s\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----" % middle


SITES: dict[str, Callable[[bytes], object]] = {
    "manifest": lambda sent: refuses(NonsenseError, lambda: Manifest(MANIFEST, sent).content),
    "error of a registry": lambda sent: client._said(sent) == "",
    "tags of a registry": lambda sent: client._document(sent) == {},
    "token of a registry": lambda sent: refuses(RefusedError, lambda: auth._read(answer(sent), URL)),
    "login of a cloud": lambda sent: refuses(RefusedError, lambda: requests.document(answer(sent))),
    "refusal of a cloud": lambda sent: len(requests.said_by(text(sent))) <= 400,
    "token of Azure": lambda sent: azure._seconds_left(f"a.{base64.urlsafe_b64encode(sent).decode()}.b") == 3600,
    "provenance": lambda sent: slsa.is_provenance(sent) is False,
    "materials": lambda sent: slsa.materials(sent) == [],
    "two statements": lambda sent: slsa.says_the_same(sent, sent) is False,
    "settled": lambda sent: provenance.settled(sent) == sent,
    "configuration": lambda sent: refuses(NonsenseError, lambda: provenance._with_diff_ids(sent, {})),
    "bundle": lambda sent: bundle.opened(sent, KEY) is None,
    "image": fetched,
    "image for Windows": lambda sent: fetched(sent, "windows/amd64"),
    "layers": layers,
    "base image": lambda sent: bases._read(sent) == {},
    "record": lambda sent: build_record._read(Registry(sent), "") is None,  # type: ignore[arg-type]
    "list of images": lambda sent: expiry.read(sent) in (None, expiry.Used()),
    "result of a step": lambda sent: results.load(text(sent)) is None,
    "key": lambda sent: refuses(InvalidKeyError, lambda: load(cosign_key(sent), b"")),
    "Secret": lambda sent: secret(text(sent)) == Keychain(),
    "helper of docker": lambda sent: refuses(UsageError, lambda: cli_docker._read(text(sent), "helper")),
    "API server, command line": lambda sent: isinstance(cli_kube._refused(500, sent), CliError),
    "API server, operator": lambda sent: "type" not in _status(sent),
    "watch": lambda sent: refuses(Transient, lambda: _event(sent)),
}


@pytest.mark.parametrize("sent", NONSENSE.values(), ids=NONSENSE)
@pytest.mark.parametrize("read", SITES.values(), ids=SITES)
def test_no_nonsense_is_more_than_an_error_that_is_expected(read: Callable[[bytes], object], sent: bytes) -> None:
    assert read(sent) in (True, None)


@pytest.mark.parametrize("sent", NONSENSE.values(), ids=NONSENSE)
def test_a_docker_config(sent: bytes, tmp_path: Path) -> None:
    docker_config(sent, tmp_path)


@pytest.mark.parametrize("sent", [each for each in NONSENSE.values() if each.startswith(b"{")])
def test_what_is_no_progress_is_a_line_of_the_log(sent: bytes) -> None:
    line = sent.decode(errors="replace")
    try:
        parse_json(line, "")
    except NonsenseError:
        assert list(Progress().feed(line)) == [line]


@pytest.mark.parametrize("sent", NONSENSE.values(), ids=NONSENSE)
def test_the_error_says_what_sent_it(sent: bytes) -> None:
    with pytest.raises(NonsenseError, match=r"^the answer of registry\.test (is|has) .{4}"):
        parse_object(sent, "the answer of registry.test")


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": [1, -(2**63), 2**64 - 1, 1.5, True, None, "ä", "😀", "\\ud800"]},
        {"a": json.loads("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1))},
    ],
)
def test_what_is_sound_is_read_as_it_is(value: object) -> None:
    for sent in (json.dumps(value), json.dumps(value).encode(), json.dumps(value, ensure_ascii=False).encode()):
        assert parse_object(sent, "") == value


def test_one_level_more_is_too_deep() -> None:
    with pytest.raises(NonsenseError, match=f"more than {DEEPEST} levels"):
        parse_json("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "x")


def test_what_is_too_large_is_not_parsed() -> None:
    assert parse_json(" " * (LARGEST - 2) + "{}", "x") == {}
    with pytest.raises(NonsenseError, match=f"^x is larger than {LARGEST} bytes"):
        parse_json("{" * (LARGEST + 1), "x")
    assert parse_json(" " * LARGEST + "{}", "x", largest=None) == {}


@pytest.mark.parametrize("expires", ["1e300", "1" + "0" * 18, '"9" ', "true"])
def test_a_login_is_not_good_for_ever(expires: str) -> None:
    claims = base64.urlsafe_b64encode(b'{"exp": %s}' % expires.encode()).decode()
    assert 1 <= azure._seconds_left(f"a.{claims}.b") <= requests.LONGEST
    found = json.loads(f'{{"expires_in": {expires}}}')
    assert 1 <= requests.seconds(found, "expires_in", 60) <= requests.LONGEST
    sent = answer(f'{{"token": "t", "expires_in": {expires}}}'.encode())
    assert 1 <= auth._read(sent, URL).seconds <= requests.LONGEST
