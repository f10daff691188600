"""Platforms as `docker buildx build --platform` writes them: `os/architecture[/variant]`.

Source: https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md#platform-variants and the
normalisation of github.com/containerd/platforms, which BuildKit uses.
"""

from dataclasses import dataclass
from typing import Self

SUPPORTED: tuple[str, ...] = (
    "linux/amd64",
    "linux/amd64/v2",
    "linux/amd64/v3",
    "linux/amd64/v4",
    "linux/arm64",
    "linux/arm64/v8",
    "linux/arm/v5",
    "linux/arm/v6",
    "linux/arm/v7",
    "linux/386",
    "linux/riscv64",
    "linux/ppc64le",
    "linux/s390x",
    "linux/loong64",
    "windows/amd64",
    "windows/arm64",
)
"""Every platform `spec.platforms` may name."""


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """One platform, normalised: `arm64/v8` is `arm64`, as in an OCI descriptor written by BuildKit."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the platform that `text` names.

        Raises:
            ValueError: `text` is not one of SUPPORTED.
        """
        if text not in SUPPORTED:
            raise ValueError(f"platform {text!r} is not supported: use one of {', '.join(SUPPORTED)}")
        os, architecture, *rest = text.split("/")
        variant = rest[0] if rest else ""
        if (architecture, variant) == ("arm64", "v8"):
            variant = ""
        return cls(os, architecture, variant)

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @property
    def slug(self) -> str:
        """The platform as part of a name (RFC 1123 label): `arm-v7` for linux/arm/v7."""
        return "-".join(filter(None, (self.os if self.os != "linux" else "", self.architecture, self.variant)))

    def descriptor(self) -> dict[str, str]:
        """Return the `platform` object of an OCI descriptor."""
        fields = {"architecture": self.architecture, "os": self.os}
        return {**fields, "variant": self.variant} if self.variant else fields
