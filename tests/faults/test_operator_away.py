"""No operator for a while: what pods have ended with meanwhile counts, however late it is seen."""

import pytest

from tests.support.gate import Gate
from tests.support.operator_process import OperatorProcess
from tests.support.tenant import AMD64, BOTH, Build, Tenant, condition, has_ended, inline, platform, was_handed_over

pytestmark = [pytest.mark.faults, pytest.mark.xdist_group("alone")]

LATE = "tests.faults.late"


def started(tenant: Tenant, process: OperatorProcess, dockerfile: str) -> Build:
    """Return a build both platforms of which are being built."""
    process.start()
    build = tenant.build(source=inline(dockerfile))
    build.until(
        lambda status: [entry["phase"] for entry in status.get("run", {}).get("platforms", ())] == ["Running"] * 2,
        why="both platforms are built",
    )
    return build


@pytest.mark.parametrize("meanwhile", ["the time is over", "cancelled", "edited"])
def test_what_was_published_while_nobody_looked_is_known(
    tenant: Tenant, process: OperatorProcess, gate: Gate, meanwhile: str
) -> None:
    build = started(tenant, process, f"FROM busybox:1.36\nRUN {gate.wait()}; uname -m > /machine\n")
    gate.open()
    tenant.pods_until("publish", was_handed_over, "the publish step knows what was built")
    process.kill()
    tenant.pods_until("publish", lambda pods: all(map(has_ended, pods)), "the index is published")
    published = tenant.images.digest(f"{tenant.image()}:latest")
    run = build.status["run"]["id"]
    match meanwhile:
        case "cancelled":
            build.annotate(cancel=run)
        case "edited":
            build.patch(build={"args": {"VERSION": "2"}})
        case _:
            process.module = LATE
    process.start()
    status = build.until(lambda status: status.get("history"), why="the run is recorded")
    entry = status["history"][-1]
    assert (entry["id"], entry["result"], entry["digest"]) == (run, "Succeeded", published)
    if meanwhile != "edited":
        status = build.succeeded()
        assert status["run"]["id"] == run
        assert status["image"]["digest"] == published


def test_what_was_built_while_nobody_looked_is_not_built_again(
    tenant: Tenant, process: OperatorProcess, gate: Gate
) -> None:
    build = started(tenant, process, f"FROM busybox:1.36\nRUN {gate.wait()}; uname -m > /machine\n")
    process.kill()
    gate.open()
    tenant.pods_until("build", lambda pods: all(map(has_ended, pods)), "both platforms are built")
    process.module = LATE
    process.start()
    status = build.failed("TimedOut")
    assert [(entry["phase"], "pushed" in entry) for entry in status["run"]["platforms"]] == [("Succeeded", True)] * 2
    build.rebuild()
    again = build.succeeded(after=status["run"]["id"])
    assert [platform(again, name)["pod"] for name in BOTH] == [platform(status, name)["pod"] for name in BOTH]


def test_why_a_platform_failed_while_nobody_looked_is_why_the_run_failed(
    tenant: Tenant, process: OperatorProcess, gate: Gate
) -> None:
    dockerfile = (
        f"FROM busybox:1.36\nRUN {gate.wait('$(uname -m)')}; [ $(uname -m) != x86_64 ] || {{ echo broken; exit 4; }}\n"
    )
    build = started(tenant, process, dockerfile)
    process.kill()
    gate.open("x86_64")
    tenant.pods_until("build", lambda pods: any(map(has_ended, pods)), f"{AMD64} has failed")
    process.module = LATE
    process.start()
    status = build.failed("BuildFailed")
    assert "exit code 4" in condition(status, "Ready")["message"]
    assert "broken" in platform(status, AMD64)["logTail"].splitlines()
