"""Signatures by an identity, with Sigstore's own Fulcio and timestamp authority, before the verifiers of others."""

import base64
import json
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import urllib3

from multiarchbuild.api.keyless import SignedBy
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import Published
from multiarchbuild.oci import bundle, referrers, signing
from multiarchbuild.oci.errors import NotFoundError
from multiarchbuild.oci.keyless import certify, new_key, stamp
from tests.cluster import pki
from tests.steps.conftest import Pod, Pods, Services
from tests.steps.servers import Answer, FaultyRegistry, listens, running, wait
from tests.steps.test_publish import build_two, inline, published
from tests.support import authorities, judges
from tests.support.authorities import Authorities, Issuer
from tests.support.ports import free_port

IDENTITY = "https://kubernetes.io/namespaces/team/serviceaccounts/default"


@dataclass
class Keyless:
    """Who certifies signatures, behind TLS by a CA of their own."""

    made: Authorities
    issuer: Issuer
    fulcio: FaultyRegistry
    timestamps: FaultyRegistry
    ca: str

    def policy(self) -> dict[str, Any]:
        """Return `signing.keyless` of a policy."""
        timestamps = f"https://{self.timestamps.host}/api/v1/timestamp"
        return {"fulcio": f"https://{self.fulcio.host}", "timestampAuthority": timestamps, "caBundle": self.ca}

    def demands(self, **other: str) -> dict[str, str]:
        """Return what verifiers demand."""
        chains = {"roots": self.made.fulcio.pem, "timestamps": self.made.timestamps.pem}
        return {"subject": IDENTITY, "issuer": self.issuer.url, **chains, **other}


@pytest.fixture(scope="module")
def keyless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyless]:
    folder, made, issuer = tmp_path_factory.mktemp("keyless"), Authorities.new(), Issuer()
    authority = pki.Authority(folder, "ca")
    pair = authority.issue("localhost", common_name="localhost", hosts=("127.0.0.1",))
    with ExitStack() as stack:
        stack.enter_context(issuer.serving())
        authorities.save(folder, made.files(authorities.configuration(issuer.url)))
        ports, port = (free_port(), free_port(), free_port()), free_port()
        commands = {
            "fulcio": authorities.fulcio(str(folder), "127.0.0.1", ports, str(folder / "socket")),
            "timestamps": authorities.timestamps(str(folder), "127.0.0.1", port),
        }
        for name, arguments in commands.items():
            stack.enter_context(running(str(judges.program(name)), *arguments, log=folder / f"{name}.log"))
        fulcio, timestamps = (FaultyRegistry(f"127.0.0.1:{each}", certificate=pair) for each in (ports[0], port))
        for relay in (fulcio, timestamps):
            stack.enter_context(relay.serving())
        wait(lambda: listens(ports[0]) and listens(port))
        yield Keyless(made, issuer, fulcio, timestamps, Path(authority.pair.cert).read_text())


@pytest.fixture
def app(pod: Pods, services: Services, keyless: Keyless) -> Iterator[Pod]:
    found = pod({"signing": {"token": keyless.issuer.token("team", "default")}}, source=inline(DOCKERFILE))
    found.services = replace(services, keyless=keyless.policy())
    found.spec["output"] = {**found.spec["output"], "signing": {"keyless": True}}
    yield found
    keyless.fulcio.fault = keyless.timestamps.fault = lambda _method, _path: None


DOCKERFILE = "FROM busybox:1.36\nCOPY Dockerfile /"


def refs(app: Pod, result: Published) -> list[str]:
    image = f"{app.services.registry}/{app.image}"
    return [f"{image}@{digest}" for digest in (result.digest, *(each.digest for each in result.platforms))]


def test_verifiers_accept_index_and_images_of_this_identity_and_no_other(app: Pod, keyless: Keyless) -> None:
    result = published(app.run("publish", "--tag=latest", built=build_two(app)))
    assert result.signed_by == SignedBy(identity=IDENTITY, issuer=keyless.issuer.url)
    others = Authorities.new()
    wrong = {
        "another identity": {"subject": IDENTITY.replace("team", "other")},
        "another issuer": {"issuer": "https://issuer.example.com"},
        "another CA": {"roots": others.fulcio.pem},
        "another timestamp authority": {"timestamps": others.timestamps.pem},
    }
    for judge in judges.KEYLESS:
        for ref in refs(app, result):
            said = judges.certified(ref, judge, **keyless.demands())
            assert (judge, ref, said["error"]) == (judge, ref, "")
            assert set(said["predicates"]) == (judges.VERIFIERS[judge] if judge == "bundle" else set())
        for what, demand in wrong.items():
            assert judges.certified(ref, judge, **keyless.demands(**demand))["error"], f"{judge} takes {what}"


