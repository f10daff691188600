"""The commands, each a short story of what it asks the cluster and what it prints."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from rich.text import Text

from multiarchbuild.api.progress import StepCount
from multiarchbuild.api.resource import CANCEL_ANNOTATION, REBUILD_ANNOTATION

from . import build, complete, console, inspect, logs, tables
from .console import Format, say
from .errors import BuildFailedError, TimedOutError
from .follow import Board, Follower, Wanted, pods_of
from .kube import Access, Cluster
from .resource import Build
from .steplog import StepLog
from .view import Progress, view
from .watch import log

_TAIL: Final = 5000
"""Lines of a log in which its last count of steps is looked for."""


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code.

    Raises:
        CliError: it could not be done.
    """
    return _COMMANDS[arguments.command](arguments)


def _cluster(arguments: argparse.Namespace) -> Cluster:
    return Cluster.connect(Access(arguments.kubeconfig, arguments.context, arguments.namespace))


def _list(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    found = cluster.builds(everywhere=arguments.all_namespaces)
    if form := _form(arguments, Format.JSON, Format.YAML):
        console.document({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": found}, form)
        return 0
    if not found:
        say("no builds found" if arguments.all_namespaces else f"no builds found in namespace {cluster.namespace}")
        return 0
    wide = arguments.output == Format.WIDE
    builds = [Build(entry) for entry in found]
    console.show(tables.builds(builds, datetime.now(UTC), everywhere=arguments.all_namespaces, wide=wide))
    return 0


def _status(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    found = Build(cluster.get(arguments.name))
    if arguments.follow:
        return follow(cluster, arguments, Wanted(arguments.name, timeout=arguments.timeout))
    if form := _form(arguments, Format.JSON, Format.YAML):
        console.document(found.document, form)
        return 0
    console.show(tables.status(found, _counts(cluster, found), datetime.now(UTC)))
    return 0


def _counts(cluster: Cluster, found: Build) -> Mapping[str, StepCount]:
    """Return how far the pods are that still run, by what they printed last."""
    if found.run is None or found.run.result:
        return {}
    board = Board(found)
    for pod, _ in pods_of(cluster, found, found.run.id):
        board.pods[pod.name] = pod
        if pod.step_started_at is not None and pod.platforms:
            steps = board.logs[pod.name] = StepLog()
            for line in log(cluster, pod.name, follow=False, tail=_TAIL):
                steps.feed(line)
    return board.counts()


def _build(arguments: argparse.Namespace) -> int:
    prepared = build.prepare(arguments)
    if arguments.dry_run:
        console.document(prepared.manifest, _form(arguments, Format.JSON) or Format.YAML)
        return 0
    cluster = _cluster(arguments)
    wanted = build.submit(prepared, cluster, force=arguments.force_conflicts)
    if not arguments.follow:
        _print(arguments, cluster, wanted.name)
        return 0
    return follow(cluster, arguments, replace(wanted, timeout=arguments.timeout))


def _rebuild(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    request = datetime.now(UTC).isoformat(timespec="milliseconds")
    found = Build(cluster.annotate(arguments.name, {REBUILD_ANNOTATION: request}))
    if found.spec.get("suspend"):
        say(f"spec.suspend is true: the run starts after kubectl mab resume {arguments.name}")
    if not arguments.follow:
        _print(arguments, cluster, arguments.name)
        return 0
    return follow(cluster, arguments, Wanted(arguments.name, request=request, timeout=arguments.timeout))


def _print(arguments: argparse.Namespace, cluster: Cluster, name: str) -> None:
    if form := _form(arguments, Format.JSON, Format.YAML):
        console.document(cluster.get(name), form)
    else:
        say(f"a run of {name} is under way or about to start; look with: {_hint(arguments, cluster, name)}")


def follow(cluster: Cluster, arguments: argparse.Namespace, wanted: Wanted) -> int:
    """Follow a run to its end, print the image by digest, and return the exit code.

    Raises:
        BuildFailedError: it ended without an image.
        TimedOutError: it has not ended in time; it goes on.
    """
    err = console.stderr()
    try:
        found, ended = Follower(cluster, view(Progress(arguments.progress), err)).follow(wanted)
    except KeyboardInterrupt:
        say(f"detached: the run goes on. Look again with: {_hint(arguments, cluster, wanted.name)}")
        raise
    except TimedOutError as error:
        raise TimedOutError(f"{error}. Look again with: {_hint(arguments, cluster, wanted.name)}") from error
    if not ended.succeeded:
        _tails(found)
        raise BuildFailedError(ended.message)
    if form := _form(arguments, Format.JSON, Format.YAML):
        console.document(found.document, form)
        return 0
    tags = ", ".join(found.status["image"].get("tags", ()))
    took = found.run.elapsed(datetime.now(UTC)) if found.run else None
    say(f"published in {console.span(took)}" + (f", tags: {tags}" if tags else ""))
    sys.stdout.write(f"{found.ref}\n")
    return 0


def _tails(found: Build) -> None:
    """Show the last lines of what failed, each text once."""
    seen = set[str]()
    for platform in found.run.platforms if found.run else ():
        tail = platform.text("logTail")
        if tail and tail not in seen:
            seen.add(tail)
            console.stderr().print(Text(f"--- {platform.name}\n{tail}"), soft_wrap=True)


def _hint(arguments: argparse.Namespace, cluster: Cluster, name: str) -> str:
    where = [("-n", cluster.namespace), ("--context", arguments.context), ("--kubeconfig", arguments.kubeconfig)]
    given = [word for option, value in where if value for word in (option, value)]
    return shlex.join(["kubectl", "mab", "status", name, "--follow", *given])


def _cancel(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    found = Build(cluster.get(arguments.name))
    if found.run is None or found.run.result:
        say(f"{arguments.name} has no running run")
        return 0
    cluster.annotate(arguments.name, {CANCEL_ANNOTATION: found.run.id})
    say(f"run {found.run.id} of {arguments.name} is cancelled")
    return 0


def _suspend(arguments: argparse.Namespace) -> int:
    _cluster(arguments).patch_spec(arguments.name, {"suspend": True})
    say(f"{arguments.name} is suspended: a running run goes on, no further one is started")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    _cluster(arguments).patch_spec(arguments.name, {"suspend": False})
    say(f"{arguments.name} is resumed")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    return logs.show(_cluster(arguments), arguments)


def _inspect(arguments: argparse.Namespace) -> int:
    report = inspect.report(arguments.name, lambda: _cluster(arguments), plain_http=arguments.plain_http)
    if form := _form(arguments, Format.JSON, Format.YAML):
        console.document(report.document(), form)
    else:
        console.show(inspect.lines(report))
    return 0


def _completion(arguments: argparse.Namespace) -> int:
    sys.stdout.write(complete.script(arguments.shell))
    return 0


def _form(arguments: argparse.Namespace, *forms: Format) -> Format | None:
    """Return the form that --output names, if it is one of `forms`."""
    form = Format(arguments.output) if arguments.output else None
    return form if form in forms else None


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "list": _list,
    "status": _status,
    "logs": _logs,
    "build": _build,
    "rebuild": _rebuild,
    "cancel": _cancel,
    "suspend": _suspend,
    "resume": _resume,
    "inspect": _inspect,
    "completion": _completion,
}
