"""How much the provenance tells. Imports no pydantic: the command line loads this at each key press."""

from .renamed import Capitalised


class Provenance(Capitalised):
    """How much the provenance attestation tells (SLSA, by BuildKit)."""

    MIN = "Min"
    MAX = "Max"
    DISABLED = "Disabled"
