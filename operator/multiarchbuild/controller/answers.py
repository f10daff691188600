"""Follows the logs of running steps, so that a result is known when it is printed (`api.answers`).

Nothing here is needed: what a log does not tell, because there are too many, or its stream was cut, or the operator was
restarted, the termination message tells when the end of the container is seen.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from multiarchbuild.api.answers import EXPORTING, NONCE_ENV, TAKEN, AnswerReader, RecordReader
from multiarchbuild.api.results import Built, Published, Resolved, load
from multiarchbuild.plan.children import STEP_CONTAINER, Pod

from .kube import Forbidden, Kube, KubeError
from .logs import logger
from .metrics import Metrics
from .watch import Key

_LOG = logger(__name__)

STREAMS: Final = 256
"""Logs that are followed at most, unless the command line says otherwise."""
FIRST_PAUSE: Final = 0.5
"""Seconds until a stream that was cut is opened again; twice as long after each further cut."""
LONGEST_PAUSE: Final = 30.0
RECORDS: Final = 64
"""Records of failed builders that are kept in memory until the run has ended; others stay in their logs."""
END_SECONDS: Final = 3.0
"""How long the log of a step that has answered may go on: it is the last that a step prints."""
REFUSED_SECONDS: Final = 300.0
"""For how long no log is asked for after the API server has refused one."""


def add_nonce(manifest: dict[str, Any]) -> None:
    """Give the step of a new pod the nonce of its answers. It stays in the manifest: a restarted operator knows it."""
    for container in manifest["spec"]["containers"]:
        if container["name"] == STEP_CONTAINER:
            container.setdefault("env", []).append({"name": NONCE_ENV, "value": secrets.token_hex(16)})


@dataclass(slots=True)
class _Followed:
    key: Key
    request: str
    """What the pod was asked for."""
    run_id: str
    task: asyncio.Task[None] | None = None
    answer: str = ""
    taken: bool = False
    """Whether the step has said that it has begun."""
    exporting: bool = False
    """Whether it has said that its image is being pushed."""


class Answers:
    """What the steps of running pods have answered. To be used in one event loop."""

    def __init__(self, kube: Kube, changed: Callable[[Key], None], metrics: Metrics, *, streams: int = STREAMS) -> None:
        """Follow up to `streams` logs; `changed` is called when a pod of a build has answered."""
        self._kube, self._changed, self._metrics, self._streams = kube, changed, metrics, streams
        self._followed: dict[str, _Followed] = {}
        self._by_key: dict[Key, set[str]] = {}
        self._records: OrderedDict[tuple[str, str], str] = OrderedDict()
        """By uid and request: of builders that have failed, until others have come after them."""
        self._exporting: dict[Key, str] = {}
        """Runs of which some builder pushes its image, or has done so."""
        self._refused_until = 0.0
        self.open = 0
        """How many logs are being followed."""

    def known(self, key: Key, pods: Iterable[Pod]) -> tuple[Pod, ...]:
        """Return all `pods` of a build with their answers, and follow those that may still answer."""
        pods = tuple(pods)
        going = {
            pod.uid: pod for pod in pods if pod.nonce and pod.step_started_at and pod.ended is None and not pod.idle
        }
        for uid in tuple(self._by_key.get(key, ())):
            if uid not in going or going[uid].request != self._followed[uid].request:
                self._drop(key, uid)
        for uid, pod in going.items():
            if uid not in self._followed:
                self._follow(key, pod)
        return tuple(map(self._with_answer, pods))

    def _with_answer(self, pod: Pod) -> Pod:
        followed, record = self._followed.get(pod.uid), self._records.get((pod.uid, pod.request), "")
        if followed is not None and (followed.answer or followed.taken or followed.exporting or record):
            return replace(
                pod, answer=followed.answer, taken=followed.taken, exporting=followed.exporting, record=record
            )
        # Of most pods nothing is known that the API server does not say.
        return replace(pod, record=record) if record else pod

    def has_succeeded(self, uid: str) -> bool:
        """Return whether the pod with this uid has told its success."""
        followed = self._followed.get(uid)
        return followed is not None and isinstance(load(followed.answer), Resolved | Built | Published)

    def forget(self, key: Key) -> None:
        """Follow nothing of a build any more."""
        for uid in set(self._by_key.get(key, ())):
            self._drop(key, uid)

    def _follow(self, key: Key, pod: Pod) -> None:
        if self.open >= self._streams or asyncio.get_running_loop().time() < self._refused_until:
            return
        followed = self._followed[pod.uid] = _Followed(key, pod.request, pod.run_id)
        self._by_key.setdefault(key, set()).add(pod.uid)
        followed.task = asyncio.create_task(self._read(followed, key.namespace, pod))
        followed.task.add_done_callback(lambda task: self._ended(followed, task))
        self.open += 1
        self._metrics.log_streams.set(self.open)

    def _drop(self, key: Key, uid: str) -> None:
        followed = self._followed.pop(uid)
        own = self._by_key[key]
        own.discard(uid)
        if not own:
            del self._by_key[key]
        if not own or (followed.exporting and not followed.answer):
            # It was lost: that another one pushes the image in its place is news.
            self._exporting.pop(key, None)
        if followed.task is not None:
            followed.task.cancel()
            self._closes(followed)

    def _closes(self, followed: _Followed) -> None:
        if followed.task is not None:
            followed.task = None
            self.open -= 1
            self._metrics.log_streams.set(self.open)

    def _ended(self, followed: _Followed, task: asyncio.Task[None]) -> None:
        self._closes(followed)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug here may cost half a second, and no more.
            _LOG.error("following a log failed", build=str(followed.key), exc_info=error)

    async def _read(self, followed: _Followed, namespace: str, pod: Pod) -> None:
        """Read until there is an answer. From the beginning each time: no answer can be missed, nor taken twice."""
        pause = FIRST_PAUSE
        while not followed.answer:
            try:
                await self._read_once(followed, namespace, pod)
            except Forbidden as error:
                self._refused_until = asyncio.get_running_loop().time() + REFUSED_SECONDS
                _LOG.warning("logs may not be read: results come later, from the state of pods", error=str(error))
                return
            except KubeError as error:
                _LOG.debug("log not read", pod=pod.name, error=str(error))
            if not followed.answer:
                # Its container has ended, which the watch tells soon, or the stream was cut.
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _exports(self, followed: _Followed) -> None:
        followed.exporting = True
        if self._exporting.get(followed.key) != followed.run_id:
            # What the run does about it, it does for the first.
            self._exporting[followed.key] = followed.run_id
            self._changed(followed.key)

    def _keep(self, uid: str, request: str, record: str) -> None:
        if record:
            self._records[uid, request] = record
            while len(self._records) > RECORDS:
                self._records.popitem(last=False)

    async def _read_once(self, followed: _Followed, namespace: str, pod: Pod) -> None:
        record = RecordReader(pod.nonce, followed.request)
        reader = AnswerReader(pod.nonce, record.feed)
        log = self._kube.log(namespace, pod.name, STEP_CONTAINER)
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as patience, aclosing(log) as chunks:
                async for chunk in chunks:
                    if followed.answer:
                        continue
                    for answer in reader.feed(chunk):
                        if answer.request == followed.request and answer.message == TAKEN:
                            followed.taken = True
                            self._changed(followed.key)
                        elif answer.request == followed.request and answer.message == EXPORTING:
                            self._exports(followed)
                        elif answer.request == followed.request:
                            followed.answer = answer.message
                            self._keep(pod.uid, followed.request, record.packed)
                            self._changed(followed.key)
                            # To its end: a connection that is left before can't be used again.
                            patience.reschedule(asyncio.get_running_loop().time() + END_SECONDS)
                            break
