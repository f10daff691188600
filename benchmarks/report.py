"""The figures: medians, ratios, and where the seconds went."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from .workload import Case


@dataclass(frozen=True)
class Sample:
    """One build.

    Attributes:
        round: Number of its round, from 0.
        case: What was built.
        contestant: By whom.
        seconds: How long it took.
        phases: Where they went, in order.
        load: Load average of the machine just before it.
    """

    round: int
    case: Case
    contestant: str
    seconds: float
    phases: Mapping[str, float]
    load: float


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the greatest of some values."""

    least: float
    middle: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Return the spread of `values`, which must not be empty."""
        ordered = sorted(values)
        return cls(ordered[0], median(ordered), ordered[-1])

    def __str__(self) -> str:
        return f"{self.middle:.2f} ({self.least:.2f}-{self.greatest:.2f})"


@dataclass(frozen=True)
class Comparison:
    """One contestant in terms of another.

    Attributes:
        one: Whose seconds are divided,
        other: by whose.
    """

    one: str
    other: str


@dataclass(frozen=True)
class Goal:
    """What a ratio is to be at most.

    Attributes:
        name: What is built, in words.
        case: Of which build,
        comparison: by whom,
        most: in its median.
    """

    name: str
    case: Case
    comparison: Comparison
    most: float


def seconds(samples: Iterable[Sample], case: Case, contestant: str) -> Spread | None:
    """Return how long `contestant` took for `case`; None where it did not take part."""
    found = [sample.seconds for sample in samples if (sample.case, sample.contestant) == (case, contestant)]
    return Spread.of(found) if found else None


def ratio(samples: Iterable[Sample], case: Case, comparison: Comparison) -> Spread | None:
    """Return the ratios within each round, where what slows the machine down slows both; None without any."""
    taken = {(sample.round, sample.contestant): sample.seconds for sample in samples if sample.case is case}
    found = [
        taken[number, comparison.one] / taken[number, comparison.other]
        for number in {number for number, _ in taken}
        if {(number, comparison.one), (number, comparison.other)} <= taken.keys()
    ]
    return Spread.of(found) if found else None


def phases(samples: Iterable[Sample], case: Case, contestant: str) -> dict[str, float]:
    """Return the median of each phase in seconds."""
    found = dict[str, list[float]]()
    for sample in samples:
        if (sample.case, sample.contestant) == (case, contestant):
            for name, value in sample.phases.items():
                found.setdefault(name, []).append(value)
    return {name: median(values) for name, values in found.items()}


def markdown(
    samples: Sequence[Sample],
    contestants: Sequence[str],
    comparisons: Sequence[Comparison],
    title: str,
    wanted: Sequence[Goal] = (),
) -> str:
    """Return the figures as tables."""
    summary = _summary(samples, contestants, comparisons)
    return "\n".join([title, "", *summary, *goals(samples, wanted), *_breakdown(samples, contestants)])


def document(
    samples: Sequence[Sample],
    contestants: Sequence[str],
    comparisons: Sequence[Comparison],
    environment: Mapping[str, Any],
) -> dict[str, Any]:
    """Return everything as JSON."""
    return {
        "environment": dict(environment),
        "cases": {
            case: {
                "seconds": {name: _json(seconds(samples, case, name)) for name in contestants},
                "ratios": {f"{each.one} / {each.other}": _json(ratio(samples, case, each)) for each in comparisons},
                "phases": {name: phases(samples, case, name) for name in contestants},
            }
            for case in Case
        },
        "samples": [asdict(sample) for sample in samples],
    }


def goals(samples: Sequence[Sample], wanted: Sequence[Goal]) -> Iterator[str]:
    """Yield a table of what was to be reached, and what was; nothing of comparisons that were not made."""
    rows = [(each, found) for each in wanted if (found := ratio(samples, each.case, each.comparison))]
    if not rows:
        return
    yield _row(["goal", "ratio", "at most", "measured", ""])
    yield _row(["---", "---", "---:", "---:", "---"])
    for goal, found in rows:
        names = f"{goal.comparison.one} / {goal.comparison.other}"
        over = found.middle / goal.most - 1
        yield _row([goal.name, names, f"{goal.most:.1f}", str(found), "met" if over <= 0 else f"missed by {over:.0%}"])
    yield ""


def _json(spread: Spread | None) -> dict[str, float] | None:
    return asdict(spread) if spread else None


def _summary(samples: Sequence[Sample], contestants: Sequence[str], comparisons: Sequence[Comparison]) -> Iterator[str]:
    yield _row(["", *contestants, *(f"{each.one} / {each.other}" for each in comparisons)])
    yield _row(["---", *["---:"] * (len(contestants) + len(comparisons))])
    for case in Case:
        times = [seconds(samples, case, name) for name in contestants]
        ratios = [ratio(samples, case, each) for each in comparisons]
        yield _row([case, *(str(value or "-") for value in (*times, *ratios))])
    yield ""
    yield "Seconds: median (min-max). Ratios: of each round, median (min-max)."
    yield ""


def _breakdown(samples: Sequence[Sample], contestants: Sequence[str]) -> Iterator[str]:
    columns = [(name, case) for name in contestants for case in Case]
    values = {(name, case): phases(samples, case, name) for name, case in columns}
    columns = [column for column in columns if values[column]]
    names = sorted(
        {name: None for phase in values.values() for name in phase},
        key=lambda name: max(list(phase).index(name) for phase in values.values() if name in phase),
    )
    yield _row(["until", *(f"{name}: {case}" for name, case in columns)])
    yield _row(["---", *["---:"] * len(columns)])
    for name in names:
        yield _row([name, *(f"{values[column][name]:.2f}" if name in values[column] else "" for column in columns)])
    yield ""
    yield "Seconds since the phase before, medians."


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
