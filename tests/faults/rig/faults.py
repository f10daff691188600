"""What can go wrong between the operator and the API server, and a plan of it that can be replayed by its name."""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """One thing that goes wrong."""

    # A request, counted by each request of the build but for its watches.
    CONFLICT = "conflict"
    """409 to a write, which is not performed."""
    TOO_MANY_REQUESTS = "too-many-requests"
    """429 with Retry-After."""
    INTERNAL_ERROR = "internal-error"
    """500."""
    TIMEOUT_BEFORE = "timeout-before"
    """No answer, and nothing was done."""
    TIMEOUT_AFTER = "timeout-after"
    """No answer, although it was done."""
    RESET_BEFORE = "reset-before"
    """The connection breaks, and nothing was done."""
    RESET_AFTER = "reset-after"
    """The connection breaks, although it was done."""
    STALE = "stale"
    """A read is answered as the same read was the last time."""
    KILL_BEFORE = "kill-before"
    """The operator is killed, and nothing was done."""
    KILL_AFTER = "kill-after"
    """The operator is killed, although it was done."""

    # An event of a watch, counted by those about the namespace of the build.
    DROP = "drop"
    """It never comes."""
    DELAY = "delay"
    """It, and all after it, come seconds later."""
    DUPLICATE = "duplicate"
    """It comes at once and once more later."""
    REORDER = "reorder"
    """It comes after the one that follows it."""

    # The stream of a watch, at an event.
    GONE = "gone"
    """It ends with 410: what happened meanwhile is only in the next list."""
    CUT = "cut"
    """Its connection breaks before the event."""
    SILENT = "silent"
    """It stays open and says nothing any more."""

    @property
    def at_request(self) -> bool:
        """Whether it happens to a request, else at an event."""
        return self in _REQUESTS

    @property
    def kills(self) -> bool:
        """Whether it needs an operator process of its own."""
        return self in {Fault.KILL_BEFORE, Fault.KILL_AFTER}

    @property
    def disturbs_all(self) -> bool:
        """Whether builds that share the operator's watch streams are hit as well, or hide it.

        What was dropped, or waits for another event, is found once a stream has been silent, which one that many builds
        share never is.
        """
        return self.kills or self in {Fault.DROP, Fault.REORDER, Fault.GONE, Fault.CUT, Fault.SILENT}


_REQUESTS = frozenset(
    {
        Fault.CONFLICT,
        Fault.TOO_MANY_REQUESTS,
        Fault.INTERNAL_ERROR,
        Fault.TIMEOUT_BEFORE,
        Fault.TIMEOUT_AFTER,
        Fault.RESET_BEFORE,
        Fault.RESET_AFTER,
        Fault.STALE,
        Fault.KILL_BEFORE,
        Fault.KILL_AFTER,
    }
)
_NAME = re.compile(r"([a-z-]+)@(\d+)")


@dataclass(frozen=True, order=True)
class Injection:
    """A fault at a moment."""

    fault: Fault
    at: int
    """Number of the request or of the event, from 0."""

    def __str__(self) -> str:
        return f"{self.fault}@{self.at}"


@dataclass(frozen=True)
class Plan:
    """What goes wrong in one scenario. Its name says all of it."""

    scenario: str
    injections: tuple[Injection, ...] = ()

    @property
    def name(self) -> str:
        """Such as `retry/timeout-after@17+drop@3`."""
        return f"{self.scenario}/{'+'.join(map(str, self.injections)) or 'none'}"

    @classmethod
    def parse(cls, name: str) -> "Plan":
        """Return the plan of a name. Raises ValueError where it is none."""
        scenario, _, faults = name.partition("/")
        if faults in {"", "none"}:
            return cls(scenario)
        found = [_NAME.fullmatch(text) for text in faults.split("+")]
        if not all(found):
            raise ValueError(f"{name!r} is not a plan: write scenario/fault@number+fault@number")
        return cls(scenario, tuple(Injection(Fault(match[1]), int(match[2])) for match in found if match))

    @property
    def alone(self) -> bool:
        """Whether it needs an operator of its own."""
        return any(each.fault.disturbs_all for each in self.injections)


@dataclass(frozen=True)
class Length:
    """How many moments a scenario has when nothing goes wrong."""

    requests: int
    events: int
    own: int
    """Requests of an operator that has only this build: with what it asks when it starts."""

    def of(self, fault: Fault) -> int:
        """Return how many moments there are for a fault."""
        if fault.kills:
            return self.own
        return self.requests if fault.at_request else self.events


def singles(lengths: Mapping[str, Length]) -> Iterator[Plan]:
    """Yield every plan with one fault: each fault at each moment of each scenario."""
    for scenario, length in sorted(lengths.items()):
        for fault in Fault:
            for at in range(length.of(fault)):
                yield Plan(scenario, (Injection(fault, at),))


def several(lengths: Mapping[str, Length], count: int, seed: int) -> Iterator[Plan]:
    """Yield `count` plans with two to five faults each, the same ones for the same seed."""
    rng = random.Random(f"several {seed}")
    names = sorted(lengths)
    for _ in range(count):
        scenario = rng.choice(names)
        length = lengths[scenario]
        injections = {
            Injection(fault, rng.randrange(length.of(fault))) for fault in rng.sample(list(Fault), rng.randint(2, 5))
        }
        yield Plan(scenario, tuple(sorted(injections)))


def sample(lengths: Mapping[str, Length], count: int, seed: int) -> list[Plan]:
    """Return `count` plans, the same ones for the same seed: four of five with one fault, spread over all of them.

    Every pair of scenario and fault has its turn before any has a second one.
    """
    rng = random.Random(f"sample {seed}")
    groups: dict[tuple[str, Fault], list[Plan]] = {}
    for plan in singles(lengths):
        groups.setdefault((plan.scenario, plan.injections[0].fault), []).append(plan)
    for plans in groups.values():
        rng.shuffle(plans)
    order = sorted(groups)
    rng.shuffle(order)
    chosen = list(several(lengths, count // 5, seed))
    while len(chosen) < count and any(groups.values()):
        for key in order:
            if groups[key] and len(chosen) < count:
                chosen.append(groups[key].pop())
    return chosen
