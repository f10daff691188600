"""The logs of a run: several pods as one stream, each line with its platform before it."""

import argparse
from collections import deque
from collections.abc import Iterable

from multiarchbuild.api.answers import is_answer
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.progress import StepCount
from multiarchbuild.plan.children import Pod

from .console import say, stdout
from .errors import BuildFailedError, NotFoundError, UsageError
from .follow import Board, Follower, Wanted, own_lines, pods_of
from .kube import Cluster
from .resource import Build
from .view import Prefixes, source
from .watch import log


class Stream:
    """Prints lines as they come."""

    reads_logs = True

    def __init__(self) -> None:
        """Print to standard output."""
        self._console, self._prefixes = stdout(), Prefixes()
        self._attempts: dict[str, int] = {}

    def update(self, board: Board) -> None:
        """Only what pods say is shown."""

    def line(self, pod: Pod, text: str) -> None:
        """Print a line; the first one of a further try says so."""
        who = source(pod)
        if pod.attempt > self._attempts.setdefault(who, 1):
            self._attempts[who] = pod.attempt
            self._console.print(self._prefixes.of(pod).append(f"--- try {pod.attempt}, pod {pod.name}"), soft_wrap=True)
        self._console.print(self._prefixes.of(pod).append(text, style="default"), soft_wrap=True)

    def close(self) -> None:
        """End."""


def show(cluster: Cluster, arguments: argparse.Namespace) -> int:
    """Print the logs that the user asks for and return the exit code.

    Raises:
        CliError: there are none, or the API server does not give them.
    """
    wanted = _platforms(arguments.platform)

    def wants(pod: Pod) -> bool:
        return not wanted or bool(wanted.intersection(pod.platforms))

    stream = Stream()
    if arguments.follow:
        what = Wanted(arguments.name, run=arguments.run or None, timeout=arguments.timeout)
        found, ended = Follower(cluster, stream, wants=wants, tail=arguments.tail).follow(what)
        if found.run is None:
            raise BuildFailedError(ended.message)
        return 0
    found = Build(cluster.get(arguments.name))
    run = arguments.run or (found.run.id if found.run else "")
    if not run:
        say(f"{arguments.name} has had no run yet: kubectl mab logs -f waits for one")
        return 0
    # A kept builder that serves a later run by now has served this one before, perhaps.
    pods = [pod for pod, _ in pods_of(cluster, found, None) if wants(pod) and (pod.run_id == run or pod.handed)]
    # All of them may serve another run by now.
    known = {entry["id"] for entry in found.status.get("history", ())}
    if not pods or (not any(pod.run_id == run for pod in pods) and run not in known):
        raise NotFoundError(f"there are no pods of run {run}: spec.history says how many runs are kept")
    for pod in pods:
        if pod.step_started_at is None:
            continue
        for text in _lines(cluster, pod, run, arguments.tail):
            stream.line(pod, text)
    return 0


def _lines(cluster: Cluster, pod: Pod, run: str, tail: int | None) -> Iterable[str]:
    """Return what a pod has said of a run, and no more than the last `tail` lines."""
    own = own_lines(pod, run)
    said = log(cluster, pod.name, follow=False, tail=None if own else tail)
    found = (text for text in said if (own is None or own.has(text)) and not is_answer(text))
    shown = (text for text in found if StepCount.parse(text) is None)
    return deque(shown, maxlen=tail) if own and tail is not None else shown


def _platforms(given: list[str]) -> set[Platform]:
    try:
        return {Platform.parse(name.strip()) for text in given for name in text.split(",")}
    except ValueError as error:
        raise UsageError(f"--platform: {error}") from error
