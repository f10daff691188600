"""What Prometheus may know. Labels are closed sets or few: never a name of a build."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from multiarchbuild import __version__
from multiarchbuild.api.status import Phase, PlatformStatus, Status
from multiarchbuild.plan.children import Pod, Role
from multiarchbuild.plan.cluster import ClusterView
from multiarchbuild.plan.policy import Policy

from . import memory

_BUILD_BUCKETS = (5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 86400)
_RECONCILE_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 120)


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        """Start at zero."""
        disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each, which nobody asks for
        self.registry = registry = CollectorRegistry()
        self.builds = Counter("mab_builds_total", "Runs that ended.", ["result", "reason"], registry=registry)
        self.platform_builds = Counter(
            "mab_platform_builds_total",
            "Builds of one platform that ended.",
            ["platform", "mode", "result"],
            registry=registry,
        )
        self.build_duration = Histogram(
            "mab_build_duration_seconds",
            "Duration of the build step of a platform (build) and of whole runs (run).",
            ["phase"],
            buckets=_BUILD_BUCKETS,
            registry=registry,
        )
        self.queue_duration = Histogram(
            "mab_queue_duration_seconds",
            "Time that a build waited in the operator's queue to be looked at.",
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self.queue_depth = Gauge("mab_queue_depth", "Builds that wait for a free worker.", registry=registry)
        self.queue_oldest = Gauge(
            "mab_queue_oldest_seconds", "Time that the first build in the queue has waited.", registry=registry
        )
        self.builds_active = Gauge("mab_builds_active", "Runs in progress.", registry=registry)
        self.builds_queued = Gauge(
            "mab_builds_queued", "Builds that wait for their turn (policy: concurrency).", registry=registry
        )
        self.source_checks = Gauge(
            "mab_source_checks", "Looks at polled sources in progress, each of which is a pod.", registry=registry
        )
        self.source_checks_limit = Gauge(
            "mab_source_checks_limit",
            "Most looks at polled sources at the same time (policy: polling.concurrent).",
            registry=registry,
        )
        self.log_streams = Gauge("mab_log_streams", "Logs of running steps that are followed.", registry=registry)
        Gauge("mab_memory_bytes", "Resident memory of the operator.", registry=registry).set_function(
            memory.resident_bytes
        )
        Gauge(
            "mab_memory_limit_bytes",
            "Memory at which its container is killed; +Inf without a limit.",
            registry=registry,
        ).set(memory.limit_bytes())
        self.builder_use = Counter(
            "mab_builder_use_total",
            "Builds of one platform that ended, where builders are kept: by a Kept one, or why not.",
            ["use"],
            registry=registry,
        )
        self.kept_builders = Gauge(
            "mab_kept_builders", "Kept builders: idle, or building.", ["state"], registry=registry
        )
        self.cache_steps = Counter(
            "mab_cache_steps_total",
            "Steps of builds that came from the cache (hit) or not (miss).",
            ["result"],
            registry=registry,
        )
        self.watch_last_event = Gauge(
            "mab_watch_last_event_timestamp_seconds",
            "Last sign of life of a watch, an event or an accepted request, in seconds since the epoch.",
            ["resource"],
            registry=registry,
        )
        self.reconcile_duration = Histogram(
            "mab_reconcile_duration_seconds",
            "Time that one look at a build took.",
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self.reconcile_errors = Counter(
            "mab_reconcile_errors_total",
            "Looks at a build that failed: terminal, transient or bug.",
            ["kind"],
            registry=registry,
        )
        for kind in ("terminal", "transient", "bug"):
            self.reconcile_errors.labels(kind)
        Gauge("mab_build_info", "Version of the operator.", ["version"], registry=registry).labels(__version__).set(1)

    def show_waiting(self, view: ClusterView, policy: Policy) -> None:
        """Show from now on what waits, or goes on, within the limits of the policy."""
        self.builds_queued.set_function(lambda: view.turns.waiting)
        self.source_checks.set_function(lambda: view.polling)
        self.source_checks_limit.set(policy.polling.concurrent)

    def count_kept(self, pods: Callable[[], Iterable[Pod]]) -> None:
        """Let the gauge of kept builders count `pods`, those of all builds."""

        def count(*, idle: bool) -> int:
            kept = (pod for pod in pods() if pod.template and pod.role is Role.BUILD and pod.ended is None)
            return sum(pod.idle is idle for pod in kept)

        self.kept_builders.labels("idle").set_function(lambda: count(idle=True))
        self.kept_builders.labels("building").set_function(lambda: count(idle=False))

    def status_written(self, old: Status, new: Status) -> None:
        """Count what has ended between two statuses of a build. The write is the commit: it happens once."""
        known = {run: None for run, _, _ in _ended_runs(old)}
        for run, result, reason in _ended_runs(new):
            if run not in known:
                self.builds.labels(result, reason).inc()
        ended = new.run
        if ended and ended.finished_at and ended.id not in known:
            self.build_duration.labels("run").observe((ended.finished_at - ended.started_at).total_seconds())
        before = {_identity(entry) for entry in _ended_platforms(old)}
        for entry in _ended_platforms(new):
            if _identity(entry) not in before:
                self._platform_ended(entry)

    def _platform_ended(self, entry: PlatformStatus) -> None:
        self.platform_builds.labels(entry.platform, entry.mode or "", entry.phase).inc()
        if entry.builder is not None and entry.builder.known:
            self.builder_use.labels(entry.builder).inc()
        if entry.started_at and entry.finished_at:
            self.build_duration.labels("build").observe((entry.finished_at - entry.started_at).total_seconds())
        if entry.cache:
            self.cache_steps.labels("hit").inc(entry.cache.hits)
            self.cache_steps.labels("miss").inc(entry.cache.total - entry.cache.hits)


def _ended_runs(status: Status) -> Iterator[tuple[str, str, str]]:
    if status.run and status.run.result:
        yield status.run.id, status.run.result, status.run.reason or ""
    for entry in status.history:
        if not status.run or entry.id != status.run.id:
            yield entry.id, entry.result, entry.reason


def _ended_platforms(status: Status) -> Iterator[PlatformStatus]:
    for entry in status.run.platforms if status.run else ():
        if entry.phase in {Phase.SUCCEEDED, Phase.FAILED}:
            yield entry


def _identity(entry: PlatformStatus) -> tuple[str, str | None, int]:
    return entry.platform, entry.pod, entry.attempt