def layers(app: Pod, digest: str) -> list[dict[str, Any]]:
    found = signing.signatures(app.services.client(app.image), digest)
    assert found is not None
    return list(found.content["layers"])


@pytest.mark.parametrize("change", ["another signature", "not signed"])
def test_a_timestamp_that_was_changed_is_refused_and_made_anew(app: Pod, keyless: Keyless, change: str) -> None:
    built = build_two(app)
    result = published(app.run("publish", built=built))
    client, stamp = app.services.client(app.image), "dev.sigstore.cosign/rfc3161timestamp"
    found = signing.signatures(client, result.digest)
    assert found is not None
    (layer,) = layers(app, result.digest)
    other = stamped(keyless, b"another signature")
    if change == "not signed":
        kept = base64.b64decode(json.loads(layer["annotations"][stamp])["SignedRFC3161Timestamp"])
        other = kept[:-1] + bytes([kept[-1] ^ 1])
    said = json.dumps({"SignedRFC3161Timestamp": base64.b64encode(other).decode()})
    changed = {**found.content, "layers": [{**layer, "annotations": {**layer["annotations"], stamp: said}}]}
    client.put(replace(found, raw=json.dumps(changed).encode()), signing.tag(result.digest))
    for judge in ("signature", "kyverno"):
        assert judges.certified(refs(app, result)[0], judge, **keyless.demands())["error"], f"{judge} takes it"

    published(app.run("publish", built=built))
    assert len(layers(app, result.digest)) == 2
    assert judges.certified(refs(app, result)[0], "signature", **keyless.demands())["error"] == ""


def test_publishing_again_keeps_the_signatures_of_this_identity(app: Pod, keyless: Keyless) -> None:
    def attached() -> list[dict[str, Any]]:
        return [dict(each) for each in referrers.listed(client, first.digest, bundle.MEDIA_TYPE)]

    built, client = build_two(app), app.services.client(app.image)
    first = published(app.run("publish", built=built))
    before, asked = attached(), len(keyless.timestamps.asked)
    assert published(app.run("publish", built=built)) == first
    assert attached() == before
    assert len(keyless.timestamps.asked) == asked + 1, "nothing new was signed: it was asked whose timestamps it makes"

    app.secrets["signing"]["token"] = keyless.issuer.token("team", "other")
    other = published(app.run("publish", built=built))
    assert (other.digest, len(layers(app, first.digest))) == (first.digest, 2)
    assert other.signed_by == SignedBy(identity=IDENTITY.replace("default", "other"), issuer=keyless.issuer.url)
    for subject in (IDENTITY, IDENTITY.replace("default", "other")):
        for judge in judges.KEYLESS:
            said = judges.certified(refs(app, first)[0], judge, **keyless.demands(subject=subject))
            assert (judge, said["error"]) == (judge, "")


def test_each_destination_gets_signatures_of_its_own(app: Pod, keyless: Keyless) -> None:
    app.spec["output"]["destinations"] = [{"image": f"{app.services.registry}/{app.image}-copy"}]
    asked = len(keyless.fulcio.asked)
    result = published(app.run("publish", built=build_two(app)))
    assert len(keyless.fulcio.asked) == asked + 2, "a certificate is valid for minutes, and copying may take longer"
    for ref in refs(app, result):
        copy = ref.replace("@", "-copy@")
        assert judges.certified(copy, "bundle", **keyless.demands())["error"] == ""


def stamped(keyless: Keyless, signature: bytes) -> bytes:
    return stamp(urllib3.PoolManager(), f"http://{keyless.timestamps.upstream}/api/v1/timestamp", signature).reply


def of_another_key(keyless: Keyless) -> Answer:
    """Return Fulcio's answer to somebody else."""
    found = certify(
        urllib3.PoolManager(), f"http://{keyless.fulcio.upstream}", keyless.issuer.token("team", "default"), new_key()
    )
    chain = [ssl.DER_cert_to_PEM_cert(each) for each in (found.certified[0], *found.certified[1])]
    answer = {"signedCertificateDetachedSct": {"chain": {"certificates": chain}}}
    return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()


