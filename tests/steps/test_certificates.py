"""A server whose certificate nobody here trusts: each step says so, and what to do."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.steps.errors import FOR_ALL, FOR_REGISTRY, certificate_error
from tests.cluster import pki
from tests.steps.conftest import Pods
from tests.steps.source_servers import FileServer
from tests.support.artifacts import sha256


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """Name and port of a server with TLS by a CA that is not in the policy."""
    pair = pki.Authority(tmp_path, "other").issue("server", common_name="localhost", hosts=("localhost",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with FileServer().serving(context) as server:
        yield f"localhost:{server.port}"


@pytest.mark.parametrize(
    ("parts", "step", "remedy"),
    [
        ({"source": {"http": {"url": "https://HOST/a.tar", "checksum": sha256(b"")}}}, "build", FOR_ALL),
        ({"source": {"git": {"url": "https://HOST/app.git"}}}, "resolve", FOR_ALL),
        ({"source": {"oci": {"image": "HOST/app:1"}}}, "resolve", FOR_REGISTRY),
        ({"output": {"image": "HOST/team/app"}}, "build", FOR_REGISTRY),
    ],
    ids=["http", "git", "oci", "output"],
)
def test_each_step_names_the_field_of_the_policy(
    pod: Pods, host: str, parts: dict[str, Any], step: str, remedy: str
) -> None:
    (kind, part), *_ = parts.items()
    text = {key: _at(host, value) for key, value in part.items()}
    failure = pod(**{kind: text}).failed(*("build", "--platform=linux/amd64") if step == "build" else (step,))
    assert failure.reason is Reason.CERTIFICATE_UNTRUSTED, failure.message
    assert host in failure.message
    assert failure.message.endswith(f"let the operator's policy name that CA in {remedy}.")


def _at(host: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _at(host, each) for key, each in value.items()}
    return value.replace("HOST", host)


@pytest.mark.parametrize(
    "said",
    [
        # Python, Go, git with OpenSSL
        "r.test cannot be reached: its certificate cannot be verified: certificate has expired",
        "r.test cannot be reached: its certificate cannot be verified: Hostname mismatch, certificate is not valid for",
        "r.test cannot be reached: its certificate cannot be verified: Missing Authority Key Identifier",
        "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time is later",
        "tls: failed to verify certificate: x509: certificate is valid for a.test, not r.test",
        "unable to access 'https://r.test/': SSL certificate problem: certificate has expired",
    ],
)
def test_of_a_certificate_that_no_ca_makes_right_another_is_asked_for(said: str) -> None:
    error = certificate_error(said, FOR_ALL)
    assert error
    assert error.message.endswith("to install a valid certificate for this name.")


@pytest.mark.parametrize("said", ["connection refused", "remote error: tls: handshake failure", "certificate"])
def test_what_is_not_about_a_certificate_is_left_to_others(said: str) -> None:
    assert certificate_error(said, FOR_ALL) is None
