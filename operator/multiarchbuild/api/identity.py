"""Logins to registries by an identity of a cloud: a token of the pod's ServiceAccount is exchanged for one.

Nothing is stored for it: the kubelet makes the token for the pod, for the provider alone (its audience).
"""

import hashlib
import re
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from .base import Model
from .schema import SET, Rule, matches, model_rules

_HOST = r"([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
_POOL = r"projects/[0-9]+/locations/global/workloadIdentityPools/[a-z0-9-]+/providers/[a-z0-9-]+"
_ARN = r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+"
_EMAIL = r"[a-z0-9-]+@[a-z0-9.:-]+\.gserviceaccount\.com"
_UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"


class Provider(StrEnum):
    """Whose identities log in."""

    AWS = "AWS"
    """ECR, with a role of IAM that trusts the cluster's OIDC provider."""
    GOOGLE = "Google"
    """Artifact Registry, with workload identity federation or GKE's metadata server."""
    AZURE = "Azure"
    """ACR, with an application or managed identity that has a federated credential."""


class Identity(Model):
    """An identity of a cloud provider, which the ServiceAccount of the pods may take on."""

    model_config = ConfigDict(
        json_schema_extra=model_rules(
            Rule(
                f"self.provider != 'AWS' || has(self.role) && self.role.matches(r'^{_ARN}$')",
                "AWS needs the ARN of a role, such as arn:aws:iam::123456789012:role/builds",
                field=".role",
            ),
            Rule(
                f"self.provider != 'Azure' || has(self.role) && self.role.matches(r'^{_UUID}$') && has(self.tenantId)",
                "Azure needs the client id of an application or managed identity in role, and its tenantId",
                field=".role",
            ),
            Rule(
                f"self.provider != 'Google' || !has(self.role) || self.role.matches(r'^{_EMAIL}$')",
                "of Google, role is the e-mail address of a service account, such as "
                "builds@project.iam.gserviceaccount.com; leave it out for the identity of the pod itself",
                field=".role",
            ),
            Rule(
                "self.provider == 'Azure' || !has(self.tenantId)",
                "tenantId is for Azure only: remove it",
                field=".tenantId",
            ),
            Rule(
                "self.provider == 'Google' || !has(self.workloadIdentityProvider)",
                "workloadIdentityProvider is for Google only: remove it",
                field=".workloadIdentityProvider",
            ),
        )
    )

    provider: Provider
    """AWS (ECR), Google (Artifact Registry) or Azure (ACR)."""
    role: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """AWS: ARN of the role. Azure: client id of the application or managed identity. Google: e-mail address of the
    service account, or nothing for the identity of the pod itself."""
    tenant_id: Annotated[str, Field(max_length=36), matches(_UUID, "must be the id of a tenant, a UUID")] | None = None
    """Azure: the tenant of the application or managed identity."""
    workload_identity_provider: (
        Annotated[
            str,
            Field(max_length=256),
            matches(_POOL, "must be projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"),
        ]
        | None
    ) = None
    """Google: the provider of workload identity federation, such as
    projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER. Without it the metadata server of
    the node is asked, as on GKE with Workload Identity."""
    registries: Annotated[
        tuple[
            Annotated[
                str,
                Field(min_length=1, max_length=255),
                matches(_HOST, "must be the host of a registry, such as 123456789012.dkr.ecr.eu-west-1.amazonaws.com"),
            ],
            ...,
        ],
        Field(max_length=8),
        SET,
    ] = ()
    """Further registries that it logs in to, by their hosts: those of base images."""

    @property
    def name(self) -> str:
        """What the policy calls it, such as aws/arn:aws:iam::123456789012:role/builds."""
        parts: tuple[str | None, ...]
        match self.provider:
            case Provider.AWS:
                parts = (self.role,)
            case Provider.AZURE:
                parts = (self.tenant_id, self.role)
            case Provider.GOOGLE:
                parts = (self.workload_identity_provider or "metadata", self.role)
        return "/".join([str(self.provider).lower(), *filter(None, parts)])


