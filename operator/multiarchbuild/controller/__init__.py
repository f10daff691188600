"""The operator: watches, decides with `plan`, acts through the Kubernetes API."""

from .main import main

__all__ = ["main"]
