"""Thousands of wrong, odd and extreme builds, made from the CRD: what the API server and the operator make of them.

    python -m tests.faults.rig.mutations [--seed N] [--count N]

Each refused one must be told which field is wrong, each accepted one must come to a run or a condition, and the
operator must call none a bug of itself.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from multiarchbuild.api.crd import structural
from multiarchbuild.api.spec import Spec
from tests.api.objects import base, build, changed, shown, steps
from tests.cluster.fixture import control_plane

from .api import ApiError, Object
from .campaign import Rig, operators_problems, rig
from .kubelet import Place
from .scenarios import BUILDS, Case

NAMESPACES: Final = 8
TOGETHER: Final = 16
SECONDS: Final = 240.0
"""Time until an accepted build has a run or a condition."""
_TEXTS: Final = (
    *("", " ", "a", "A", "-", "/", "..", "../../etc/passwd", "a/../b", "0", "-1", "1.5", "1e3", "1e0012", "0s", "1h"),
    *("10000000h", "null", "true", "{}", "{{ .Values }}", "${HOME}", "$(id)", "`id`", "a b", "a\nb", "a\tb", "a,b=c"),
    *("a#b", "a%00b", "a\\b", '"', "'", "\u0000", "\u001b[31m", "\u202e", "e\u0301", "\u00e9", "\U0001f4a9" * 9),
    *("linux/amd64", "https://a.example.com/b", "ghcr.io/a/b:c", "sha256:" + "0" * 64, "x" * 64, "x" * 254, "9" * 40),
)
_NUMBERS: Final = (0, 1, -1, 10, 11, 1.5, 2**31 - 1, 2**31, 2**63 - 1, -(2**63))
_SHAPES: Final[tuple[Any, ...]] = (
    True,
    False,
    [],
    {},
    [None],
    [[]],
    {"": ""},
    {"a": None},
    {"name": "a"},
    ["a"],
    ["a", "a"],
)
_ABSENT: Final = object()


@dataclass(frozen=True)
class Mutation:
    """A spec with one or two fields changed."""

    name: str
    """Which fields, and what they became."""
    fields: tuple[str, ...]
    """Paths of the fields, as the API server writes them."""
    spec: Object


def fields(path: str, schema: Object) -> Iterator[tuple[str, Object]]:
    """Yield each field at `path` and below, with its schema."""
    if path:
        yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from fields(f"{path}.{name}", field)
    for entries in ("items", "additionalProperties"):
        if entries in schema:
            yield from fields(f"{path}.*", schema[entries])


def _values(path: str, schema: Object) -> Iterator[Any]:
    """Yield what a field may become: each type, each side of its bounds, and what programs stumble over."""
    here: Any = base(path)
    for key in steps(here, path):
        here = here.get(key) if isinstance(here, dict) else here[key]
    if here is not None:  # what excludes another field is in no base with that
        yield _ABSENT
    yield None
    yield from _TEXTS
    yield from _NUMBERS
    yield from _SHAPES
    yield from schema.get("enum", ())
    for keyword in ("maxLength", "minLength"):
        for size in (schema[keyword] + more for more in (-1, 0, 1)) if keyword in schema else ():
            yield "x" * max(size, 0)
            yield "\u00e9" * max(size, 0)
    for keyword in ("maximum", "minimum"):
        yield from (schema[keyword] + more for more in (-1, 0, 1)) if keyword in schema else ()
    if isinstance(here, list) and here:
        yield [here[0]] * 2
        yield from (here[:1] * (schema["maxItems"] + more) for more in (0, 1) if "maxItems" in schema)
    if isinstance(here, dict) and "additionalProperties" in schema and here:
        value = next(iter(here.values()))
        yield from ({text: value} for text in _TEXTS)
        yield {f"a{number}": value for number in range(schema.get("maxProperties", 16))}
    if isinstance(here, dict):
        yield {**here, "unknownField": 1}
    if isinstance(here, str):
        yield from (here + extra for extra in ("\n", " ", "/", "\U0001f4a9", "," + here))
        yield here.upper()
        yield here * 40


def _mutated(spec: Object, path: str, value: Any) -> Object:
    if value is None:
        # `changed` takes None for absent, and here it is null that is meant.
        marked = changed(spec, path, "\ufffenull")
        replaced: Object = json.loads(json.dumps(marked).replace('"\\ufffenull"', "null"))
        return replaced
    return changed(spec, path, None if value is _ABSENT else value)


def _ready(spec: Object) -> Object:
    """Return a base that gets as far as pods: not suspended, and asking for nothing that is not there."""
    scheduling = {**spec["scheduling"], "serviceAccountName": "default"}
    scheduling.pop("priorityClassName", None)
    return {**spec, "suspend": False, "scheduling": scheduling}


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "absent"
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:40]}… ({len(text)})"


def singles() -> list[tuple[str, Any]]:
    """Return every path with every value that it may become."""
    return [(path, value) for path, schema in fields("", structural(Spec)) for value in _values(path, schema)]


def mutations(count: int, seed: int) -> list[Mutation]:
    """Return `count` mutations, the same ones for the same seed: two of three of one field, spread over all fields."""
    rng = random.Random(f"mutations {seed}")
    by_path: dict[str, list[Any]] = {}
    for path, value in singles():
        by_path.setdefault(path, []).append(value)
    for values in by_path.values():
        rng.shuffle(values)
    everything = [(path, value) for path, values in by_path.items() for value in values]
    left = {path: list(values) for path, values in by_path.items()}
    chosen: list[Mutation] = []
    while len(chosen) < count * 2 // 3 and any(left.values()):
        for path in list(left):
            if left[path] and len(chosen) < count * 2 // 3:
                chosen.append(_single(path, left[path].pop()))
    while len(chosen) < count:
        (one, first), (other, second) = rng.sample(everything, 2)
        pair = _pair(one, first, other, second)
        if pair is not None:
            chosen.append(pair)
    return chosen


def _single(path: str, value: Any) -> Mutation:
    spec = _ready(base(path))
    field = shown(spec, path) if path not in _REMOVED else f"spec{path}"
    if path in _REMOVED:
        spec = base(path)
    return Mutation(f"{field} = {_shown(value)}", (field,), _mutated(spec, path, value))


_REMOVED: Final = {".scheduling.priorityClassName"}
"""What `_ready` takes away."""


def _pair(one: str, first: Any, other: str, second: Any) -> Mutation | None:
    """Return a mutation of two fields of the same source of which none is in the other."""
    spec = base(one if one.startswith(".source") else other)
    if one == other or f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}."):
        return None
    try:
        fields = (shown(spec, one), shown(spec, other))
        spec = _mutated(_mutated(spec, one, first), other, second)
    except (KeyError, IndexError, TypeError, AttributeError, StopIteration):
        return None  # it takes another source
    return Mutation(
        f"{fields[0]} = {_shown(first)}, {fields[1]} = {_shown(second)}", fields, {**spec, "suspend": False}
    )


def names_a_field(message: str, fields: Sequence[str]) -> bool:
    """Return whether a message names one of the fields, or one that holds it or lies in it, or their last names."""
    return any(_named(message, field) for field in fields)


def _named(message: str, field: str) -> bool:
    whole = re.sub(r"\[[^\]]*\]", "", field)
    *_, last = whole.split(".")
    # Of an entry of a map the key may itself be what is wrong: then its map is named.
    parent = whole.rpartition(".")[0].rpartition(".")[2]
    return any(re.search(rf"\b{re.escape(name)}\b", message) for name in (last, parent) if name not in {"spec", ""})


@dataclass
class Outcome:
    """What came of a mutation."""

    mutation: Mutation
    refused: bool
    problem: str = ""


async def attempt(made: Rig, mutation: Mutation, number: int) -> Outcome:
    """Create a mutated build, and see what comes of it."""
    namespace, name = f"mutations-{number % NAMESPACES}", f"m-{number}"
    path, key = BUILDS.format(namespace), f"{namespace}/{name}"
    # Known before it exists: what the operator makes of it may be seen before the answer, and nothing after it.
    case = made.cases[key] = Case(made.api, namespace, Place(), SECONDS)
    try:
        await made.api.create(path, build(name, mutation.spec))
    except ApiError as error:
        del made.cases[key]
        told = f"{error.message} {[cause.get('field') for cause in error.causes]}"
        if error.status not in {400, 413, 422}:
            return Outcome(mutation, refused=True, problem=f"answered {error.status}: {error.message}")
        named = names_a_field(told, mutation.fields)
        return Outcome(mutation, refused=True, problem="" if named else f"names no field: {error.message[:600]}")
    problem = ""
    try:
        await case.until(lambda: case.run() or case.status.get("conditions"))
        problem = _judged(mutation, case)
    except TimeoutError:
        problem = f"neither a run nor a condition within {SECONDS:.0f} s"
    finally:
        await made.api.delete(f"{path}/{name}", {"propagationPolicy": "Background"})
        del made.cases[key]
    return Outcome(mutation, refused=False, problem=problem)


def _judged(mutation: Mutation, case: Case) -> str:
    """Return what is wrong with how an accepted build stands."""
    for condition in case.status.get("conditions", ()):
        if condition["reason"] == "InvalidSpec" and not names_a_field(condition["message"], mutation.fields):
            return f"InvalidSpec names no field: {condition['message'][:600]}"
    return ""


async def run(made: Rig, wanted: Sequence[Mutation]) -> list[Outcome]:
    """Try all, many at a time."""
    for number in range(NAMESPACES):
        await made.api.create("/api/v1/namespaces", {"metadata": {"name": f"mutations-{number}"}}, exists_ok=True)
    room, started = asyncio.Semaphore(TOGETHER), time.monotonic()
    outcomes: list[Outcome] = []

    async def one(number: int, mutation: Mutation) -> None:
        async with room:
            outcome = await attempt(made, mutation, number)
        outcomes.append(outcome)
        if outcome.problem:
            print(f"WRONG {mutation.name}: {outcome.problem}", flush=True)
        if len(outcomes) % 500 == 0:
            print(f"{len(outcomes)}/{len(wanted)}, {time.monotonic() - started:.0f} s", flush=True)

    await asyncio.gather(*(one(number, mutation) for number, mutation in enumerate(wanted)))
    return outcomes


async def campaign(kubeconfig: Path, wanted: Sequence[Mutation], folder: Path) -> tuple[list[Outcome], list[str]]:
    """Try all on an API server; return what came of each, and what is wrong with the operator."""
    async with rig(kubeconfig, folder) as made:
        outcomes = await run(made, wanted)
        return outcomes, operators_problems(made)


def main(argv: Sequence[str] | None = None) -> int:
    """See the module; return 1 where something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.rig.mutations", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, help="of an API server that nothing else works with (default: own)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=None, help="where logs go")
    options = parser.parse_args(argv)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="mab-mutations-"))
    wanted = mutations(options.count, options.seed)
    print(f"seed {options.seed}, {len(wanted)} mutations, logs in {folder}", flush=True)
    with control_plane(options.kubeconfig) as kubeconfig:
        outcomes, bugs = asyncio.run(campaign(kubeconfig, wanted, folder))
    kinds = Counter("refused" if outcome.refused else "accepted" for outcome in outcomes)
    wrong = sum(bool(outcome.problem) for outcome in outcomes)
    print(f"{kinds['refused']} refused, {kinds['accepted']} accepted, {wrong} wrong, {len(bugs)} bugs in the log")
    for bug in bugs[:20]:
        print(bug)
    return int(bool(wrong or bugs))


if __name__ == "__main__":
    sys.exit(main())
