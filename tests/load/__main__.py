"""What the operator takes for many builds: `python -m tests.load` (docs/benchmarks.md).

    python -m tests.load [--builds N] [--namespaces N] [--source inline|git] [--only many rest large nodes queued]
                         [--json FILE] [--write] [--profile FILE]

Each on a control plane of its own, with nodes that are played: pods get a node by the real scheduler, steps take some
seconds and end with real results.
"""

import argparse
import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Final

from tests.cluster.fixture import control_plane, control_plane_layout

from . import extremes, figures
from .many import many
from .stage import Stage, stage

_EXTREMES: Final[dict[str, Callable[[Stage], Awaitable[figures.Fact]]]] = {
    "rest": partial(extremes.at_rest, count=10_000),
    "large": partial(extremes.large, count=1000, size=127 * 1024),
    "nodes": partial(extremes.nodes, count=500),
}
_ALL: Final = ("many", *_EXTREMES, "queued")


async def measure(name: str, options: argparse.Namespace, folder: Path) -> figures.Run | figures.Fact:
    """Measure one thing that the command line names."""
    if name == "queued":
        return extremes.queued(3000, 300)
    async with stage(control_plane_layout(), folder, seed=options.seed, profile=options.profile) as made:
        if name in _EXTREMES:
            return await _EXTREMES[name](made)
        return await many(made, builds=options.builds, namespaces=options.namespaces, source=options.source)


def main(argv: Sequence[str] | None = None) -> int:
    """See the module; return 1 where the operator has logged an error."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--builds", type=int, default=1000)
    parser.add_argument("--namespaces", type=int, default=20)
    parser.add_argument("--source", choices=("inline", "git"), default="inline")
    parser.add_argument("--only", nargs="+", choices=_ALL, default=_ALL, help="what to measure (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where all figures go")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    parser.add_argument("--profile", type=Path, help="where cProfile writes what the operator does")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="mab-load-"))
    print(f"logs in {folder}", flush=True)
    runs: list[figures.Run] = []
    facts: list[figures.Fact] = []
    for name in (each for each in _ALL if each in options.only):
        # What one has left would be work for the operator of the next.
        with control_plane() if name != "queued" else nullcontext():
            found = asyncio.run(measure(name, options, folder))
        if isinstance(found, figures.Run):
            runs.append(found)
            print("\n".join(f"{row:32} {value}" for row, value in found.rows()), flush=True)
        else:
            facts.append(found)
            print(f"{found.name}: {found.value}", flush=True)
    if options.json:
        everything = {"runs": list(map(figures.as_json, runs)), "facts": list(map(asdict, facts))}
        options.json.write_text(json.dumps(everything, indent=1), encoding="utf-8")
    if options.write:
        figures.write("load", figures.document(runs, facts))
    return int(any(run.errors for run in runs))


if __name__ == "__main__":
    raise SystemExit(main())
