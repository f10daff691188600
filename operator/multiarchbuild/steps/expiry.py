"""Deleting what has expired, once a run has told what it has published: `output.expire` and `cache.expire`.

Deleted is only what this build has published itself and has on its list. Where anything is uncertain, nothing is
deleted. Nothing of this fails a run, and a run does not wait for it.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from multiarchbuild.api.durations import parse_duration
from multiarchbuild.api.results import Published, Pushed
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import DeniedError, ImmutableTagError, RejectedError
from multiarchbuild.oci.index import INDEX
from multiarchbuild.plan.expiry import agreed

from .credentials import registry_keychain
from .log import say
from .mounts import Mounts
from .registries import client
from .tagged import List, Repository, attached

THREAD: Final = "expiry"
"""Name of the thread that deletes."""
_SECONDS = 10.0
"""How long a step may look and delete; what is left is for the next run."""
_HARD_SECONDS = 15.0
"""When its process ends whatever goes on: a registry may be slow in ways that no client's time limits see."""
_CONNECT, _READ = 2.0, 5.0


class Expiry:
    """What expires after one run."""

    def __init__(
        self, mounts: Mounts, list_tag: str, exported: Sequence[str], imported: Sequence[str], keep: Sequence[str]
    ) -> None:
        """`list_tag` names the build's list, `exported` and `imported` its caches, `keep` the digests in its status."""
        self._mounts, self._list_tag = mounts, list_tag
        self._exported, self._imported, self._keep = exported, imported, keep
        self._handed: tuple[Pushed, float] | None = None
        self._published: Published | None = None

    def begin(self, built: Pushed) -> None:
        """Take what was handed over, and with it the operator's time."""
        self._handed = built, time.monotonic()

    def published(self, published: Published) -> Published:
        """Take what was published, and return it."""
        self._published = published
        return published

    def run(self) -> None:
        """Delete what has expired, if the run has published. Raises nothing, and ends the process if it takes long."""
        if self._published is None:
            return
        # The result is told. Whoever ends the pod now, because it is deleted or out of time, ends no failure.
        before = signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        thread = threading.Thread(target=self._run, args=(self._published,), name=THREAD, daemon=True)
        thread.start()
        thread.join(_HARD_SECONDS)
        if thread.is_alive():
            say("what has expired is deleted after the next run: the registry takes too long")
            os._exit(0)
        signal.signal(signal.SIGTERM, before)

    def _run(self, published: Published) -> None:
        now = self._now()
        if now is None:
            say("nothing expires: the clocks of the operator and of this node differ by minutes, or one is not known")
            return
        until = time.monotonic() + _SECONDS
        self._attempt(lambda: self._expire_images(published, now, until))
        self._attempt(lambda: self._expire_caches(now, until))

    def _attempt(self, expire: Callable[[], None]) -> None:
        try:
            expire()
        except ImmutableTagError as error:
            say(f"nothing expires: {error}. Allow overwriting of tags that begin with cache-.")
        except (RejectedError, DeniedError) as error:
            say(f"nothing expires: {error}. Let the credentials delete, or use the registry's own cleanup.")
        except Exception as error:  # noqa: BLE001 - the run has ended well, and the next one tries again
            say(f"nothing more expires in this run: {error or type(error).__name__}")

    def _expire_images(self, published: Published, now: datetime, until: float) -> None:
        output = self._mounts.inputs.spec.output
        if output.expire and not published.tags:
            # No tag would say that such an image is in use, nor push it again where it was deleted meanwhile.
            say("no image expires: this build has no tags, and what is used by its digest alone is not known")
        elif output.expire:
            images = Repository(self._client(output.image), self._list_tag, published.tags, until)
            own = self._own(images.registry, published)
            _Images(images, now, parse_duration(output.expire)).expire(own, self._keep)

    def _expire_caches(self, now: datetime, until: float) -> None:
        cache = self._mounts.inputs.spec.cache
        if cache.expire and self._exported:
            caches = Repository(self._client(self._exported[0]), self._list_tag, (), until)
            _Caches(caches, now, parse_duration(cache.expire)).expire(_tags(self._exported), _tags(self._imported))

    def _now(self) -> datetime | None:
        """Return the time by the operator's clock, as far as the node's agrees: what is deleted is decided by it."""
        if self._handed is None:
            return None
        built, at = self._handed
        passed = timedelta(seconds=time.monotonic() - at)
        return agreed(built.handed_at + passed if built.handed_at else None, _node_time())

    def _client(self, name: str) -> Client:
        keychain = registry_keychain(self._mounts)
        return client(self._mounts, keychain, name, connect=_CONNECT, read=_READ, patient=False)

    def _own(self, registry: Client, published: Published) -> str | None:
        """Return the index that the run has made, or None where another build may be about to publish the same.

        That is so of all that builders push: they find it there already and push nothing, long before a tag names it.
        An index that is published again is pushed again with its tag.
        """
        pushed = {image.digest for image in self._handed[0].images} if self._handed else set()
        if published.digest in pushed or published.digest in {each.digest for each in published.platforms}:
            return None
        return published.digest if registry.get(published.digest).media_type == INDEX else None


