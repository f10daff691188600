"""What the publish step signs with: the key of a Secret, or one of its own that Fulcio certifies for its identity."""

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from multiarchbuild.api import mounts as paths
from multiarchbuild.api.foreign import NonsenseError, parse_object
from multiarchbuild.api.keyless import Keyless, SignedBy
from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.errors import DeniedError, RegistryError
from multiarchbuild.oci.http import cause, connections
from multiarchbuild.oci.signature import Signature, Signer, UnprovenError

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
_AUTHORITY_REFUSED = f"Correct the URL of timestampAuthority in {_WHERE} of the operator's policy."


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
    key = signing_key(mounts)
    return None if key is None else lambda: key


@dataclass(frozen=True, slots=True)
class _Explained:
    """A signer whose failures say what to do."""

    inner: "KeylessSigner"
    authority: str

    @property
    def signed_by(self) -> SignedBy:
        return self.inner.signed_by

    def signature(self, payload: bytes) -> Signature:
        with _asking(f"The timestamp authority {self.authority}", _AUTHORITY_REFUSED):
            return self.inner.signature(payload)

    def has_made(self, payload: bytes, signature: Signature) -> bool:
        return self.inner.has_made(payload, signature)


def _keyless(mounts: Mounts) -> Signer:
    # Not at the top: who does not sign so does not wait for it.
    from multiarchbuild.oci.keyless import KeylessSigner, certify, new_key, stamp  # noqa: PLC0415

    keyless = mounts.services.keyless
    if keyless is None:
        raise StepError(
            Reason.POLICY_DENIED,
            f"output.signing.keyless is set, but the operator's policy names no Fulcio in {_WHERE} for namespace "
            f"{mounts.inputs.namespace}.",
        )
    http = connections(signing_ca_file(mounts), retries=RETRIES, timeout=PATIENCE)
    token, private = _token(mounts, keyless), new_key()
    with _asking(f"Fulcio at {keyless.fulcio}", _refused(mounts, keyless, token)):
        certificate = certify(http, keyless.fulcio, token, private)
    by = certificate.signed_by
    say(f"{keyless.fulcio} certified a new key for {by.identity} (issuer {by.issuer})")

    def stamped(signature: bytes) -> bytes:
        return stamp(http, keyless.timestamp_authority, signature)

    return _Explained(KeylessSigner(private, certificate, stamped), keyless.timestamp_authority)


def _token(mounts: Mounts, keyless: Keyless) -> str:
    try:
        return (mounts.at(paths.SIGNING) / paths.TOKEN_FILE).read_text().strip()
    except OSError as error:
        raise StepError(
            Reason.SIGNING_FAILED,
            f"The pod has no token of its ServiceAccount for {keyless.audience}, which output.signing.keyless needs "
            f"({error.strerror}): look for an admission webhook that removes volumes from pods.",
        ) from error


def _refused(mounts: Mounts, keyless: Keyless, token: str) -> str:
    account = mounts.inputs.spec.scheduling.service_account_name
    return (
        f"Let Fulcio's configuration have the issuer {_issuer(token)} with `type: kubernetes` and `client-id: "
        f"{keyless.audience}`, and let it reach the keys of that issuer. The token is that of the ServiceAccount "
        f"{account} in namespace {mounts.inputs.namespace}."
    )


def _issuer(token: str) -> str:
    """Return whose token it is, for a message: nobody has verified it."""
    try:
        claims = token.split(".")[1]
        return str(parse_object(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), "the token")["iss"])[:255]
    except (IndexError, ValueError, KeyError, NonsenseError):
        return "of this cluster's tokens"


@contextmanager
def _asking(who: str, refused: str) -> Iterator[None]:
    """Raise how a service fails as a failure of the step; `refused` says what to do where it does not want to."""
    try:
        yield
    except DeniedError as error:
        raise StepError(Reason.SIGNING_FAILED, f"{who} refused: {error}. {refused}") from error
    except RegistryError as error:
        raise StepError(Reason.SIGNING_UNAVAILABLE, f"{who} cannot be used now: {error}.") from error
    except HTTPError as error:
        said = f"{who} cannot be reached: {cause(error)}"
        raise certificate_error(said, f"`caBundle` in {_WHERE}") or StepError(
            Reason.SIGNING_UNAVAILABLE, f"{said}. Check that pods may connect to it, and its URL in {_WHERE}."
        ) from error
    except UnprovenError as error:
        raise StepError(
            Reason.SIGNING_FAILED,
            f"{who} did not prove anything: {error}. No tag was moved. Check that {_WHERE} of the operator's policy "
            "names the right service.",
        ) from error
