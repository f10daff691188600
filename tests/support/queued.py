"""Builds of one platform whose builder somebody else's queue holds back, as a person sees them."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from .markdown import ROOT
from .tenant import AMD64, Build, Status, Tenant, condition, platform


def has(reason: str) -> Callable[[Status], bool]:
    """Return a check that the platform stands there for this reason."""
    return lambda status: entry(status).get("reason") == reason


def entry(status: Status) -> dict[str, Any]:
    """Return what the run says of the platform, empty where it says nothing yet."""
    return platform(status, AMD64) if status.get("run", {}).get("platforms") else {}


def is_queued(tenant: Tenant, build: Build, gate: str) -> Status:
    """Wait until the builder is queued, and return the status that says so everywhere."""
    status = build.until(has("Queued"))
    said = f"pod {entry(status)['pod']} is held back by {gate} (schedulingGates)"
    assert (entry(status)["phase"], entry(status)["message"]) == ("Pending", said)
    assert status["run"]["reason"] == "Queued"
    ready, reconciling = condition(status, "Ready"), condition(status, "Reconciling")
    assert (ready["status"], ready["reason"]) == ("Unknown", "Queued")
    assert (reconciling["status"], reconciling["reason"]) == ("True", "Queued")
    assert said in ready["message"]
    assert said in reconciling["message"]
    assert condition(status, "Stalled") == {}
    # What a person sees of it.
    assert build.columns()["REASON"] == "Queued"
    assert [line for line in mab(tenant, "status", build.name).splitlines() if AMD64 in line and "Queued" in line]
    assert said in mab(tenant, "status", build.name)
    return status


def mab(tenant: Tenant, *words: str) -> str:
    """Return what kubectl mab prints."""
    program = "import sys; from multiarchbuild.cli import main; sys.exit(main())"
    argv = [sys.executable, "-c", program, *words, "-n", tenant.namespace]
    environment = {**tenant.target.environment, "PYTHONPATH": os.fspath(ROOT / "operator")}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_published(tenant: Tenant, status: Status, image: str = "app") -> None:
    """Assert that the image of the status is there, and was built for its platform."""
    repository = tenant.image(image)
    assert status["image"]["digest"] == tenant.images.digest(f"{repository}:latest")
    image = f"{repository}@{entry(status)['digest']}"
    assert tenant.images.file(image, "/machine").strip() == "x86_64"
