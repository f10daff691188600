"""What a program that labels its node is told."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Labeller:
    """A pod that labels its node, and what it knows of itself."""

    node: str
    """Name of the node."""
    pod: str
    """Uid of the pod."""
    every: float
    """Seconds between two verifications."""
    started: Path
    """A file that is there once the outcome of its first verification is written. It outlives a restarted container."""

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Labeller":
        """Return what the arguments of `add_arguments` say."""
        return cls(arguments.node, arguments.pod, arguments.every, arguments.started)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a program that labels, besides `--every`."""
    parser.add_argument("--node", required=True, help="name of the node")
    parser.add_argument("--pod", required=True, help="uid of this pod")
    parser.add_argument("--started", required=True, type=Path, metavar="FILE", help="made when the node is labelled")
