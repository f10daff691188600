"""Signatures by an identity: Fulcio certifies a key that is made for them, a timestamp authority says when they were.

Only what signs so imports this package: its libraries take a while to load.
"""

from .fulcio import Certificate, certify
from .signer import KeylessSigner, new_key
from .timestamps import Timestamp, stamp

__all__ = ["Certificate", "KeylessSigner", "Timestamp", "certify", "new_key", "stamp"]
