"""One operator at a time, by a Lease."""

import asyncio
import os
import socket
import uuid
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient, V1Lease, V1ObjectMeta
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from .logs import logger

_LOG = logger(__name__)

LEASE: Final = "multiarchbuild"
"""Name of the Lease."""
LEASE_SECONDS: Final = 30
"""How long a leader that has fallen silent is waited for."""
RENEW_SECONDS: Final = 18
"""How long a leader tries to renew before it gives up: with what it waits besides, within LEASE_SECONDS.

Long enough for an API server that is restarted, or out of breath: a new leader has to list everything again.
"""
REQUEST_SECONDS: Final = 4
"""Time for one request."""
RETRY_SECONDS: Final = 1
"""Between two tries to get or renew it: a Lease that was released is taken after this time at the latest."""


POD_NAME_ENV: Final = "POD_NAME"
"""Environment variable with the name of the operator's pod, which the chart sets."""


def own_identity() -> str:
    """Return the name of this process among all that may want to lead.

    In a pod, its name: only one process of it runs at a time, so one that is started again after it was killed takes
    its own Lease up at once. Elsewhere processes share a host, and each has a name of its own.
    """
    return os.environ.get(POD_NAME_ENV) or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"


class Leadership:
    """Being the leader: wait for `acquired`, stop when `run` returns, `release` at the end."""

    def __init__(self, api_client: ApiClient, namespace: str, identity: str) -> None:
        """`identity`: name of this process among all that may want to lead."""
        self.acquired = asyncio.Event()
        """Set once this process leads."""
        self._lock = _Lock(LEASE, namespace, identity, api_client)
        self._election = LeaderElection(
            Config(
                self._lock,
                lease_duration=LEASE_SECONDS,
                renew_deadline=RENEW_SECONDS,
                retry_period=RETRY_SECONDS,
                onstarted_leading=self._started,
                onstopped_leading=self._stopped,
            )
        )

    def annotate(self, annotations: Mapping[str, str | None]) -> None:
        """Have annotations written when the Lease is acquired or next renewed, and from then on; None removes one."""
        self._lock.annotations = dict(annotations)
        self._lock.written.clear()

    async def annotated(self) -> None:
        """Return once the Lease has these annotations."""
        await self._lock.written.wait()

    async def run(self) -> None:
        """Try to lead, and go on leading. Returns when the Lease was lost."""
        await self._election.run()

    async def release(self) -> None:
        """Leave the Lease to others, so that the next one need not wait for it to expire."""
        if not self.acquired.is_set():
            return
        held, record = await self._lock.get(self._lock.name, self._lock.namespace)
        if held and isinstance(record, LeaderElectionRecord) and record.holder_identity == self._lock.identity:
            await self._lock.give_up()

    async def _started(self) -> None:
        self.acquired.set()

    async def _stopped(self) -> None:
        _LOG.error("the lease was lost")


class _Lock(LeaseLock):  # type: ignore[misc]
    """The client's LeaseLock, safe against a network that fails and a clock that shows a whole second.

    The client only expects `ApiException`: any other error would end the election and leave the leader
    leading. And it waits five minutes for an answer, far beyond the Lease.
    """

    annotations: Mapping[str, str | None] = MappingProxyType({})
    """What the Lease says besides who holds it."""

    def __init__(self, name: str, namespace: str, identity: str, api_client: ApiClient) -> None:
        super().__init__(name, namespace, identity, api_client)
        self.written = asyncio.Event()
        """Set once the Lease says so."""

    async def get(self, name: str, namespace: str) -> Any:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return False, ApiException(status=0, reason=f"no answer: {error or type(error).__name__}")

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        # The client's own version passes a `pretty` that its own validation refuses.
        said = {name: value for name, value in self.annotations.items() if value is not None}
        body = V1Lease(metadata=V1ObjectMeta(name=name, annotations=said), spec=self.update_lease(election_record))
        return await self._answered(self.api_instance.create_namespaced_lease(namespace, body))

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        metadata = self.lease_reference.metadata
        kept = {**(metadata.annotations or {}), **self.annotations}
        metadata.annotations = {name: value for name, value in kept.items() if value is not None}
        return await self._answered(super().update(name, namespace, updated_record))

    def time_str_to_iso(self, str_time: str) -> str:
        # str(datetime) drops the fraction of a whole second, which the client's own version then can't parse.
        return datetime.fromisoformat(str_time).isoformat(timespec="microseconds") + "Z"

    async def give_up(self) -> bool:
        """Clear the holder in the Lease that `get` has read; its version guards against a new holder."""
        lease = self.lease_reference
        lease.spec.holder_identity = None
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError):
            return False
        return True

    async def _answered(self, request: Any) -> bool:
        """Return whether `request`, which writes the Lease with `annotations`, was answered."""
        saying = self.annotations
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                if not await request:
                    return False
        except ApiException as error:
            _LOG.warning("the lease was not written", error=error.reason)
            return False
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _LOG.warning("no answer about the lease", error=str(error) or type(error).__name__)
            return False
        if saying is self.annotations:
            self.written.set()
        return True
