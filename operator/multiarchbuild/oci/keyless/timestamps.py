"""Timestamps of signatures (RFC 3161): a certificate that is valid for minutes proves nothing without one later."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import urllib3
from cryptography import x509
from rfc3161_client import HashAlgorithm, PKIStatus, TimestampRequestBuilder, decode_timestamp_response

from multiarchbuild.oci.identity.requests import quoted, send
from multiarchbuild.oci.signature import UnprovenError

from . import cms
from .foreign import examined

_HEADERS = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
_SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")


@dataclass(frozen=True, slots=True)
class Timestamp:
    """When a signature was there."""

    reply: bytes
    """Answer of the authority (TimeStampResp, DER)."""
    time: datetime
    authority: x509.Certificate
    """Whose it is."""


def stamp(http: urllib3.PoolManager, url: str, signature: bytes) -> Timestamp:
    """Return what the authority at `url` answers about when `signature` was there.

    Raises:
        StatusError: it does not answer such queries.
        RefusedError: it has an error of its own.
        UnprovenError: what it has sent is no timestamp of this signature.
        urllib3.exceptions.HTTPError: there is no answer.
    """
    query = TimestampRequestBuilder().data(signature).hash_algorithm(HashAlgorithm.SHA256).nonce().build()
    reply = send(http, "POST", url, _HEADERS, query.as_bytes()).body
    return read(reply, signature, nonce=query.nonce)


def read(reply: bytes, signature: bytes, *, nonce: int | None = None) -> Timestamp:
    """Return what an authority has answered about `signature`; with `nonce` it must be to the query with that.

    It has signed it. Whether it is one to be trusted is for others to say.

    Raises:
        UnprovenError: it says nothing about this signature.
    """
    with examined("it sent no timestamp"):
        found = decode_timestamp_response(reply)
        if found.status != PKIStatus.GRANTED:
            said = quoted("; ".join(found.status_string))
            raise UnprovenError(f"it granted no timestamp (status {found.status}{said and f': {said}'})")
        told = found.tst_info
        imprint = told.message_imprint
        about = imprint.hash_algorithm, imprint.message
        answered, time = told.nonce, told.gen_time
    if about != (_SHA256, hashlib.sha256(signature).digest()):
        raise UnprovenError("its timestamp is of something else than the signature that was sent")
    if nonce is not None and answered != nonce:
        raise UnprovenError("its timestamp answers another query: it has another nonce")
    return Timestamp(reply, time, cms.authority(found))
