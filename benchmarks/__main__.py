"""Measure, print the tables, and write everything as JSON where asked."""

import argparse
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from hack.target import CommandError, Target, from_environment
from multiarchbuild.plan.policy import BUILDKIT_IMAGE
from tests.cluster.build import BuildError
from tests.load import figures as figures_page

from . import report
from .contestant import BenchmarkError
from .rounds import COMPARISONS, CONTESTANTS, GOALS, measure


def main() -> int:
    """Run the benchmark on the cluster that the environment names."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        target = from_environment()
        environment = _environment(target, arguments.rounds)
        contestants = arguments.only or CONTESTANTS
        samples = measure(target, arguments.rounds, contestants)
    except (BenchmarkError, BuildError, CommandError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    comparisons = [each for each in COMPARISONS if {each.one, each.other} <= set(contestants)]
    text = report.markdown(samples, contestants, comparisons, _title(environment), GOALS)
    print(text)
    if arguments.write:
        figures_page.write("bench", text)
    if arguments.json:
        figures = report.document(samples, contestants, comparisons, environment)
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of all builds (default: %(default)s)")
    parser.add_argument("--only", action="append", choices=CONTESTANTS, help="contestant; may be repeated")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--json", type=Path, help="file for all figures and samples")
    return parser


def _terminated(*_: object) -> NoReturn:
    # As an exception, so that everything is cleaned up.
    raise SystemExit(128 + signal.SIGTERM)


def _environment(target: Target, rounds: int) -> dict[str, Any]:
    version = json.loads(target.kubectl("version", "--output=json"))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "rounds": rounds,
        "cpus": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kubernetes": version["serverVersion"]["gitVersion"],
        "buildkit": BUILDKIT_IMAGE,
        "nodes": sorted(target.nodes.values()),
        "local": bool(target.facts.instance),
    }


def _title(environment: dict[str, Any]) -> str:
    where = "the local cluster" if environment["local"] else "a cluster"
    return (
        f"{environment['date']}, {environment['rounds']} rounds on {where} (nodes: {', '.join(environment['nodes'])}; "
        f"Kubernetes {environment['kubernetes']}, {environment['buildkit']}), driven from a machine with "
        f"{environment['cpus']} CPUs and {environment['memory']}."
    )


if __name__ == "__main__":
    raise SystemExit(main())
