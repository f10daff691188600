"""The process: puts the parts together, and stops them in order."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import uvloop
from kubernetes.aio.config import ConfigException

from multiarchbuild import __version__
from multiarchbuild.plan.policy import Policy

from . import flux, health, logs
from .answers import STREAMS, Answers
from .apply import Applier, Render
from .build_index import BuildIndex
from .installations import SERVES, Installations, Superseded, serves_text
from .kept import keep_bounds
from .kube import BUILDS, Kube, KubeError, NotFound, load_configuration, own_namespace
from .leader import Leadership, own_identity
from .memory import give_back_large_blocks
from .metrics import Metrics
from .queue import KeyedQueue
from .reconcile import LOOK_SECONDS, Decide, Reconciler, work
from .settings import PolicyError, load_policy
from .traces import Traces
from .views import Views
from .watch import Key, Sink, Watcher, streams

_LOG = logs.logger(__name__)

WORKERS: Final = 8
"""Builds that are looked at at the same time."""
STUCK_SECONDS: Final = 2 * LOOK_SECONDS
"""A worker that has been at one build for so long will never come back."""
NODES_SECONDS: Final = 1.0
"""How long builds that wait for a node wait for further changes of nodes, which often come together."""
STOP_SECONDS: Final = 0.7
"""Time that workers get to end what they are at when the operator stops."""
CRD_SECONDS: Final = 5.0
"""Between two looks for the CustomResourceDefinition."""

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2


class Failed(Exception):  # noqa: N818
    """The operator can't go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    policy: Policy
    namespaces: tuple[str, ...]
    """Which ones to serve; none means all."""
    host: str
    port: int
    leader_elect: bool
    flux: bool
    """Whether objects of Flux may be sources."""
    log_streams: int = STREAMS
    """Logs of running steps that are followed at most."""


