"""The build record: what the builders of a run have recorded, as one artifact attached to the index.

It goes on beside everything else that publish does. No image waits for it longer than some seconds, and none fails for
it: what the registry does not take is said in the log, and the run has no record.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from pydantic import ValidationError

from multiarchbuild import __version__
from multiarchbuild.api.platforms import Platform
from multiarchbuild.api.record import MEDIA_TYPE, RUN_ANNOTATION, BuilderRecord, BuildRecord, dump
from multiarchbuild.api.results import Pushed, PushedImage
from multiarchbuild.oci import referrers
from multiarchbuild.oci.client import Client
from multiarchbuild.oci.errors import RegistryError
from multiarchbuild.oci.index import Manifest, digest_of

from .credentials import registry_keychain
from .log import say
from .mounts import Mounts
from .record import impatient

_PATIENCE = 10.0
"""Seconds that the end of publish waits for the record."""


class Recorder:
    """Makes the record of a run and attaches it, in a thread of its own."""

    def __init__(self, mounts: Mounts, pushed: Pushed) -> None:
        """Begin to read what builders have stored, once they have ended, with what they `pushed`."""
        self._mounts, self._pushed, self._began = mounts, pushed, time.monotonic()
        self._thread = ThreadPoolExecutor(1)
        self._attached: Future[str] | None = None
        self._registry: Client | None = None
        self._read: Future[dict[str, BuilderRecord | None]] | None = None
        if mounts.inputs.spec.attestations.record:
            self._registry = impatient(mounts, registry_keychain(mounts))
            self._read = self._thread.submit(self._prepare, self._registry)

    def begin(self, index: Manifest, sizes: Mapping[str, int]) -> None:
        """Attach the record to `index`; `sizes` are bytes of the images by platform."""
        if self._registry is not None:
            took = time.monotonic() - self._began
            self._attached = self._thread.submit(self._attach, self._registry, index, sizes, took)

    def attached(self) -> str | None:
        """Return the digest of the manifest that attaches it; None where there is none."""
        self._thread.shutdown(wait=False)
        if self._attached is None:
            return None
        try:
            return self._attached.result(timeout=_PATIENCE)
        except (RegistryError, TimeoutError) as error:
            say(f"the build record is not attached: {error or 'the registry takes too long'}")
            return None

    def _prepare(self, registry: Client) -> dict[str, BuilderRecord | None]:
        found = {each: _read(registry, each) for each in _stored(self._pushed)}
        registry.put_blob(digest_of(referrers.EMPTY), referrers.EMPTY, len(referrers.EMPTY))
        return found

    def _attach(self, registry: Client, index: Manifest, sizes: Mapping[str, int], seconds: float) -> str:
        inputs, pushed = self._mounts.inputs, self._pushed
        assert self._read is not None
        if kept := _of_run(registry, index.digest, inputs.run):
            return kept
        record = BuildRecord(
            name=inputs.name,
            namespace=inputs.namespace,
            run=inputs.run,
            trigger=pushed.trigger,
            operator=__version__,
            image=inputs.spec.output.image,
            digest=index.digest,
            source=pushed.source,
            started_at=pushed.started_at,
            phases={**pushed.phases, "publish": seconds},
            builders=builders(pushed.images, self._read.result(), sizes),
        )
        artifact = referrers.Artifact(MEDIA_TYPE, dump(record), {RUN_ANNOTATION: inputs.run})
        # It has times: no registry has it.
        registry.upload(digest_of(artifact.content), artifact.content, len(artifact.content))
        subject = {"mediaType": index.media_type, "digest": index.digest, "size": len(index.raw)}
        digest = referrers.attach(registry, subject, artifact, uploaded=True)
        say(f"attached the build record {digest}")
        return digest


def _of_run(registry: Client, digest: str, run: str) -> str | None:
    """Return the record that an earlier try of this publish has attached."""
    found = referrers.listed(registry, digest, MEDIA_TYPE)
    own = (each for each in found if (each.get("annotations") or {}).get(RUN_ANNOTATION) == run)
    return next((str(each["digest"]) for each in own), None)


def _stored(pushed: Pushed) -> list[str]:
    return sorted({image.record for image in pushed.images if image.record})


def _read(registry: Client, digest: str) -> BuilderRecord | None:
    """Return what a builder has stored; None where the registry has deleted it, as nothing has named it so far."""
    try:
        return BuilderRecord.model_validate_json(registry.small_blob(digest))
    except (RegistryError, ValidationError) as error:
        say(f"what a builder has recorded cannot be read: {error}")
        return None


def builders(
    images: Sequence[PushedImage], stored: Mapping[str, BuilderRecord | None], sizes: Mapping[str, int]
) -> tuple[BuilderRecord, ...]:
    """Return what each builder recorded, with what only the operator and the registry know of it."""

    def made(group: Sequence[PushedImage]) -> BuilderRecord:
        first = group[0]
        names = tuple(image.platform for image in group)
        own = (stored.get(first.record) if first.record else None) or BuilderRecord(platforms=names)
        known = {
            "platforms": names,
            "mode": first.mode,
            "node_architecture": first.node_architecture,
            "attempt": first.attempt,
            "earlier_run": first.earlier_run,
            "phases": {**first.phases, **own.phases},
            "size": sum(sizes.get(str(Platform.parse(name)), 0) for name in names),
        }
        return own.model_copy(update=known)

    groups: dict[str, list[PushedImage]] = {}
    for image in images:
        groups.setdefault(image.digest, []).append(image)
    return tuple(map(made, groups.values()))
