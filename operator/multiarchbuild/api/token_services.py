"""Where a pod sends the tokens of its ServiceAccount.

The pod has it in its arguments, which nobody can change: the run's ConfigMap can be replaced before a pod mounts it.
"""

from .base import Model
from .identity import Identities
from .keyless import Keyless


class TokenServices(Model):
    """Services that take tokens (operator policy), and the certificates that the step trusts there."""

    identities: Identities = Identities()
    """Where the providers of identities are."""
    keyless: Keyless | None = None
    """Who certifies signatures, in a pod that signs without a key."""
    ca_bundle: str = ""
    """PEM certificates that are trusted for all of them, besides the system's."""
