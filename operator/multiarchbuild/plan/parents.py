"""Images that are built from images: what a build takes from other builds of its namespace (`build.contexts`)."""

from dataclasses import dataclass

from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.scheduling import Strategy
from multiarchbuild.api.status import ParentImage, RunStatus

from .build_summary import BuildSummary
from .cluster import ClusterView

_SHOWN = 12
"""Builds that a message names."""


@dataclass(frozen=True, slots=True)
class Parents:
    """What the builds that a build is made from have published."""

    images: tuple[ParentImage, ...] = ()
    """Their images, by name; only as a whole where there is no problem."""
    problem: str = ""
    """What is missing before anything can be built from them."""
    note: str = ""
    """What is not as it should be with those that have an image."""
    cycle: str = ""
    """How the build is, by others, built from itself."""


def parents_of(build: MultiArchBuild, others: ClusterView) -> Parents:
    """Return what `build` is made from."""
    names = build.spec.build.parents
    if not names:
        return Parents()
    namespace = build.metadata.namespace
    known = {name: others.named(namespace, name) for name in names}
    problems = [text for name, each in known.items() if (text := _missing(build, name, each))]
    notes = [f"MultiArchBuild {name} {each.trouble}" for name, each in known.items() if each and each.trouble]
    order = " → ".join(_order(namespace, build.metadata.name, names, others))
    return Parents(
        images=tuple(ParentImage(name=name, ref=each.published) for name, each in known.items() if each),
        problem=f"{'; '.join(problems)} (order: {order})" if problems else "",
        note="; ".join(notes),
        cycle=" → ".join(_cycle(namespace, build.metadata.name, names, others)),
    )


def changed(run: RunStatus, parents: Parents) -> str:
    """Return which parents have published something else since `run` has started, or nothing."""
    if parents.problem:
        return ""
    before = {parent.name: parent.ref for parent in run.parents}
    moved = [parent.name for parent in parents.images if before.get(parent.name) != parent.ref]
    return f"MultiArchBuild {', '.join(moved)} has published another image" if moved else ""


def _missing(build: MultiArchBuild, name: str, parent: BuildSummary | None) -> str:
    """Return why nothing can be built from a parent, and what to do; nothing where something can."""
    if parent is None:
        return f"MultiArchBuild {name} does not exist in this namespace: create it, or correct build.contexts"
    if not parent.published:
        return f"MultiArchBuild {name} has not published an image yet" + (
            f" and {parent.trouble}" if parent.trouble else ""
        )
    if build.spec.scheduling.strategy is Strategy.CROSS:
        return ""  # its builder may use it for the platform of its node only
    has = {Platform.parse(platform) for platform in parent.published_for}
    lacking = [platform for platform in build.spec.platforms if Platform.parse(platform) not in has]
    if not lacking:
        return ""
    return (
        f"MultiArchBuild {name} publishes no image for {', '.join(lacking)}: add it to its spec.platforms, or "
        "remove it here"
    )


def _cycle(namespace: str, name: str, parents: tuple[str, ...], others: ClusterView) -> tuple[str, ...]:
    """Return the names on the shortest way from a build to itself, empty where there is none."""
    ways: list[tuple[str, ...]] = [(name, parent) for parent in parents]
    seen = set[str]()
    while ways:
        way = ways.pop(0)
        if way[-1] == name:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            parent = others.named(namespace, way[-1])
            ways += [(*way, each) for each in (parent.parents if parent else ())]
    return ()


def _order(namespace: str, name: str, parents: tuple[str, ...], others: ClusterView) -> list[str]:
    """Return the builds that have to be built one after the other, `name` last."""
    order: dict[str, None] = {}
    above = {name}
    # As far as the first parents of each have gone: a chain may be longer than Python calls functions.
    stack = [(name, iter(parents))]
    while stack:
        current, rest = stack[-1]
        following = next((each for each in rest if each not in order and each not in above), None)
        if following is None:
            stack.pop()
            above.discard(current)
            order[current] = None
            continue
        parent = others.named(namespace, following)
        above.add(following)
        stack.append((following, iter(parent.parents if parent else ())))
    names = list(order)
    return names if len(names) <= _SHOWN else ["…", *names[-_SHOWN:]]
