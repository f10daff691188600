"""`python -m benchmarks.strategies`: what the cache, native nodes and cross-compilation are worth, as ratios.

Each comparison is two builds through the operator that differ in one thing. They take turns within a round, and a ratio
is taken within its round, where what slows the machine down slows both.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hack.image import build_image
from hack.target import CommandError, Target, from_environment

from .contestant import BenchmarkError
from .report import Spread
from .rounds import installed, namespaces

NAMESPACE = "mab-benchmark-strategies"
RESOURCE = "multiarchbuilds.multiarch.build"
_BOTH = ("linux/amd64", "linux/arm64")
_ARM64 = ("linux/arm64",)
_AMD64 = ("linux/amd64",)
_CACHED = """\
FROM node:20-alpine
RUN node -e 'let sum = 0; for (let i = 0; i < 3e8; i++) sum += i; console.log(sum)'
COPY changed .
RUN cat changed
"""
_COMPUTE = """\
FROM node:20-alpine
RUN node -e 'let sum = 0; for (let i = 0; i < 1e9; i++) sum += i; console.log(sum)'
"""
_CROSS = """\
FROM --platform=$BUILDPLATFORM node:20-alpine AS build
RUN node -e 'let sum = 0; for (let i = 0; i < 1e9; i++) sum += i; require("fs").writeFileSync("/sum", `${sum}`)'
FROM busybox:1.36
COPY --from=build /sum /
"""


_PAUSE = 5.0
"""Seconds between a build and the change of a file: people are no faster, and builders that stay get ready for more."""


@dataclass(frozen=True)
class Way:
    """One side of a comparison."""

    name: str
    dockerfile: str
    platforms: tuple[str, ...]
    spec: Mapping[str, Any] = field(default_factory=dict)
    rebuild: bool = False
    """Whether the second build, with one file changed, is what counts."""


@dataclass(frozen=True)
class Comparison:
    """Two ways that differ in one thing: seconds of `one` are divided by those of `other`."""

    one: Way
    other: Way


COMPARISONS = (
    Comparison(
        Way("changed file, with the cache", _CACHED, _BOTH, rebuild=True),
        Way("changed file, without a cache", _CACHED, _BOTH, {"cache": {"mode": "Disabled"}}, rebuild=True),
    ),
    Comparison(
        Way("changed file, kept builders", _CACHED, _BOTH, {"scheduling": {"keepBuilder": "10m"}}, rebuild=True),
        Way("changed file, with the cache", _CACHED, _BOTH, rebuild=True),
    ),
    Comparison(
        Way("arm64 under QEMU", _COMPUTE, _ARM64, {"scheduling": {"strategy": "Emulated"}}),
        Way("amd64 on its own node", _COMPUTE, _AMD64, {"scheduling": {"strategy": "Native"}}),
    ),
    Comparison(
        Way("Cross, one builder", _CROSS, _BOTH, {"scheduling": {"strategy": "Cross"}}),
        Way("a builder each", _CROSS, _BOTH),
    ),
)


def measure(
    target: Target, rounds: int, comparisons: Sequence[Comparison]
) -> Iterator[tuple[Comparison, list[tuple[float, float]]]]:
    """Yield the seconds of both ways of each comparison, a pair a round.

    Raises:
        BenchmarkError: A build failed.
        CommandError: A program failed.
    """
    for comparison in comparisons:
        pairs = []
        for number in range(rounds):
            ways = [comparison.one, comparison.other]
            seconds = {way.name: _seconds(target, way, number) for way in (ways if number % 2 else reversed(ways))}
            pairs.append((seconds[comparison.one.name], seconds[comparison.other.name]))
        yield comparison, pairs


def _seconds(target: Target, way: Way, number: int) -> float:
    name = f"{way.name.replace(',', '').replace(' ', '-').lower()}-{number}"
    try:
        seconds = _build(target, name, way, "before")
        if way.rebuild:
            time.sleep(_PAUSE)
            seconds = _build(target, name, way, "after")
        return seconds
    finally:
        target.kubectl("delete", RESOURCE, name, "-n", NAMESPACE, "--ignore-not-found")
        target.kubectl("wait", "pods", "--all", "-n", NAMESPACE, "--for=delete", "--timeout=120s")


def _build(target: Target, name: str, way: Way, content: str) -> float:
    """Apply a build and return the seconds until it is Ready."""
    spec = {
        "platforms": way.platforms,
        "source": {"inline": {"files": {"Dockerfile": way.dockerfile, "changed": content}}},
        "output": {"image": f"{target.facts.registry}/{NAMESPACE}/{name}"},
        **way.spec,
    }
    build = {"apiVersion": "multiarch.build/v1alpha1", "kind": "MultiArchBuild", "metadata": {"name": name}}
    started = time.monotonic()
    target.kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=json.dumps({**build, "spec": spec}))
    try:
        target.kubectl("wait", f"{RESOURCE}/{name}", "-n", NAMESPACE, "--for=condition=Ready", "--timeout=600s")
    except CommandError as error:
        run = target.kubectl("get", RESOURCE, name, "-n", NAMESPACE, "-o", "jsonpath={.status.run.message}")
        raise BenchmarkError(f"{way.name}: {run or error}") from error
    return time.monotonic() - started


def table(measured: Iterator[tuple[Comparison, list[tuple[float, float]]]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown: seconds as median (least-greatest), and ratios of pairs likewise."""
    yield "| one | seconds | other | seconds | one / other |"
    yield "| --- | ---: | --- | ---: | ---: |"
    for comparison, pairs in measured:
        ones, others = (Spread.of(side) for side in zip(*pairs, strict=True))
        ratio = Spread.of(one / other for one, other in pairs)
        yield f"| {comparison.one.name} | {ones} | {comparison.other.name} | {others} | {ratio} |"


def main() -> int:
    """Measure on the cluster that the environment names, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strategies", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of builds (default: %(default)s)")
    parser.add_argument("--only", default="", help="only comparisons whose first side has this in its name")
    arguments = parser.parse_args()
    chosen = [each for each in COMPARISONS if arguments.only in each.one.name]
    try:
        target = from_environment()
        with namespaces(target, NAMESPACE), installed(target, build_image(target)):
            for line in table(measure(target, arguments.rounds, chosen)):
                print(line, flush=True)
    except (BenchmarkError, CommandError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