def refused(app: Pod, reason: Reason) -> str:
    """Return why the publish step fails; nothing is tagged, and the message has no token."""
    failure = app.failed("publish", "--tag=latest", built=build_two(app))
    assert failure.reason is reason
    assert app.secrets["signing"]["token"] not in failure.message
    with pytest.raises(NotFoundError):
        app.services.client(app.image).resolve("latest")
    return failure.message


def test_a_token_that_fulcio_does_not_take_is_told_with_its_issuer_and_audience(app: Pod, keyless: Keyless) -> None:
    app.secrets["signing"]["token"] = keyless.issuer.token("team", "default", "somebody-else")
    message = refused(app, Reason.SIGNING_UNAVAILABLE)
    assert f"Fulcio at https://{keyless.fulcio.host} refused: {keyless.fulcio.host} answered 400" in message
    assert f"have the issuer {keyless.issuer.url} with `type: kubernetes` and `client-id: sigstore`" in message
    assert "the ServiceAccount default in namespace team" in message


@pytest.mark.parametrize(
    ("status", "reason", "remedy"),
    [
        (400, Reason.SIGNING_UNAVAILABLE, "Let Fulcio's configuration have the issuer"),
        (401, Reason.SIGNING_FAILED, "Let Fulcio's configuration have the issuer"),
        (403, Reason.SIGNING_FAILED, "Let Fulcio's configuration have the issuer"),
        (
            404,
            Reason.SIGNING_FAILED,
            "Correct the URL in `fulcio` in `tenants[].signing.keyless` of the operator's policy.",
        ),
        (
            405,
            Reason.SIGNING_FAILED,
            "Correct the URL in `fulcio` in `tenants[].signing.keyless` of the operator's policy.",
        ),
    ],
)
def test_what_fulcio_refuses_has_a_remedy(app: Pod, keyless: Keyless, status: int, reason: Reason, remedy: str) -> None:
    keyless.fulcio.fault = lambda _method, _path: (status, {}, b"")
    message = refused(app, reason)
    assert f"{keyless.fulcio.host} answered {status}" in message
    assert remedy in message


@pytest.mark.parametrize("status", [400, 404, 405])
def test_what_the_timestamp_authority_refuses_has_a_remedy(app: Pod, keyless: Keyless, status: int) -> None:
    keyless.timestamps.fault = lambda _method, _path: (status, {}, b"")
    message = refused(app, Reason.SIGNING_FAILED)
    assert "Correct the URL in `timestampAuthority` in `tenants[].signing.keyless` of the operator's policy." in message


def test_a_fulcio_that_is_away_is_tried_again(app: Pod, keyless: Keyless) -> None:
    gone = f"https://127.0.0.1:{free_port()}"
    app.services = replace(app.services, keyless={**keyless.policy(), "fulcio": gone})
    message = refused(app, Reason.SIGNING_UNAVAILABLE)
    assert Reason.SIGNING_UNAVAILABLE.retryable
    assert f"Fulcio at {gone} cannot be reached" in message


def test_a_timestamp_authority_that_is_away_is_tried_again(app: Pod, keyless: Keyless) -> None:
    keyless.timestamps.fault = lambda _method, _path: (503, {}, b"")
    message = refused(app, Reason.SIGNING_UNAVAILABLE)
    assert f"The timestamp authority https://{keyless.timestamps.host}/api/v1/timestamp cannot be used now" in message


def test_a_certificate_of_another_key_is_not_taken(app: Pod, keyless: Keyless) -> None:
    other = of_another_key(keyless)
    keyless.fulcio.fault = lambda _method, _path: other
    assert "its certificate is of another key" in refused(app, Reason.SIGNING_FAILED)


def test_a_timestamp_of_something_else_is_not_taken(app: Pod, keyless: Keyless) -> None:
    other = stamped(keyless, b"another signature")
    keyless.timestamps.fault = lambda _method, _path: (200, {}, other)
    assert "its timestamp is of something else than the signature" in refused(app, Reason.SIGNING_FAILED)


def test_only_the_ca_that_the_policy_names_is_trusted(app: Pod, keyless: Keyless) -> None:
    app.services = replace(app.services, keyless={**keyless.policy(), "caBundle": ""})
    message = refused(app, Reason.CERTIFICATE_UNTRUSTED)
    assert "let the operator's policy name that CA in `caBundle` in `tenants[].signing.keyless`" in message


def test_without_a_token_nothing_is_signed(app: Pod) -> None:
    app.secrets["signing"] = {}
    failure = app.failed("publish", built=build_two(app))
    assert failure.reason is Reason.SIGNING_FAILED
    assert "The pod has no token of its ServiceAccount for sigstore" in failure.message
