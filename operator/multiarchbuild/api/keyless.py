"""Signatures without a key of one's own: a certificate for the ServiceAccount of a pod, and timestamps.

Sources: https://github.com/sigstore/fulcio/blob/v1.8.8/docs/how-certificate-issuing-works.md and RFC 3161
"""

from typing import Annotated, Final, Self

from pydantic import Field, field_validator, model_validator

from . import limits
from .base import Model, Record

AUDIENCE: Final = "sigstore"
"""What Fulcio takes tokens for, unless it is configured otherwise."""

Url = Annotated[str, Field(max_length=512, pattern=r"^https?://[A-Za-z0-9._:\[\]-]+(/[A-Za-z0-9._~/-]*)?$")]
"""URL of a service, without a slash at its end."""


class Keyless(Model):
    """Who certifies and timestamps signatures."""

    fulcio: Url
    """URL of Fulcio, which makes a certificate for the ServiceAccount of the pod that publishes."""
    timestamp_authority: Url
    """URL that answers timestamp queries (RFC 3161), such as https://tsa.example.com/api/v1/timestamp."""
    audience: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")] = AUDIENCE
    """Audience of the ServiceAccount's token: none that the API server takes as a login (its --api-audiences)."""
    plain_http: bool = False
    """Let fulcio be reached by HTTP, where everybody on the way can read the token."""
    ca_bundle: str = ""
    """PEM certificates that are trusted for these two, besides the system's and those for all."""

    @field_validator("audience")
    @classmethod
    def _is_not_the_api_server(cls, audience: str) -> str:
        # As it is by default: which others there are (--api-audiences), nobody but the API server knows.
        if "kubernetes.default" in audience:
            raise ValueError(f"{audience} is the API server, which takes such a token as a login: choose another")
        return audience

    @model_validator(mode="after")
    def _token_is_encrypted(self) -> Self:
        if self.fulcio.startswith("http:") and not self.plain_http:
            raise ValueError(
                f"fulcio is {self.fulcio}, where everybody on the way can read the token and sign: use https, or set "
                "plainHttp: true"
            )
        return self


class SignedBy(Record):
    """Whom a certificate names."""

    identity: Annotated[str, Field(max_length=limits.IDENTITY)]
    """Signer, as `cosign verify --certificate-identity` takes it:
    https://kubernetes.io/namespaces/NAMESPACE/serviceaccounts/NAME."""
    issuer: Annotated[str, Field(max_length=limits.ISSUER)]
    """Its issuer, as `cosign verify --certificate-oidc-issuer` takes it: that of the tokens of the
    cluster."""
