"""What runs a Rootless buildkitd, as process 1 of a process namespace; shells play the programs around it."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from multiarchbuild.pods.supervisor import SUPERVISE

ROOTLESSKIT = 'unshare --mount sh -c "$1" & wait $!'
"""Has buildkitd as its child, in a mount namespace."""
RUNC = (
    "import ctypes, subprocess, sys; PR_SET_CHILD_SUBREAPER = 36; ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1); "
    "subprocess.run(['unshare', '--mount', 'sh', '-c', sys.argv[1]])"
)
"""Is the parent of what its container leaves, as long as it runs."""

COPYING_RUNC = """
import ctypes, os, pathlib, subprocess, sys, time
PR_SET_CHILD_SUBREAPER = 36
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
first = subprocess.Popen(["unshare", "--mount", "sh", "-c", sys.argv[-2]])
state = pathlib.Path(os.environ["XDG_RUNTIME_DIR"], "runc", sys.argv[-1])
state.mkdir(parents=True)
(state / "state.json").write_text('{"id":"x","init_process_pid":%d,"init_process_start":1}' % first.pid)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
(state / "state.json").unlink()
"""
"""As runc does which copies the output of its container: it waits for all that could write to it."""


class Supervised:
    """A supervisor and the processes below it, which say who they are by an argument."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def until(self, condition: Callable[[], bool], seconds: float = 30) -> bool:
        """Return whether `condition` holds before so much time is over."""
        deadline = time.monotonic() + seconds
        while not (holds := condition()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return holds

    def runs(self, seconds: str) -> bool:
        """Return whether `sleep seconds` runs: each process of a test sleeps for another time."""
        return (
            subprocess.run(["pgrep", "-f", "-x", f"sleep {seconds}"], capture_output=True, check=False).returncode == 0
        )


Start = Callable[[str], Supervised]


@pytest.fixture(params=["dash", "bash", "busybox sh"])
def supervise(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Start a supervisor whose buildkitd is a script."""
    if os.geteuid() != 0:
        pytest.skip("namespaces without a container around them need root")
    shell = request.param.split()
    if subprocess.run(["which", shell[0]], capture_output=True, check=False).returncode:
        pytest.skip(f"this machine has no {shell[0]}")
    started: list[subprocess.Popen[bytes]] = []

    def start(buildkitd: str) -> Supervised:
        log = tmp_path / "log"
        env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "MAB_SWEEP": str(tmp_path)}
        namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        program = ["sh", "-c", ROOTLESSKIT, "rootlesskit", buildkitd]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*namespace, *shell, "-c", SUPERVISE, "supervise", *program], env=env, stderr=stderr
            )
        started.append(process)
        return Supervised(process, log)

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def number() -> str:
    """Return a time to sleep for that no other process on this machine sleeps for."""
    return f"{1000 + os.getpid() % 1000}.{time.monotonic_ns() % 10**9:09}"


def test_what_a_run_leaves_behind_is_ended_with_all_that_it_started(supervise: Start) -> None:
    left, below, buildkitd = number(), number(), number()
    run = f"(setsid sh -c 'sleep {below} & exec sleep {left}' &)"
    found = supervise(f'unshare --mount sh -c "{run}"; sleep {buildkitd}')
    assert found.until(lambda: found.runs(buildkitd))
    assert found.until(lambda: not found.runs(left) and not found.runs(below))
    assert found.runs(buildkitd)
    assert "which a RUN left behind: " in found.log.read_text()


def test_what_a_run_has_detached_lives_as_long_as_the_run(supervise: Start) -> None:
    detached, run = number(), number()
    script = f"(setsid sleep {detached} &) ; sleep {run}"
    found = supervise(f"python3 -c \"{RUNC}\" '{script}'; sleep 1000")
    assert found.until(lambda: found.runs(detached) and found.runs(run))
    assert not found.until(lambda: not found.runs(detached), 3)
    subprocess.run(["pkill", "-f", "-x", f"sleep {run}"], check=True)
    assert found.until(lambda: not found.runs(detached))


def test_what_holds_the_output_of_a_run_is_ended_once_the_first_process_of_the_run_has(supervise: Start) -> None:
    left, first, after = number(), number(), number()
    # The same in one that still runs is left alone.
    script = f"sleep {left} & sleep {first}"
    runc = f"python3 -c '{COPYING_RUNC.replace(chr(39), chr(34) * 3)}' runc run --bundle /b '{script}' container1"
    found = supervise(f"{runc}; sleep {after}")
    assert found.until(lambda: found.runs(left) and found.runs(first)), found.log.read_text()
    assert not found.until(lambda: not found.runs(left), 3)
    subprocess.run(["pkill", "-f", "-x", f"sleep {first}"], check=True)
    assert found.until(lambda: found.runs(after) and not found.runs(left)), found.log.read_text()


def test_a_daemon_of_buildkitd_itself_is_left_alone(supervise: Start) -> None:
    overlay, buildkitd = number(), number()
    found = supervise(f"(setsid sleep {overlay} &); sleep {buildkitd}")
    assert found.until(lambda: found.runs(overlay) and found.runs(buildkitd))
    assert not found.until(lambda: not found.runs(overlay), 3)


@pytest.mark.parametrize("code", [0, 1, 7])
def test_it_ends_as_the_program_does(supervise: Start, code: int) -> None:
    found = supervise(f"exit {code}")
    assert found.process.wait(30) == code


def test_it_passes_on_that_it_has_to_end(supervise: Start) -> None:
    buildkitd = number()
    found = supervise(f"trap 'kill $!; exit 3' TERM; sleep {buildkitd} & wait $!")
    assert found.until(lambda: found.runs(buildkitd))
    (init,) = subprocess.check_output(["pgrep", "-P", str(found.process.pid)], text=True).split()
    subprocess.run(["kill", "-TERM", init], check=True)
    found.process.wait(30)
    assert not found.runs(buildkitd)


def test_between_two_builds_all_goes_that_is_not_of_buildkitd(supervise: Start, tmp_path: Path) -> None:
    left, hidden, buildkitd = number(), number(), number()
    # A child of buildkitd itself is no orphan, and not found by who looks for those only.
    run = f"unshare --mount sh -c 'unshare --mount setsid sleep {hidden} & exec sleep {left}' &"
    found = supervise(f"{run} sleep {buildkitd}")
    assert found.until(lambda: found.runs(left) and found.runs(hidden) and found.runs(buildkitd))
    swept = tmp_path / "swept"
    for token in ("one", "two"):
        assert found.until((tmp_path / "sweep").is_fifo)
        (tmp_path / "sweep").write_text(f"{token}\n")
        assert found.until(partial(_says, swept, token))
        assert not found.runs(left)
        assert not found.runs(hidden)
    assert found.runs(buildkitd)


def _says(file: Path, token: str) -> bool:
    return file.exists() and file.read_text() == f"{token}\n"
