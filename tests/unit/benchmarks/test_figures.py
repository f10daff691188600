"""The arithmetic of the benchmarks."""

from benchmarks.contestant import phases
from benchmarks.pods import ended
from benchmarks.report import Comparison, Goal, Sample, Spread, document, goals, markdown, ratio
from benchmarks.watch import Event
from benchmarks.workload import Case

COMPARISON = Comparison("operator", "raw pods")


def sample(number: int, contestant: str, seconds: float, case: Case = Case.COLD) -> Sample:
    return Sample(number, case, contestant, seconds, {"built": seconds - 1, "published": 1.0}, 0.5)


def test_phases_add_up() -> None:
    timing = phases(100.0, {"created": 100.5, "built": 103.0, "published": 103.25})
    assert timing.phases == {"created": 0.5, "built": 2.5, "published": 0.25}
    assert timing.seconds == sum(timing.phases.values())


def test_ratio_compares_within_rounds() -> None:
    # The machine is twice as slow in the second round, and the third was cut short.
    samples = [
        sample(0, "raw pods", 10),
        sample(0, "operator", 11),
        sample(1, "raw pods", 20),
        sample(1, "operator", 24),
        sample(2, "operator", 99),
        sample(0, "operator", 5, Case.REBUILD),
    ]
    assert ratio(samples, Case.COLD, COMPARISON) == Spread(1.1, 1.15, 1.2)
    assert ratio(samples, Case.REBUILD, COMPARISON) is None


def test_tables_and_document() -> None:
    samples = [
        sample(0, "raw pods", 10),
        sample(0, "operator", 11),
        sample(1, "raw pods", 12),
        sample(1, "operator", 15),
    ]
    contestants = ["raw pods", "operator"]
    text = markdown(samples, contestants, [COMPARISON], "Title")
    assert "| cold | 11.00 (10.00-12.00) | 13.00 (11.00-15.00) | 1.18 (1.10-1.25) |" in text
    assert "| built | 10.00 | 12.00 |" in text
    cases = document(samples, contestants, [COMPARISON], {"cpus": 2})["cases"]
    assert cases["cold"]["phases"]["operator"] == {"built": 12.0, "published": 1.0}
    assert cases["changed"]["ratios"] == {"operator / raw pods": None}


def test_a_goal_is_met_or_missed_by_how_much() -> None:
    samples = [sample(0, "raw pods", 10), sample(0, "operator", 12)]
    wanted = [Goal("cold", Case.COLD, COMPARISON, most) for most in (1.2, 1.0)] + [
        Goal("changed", Case.CHANGED, COMPARISON, 1.0)
    ]
    rows = [line for line in goals(samples, wanted) if line.startswith("| cold")]
    assert rows == [
        "| cold | operator / raw pods | 1.2 | 1.20 (1.20-1.20) | met |",
        "| cold | operator / raw pods | 1.0 | 1.20 (1.20-1.20) | missed by 20% |",
    ]
    assert not any("changed" in line for line in goals(samples, wanted))


def test_a_pod_has_ended_when_its_step_has() -> None:
    def pod(name: str, **states: object) -> Event:
        statuses = [{"name": container, "state": state} for container, state in states.items()]
        return Event(1.0, {"metadata": {"name": name}, "status": {"containerStatuses": statuses}})

    over = {"terminated": {"exitCode": 0}}
    events = [
        pod("a", step={"running": {}}),
        pod("a", step=over),
        pod("b", other=over, step={"running": {}}),
        pod("c", step=over),
        Event(1.0, {"metadata": {"name": "b"}}),
    ]
    assert ended(events, {"a", "b"}) == {"a": {"exitCode": 0}}
