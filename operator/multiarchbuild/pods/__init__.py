"""The manifests of what a run creates. Pure: what decide asks for, the resource and the policy make them."""

from .pod import template
from .render import render

__all__ = ["render", "template"]
