"""The operator: watches with kopf, decides with `plan`, acts through the Kubernetes API."""

from .main import main

__all__ = ["main"]
