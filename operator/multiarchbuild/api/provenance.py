"""How much the provenance tells. Imports no pydantic: the command line loads this at each key press."""

from enum import StrEnum


class Provenance(StrEnum):
    """How much the provenance attestation tells (SLSA, by BuildKit)."""

    MIN = "min"
    MAX = "max"
    DISABLED = "disabled"
