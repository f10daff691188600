"""Base images that move: the tags that the last image was built from are asked anew (`rebuild.onBaseImage`).

What is asked for is what the builders have reported, and only what no Dockerfile pins. A tag that has moved starts one
run, whatever comes of it: status.run.bases says for which digests it was.

A base image that is made from the image of this very build, as where the Dockerfile begins with the tag that is pushed,
never counts: each run would move it, and so start the next one, without an end.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from multiarchbuild.api import limits
from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.rebuild import OnBaseImage, Window
from multiarchbuild.api.status import BaseImagesCheck, RunStatus

from . import looks
from .actions import Action
from .build_summary import BuildSummary, summarize
from .children import Role
from .cluster import ClusterView
from .context import Context, earliest
from .looks import update
from .windows import is_open, opens_at


@dataclass(frozen=True, slots=True)
class Asked:
    """Where the looks at base images stand after this decision."""

    status: BaseImagesCheck | None = None
    actions: tuple[Action, ...] = ()
    wake_at: datetime | None = None


def ask(context: Context, run: RunStatus | None, status: BaseImagesCheck | None, *, others: int = 0) -> Asked:
    """Return where the looks at base images stand. Without any that may move there are none."""
    wanted, image = context.build.spec.rebuild.on_base_image, context.build.status.image
    if wanted is None:
        return Asked()
    status = status or BaseImagesCheck()
    own = circular(context)
    if image is None or not (asked := tuple(base for base in image.bases if _name(base) not in own)):
        return Asked(update(status, pod=None))
    if (request := looks.request(context.build)) is not None:
        status = update(status, requested=request)
    look = looks.look(
        context,
        run,
        status,
        Role.CHECK_BASES,
        due=lambda status: _due(context, wanted, run, status) if run is not None else None,
        others=others,
        bases=asked,
    )
    after = look.status if look.came is None else update(look.status, moved=look.came.bases[: limits.BASES])
    opens = opens_at(_window(context, wanted), context.now) if run and news(context, run, after) else None
    return Asked(after, look.actions, earliest(look.wake_at, opens if opens and opens > context.now else None))


def restarted(asked: Asked) -> Asked:
    """Return what is left of the looks when a run starts: they are counted anew."""
    return Asked(update(asked.status, checks=0, pod=None, moved=()) if asked.status else None)


def news(context: Context, run: RunStatus, status: BaseImagesCheck | None) -> tuple[str, ...]:
    """Return the base images that have moved, and for which no run has been started, `run` being the last one."""
    image = context.build.status.image
    if status is None or image is None or context.build.spec.rebuild.on_base_image is None:
        return ()
    own, built = circular(context), {_name(base): base for base in image.bases}
    return tuple(
        base
        for base in status.moved
        if base not in run.bases and built.get(_name(base), base) != base and _name(base) not in own
    )


def cause(context: Context, run: RunStatus, status: BaseImagesCheck | None) -> str:
    """Return which base images have moved for which a run may start now, or nothing."""
    wanted, image = context.build.spec.rebuild.on_base_image, context.build.status.image
    moved = news(context, run, status)
    if not moved or wanted is None or image is None or not is_open(_window(context, wanted), context.now):
        return ""
    before = {_name(base): base.partition("@")[2] for base in image.bases}
    told = (
        f"{_name(base)} was {_short(before[_name(base)])} and is {_short(base.partition('@')[2])}" for base in moved
    )
    return f"base image {'; '.join(told)}"


def known(last: RunStatus | None, context: Context, status: BaseImagesCheck | None) -> tuple[str, ...]:
    """Return the base images that a run which starts now is known to be for, be that why it starts or not."""
    image = context.build.status.image
    built = set(image.bases) if image else set[str]()
    # One that a run was started for and that no builder has got, as behind a mirror, starts no run once more.
    missed = [base for base in (last.bases if last else ()) if base not in built]
    return tuple(dict.fromkeys([*(status.moved if status else ()), *missed]))[: limits.BASES]


def circular(context: Context) -> dict[str, str]:
    """Return the tags of base images that this build moves itself, or that others move because of it.

    By tag, as `registry/repository:tag`, with the builds on the way from this one back to it.
    """
    build = context.build
    if build.spec.rebuild.on_base_image is None or build.status.image is None:
        return {}
    own = summarize(build)
    ways = {name: _way(name, own, context.others) for name in map(_name, build.status.image.bases)}
    return {name: " → ".join(_told(each, own) for each in (own, *way)) for name, way in ways.items() if way}


def note(context: Context) -> str:
    """Return which base images start no run because they are made from this build's own image, or nothing."""
    return "; ".join(
        f"base image {name} is built from this image ({way}): its changes start no run"
        for name, way in circular(context).items()
    )


def _way(name: str, own: BuildSummary, others: ClusterView) -> tuple[BuildSummary, ...]:
    """Return the builds by which `own` has the tag `name` moved, each of which follows on the one before.

    Itself is the last one, and the only one where it moves that tag. Empty where it does not have it moved.
    """
    ways: list[tuple[BuildSummary, ...]] = [(mover,) for mover in _moving(name, own, others)]
    seen = set[str]()
    while ways:
        way = ways.pop(0)
        if way[0].uid == own.uid:
            return (*way[1:], own)
        if way[0].uid not in seen:
            seen.add(way[0].uid)
            ways += [(above, *way) for above in _followed(way[0], own, others)]
    return ()


def _followed(build: BuildSummary, own: BuildSummary, others: ClusterView) -> Iterator[BuildSummary]:
    """Yield the builds that start a run of `build` when they publish."""
    for name in build.parents:
        parent = own if (build.namespace, name) == (own.namespace, own.name) else others.named(build.namespace, name)
        if parent is not None:
            yield parent
    for name in build.base_images:
        yield from _moving(name, own, others)


def _moving(name: str, own: BuildSummary, others: ClusterView) -> Iterator[BuildSummary]:
    """Yield the builds that move the tag `name`."""
    beside = (other for other in others.pushing_to(name.rpartition(":")[0]) if other.uid != own.uid)
    yield from (build for build in (own, *beside) if build.moves(name))


def _told(build: BuildSummary, own: BuildSummary) -> str:
    """Return a build as those may see it who read `own`: they can't see other namespaces."""
    return build.name if build.namespace == own.namespace else "a build of another namespace"


def _due(context: Context, wanted: OnBaseImage, run: RunStatus, status: BaseImagesCheck) -> datetime:
    if status.requested is not None:
        return context.now
    last = max(run.started_at, status.last_checked_at or run.started_at)
    interval = context.policy.rebuild.interval(parse_duration(wanted.interval))
    spread = context.policy.rebuild.spread(context.build.metadata.uid, interval)
    window, due = _window(context, wanted), last + interval
    opens = opens_at(window, due)
    if window is not None and opens > due:
        # Not all that have waited for the window at the moment in which it opens.
        spread = min(spread, parse_duration(window.duration) / 2)
    return opens_at(window, opens + spread)


def _window(context: Context, wanted: OnBaseImage) -> Window | None:
    return wanted.window or context.build.spec.rebuild.window or context.policy.rebuild.window


def _name(base: str) -> str:
    return base.partition("@")[0]


def _short(digest: str) -> str:
    return digest[: len("sha256:") + 12]
