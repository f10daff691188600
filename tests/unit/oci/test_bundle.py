"""Sigstore bundles and provenance, as data."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.oci import bundle, slsa
from multiarchbuild.oci.keys import SigningKey, load
from tests.support.signing import key_pair, openssl_verifies

KEY = SigningKey(ec.generate_private_key(ec.SECP256R1()))
DIGEST = f"sha256:{'ab' * 32}"


def new_key() -> tuple[SigningKey, str]:
    pair = key_pair()
    return load(pair.key.encode(), pair.password.encode()), pair.public


def test_the_encoding_is_that_of_dsse() -> None:
    # The example of the protocol's text, with our payload type.
    assert bundle.pre_authentication(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"


def test_a_bundle_has_what_verifiers_read() -> None:
    key, public = new_key()
    payload = bundle.statement([("", DIGEST)], bundle.SIGN_PREDICATE, {})
    document = json.loads(bundle.seal(payload, key))
    assert document["mediaType"] == bundle.MEDIA_TYPE
    assert document["verificationMaterial"] == {"publicKey": {"hint": key.hint}}
    envelope = document["dsseEnvelope"]
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert json.loads(base64.b64decode(envelope["payload"])) == {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": "ab" * 32}}],
        "predicateType": "https://sigstore.dev/cosign/sign/v1",
        "predicate": {},
    }
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    assert openssl_verifies(public, bundle.pre_authentication(payload), signature)


def test_only_the_key_that_signed_opens_a_bundle() -> None:
    (key, _), (other, _) = new_key(), new_key()
    sealed = bundle.seal(b"{}", key)
    assert bundle.opened(sealed, key) == b"{}"
    assert bundle.opened(sealed, other) is None
    document = json.loads(sealed)
    document["dsseEnvelope"]["payload"] = base64.b64encode(b'{"a":1}').decode()
    assert bundle.opened(json.dumps(document).encode(), key) is None


@given(
    st.one_of(
        st.binary(max_size=64), st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode())
    )
)
def test_what_is_no_bundle_is_not_ours(content: bytes) -> None:
    assert bundle.opened(content, KEY) is None


ORIGIN = slsa.Origin(
    external={"platforms": ["linux/amd64"]},
    platforms=[{"platform": "linux/amd64", "mode": "Native", "nodeArchitecture": "amd64"}],
    dependencies=[
        {"uri": "git+https://git.example.com/a.git", "digest": {"gitCommit": "1" * 40}},
        {"uri": "pkg:docker/debian@12", "digest": {"sha256": "2" * 64}},
        {"uri": "pkg:docker/debian@12", "digest": {"sha256": "2" * 64}},
    ],
    builder="https://example.com/builders/1",
    version="1.0.0",
    invocation="team-a/app/1",
)


def test_provenance_tells_each_dependency_once() -> None:
    predicate = slsa.predicate(ORIGIN)
    assert [each["uri"] for each in predicate["buildDefinition"]["resolvedDependencies"]] == [
        "git+https://git.example.com/a.git",
        "pkg:docker/debian@12",
    ]
    assert predicate["runDetails"]["builder"]["id"] == ORIGIN.builder


def test_another_run_of_the_same_says_the_same_and_another_source_does_not() -> None:
    def statement(invocation: str, commit: str) -> bytes:
        dependencies = [{"uri": "git+https://git.example.com/a.git", "digest": {"gitCommit": commit}}]
        origin = slsa.Origin({}, [], dependencies, ORIGIN.builder, "1.0.0", invocation)
        return bundle.statement([("app", DIGEST)], slsa.PREDICATE, slsa.predicate(origin))

    assert slsa.says_the_same(statement("a/b/1", "1"), statement("a/b/2", "1"))
    assert not slsa.says_the_same(statement("a/b/1", "1"), statement("a/b/1", "2"))
    assert not slsa.says_the_same(b"{}", b"{}")
    assert not slsa.says_the_same(b"not json", b"not json")


@pytest.mark.parametrize(
    "predicate",
    [
        {"materials": [{"uri": "pkg:docker/a@1", "digest": {"sha256": "1"}, "more": 1}]},
        {"buildDefinition": {"resolvedDependencies": [{"uri": "pkg:docker/a@1", "digest": {"sha256": "1"}}]}},
    ],
)
def test_what_buildkit_says_an_image_was_made_from(predicate: object) -> None:
    statement = json.dumps({"predicate": predicate}).encode()
    assert slsa.materials(statement) == [{"uri": "pkg:docker/a@1", "digest": {"sha256": "1"}}]


@pytest.mark.parametrize("statement", [b"", b"[]", b"{}", b'{"predicate": {"materials": [1]}}', b'{"predicate": 3}'])
def test_what_is_no_provenance_names_no_materials(statement: bytes) -> None:
    assert slsa.materials(statement) == []
