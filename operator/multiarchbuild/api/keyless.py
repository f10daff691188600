"""Signatures without a key of one's own: a certificate for the ServiceAccount of a pod, and timestamps.

Sources: https://github.com/sigstore/fulcio/blob/v1.8.8/docs/how-certificate-issuing-works.md and RFC 3161
"""

from typing import Annotated, Final

from pydantic import Field, field_validator

from . import limits
from .base import Model, Record
from .identity import Endpoint

AUDIENCE: Final = "sigstore"
"""What Fulcio takes tokens for, unless it is configured otherwise."""


class Keyless(Model):
    """Who certifies and timestamps signatures."""

    fulcio: Endpoint
    """URL of Fulcio, which makes a certificate for the ServiceAccount of the pod that publishes."""
    timestamp_authority: Endpoint
    """URL that answers timestamp queries (RFC 3161), such as https://tsa.example.com/api/v1/timestamp."""
    audience: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")] = AUDIENCE
    """Audience of the ServiceAccount's token."""
    ca_bundle: str = ""
    """PEM certificates that are trusted for these two, besides the system's and those for all."""

    @field_validator("audience")
    @classmethod
    def _is_not_the_api_server(cls, audience: str) -> str:
        if "kubernetes.default" in audience:
            raise ValueError(f"{audience} is the API server, which takes such a token as a login: choose another")
        return audience


class SignedBy(Record):
    """Whom a certificate names."""

    identity: Annotated[str, Field(max_length=limits.IDENTITY)]
    """Signer, as `cosign verify --certificate-identity` takes it:
    https://kubernetes.io/namespaces/NAMESPACE/serviceaccounts/NAME."""
    issuer: Annotated[str, Field(max_length=limits.ISSUER)]
    """Its issuer, as `cosign verify --certificate-oidc-issuer` takes it: that of the tokens of the
    cluster."""
