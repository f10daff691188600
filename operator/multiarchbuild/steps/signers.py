"""What the publish step signs with: the key of a Secret, or one of its own that Fulcio certifies for its identity."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.foreign import NonsenseError, parse_object
from multiarchbuild.api.keyless import Keyless, SignedBy
from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.http import cause, connections
from multiarchbuild.oci.identity.requests import StatusError
from multiarchbuild.oci.signature import ExpiredError, Signature, Signer, UnprovenError
from multiarchbuild.plan.rules import WHO

from .credentials import signing_key
from .errors import StepError, certificate_error
from .identities import PATIENCE, RETRIES
from .log import say
from .mounts import Mounts
from .trust import signing_ca_file

if TYPE_CHECKING:
    from multiarchbuild.oci.keyless import KeylessSigner

_WHERE = "`tenants[].signing.keyless`"
"""Where the operator's policy names both services."""
_NOT_THERE = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})
"""What something else answers at a wrong URL."""


def signers(mounts: Mounts) -> Callable[[], Signer] | None:
    """Return what makes a signer when it is needed, or None when nothing is to be signed.

    A key is read at once, so that a build with a bad one fails early. A certificate is valid for some minutes, so that
    one is asked for when there is something to sign, and each time anew.

    Raises:
        StepError: the Secret is missing or holds no key that signs; what is returned raises it as well.
    """
    signing = mounts.inputs.spec.output.signing
    if signing is not None and signing.keyless:
        return lambda: _keyless(mounts)
    if signing is not None and signing.secret_ref is None:
        raise StepError(
            Reason.INVALID_SPEC,
            "output.signing does not say what signs: set output.signing.secretRef or output.signing.keyless.",
        )
    key = signing_key(mounts)
    return None if key is None else lambda: key


@dataclass(frozen=True, slots=True)
class Service:
    """Fulcio or the timestamp authority, whose failures say what to do."""

    name: str
    field: str
    """Where the policy has its URL."""
    remedy: str = ""
    """What to do where it does not accept the request."""
    again: frozenset[int] = frozenset()
    """Answers of HTTP that may be others another time, though the client is told that the request is wrong."""

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Raise how the service fails as a failure of the step."""
        correct = f"Correct the URL in {self.field} of the operator's policy."
        try:
            yield
        except StatusError as error:
            remedy = correct if error.status in _NOT_THERE else self.remedy or correct
            reason = Reason.SIGNING_UNAVAILABLE if error.status in self.again else Reason.SIGNING_FAILED
            raise StepError(reason, f"{self.name} refused: {error}. {remedy}") from error
        except RegistryError as error:
            raise StepError(Reason.SIGNING_UNAVAILABLE, f"{self.name} cannot be used now: {error}.") from error
        except HTTPError as error:
            said = f"{self.name} cannot be reached: {cause(error)}"
            raise certificate_error(said, f"`caBundle` in {_WHERE}") or StepError(
                Reason.SIGNING_UNAVAILABLE,
                f"{said}. Check that pods may connect to it, and its URL in {self.field} of the operator's policy.",
            ) from error
        except ExpiredError as error:
            raise StepError(
                Reason.SIGNING_UNAVAILABLE,
                f"The run could not sign everything in time: {error}. No tag was moved. The next attempt gets another "
                "certificate, and keeps the signatures that are there.",
            ) from error
        except UnprovenError as error:
            raise StepError(
                Reason.SIGNING_FAILED,
                f"{self.name} did not prove anything: {error}. No tag was moved. Check that {self.field} of the "
                "operator's policy names the right service.",
            ) from error


@dataclass(frozen=True, slots=True)
class _Explained:
    """A signer whose failures say what to do."""

    inner: "KeylessSigner"
    authority: Service

    @property
    def signed_by(self) -> SignedBy:
        return self.inner.signed_by

    def signature(self, payload: bytes) -> Signature:
        with self.authority.asked():
            return self.inner.signature(payload)

    def has_made(self, payload: bytes, signature: Signature) -> bool:
        return self.inner.has_made(payload, signature)


def _keyless(mounts: Mounts) -> Signer:
    # Not at the top: who does not sign so does not wait for it.
    from multiarchbuild.oci.keyless import KeylessSigner, Timestamp, certify, new_key, stamp  # noqa: PLC0415

    keyless = mounts.services.keyless
    if keyless is None:
        raise StepError(
            Reason.POLICY_DENIED,
            f"output.signing.keyless is set, but the operator's policy names no Fulcio in {_WHERE} for namespace "
            f"{mounts.inputs.namespace}. {WHO}.",
        )
    http = connections(signing_ca_file(mounts), retries=RETRIES, timeout=PATIENCE)
    token, private = _token(mounts, keyless), new_key()
    fulcio, authority = _services(mounts, keyless, token)
    with fulcio.asked():
        certificate = certify(http, keyless.fulcio, token, private)
    by = certificate.signed_by
    say(f"{keyless.fulcio} certified a new key for {by.identity} (issuer {by.issuer})")

    def stamped(signature: bytes) -> Timestamp:
        return stamp(http, keyless.timestamp_authority, signature)

    with authority.asked():
        return _Explained(KeylessSigner.ready(private, certificate, stamped), authority)


def _token(mounts: Mounts, keyless: Keyless) -> str:
    try:
        return (mounts.at(paths.SIGNING) / paths.TOKEN_FILE).read_text().strip()
    except OSError as error:
        raise StepError(
            Reason.SIGNING_FAILED,
            f"The pod has no token of its ServiceAccount for {keyless.audience}, which output.signing.keyless needs "
            f"({error.strerror}): look for an admission webhook that removes volumes from pods.",
        ) from error


def _services(mounts: Mounts, keyless: Keyless, token: str) -> tuple[Service, Service]:
    account = mounts.inputs.spec.scheduling.service_account_name
    remedy = (
        f"Let Fulcio's configuration have the issuer {_issuer(token)} with `type: kubernetes` and `client-id: "
        f"{keyless.audience}`, and let it reach the keys of that issuer. The token is that of the ServiceAccount "
        f"{account} in namespace {mounts.inputs.namespace}."
    )
    # Fulcio says the same of a token that it does not accept and of one whose issuer it can't reach now.
    again = frozenset({HTTPStatus.BAD_REQUEST})
    fulcio = Service(f"Fulcio at {keyless.fulcio}", "`fulcio` in " + _WHERE, remedy, again)
    address = keyless.timestamp_authority
    return fulcio, Service(f"The timestamp authority {address}", "`timestampAuthority` in " + _WHERE)


def _issuer(token: str) -> str:
    """Return whose token it is, for a message: nobody has verified it."""
    try:
        claims = token.split(".")[1]
        return str(parse_object(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), "the token")["iss"])[:255]
    except (IndexError, ValueError, KeyError, NonsenseError):
        return "of this cluster's tokens"
