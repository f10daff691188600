"""`kubectl mab ui`: a local page about builds, with the rights of who runs it. It changes nothing."""

from .report import write
from .server import serve

__all__ = ["serve", "write"]
