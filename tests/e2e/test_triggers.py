"""Runs that nobody starts by hand: by schedule, after a failure, and by what a CI job may do."""

import pytest

from hack.target import CommandError
from tests.support.git import GitServer
from tests.support.markdown import ROOT, blocks
from tests.support.tenant import AMD64, Tenant, condition, inline

pytestmark = pytest.mark.e2e


def test_a_schedule_and_a_failure_of_the_infrastructure_start_runs(tenant: Tenant) -> None:
    scheduled = tenant.build("scheduled", platforms=[AMD64], rebuild={"schedule": "* * * * *"})
    lost = tenant.build(
        "lost",
        source={"git": {"url": "http://nowhere.invalid/app.git", "ref": "main"}},
        platforms=[AMD64],
        retries=0,
        rebuild={"retryInterval": "1m"},
    )
    failed = lost.ended()
    assert failed["run"]["reason"] == "GitUnreachable"
    assert condition(failed, "Reconciling")["reason"] == "Retrying"
    assert "another run starts at" in condition(failed, "Ready")["message"]
    # They need not be Ready: where a run ends with the minute, the next one follows at once.
    first = scheduled.ended()
    second = scheduled.ended(after=first["run"]["id"])
    assert {first["run"]["result"], second["run"]["result"]} == {"Succeeded"}
    assert second["run"]["trigger"] == "Scheduled"
    assert second["run"]["cause"] == "rebuild.schedule is * * * * *"
    scheduled.patch(suspend=True)
    again = lost.ended(after=failed["run"]["id"])
    assert (again["run"]["trigger"], again["run"]["retry"]) == ("Retried", 1)
    lost.patch(source={**inline(), "git": None})
    lost.succeeded(after=again["run"]["id"])


def test_a_job_that_may_do_nothing_else_has_a_source_looked_at(tenant: Tenant, git_server: GitServer) -> None:
    (manifests,) = (
        block.text
        for block in blocks(ROOT / "docs" / "how-to" / "push.md")
        if (block.language, block.label) == ("yaml", "")
    )
    tenant.kubectl("apply", "-f", "-", stdin=manifests)
    repository = git_server.repository(tenant.namespace)
    files = {"Dockerfile": "FROM busybox:1.36\nCOPY hello.txt /\n", "hello.txt": "one\n"}
    repository.commit(files)
    build = tenant.build("hello-node", source={"git": {"url": repository.url, "ref": "main"}}, platforms=[AMD64])
    first = build.succeeded()
    commit = repository.commit({**files, "hello.txt": "two\n"})
    job = f"--as=system:serviceaccount:{tenant.namespace}:pusher"
    tenant.kubectl(job, "annotate", "mab", "hello-node", f"reconcile.fluxcd.io/requestedAt={commit}")
    second = build.succeeded(after=first["run"]["id"])
    assert (second["run"]["trigger"], second["run"]["source"]["commit"]) == ("SourceChanged", commit)
    with pytest.raises(CommandError, match="forbidden"):
        tenant.kubectl(job, "get", "pods")
