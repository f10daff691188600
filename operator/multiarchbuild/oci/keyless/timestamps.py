"""Timestamps of signatures (RFC 3161): a certificate that is valid for minutes proves nothing without one later."""

import hashlib
from datetime import datetime
from typing import Final

import urllib3
from cryptography import x509
from rfc3161_client import HashAlgorithm, PKIStatus, TimestampRequestBuilder, decode_timestamp_response

from multiarchbuild.oci.identity.requests import send
from multiarchbuild.oci.signature import UnprovenError

_HEADERS = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
_SHA256: Final = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")


def stamp(http: urllib3.PoolManager, url: str, signature: bytes) -> bytes:
    """Return the answer of the authority at `url` about when `signature` was there (TimeStampResp, DER).

    Raises:
        DeniedError: it does not answer such queries.
        RefusedError: it has an error of its own.
        UnprovenError: what it has sent is no timestamp of this signature.
        urllib3.exceptions.HTTPError: there is no answer.
    """
    query = TimestampRequestBuilder().data(signature).hash_algorithm(HashAlgorithm.SHA256).nonce().build()
    reply = send(http, "POST", url, _HEADERS, query.as_bytes()).body
    time_of(reply, signature, nonce=query.nonce)
    return reply


def time_of(reply: bytes, signature: bytes, *, nonce: int | None = None) -> datetime:
    """Return when `signature` was there, by the answer of an authority; with `nonce` it must be to the query with that.

    Whether the authority is one to be trusted is for verifiers to say: they have its certificates.

    Raises:
        UnprovenError: it says nothing about this signature.
    """
    try:
        found = decode_timestamp_response(reply)
        if found.status != PKIStatus.GRANTED:
            said = "; ".join(found.status_string)
            raise UnprovenError(f"it granted no timestamp (status {found.status}{said and f': {said}'})")
        told = found.tst_info
        imprint = told.message_imprint
        about = imprint.hash_algorithm, imprint.message
        answered, time = told.nonce, told.gen_time
    except ValueError as error:
        raise UnprovenError("it sent no timestamp") from error
    if about != (_SHA256, hashlib.sha256(signature).digest()):
        raise UnprovenError("its timestamp is of something else than the signature that was sent")
    if nonce is not None and answered != nonce:
        raise UnprovenError("its timestamp answers another query: it has another nonce")
    return time
