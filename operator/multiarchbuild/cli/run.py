"""The commands, each a short story of what it asks the cluster and what it prints."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Final

from rich.text import Text

from multiarchbuild.api.progress import StepCount
from multiarchbuild.api.resource import CANCEL_ANNOTATION, REBUILD_ANNOTATION
from multiarchbuild.plan.compare import differences

from . import build, complete, console, doctor, explain, inspect, logs, records, report, tables
from .choices import Format, Output, Progress
from .console import say
from .errors import BuildFailedError, TimedOutError, UsageError
from .follow import Board, Follower, Wanted, pods_of
from .kube import Cluster
from .kubeconfig import Access, Impersonation
from .resource import Build
from .steplog import StepLog
from .view import view
from .watch import log, watch

_TAIL: Final = 5000
"""Lines of a log in which its last count of steps is looked for."""


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code.

    Raises:
        CliError: it could not be done.
    """
    return _COMMANDS[arguments.command](arguments)


def _cluster(arguments: argparse.Namespace) -> Cluster:
    impersonated = Impersonation(arguments.as_user, arguments.as_uid, tuple(arguments.as_group or ()))
    if impersonated.groups and not impersonated.user:
        raise UsageError("--as-group needs --as: the API server impersonates groups with a user only")
    access = Access(
        arguments.kubeconfig, arguments.context, arguments.namespace, impersonated, arguments.request_timeout
    )
    return Cluster.connect(access)


def _list(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    if arguments.watch:
        return _watch(cluster, arguments)
    found = cluster.builds(everywhere=arguments.all_namespaces, selector=arguments.selector)
    if form := _document(arguments):
        console.document({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": found}, form)
        return 0
    if not found:
        where = "" if arguments.all_namespaces else f" in namespace {cluster.namespace}"
        say(f"no builds found{where}{f' with labels {arguments.selector}' if arguments.selector else ''}")
        return 0
    console.show(_rows(arguments, [Build(entry) for entry in found]))
    return 0


def _watch(cluster: Cluster, arguments: argparse.Namespace) -> int:
    """Print each build, then again whenever it changes, as `kubectl get --watch` does."""
    selectors = [("labelSelector", arguments.selector)] if arguments.selector else []
    form, header, widths = _document(arguments), True, tuple[int, ...]()
    for change in watch(cluster, cluster.builds_path(everywhere=arguments.all_namespaces), *selectors):
        if change.type == "DELETED":
            continue
        if form:
            console.document(change.object, form)
        else:
            lines, widths = tables.growing(
                [Build(change.object)],
                datetime.now(UTC),
                widths,
                everywhere=arguments.all_namespaces,
                wide=_is_wide(arguments),
            )
            console.show(lines if header else lines[1:])
            header = False
        sys.stdout.flush()
    return 0


def _rows(arguments: argparse.Namespace, builds: Sequence[Build]) -> list[Text]:
    now = datetime.now(UTC)
    return tables.builds(builds, now, everywhere=arguments.all_namespaces, wide=_is_wide(arguments))


def _is_wide(arguments: argparse.Namespace) -> bool:
    return arguments.output is not None and arguments.output.format is Format.WIDE


def _status(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    found = Build(cluster.get(arguments.name))
    if arguments.follow:
        return follow(cluster, arguments, Wanted(arguments.name, timeout=arguments.timeout))
    if form := _document(arguments):
        console.document(found.document, form)
        return 0
    console.show(tables.status(found, _counts(cluster, found), datetime.now(UTC)))
    if arguments.steps:
        console.show([Text(), *records.lines_or_error(cluster, found, plain_http=arguments.plain_http)])
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
        console.document(prepared.manifest, _document(arguments) or Output(Format.YAML))
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
    if form := _document(arguments):
        console.document(cluster.get(name), form)
    else:
        say(f"requested a run of {name}; follow it with: {_hint(arguments, cluster, name)}")


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
        say(f"detached: the run continues. Follow it again with: {_hint(arguments, cluster, wanted.name)}")
        raise
    except TimedOutError as error:
        raise TimedOutError(f"{error}. Follow it again with: {_hint(arguments, cluster, wanted.name)}") from error
    if not ended.succeeded:
        _tails(found)
        raise BuildFailedError(ended.message)
    if form := _document(arguments):
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
    where += [("--as", arguments.as_user), *(("--as-group", group) for group in arguments.as_group or ())]
    given = [word for option, value in where if value for word in (option, value)]
    return shlex.join(["kubectl", "mab", "status", name, "--follow", *given])


def _cancel(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    found = Build(cluster.get(arguments.name))
    if found.run is None or found.run.result:
        say(f"{arguments.name} has no active run")
        return 0
    cluster.annotate(arguments.name, {CANCEL_ANNOTATION: found.run.id})
    say(f"run {found.run.id} of {arguments.name} is cancelled")
    return 0


def _suspend(arguments: argparse.Namespace) -> int:
    _cluster(arguments).patch_spec(arguments.name, {"suspend": True})
    say(f"{arguments.name} is suspended: an active run continues, no new run starts")
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    _cluster(arguments).patch_spec(arguments.name, {"suspend": False})
    say(f"{arguments.name} is resumed")
    return 0


def _logs(arguments: argparse.Namespace) -> int:
    return logs.show(_cluster(arguments), arguments)


def _inspect(arguments: argparse.Namespace) -> int:
    report = inspect.report(arguments.name, lambda: _cluster(arguments), plain_http=arguments.plain_http)
    if form := _document(arguments):
        console.document(report.document(), form)
    else:
        console.show(inspect.lines(report))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    first, second = records.pair(cluster, arguments.first, arguments.second, plain_http=arguments.plain_http)
    found = differences(first, second)
    if form := _document(arguments):
        console.document({"before": first.run, "now": second.run, "differences": list(map(asdict, found))}, form)
    else:
        console.show(records.compared(first, second, found))
    return 0


def _report(arguments: argparse.Namespace) -> int:
    cluster = _cluster(arguments)
    if not arguments.output:
        return report.write(cluster, arguments.name)
    from .ui import write  # noqa: PLC0415 - its libraries are loaded where they are asked for only

    write(cluster, arguments.name, arguments.output, run=arguments.run, plain_http=arguments.plain_http)
    say(f"wrote {arguments.output}")
    return 0


def _ui(arguments: argparse.Namespace) -> int:
    from .ui import serve  # noqa: PLC0415 - likewise

    return serve(_cluster(arguments), arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    return doctor.run(_cluster(arguments), arguments)


def _completion(arguments: argparse.Namespace) -> int:
    sys.stdout.write(complete.script(arguments.shell))
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    console.show(explain.lines(arguments.reason))
    return 0


def _document(arguments: argparse.Namespace) -> Output | None:
    """Return the form for programs that --output names, if it does."""
    output: Output | None = arguments.output
    return output if output and output.format is not Format.WIDE else None


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
    "compare": _compare,
    "explain": _explain,
    "report": _report,
    "ui": _ui,
    "doctor": _doctor,
    "completion": _completion,
}