def _node_time() -> datetime:
    return datetime.now(UTC)


def _tags(refs: Sequence[str]) -> list[str]:
    return [ref.rpartition(":")[2] for ref in refs]


class _Expiring:
    """What both have in common."""

    def __init__(self, repository: Repository, now: datetime, after: timedelta) -> None:
        self.repository, self.registry = repository, repository.registry
        self.now, self.after = now, after
        self.list = List(repository)

    def each(self, names: Sequence[str], delete: Callable[[str], bool]) -> None:
        """Delete each of `names`, as far as there is time, and take what is gone off the list."""
        gone = []
        try:
            for name in names:
                if self.repository.is_late:
                    say("the rest of what has expired is deleted after the next run")
                    break
                if delete(name):
                    gone.append(name)
        finally:
            self.list.store(self.list.used.without(gone))


class _Images(_Expiring):
    def expire(self, own: str | None, keep: Sequence[str]) -> None:
        used = self.list.used.credible(self.now)
        used = used.published(own, self.now) if own else used
        self._keep = {*keep, *([own] if own else [])}
        used = used.seen(self._keep, self.now)
        self.list.store(used)
        due = [name for name in used.due(self.now, self.after) if name in used.digests]
        if not due:
            return
        in_use = self.repository.in_use(self._keep)
        self.list.store(used.seen(used.digests & in_use, self.now).found_unused(used.digests - in_use, self.now))
        # One that is found unused only now may have been in use a moment ago: it begins to wait.
        self.each([name for name in due if used.entries[name].unused and name not in in_use], self._deleted)

    def _deleted(self, digest: str) -> bool:
        """Delete an index and what is about it and its images; return whether it is gone."""
        # Again just before: a tag may have been moved to it.
        in_use = self.repository.in_use(self._keep | (self.list.used.digests - {digest}))
        if digest in in_use:
            return False
        images = [each for each in self.repository.listed(digest) if each not in in_use]
        about = attached(self.registry, digest, signatures_only=False)
        for each in images:
            about += attached(self.registry, each, signatures_only=True)
        # First the index: with its signatures gone, somebody could still come to use it.
        for each in (digest, *about):
            if each not in in_use:
                self.registry.delete(each)
        say(f"deleted {self.registry.repository}@{digest}, which nothing has named for {self.after}")
        return True


class _Caches(_Expiring):
    def expire(self, exported: Sequence[str], imported: Sequence[str]) -> None:
        used = self.list.used.credible(self.now).seen(imported, self.now)
        for tag in exported:
            if named := self.registry.named_by(tag):
                used = used.published(tag, self.now, named)
                self.repository.known.add(tag)
        # First what is in use: what was found out is not lost if the rest fails.
        self.list.store(used)
        due = [name for name in used.due(self.now, self.after) if name in used.caches]
        if due:
            others = self.repository.others_caches()
            self.each([name for name in due if name not in others], self._deleted)

    def _deleted(self, tag: str) -> bool:
        """Delete a tag; return whether it is gone, or is not this build's any more."""
        digest = self.registry.named_by(tag)
        if digest is None or digest != self.list.used.entries[tag].digest:
            return True
        try:
            self.registry.delete(tag)
        except RejectedError:
            # Not all can delete a tag alone. With its manifest go all tags that name it.
            if digest in self.repository.in_use(self.list.used.digests, without=tag):
                return False
            self.registry.delete(digest)
        say(f"deleted the cache {self.registry.repository}:{tag}, which no run has used for {self.after}")
        return True