def main(argv: list[str]) -> int:
    """Run the operator until SIGTERM or SIGINT; return the exit code: 0 stopped, 1 failed, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    give_back_large_blocks()
    logs.configure(arguments.log_format)
    try:
        policy = load_policy(arguments.policy)
    except PolicyError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who wrote the file
        return EXIT_USAGE
    from multiarchbuild.plan.decide import decide  # noqa: PLC0415 - tests run other rules
    from multiarchbuild.pods import render, template  # noqa: PLC0415

    namespaces = () if "all" in arguments.namespace else tuple(dict.fromkeys(arguments.namespace))
    host, port = arguments.listen
    return run(
        Options(policy, namespaces, host, port, arguments.leader_elect, arguments.flux, arguments.log_streams),
        # Kept builders answer by their logs only.
        partial(decide, template=template if arguments.log_streams else None),
        render,
    )


def run(options: Options, decide: Decide, render: Render) -> int:
    """Run the operator with these rules until it is told to stop; return the exit code."""
    code = EXIT_OK
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_stopped(options, decide, render))
    except* (Failed, ConfigException) as group:
        code = EXIT_FAILED
        _LOG.error("failed", error="; ".join(map(str, group.exceptions)))
    return code


async def _until_stopped(options: Options, decide: Decide, render: Render) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    operating = asyncio.create_task(_operate(options, decide, render, stop))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({stopped, operating}, return_when=asyncio.FIRST_COMPLETED)
    if stopped.done():
        _LOG.info("stopping")
        operating.cancel()
        await asyncio.wait({operating})
    if not operating.cancelled():
        await operating


async def _operate(options: Options, decide: Decide, render: Render, stop: asyncio.Event) -> None:
    """Do everything, until cancelled. Raises `Failed`, in a group, when something ends that should not."""
    identity = own_identity()
    loop = asyncio.get_running_loop()
    metrics, checks = Metrics(), health.Health()
    active: set[Key] = set()
    queue = _queue(metrics, active)
    async with AsyncExitStack() as stack:
        checks.ready["started"] = lambda: False
        await _listen(options, checks, metrics, stack)
        kube = await stack.enter_async_context(Kube(await load_configuration(), streams=_streams(options)))
        leadership = Leadership(kube.api_client, own_namespace(), identity)
        stack.push_async_callback(leadership.release)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        _LOG.info("started", version=__version__, identity=identity, namespaces=options.namespaces or "all")
        if options.leader_elect:
            group.create_task(_lead(leadership, serves_text(options.namespaces)))
            checks.ready["started"] = lambda: True  # as a follower it stands by
            await leadership.acquired.wait()
            checks.ready["started"] = lambda: False
            _LOG.info("leading")
            await _alone(kube, leadership, options, checks, group)
        options = await _in_cluster(kube, options)

        answers = Answers(kube, queue.add, metrics, streams=options.log_streams)
        views = Views(queue.add_within, answers.has_succeeded)
        applier = Applier(kube, render, options.policy, views, identity, loop.time)
        sources = flux.Sources(kube, enabled=options.flux)
        index = BuildIndex(options.policy.concurrency, queue.add)
        metrics.show_waiting(index.view, options.policy)
        group.create_task(keep_bounds(kube, views, options.policy.kept_builders, metrics))
        reconciler = Reconciler(
            kube=kube,
            decide=decide,
            applier=applier,
            views=views,
            sources=sources,
            index=index,
            answers=answers,
            policy=options.policy,
            metrics=metrics,
            traces=Traces.started(options.policy.tracing, group),
            active=active,
        )

        def seen(resource: str) -> None:
            metrics.watch_last_event.labels(resource).set_to_current_time()

        sink = Sink(
            build_changed=partial(queue.add, urgent=True),
            seen=seen,
            build=index.seen,
            pod=views.pod_seen,
            config_map=views.config_map_seen,
            claim=views.claim_seen,
            node=partial(_node_seen, views, reconciler, queue),
        )
        watcher = Watcher(kube, options.namespaces, sink, claims=options.policy.knows_cache_volumes)
        checks.live["workers"] = lambda: queue.longest_work < STUCK_SECONDS
        checks.live["watches alive"] = lambda: watcher.alive
        checks.ready["watches synced"] = lambda: watcher.synced
        checks.ready["started"] = lambda: True
        group.create_task(watcher.run())
        await watcher.listed()
        if options.flux:
            group.create_task(flux.follow(kube, options.namespaces, sources, queue.add))
        for _ in range(WORKERS):
            group.create_task(work(queue, reconciler, metrics))
        try:
            await asyncio.Future()
        finally:
            # Not when the Lease was lost: then somebody else leads soon.
            if stop.is_set():
                await _drain(queue)


def _streams(options: Options) -> int:
    """Return how many streams of the API server are open at most."""
    watches = streams(options.namespaces, claims=options.policy.knows_cache_volumes)
    return options.log_streams + watches + flux.streams(options.namespaces)


def _node_seen(
    views: Views, reconciler: Reconciler, queue: KeyedQueue[Key], kind: str, manifest: Mapping[str, Any]
) -> None:
    """Have builds that wait for a node looked at where one has changed."""
    if views.node_seen(kind, manifest):
        for key in reconciler.waiting:
            queue.add_within(key, NODES_SECONDS)


def _queue(metrics: Metrics, active: Collection[Key]) -> KeyedQueue[Key]:
    loop = asyncio.get_running_loop()
    queue: KeyedQueue[Key] = KeyedQueue(
        group=lambda key: key.namespace,
        call_later=loop.call_later,
        clock=loop.time,
        begun=active.__contains__,
    )
    metrics.queue_depth.set_function(queue.__len__)
    metrics.queue_oldest.set_function(lambda: queue.oldest)
    return queue


async def _listen(options: Options, checks: health.Health, metrics: Metrics, stack: AsyncExitStack) -> None:
    try:
        server = await health.serve(checks, metrics.registry, options.host, options.port)
    except OSError as error:
        raise Failed(f"can't listen on {options.host}:{options.port}: {error.strerror}") from error
    stack.push_async_callback(server.cleanup)


async def _lead(leadership: Leadership, serves: str) -> NoReturn:
    leadership.annotate({SERVES: serves})
    await leadership.run()
    raise Failed("the lease was lost: another operator may lead now")


async def _alone(
    kube: Kube, leadership: Leadership, options: Options, checks: health.Health, group: asyncio.TaskGroup
) -> None:
    """Return once this is the only installation that serves its namespaces; its Lease has said that it is one before.

    Each says so first and looks for others then: of two that begin at the same moment, one at least sees the other.
    """
    installations = Installations(kube.api_client, own_namespace(), options.namespaces)
    checks.ready["no other installation serves its namespaces"] = lambda: not installations.waiting
    await leadership.annotated()
    while await installations.others_work():
        leadership.annotate({SERVES: None})
        await installations.alone()
        leadership.annotate({SERVES: serves_text(options.namespaces)})
        await leadership.annotated()
    group.create_task(_stay_alone(installations))


async def _stay_alone(installations: Installations) -> NoReturn:
    try:
        await installations.watch()
    except Superseded as error:
        raise Failed(str(error)) from error


async def _resource_served(kube: Kube, namespaces: Sequence[str]) -> None:
    """Return once the API server serves the resource: without its CRD there is nothing to watch."""
    namespace = namespaces[0] if namespaces else None
    while True:
        try:
            await anext(kube.lists(BUILDS, namespace, limit=1))
        except NotFound:
            _LOG.warning("the cluster does not have this resource: apply its CRD", resource=BUILDS.plural)
        except KubeError as error:
            _LOG.warning("the cluster can't be used yet", error=str(error))
        else:
            return
        await asyncio.sleep(CRD_SECONDS)


async def _in_cluster(kube: Kube, options: Options) -> Options:
    """Return `options` as they hold in this cluster, once it serves the resource."""
    await _resource_served(kube, options.namespaces)
    while True:
        try:
            resizes = "pods/resize" in await kube.served("v1")
        except KubeError as error:
            _LOG.warning("the cluster can't be used yet", error=str(error))
            await asyncio.sleep(CRD_SECONDS)
        else:
            if not resizes:
                _LOG.info("kept builders keep their requests while they wait: the cluster has no pods/resize (1.33)")
            return replace(options, policy=options.policy.in_cluster(resizes=resizes))


async def _drain(queue: KeyedQueue[Key]) -> None:
    """Let workers end what they are at, for a moment. What is cut off, the next operator goes on with."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await queue.stop()
    except TimeoutError:
        _LOG.info("not waiting for the workers any longer")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="multiarchbuild run", description="Run the operator. It finds its cluster as kubectl does."
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="YAML file of the operator's policy")
    parser.add_argument(
        "--namespace",
        nargs="+",
        default=["all"],
        metavar="NAMESPACE",
        help="namespaces to serve, or `all` (default)",
    )
    parser.add_argument(
        "--log-format",
        type=logs.LogFormat,
        choices=list(logs.LogFormat),
        default=logs.LogFormat.CONSOLE if sys.stderr.isatty() else logs.LogFormat.JSON,
        help="default: console in a terminal, else json",
    )
    parser.add_argument(
        "--listen",
        type=_address,
        default=("", 8080),
        metavar="[HOST]:PORT",
        help="where to serve /healthz, /readyz and /metrics (default :8080, every address of IPv4 and IPv6)",
    )
    parser.add_argument(
        "--leader-elect",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="do nothing unless this process holds the Lease (default)",
    )
    parser.add_argument(
        "--flux",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="accept Flux objects as sources, where Flux is installed (default)",
    )
    parser.add_argument(
        "--log-streams",
        type=int,
        default=STREAMS,
        metavar="N",
        help="logs of running steps to follow at most; the results of further ones come half a second later "
        "(default %(default)s, 0 follows none)",
    )
    return parser


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if ":" not in text or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is not [HOST]:PORT, such as :8080, 127.0.0.1:8080 or [::1]:8080")
    return host.strip("[]"), int(port)
