"""What the tags of a repository lead to, as expiry has to know it: all of it, or nothing.

Every answer of the registry that is not what it must be raises, so that nothing is deleted.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from multiarchbuild.oci import bundle, referrers, signing
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import NotFoundError
from multiarchbuild.oci.index import DOCKER_LIST, INDEX, Manifest, digest_of
from multiarchbuild.plan.expiry import TYPE, Used, is_list, read

MOST_TAGS = 1000
"""Tags of a repository beyond which nothing is deleted, as each is looked at; those of what is about images are not."""
_ALL_TAGS = 20 * MOST_TAGS
_PARALLEL = 8
_ABOUT = re.compile(r"sha256-[0-9a-f]{64}(\.sig|\.att|\.sbom)?")
"""Tags of what is about the image with this digest: the referrers tag schema of the distribution spec, and cosign's."""
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")


class UncertainError(Exception):
    """What is in use cannot be told: nothing may be deleted."""


class Repository:
    """One repository. Every method raises UncertainError or RegistryError where its answer would not be whole."""

    def __init__(self, registry: Client, own_list: str, known: Iterable[str], until: float) -> None:
        """`known` are tags that it has for certain; `until` is when there is no time left (time.monotonic)."""
        self.registry, self.own_list = registry, own_list
        self.known, self._until = set(known), until
        self._read: dict[str, dict[str, bool]] = {}

    @property
    def is_late(self) -> bool:
        """Whether the rest is for the next run."""
        return time.monotonic() > self._until

    def in_use(self, used: Iterable[str], without: str = "") -> set[str]:
        """Return `used` and every manifest that a tag, but for `without`, or the list of another build leads to."""
        tags = self._tags()
        wanted = [tag for tag in tags if tag != without and not _ABOUT.fullmatch(tag)]
        named = set(self._each(self._named_by, wanted))
        left = {*used, *named, *(each for found in self._others(tags) for each in found.digests)}
        found, visited = set(left), set[str]()
        while left:
            visited |= left
            entries = dict[str, bool]()
            for below in self._each(lambda each: self._entries(each, may_be_gone=each not in named), left):
                entries |= below
            found |= entries.keys()
            left = {digest for digest, is_index in entries.items() if is_index} - visited
        return found

    def listed(self, digest: str) -> list[str]:
        """Return what an index lists; nothing of one that is gone."""
        return list(self._entries(digest, may_be_gone=True))

    def others_caches(self) -> set[str]:
        """Return the tags of caches that other builds have on their lists."""
        return {tag for found in self._others(self._tags()) for tag in found.caches}

    def _tags(self) -> list[str]:
        found = list[str]()
        for page in self.registry.tag_pages():
            found += page
            counted = sum(_ABOUT.fullmatch(tag) is None for tag in found)
            if counted > MOST_TAGS or len(found) > _ALL_TAGS:
                raise UncertainError(f"{self.registry.repository} has more than {MOST_TAGS} tags")
            self._check_time()
        if missing := self.known - set(found):
            raise UncertainError(f"the registry's list of the tags of {self.registry.repository} lacks {min(missing)}")
        return found

    def _named_by(self, tag: str) -> str:
        self._check_time()
        if (digest := self.registry.named_by(tag)) is None:
            raise UncertainError(f"{self.registry.repository}:{tag} is among its tags and does not exist")
        return digest

    def _others(self, tags: Iterable[str]) -> list[Used]:
        """Return the lists of other builds."""
        return self._each(self._list, [tag for tag in tags if is_list(tag) and tag != self.own_list])

    def _list(self, tag: str) -> Used:
        self._check_time()
        if (found := read_list(self.registry, tag)) is None:
            raise UncertainError(
                f"{self.registry.repository}:{tag} has a format that this version cannot read: upgrade the operator "
                "that wrote it, or delete the tag"
            )
        return found

    def _entries(self, digest: str, *, may_be_gone: bool) -> dict[str, bool]:
        """Return what an index lists, and of each whether it is an index too; nothing of an image."""
        if digest not in self._read:
            self._check_time()
            try:
                self._read[digest] = _manifests(self.registry.get(digest))
            except NotFoundError:
                if may_be_gone:
                    return {}
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UncertainError(f"{self.registry.repository}@{digest} cannot be read: {error}") from error
        return self._read[digest]

    def _check_time(self) -> None:
        if self.is_late:
            raise UncertainError(f"listing the tags of {self.registry.repository} takes too long")

    def _each(self, look: Callable[[ItemT], FoundT], items: Collection[ItemT]) -> list[FoundT]:
        threads = ThreadPoolExecutor(_PARALLEL)
        try:
            return list(threads.map(look, items))
        finally:
            threads.shutdown(cancel_futures=True)


class List:
    """The list of this build in a repository; one that is not there, or that nobody can read, is empty."""

    def __init__(self, repository: Repository) -> None:
        """Read it."""
        self._repository = repository
        self._stored = read_list(repository.registry, repository.own_list)
        self.used = self._stored or Used()
        if self._stored is not None:
            repository.known.add(repository.own_list)

    def store(self, used: Used) -> None:
        """Write it, where it differs."""
        self.used = used
        if used == (self._stored or Used()):
            return
        registry, content = self._repository.registry, used.model_dump_json(by_alias=True).encode()
        for blob in (referrers.EMPTY, content):
            registry.put_blob(digest_of(blob), blob, len(blob))
        registry.put(referrers.alone(referrers.Artifact(TYPE, content, {})), self._repository.own_list)
        self._stored = used
        self._repository.known.add(self._repository.own_list)


def read_list(registry: Client, tag: str) -> Used | None:
    """Return the list under a tag, or None where there is none that can be read."""
    try:
        manifest = registry.resolve(tag).content
        (layer,) = manifest["layers"]
        return read(registry.small_blob(str(layer["digest"])))
    except (NotFoundError, ValueError, KeyError, TypeError):
        return None


def attached(registry: Client, digest: str, *, signatures_only: bool) -> list[str]:
    """Return the manifests that are about the image or index `digest`, each seen to be about this one."""
    listed = referrers.everything(registry, digest)
    wanted = [each for each in listed if not signatures_only or each.get("artifactType") == bundle.MEDIA_TYPE]
    names = dict.fromkeys(str(each.get("digest")) for each in wanted)
    found = [name for name in names if _refers(registry, name, digest)]
    if (signatures := signing.signatures(registry, digest)) is not None and _all_signatures(signatures):
        found.append(signatures.digest)
    try:
        index = registry.resolve(referrers.tag(digest))
        if _manifests(index).keys() <= set(found):
            found.append(index.digest)
    except (NotFoundError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return found


def _refers(registry: Client, name: str, subject: str) -> bool:
    if not _DIGEST.fullmatch(name):
        return False
    try:
        return bool(registry.get(name).content["subject"]["digest"] == subject)
    except (NotFoundError, ValueError, KeyError, TypeError):
        return False


def _all_signatures(manifest: Manifest) -> bool:
    try:
        layers = manifest.content["layers"]
        return bool(layers) and all(layer["mediaType"] == signing.SIMPLE_SIGNING for layer in layers)
    except (ValueError, KeyError, TypeError):
        return False


def _manifests(manifest: Manifest) -> dict[str, bool]:
    entries: list[dict[str, Any]] = manifest.content.get("manifests") or []
    return {str(entry["digest"]): entry.get("mediaType") in (INDEX, DOCKER_LIST) for entry in entries}
