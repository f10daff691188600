"""Signatures beside an image, in a registry on loopback that forgets, refuses and is written by others."""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from multiarchbuild.oci import signing
from multiarchbuild.oci.errors import DeniedError, RefusedError
from multiarchbuild.oci.index import INDEX, MANIFEST
from multiarchbuild.oci.keys import SigningKey, load
from multiarchbuild.oci.signature import Signer
from tests.support.signing import key_pair
from tests.unit.oci.test_client import Answer, Registry
from tests.unit.oci.test_keyless import OTHER_CA, signer

DIGEST = f"sha256:{'ab' * 32}"
TAG = f"sha256-{'ab' * 32}.sig"


class Store:
    """Keeps what it is given, but for those PUTs of the tag that `lost` says of, by their number."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifest: tuple[str, bytes] | None = None
        self.puts = 0
        self.lost: Callable[[int], bool] = lambda _: False
        self.status = 201
        self.registry = Registry(self.answer)

    def answer(self, _: Registry, method: str, path: str, headers: Any) -> Answer:
        what = path.partition("/v2/team/app/")[2]
        if what == f"manifests/{TAG}":
            return self._manifest(method, headers.get("Content-Type", ""))
        digest = what.rpartition("digest=")[2].replace("%3A", ":") if "digest=" in what else what.rpartition("/")[2]
        if method == "POST":
            return 202, {"Location": "/v2/team/app/blobs/uploads/1"}, b""
        if method == "PUT":
            assert f"sha256:{hashlib.sha256(self.registry.body).hexdigest()}" == digest
            self.blobs[digest] = self.registry.body
            return 201, {}, b""
        return (200, {}, b"") if digest in self.blobs else (404, {}, b"")

    def _manifest(self, method: str, media_type: str) -> Answer:
        if method == "PUT":
            self.puts += 1
            if self.status < 400 and not self.lost(self.puts):
                for blob in (layer["digest"] for layer in json.loads(self.registry.body)["layers"]):
                    assert blob in self.blobs
                self.manifest = media_type, self.registry.body
            return self.status, {}, b""
        if self.manifest is None:
            return 404, {}, b""
        return 200, {"Content-Type": self.manifest[0]}, self.manifest[1]

    def sign(self, key: Signer) -> str:
        return signing.sign(self.registry.client(), DIGEST, key)

    @property
    def layers(self) -> list[dict[str, Any]]:
        assert self.manifest
        return list(json.loads(self.manifest[1])["layers"])


@pytest.fixture
def store() -> Iterator[Store]:
    found = Store()
    yield found
    found.registry.server.shutdown()
    found.registry.server.server_close()


def new_key() -> SigningKey:
    pair = key_pair()
    return load(pair.key.encode(), pair.password.encode())


def test_signing_again_adds_nothing(store: Store) -> None:
    key = new_key()
    first = store.sign(key)
    assert [store.sign(key) for _ in range(3)] == [first] * 3
    assert (store.puts, len(store.layers)) == (1, 1)


def test_each_key_adds_its_own_and_keeps_the_others(store: Store) -> None:
    keys = [new_key(), new_key()]
    digests = {store.sign(key) for key in keys}
    assert len(digests) == len(store.layers) == 2
    kept = store.layers
    for key in keys:
        store.sign(key)
    assert store.layers == kept
    assert store.manifest
    config = json.loads(store.manifest[1])["config"]
    assert json.loads(store.blobs[config["digest"]])["rootfs"]["diff_ids"] == [layer["digest"] for layer in kept]


def test_of_two_that_write_at_the_same_time_the_one_that_lost_writes_again(store: Store) -> None:
    one, other = new_key(), new_key()
    store.sign(one)
    store.lost = lambda number: number == 2
    store.sign(other)
    assert (store.puts, len(store.layers)) == (3, 2)


def test_a_registry_that_keeps_nothing_is_asked_three_times(store: Store) -> None:
    store.lost = lambda _: True
    with pytest.raises(RefusedError, match=f"does not return it under {TAG}"):
        store.sign(new_key())
    assert store.puts == 3


def test_a_registry_that_refuses(store: Store) -> None:
    store.status = 403
    with pytest.raises(DeniedError):
        store.sign(new_key())


@pytest.mark.parametrize(
    ("media_type", "content"),
    [
        (INDEX, {"manifests": []}),
        (MANIFEST, {}),
        (MANIFEST, {"layers": 1}),
        (MANIFEST, {"layers": ["x"]}),
        (MANIFEST, {"layers": [{"digest": 1}]}),
        (MANIFEST, []),
    ],
)
def test_what_else_the_tag_names_is_left_alone(store: Store, media_type: str, content: object) -> None:
    store.manifest = media_type, json.dumps(content).encode()
    with pytest.raises(RefusedError, match=f"the tag {TAG} does not name signatures: delete the tag"):
        store.sign(new_key())
    assert store.puts == 0


@pytest.mark.parametrize("annotations", [None, {}, {signing.SIGNATURE: None}, {signing.SIGNATURE: "ü"}])
def test_a_signature_that_cannot_be_read_is_not_ours(store: Store, annotations: object) -> None:
    key = new_key()
    store.sign(key)
    odd = {**store.layers[0], "annotations": annotations}
    store.manifest = MANIFEST, json.dumps({"layers": [odd]}).encode()
    store.sign(key)
    assert store.layers[0] == odd
    assert len(store.layers) == 2


@pytest.mark.parametrize(
    ("annotation", "wrong"),
    [
        ("chain", ""),
        ("chain", "x"),
        ("chain", OTHER_CA.pem),
        ("chain", "{}x"),
        ("certificate", "{}x"),
        ("rfc3161timestamp", "{{}}"),
    ],
    ids=[
        "no chain",
        "no certificates",
        "the chain of another CA",
        "more after the chain",
        "more after it",
        "no timestamp",
    ],
)
def test_a_signature_whose_proof_was_changed_is_made_anew(store: Store, annotation: str, wrong: str) -> None:
    ours = signer()
    assert store.sign(ours) == store.sign(ours)
    ((layer,), name) = store.layers, f"dev.sigstore.cosign/{annotation}"
    layer["annotations"][name] = wrong.format(layer["annotations"][name])
    store.manifest = MANIFEST, json.dumps({"layers": [layer]}).encode()
    store.sign(ours)
    assert len(store.layers) == 2
    store.sign(ours)
    assert len(store.layers) == 2, "the new one is kept"