_GOOGLE_POOLS = "https://iam.googleapis.com/"
_URL = r"^https?://[A-Za-z0-9._:\[\]{}-]+(/[A-Za-z0-9._~/{}-]*)?$"
Endpoint = Annotated[str, Field(max_length=512, pattern=_URL)]
"""URL of a service, without a slash at its end; {region} in it is replaced."""
Hosts = tuple[Annotated[str, Field(min_length=1, max_length=255, pattern=rf"^{_HOST}$")], ...]


class Aws(Model):
    """Where AWS is."""

    sts: Endpoint | None = None
    """STS; by default https://sts.{region}.amazonaws.com, or .com.cn in China."""
    ecr: Endpoint | None = None
    """The API of ECR; by default https://api.ecr.{region}.amazonaws.com, or .com.cn in China."""
    audience: Annotated[str, Field(min_length=1, max_length=255)] = "sts.amazonaws.com"
    """Audience of the ServiceAccount's token."""
    registries: Hosts = ()
    """Hosts of registries that take the logins of ECR, besides ECR's own."""
    region: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")] = "us-east-1"
    """Region of these registries; ECR's own have it in their names."""


class Google(Model):
    """Where Google Cloud is."""

    sts: Endpoint = "https://sts.googleapis.com"
    """Security Token Service."""
    iam_credentials: Endpoint = "https://iamcredentials.googleapis.com"
    """Service Account Credentials API."""
    metadata: Endpoint = "http://metadata.google.internal"
    """Metadata server of the nodes."""
    registries: Hosts = ()
    """Hosts of registries that take the logins of Artifact Registry, besides Google's own."""


class Azure(Model):
    """Where Azure is."""

    authority: Endpoint = "https://login.microsoftonline.com"
    """Microsoft Entra."""
    scope: Annotated[str, Field(min_length=1, max_length=255)] = "https://containerregistry.azure.net/.default"
    """What the token is for that registries exchange."""
    audience: Annotated[str, Field(min_length=1, max_length=255)] = "api://AzureADTokenExchange"
    """Audience of the ServiceAccount's token."""
    registries: Hosts = ()
    """Hosts of registries that exchange tokens of Azure, besides ACR's own."""


class Identities(Model):
    """Where the providers of identities are, and which further registries take their logins."""

    aws: Aws = Aws()
    """AWS."""
    google: Google = Google()
    """Google Cloud."""
    azure: Azure = Azure()
    """Azure."""

    def audience(self, identity: Identity) -> str | None:
        """Return the audience of the token that is exchanged, or None where none is."""
        match identity.provider:
            case Provider.AWS:
                return self.aws.audience
            case Provider.AZURE:
                return self.azure.audience
            case Provider.GOOGLE:
                pool = identity.workload_identity_provider
                # https://cloud.google.com/iam/docs/workload-identity-federation-with-kubernetes
                return f"{_GOOGLE_POOLS}{pool}" if pool else None

    def may_be_of_login(self, audience: str) -> bool:
        """Return whether a token for a login may have this audience."""
        return audience in {self.aws.audience, self.azure.audience} or audience.startswith(_GOOGLE_POOLS)

    def serves(self, provider: Provider, host: str) -> bool:
        """Return whether logins of `provider` may be sent to the registry at `host`."""
        host = host.lower()
        match provider:
            case Provider.AWS:
                own = ecr_region(host) is not None
                return own or host in self.aws.registries
            case Provider.GOOGLE:
                own = re.fullmatch(r"([a-z0-9-]+-docker\.pkg\.dev|([a-z]+\.)?gcr\.io)", host) is not None
                return own or host in self.google.registries
            case Provider.AZURE:
                own = re.fullmatch(r"[a-z0-9-]+\.azurecr\.(io|cn|us|de)", host) is not None
                return own or host in self.azure.registries


def ecr_region(host: str) -> tuple[str, str] | None:
    """Return region and domain of AWS in the host of one of ECR's registries, or None where it is none.

    Source: https://docs.aws.amazon.com/general/latest/gr/ecr.html.
    """
    found = re.fullmatch(
        r"[0-9]{12}\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(?:(amazonaws\.com(?:\.cn)?)|on\.(aws))", host
    )
    return (found[1], found[2] or "amazonaws.com") if found else None


def token_file(audience: str) -> str:
    """Return the name of the file with the token for `audience`."""
    return hashlib.sha256(audience.encode()).hexdigest()[:16]
