"""The process: puts the parts together, and stops them in order."""

import argparse
import asyncio
import signal
import socket
import sys
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from kubernetes.aio.config import ConfigException

from multiarchbuild import __version__
from multiarchbuild.plan.policy import Policy

from . import flux, health, logs
from .apply import Applier, Render
from .census import Census
from .kube import BUILDS, Forbidden, Kube, KubeError, NotFound, Transient, load_configuration, own_namespace
from .leader import Leadership
from .metrics import Metrics
from .observe import Nodes
from .queue import KeyedQueue
from .reconcile import LOOK_SECONDS, Decide, Reconciler, work
from .settings import PolicyError, load_policy
from .watch import Key, Sink, Watcher

_LOG = logs.logger(__name__)

WORKERS: Final = 8
"""Builds that are looked at at the same time."""
STUCK_SECONDS: Final = 2 * LOOK_SECONDS
"""A worker that has been at one build for so long will never come back."""
STOP_SECONDS: Final = 0.7
"""Time that workers, and then the watches, get to end what they are at when the operator stops."""
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


def main(argv: list[str]) -> int:
    """Run the operator until SIGTERM or SIGINT; return the exit code: 0 stopped, 1 failed, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    logs.configure(arguments.log_format)
    try:
        policy = load_policy(arguments.policy)
    except PolicyError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for the person who wrote the file
        return EXIT_USAGE
    from multiarchbuild.plan.decide import decide  # noqa: PLC0415 - tests run other rules
    from multiarchbuild.pods import render  # noqa: PLC0415

    namespaces = () if "all" in arguments.namespace else tuple(dict.fromkeys(arguments.namespace))
    host, port = arguments.listen
    return run(Options(policy, namespaces, host, port, arguments.leader_elect, arguments.flux), decide, render)


def run(options: Options, decide: Decide, render: Render) -> int:
    """Run the operator with these rules until it is told to stop; return the exit code."""
    code = EXIT_OK
    try:
        asyncio.run(_until_stopped(options, decide, render))
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
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    loop = asyncio.get_running_loop()
    metrics, checks = Metrics(), health.Health()
    queue: KeyedQueue[Key] = KeyedQueue(group=lambda key: key.namespace, call_later=loop.call_later, clock=loop.time)
    async with AsyncExitStack() as stack:
        checks.ready["started"] = lambda: False
        await _listen(options, checks, metrics, stack)
        kube = await stack.enter_async_context(Kube(await load_configuration()))
        leadership = Leadership(kube.api_client, own_namespace(), identity)
        stack.push_async_callback(leadership.release)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        _LOG.info("started", version=__version__, identity=identity, namespaces=options.namespaces or "all")
        if options.leader_elect:
            group.create_task(_lead(leadership))
            checks.ready["started"] = lambda: True  # as a follower it stands by
            await leadership.acquired.wait()
            checks.ready["started"] = lambda: False
            _LOG.info("leading")
        await _resource_served(kube, options.namespaces)

        nodes = Nodes(kube, loop.time)
        applier = Applier(kube, render, options.policy, identity)
        sources = flux.Sources(kube, enabled=options.flux)
        census = Census(kube, options.namespaces, options.policy.concurrency, queue.add)
        await _taken(census)
        reconciler = Reconciler(
            kube=kube,
            decide=decide,
            applier=applier,
            nodes=nodes,
            sources=sources,
            census=census,
            policy=options.policy,
            metrics=metrics,
        )

        def nodes_changed() -> None:
            nodes.changed()
            for key in reconciler.active:
                queue.add(key)

        def seen(resource: str) -> None:
            metrics.watch_last_event.labels(resource).set_to_current_time()

        sink = Sink(queue.add, nodes_changed, seen, census.seen)
        watcher = Watcher(load_configuration, options.namespaces, sink)
        group.create_task(_watch(watcher))
        group.create_task(census.prune())
        if options.flux:
            group.create_task(flux.follow(kube, load_configuration, options.namespaces, sources, sink))
        for _ in range(WORKERS):
            group.create_task(work(queue, reconciler, metrics))
        checks.live["workers"] = lambda: queue.longest_work < STUCK_SECONDS
        checks.live["watches alive"] = lambda: watcher.alive
        checks.ready["watches synced"] = lambda: watcher.synced
        checks.ready["started"] = lambda: True
        try:
            await asyncio.Future()
        finally:
            # Not when the Lease was lost: then somebody else leads soon.
            if stop.is_set():
                await _drain(queue)


async def _listen(options: Options, checks: health.Health, metrics: Metrics, stack: AsyncExitStack) -> None:
    try:
        server = await health.serve(checks, metrics.registry, options.host, options.port)
    except OSError as error:
        raise Failed(f"can't listen on {options.host}:{options.port}: {error.strerror}") from error
    stack.push_async_callback(server.cleanup)


async def _lead(leadership: Leadership) -> NoReturn:
    await leadership.run()
    raise Failed("the lease was lost: another operator may lead now")


async def _watch(watcher: Watcher) -> NoReturn:
    try:
        error = await watcher.start()
    finally:
        await asyncio.to_thread(watcher.stop, STOP_SECONDS)
    raise Failed(f"watching has ended: {error!r}")


async def _resource_served(kube: Kube, namespaces: Sequence[str]) -> None:
    """Return once the API server serves the resource: without its CRD there is nothing to watch."""
    namespace = namespaces[0] if namespaces else None
    while True:
        try:
            await kube.list(BUILDS, namespace, limit=1)
        except NotFound:
            _LOG.warning("there is no such resource in the cluster: apply its CRD", resource=BUILDS.plural)
        except (Forbidden, Transient) as error:
            _LOG.warning("the cluster can't be used yet", error=str(error))
        else:
            return
        await asyncio.sleep(CRD_SECONDS)


async def _taken(census: Census) -> None:
    """Return once all builds are known."""
    while True:
        try:
            return await census.take()
        except KubeError as error:
            _LOG.warning("builds not listed yet", error=str(error))
        await asyncio.sleep(CRD_SECONDS)


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
        default=("0.0.0.0", 8080),  # noqa: S104 - probes and Prometheus come from outside the pod
        metavar="HOST:PORT",
        help="where to serve /healthz, /readyz and /metrics (default 0.0.0.0:8080)",
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
        help="let objects of Flux be sources, in a cluster that has them (default)",
    )
    return parser


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 0.0.0.0:8080")
    return host.strip("[]"), int(port)
