"""What expires in a registry, and what is in use.

Registries tell neither how old a tag is nor who has used it. So each build that asks for expiry keeps a list of what
its runs have published there, under a tag of its own beside it. Nothing else is ever deleted.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from pydantic import AwareDatetime, Field, ValidationError

from multiarchbuild.api.base import Model
from multiarchbuild.api.resource import MultiArchBuild
from multiarchbuild.api.spec import CACHE_TAG_PREFIX

from .builds import builders
from .cache import cache_refs, own_hash
from .policy import Policy

TYPE: Final = "application/vnd.multiarchbuild.used.v1+json"
"""Type of the artifact that a list is."""
_SUFFIX: Final = "-used"
_MOST: Final = 2000
"""Entries of a list: the oldest give way, and stay in the registry."""
_APART: Final = timedelta(minutes=5)
"""How far two clocks may differ: handing something over to a pod takes up to a minute or two."""


class Use(Model):
    """Of one tag or digest."""

    at: AwareDatetime
    """When it was seen in use last or, where it is unused, when it was seen unused first."""
    unused: bool = False
    """Whether a look at all tags has found that nothing names it."""
    digest: str = ""
    """What the tag of a cache named when this build had written it."""


class Used(Model):
    """What the runs of one build have published, by tag or digest."""

    entries: dict[str, Use] = Field(default_factory=dict)
    """Tags of caches, and digests of indexes."""

    @property
    def digests(self) -> frozenset[str]:
        """The indexes among them."""
        return frozenset(name for name in self.entries if name.startswith("sha256:"))

    @property
    def caches(self) -> frozenset[str]:
        """The tags of caches among them."""
        return frozenset(name for name in self.entries if name.startswith(CACHE_TAG_PREFIX))

    def published(self, name: str, now: datetime, digest: str = "") -> "Used":
        """Return the list with `name`, which this build has published and uses now."""
        return self._with({name: Use(at=now, digest=digest)})

    def seen(self, names: Iterable[str], now: datetime) -> "Used":
        """Return the list with those of `names` in use now that are on it."""
        known = {name: self.entries[name] for name in names if name in self.entries}
        return self._with({name: use.model_copy(update={"at": now, "unused": False}) for name, use in known.items()})

    def found_unused(self, names: Iterable[str], now: datetime) -> "Used":
        """Return the list with those of `names` unused as of now that were not before."""
        known = {name: self.entries[name] for name in names if name in self.entries}
        new = {name: use.model_copy(update={"at": now, "unused": True}) for name, use in known.items()}
        return self._with({name: use for name, use in new.items() if not known[name].unused})

    def without(self, names: Iterable[str]) -> "Used":
        """Return the list without `names`, which are deleted."""
        gone = set(names)
        return Used(entries={name: use for name, use in self.entries.items() if name not in gone})

    def due(self, now: datetime, expire: timedelta) -> list[str]:
        """Return what was not in use for longer than `expire`, the oldest first."""
        late = {name: use.at for name, use in self.entries.items() if now - use.at > expire}
        return sorted(late, key=lambda name: late[name])

    def credible(self, now: datetime) -> "Used":
        """Return the list, all of it in use now where some of it is of the future: a clock was wrong, or is."""
        if all(use.at - now <= _APART for use in self.entries.values()):
            return self
        return self.seen(self.entries, now)

    def _with(self, entries: Mapping[str, Use]) -> "Used":
        both = {**self.entries, **entries}
        kept = sorted(both, key=lambda name: both[name].at)[-_MOST:]
        return Used(entries={name: both[name] for name in kept})


def read(content: bytes) -> Used | None:
    """Return the list in `content`; None where it can't be read."""
    try:
        return Used.model_validate_json(content)
    except ValidationError:
        return None


def agreed(by_operator: datetime | None, by_node: datetime) -> datetime | None:
    """Return the operator's time, or None where the node's clock differs by minutes: one of the two is wrong."""
    return by_operator if by_operator is not None and abs(by_operator - by_node) <= _APART else None


def list_tag(build: MultiArchBuild) -> str:
    """Return the tag of the list of a build: one that no cache has, nor a build of the same name elsewhere."""
    metadata = build.metadata
    return f"{CACHE_TAG_PREFIX}{own_hash(metadata.namespace, metadata.name, metadata.uid)}{_SUFFIX}"


def is_list(tag: str) -> bool:
    """Return whether a tag is that of a list."""
    return tag.startswith(CACHE_TAG_PREFIX) and tag.endswith(_SUFFIX) and tag.count("-") == _SUFFIX.count("-") + 1


def arguments(build: MultiArchBuild, policy: Policy) -> list[str]:
    """Return what the publish step of `build` is told of expiry; nothing where nothing is to expire."""
    if not expires(build):
        return []
    told = [f"--list={list_tag(build)}"]
    told += [f"--keep={digest}" for digest in _kept_images(build)]
    if build.spec.cache.expire is not None:
        refs = [cache_refs(build, builder.platforms, policy.cache.repository) for builder in builders(build.spec)]
        told += [f"--cache={name}" for name in dict.fromkeys(each.export_to for each in refs) if name]
        imported = dict.fromkeys(name for each in refs for name in each.import_from)
        told += [f"--cache-from={name}" for name in imported]
    return told


def expires(build: MultiArchBuild) -> bool:
    """Return whether anything of `build` is to expire."""
    return build.spec.output.expire is not None or build.spec.cache.expire is not None


def _kept_images(build: MultiArchBuild) -> list[str]:
    """Return the digests of the images in the status of `build`, where others of it are to expire."""
    if build.spec.output.expire is None:
        return []
    current = build.status.image.digest if build.status.image else None
    return list(dict.fromkeys(filter(None, [current, *(entry.digest for entry in build.status.history)])))
