"""What strangers write takes as long as its length says, however it is written."""

from pathlib import Path

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.record import StepRecord
from multiarchbuild.api.source import GitSource
from multiarchbuild.oci.auth import challenges
from multiarchbuild.oci.identity.requests import said_by
from multiarchbuild.plan.compare import key
from multiarchbuild.steps import bases
from multiarchbuild.steps.classify import classify
from multiarchbuild.steps.git_errors import failure
from multiarchbuild.steps.progress import Progress, Vertex
from tests.unit.steps.test_robust import spec

pytestmark = pytest.mark.timeout(60)
"""Seconds: each of these takes less than one, and took hours."""

MANY = 100_000


@pytest.mark.parametrize(
    "name",
    [f"[{'1' * MANY}", f"[{'1/' * MANY}", f"[{'1' * MANY}]", f"[{'a1' * MANY}/1", f"[{'1/1' * MANY}] RUN"],
    ids=lambda name: f"{name[:6]}…{name[-4:]}",
)
def test_names_of_steps_which_a_frontend_chooses(name: str) -> None:
    progress = Progress(vertexes={"d": Vertex(name)})
    assert progress.cache.total == ("RUN" in name)
    assert list(bases.pulled(progress, ())) == []
    assert key(StepRecord(name=name)).startswith("[1" if name[1] == "1" else "[a")


@pytest.mark.parametrize(
    "said",
    ["chown " * MANY, f"chown {': invalid argumentx' * MANY}", "lookup on " * MANY],
    ids=lambda said: said[:10],
)
def test_errors_of_a_build(said: str) -> None:
    progress = Progress(said=[f"error: failed to solve: {said}"])
    assert classify(spec(), progress).reason is Reason.DOCKERFILE_INVALID


@pytest.mark.parametrize(
    "said",
    [
        "connect to host " * MANY,
        f"Error downloading object: {'a (0): Smudge error: Error downloading b ' * MANY}",
        f"fatal: clone of '{chr(39).join([' into submodule path '] * MANY)}",
        "fatal: x\n" * MANY,
    ],
    ids=lambda said: said[:20],
)
@pytest.mark.parametrize("command", ["fetch", "submodule", "checkout"])
def test_errors_of_git_which_a_server_may_write(command: str, said: str) -> None:
    error = failure(GitSource(url="https://git.test/app"), (command,), said, code=128, folder=Path("/work"))
    assert error.reason is Reason.GIT_FAILED
    assert len(error.log_tail) < 2_100_000


@pytest.mark.parametrize(
    "body", ["<Code>" * MANY, "<Message>x" * MANY, "ey" * MANY, "ey." * MANY], ids=lambda body: body[:9]
)
def test_what_a_provider_of_logins_says(body: str) -> None:
    assert len(said_by(body)) <= 400


@pytest.mark.parametrize(
    "header",
    ['a="' * MANY, 'a="\\"' * MANY, "a " * MANY, "a" + " " * MANY, "a=" * MANY],
    ids=lambda header: header[:4],
)
def test_how_a_registry_wants_to_be_logged_in_to(header: str) -> None:
    assert "bearer" not in challenges(header)
