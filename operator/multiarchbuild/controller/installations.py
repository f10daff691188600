"""Installations of the operator keep out of each other's way: of those that serve a namespace, one works.

The Lease of an installation keeps its replicas apart, and lies in its own namespace. In an annotation it also says
which namespaces the installation serves, so that another one which serves any of them finds it, and waits.
"""

import asyncio
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import aiohttp
from kubernetes.aio.client import ApiClient, CoordinationV1Api
from kubernetes.aio.client.exceptions import ApiException

from multiarchbuild.api.resource import GROUP

from .leader import LEASE, REQUEST_SECONDS
from .logs import logger

_LOG = logger(__name__)

SERVES: Final = f"{GROUP}/serves"
"""Annotation of a Lease: the namespaces that its installation serves, separated by commas, or `*`."""
GONE: Final = timedelta(seconds=60)
"""An installation whose Lease was not renewed for so long has gone: long enough for it to be upgraded."""
WAIT_SECONDS: Final = 5.0
"""Between two looks whether the other installation has gone, or up to twice that."""
WATCH_SECONDS: Final = 15.0
"""Between two looks whether there is another one."""


class Superseded(Exception):  # noqa: N818 - not an error of this process
    """An older installation serves the same namespaces."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Which namespaces an installation serves."""

    home: str
    """Namespace of its Lease."""
    serves: frozenset[str]
    """Namespaces; none means all."""
    created_at: datetime
    renewed_at: datetime

    def overlaps(self, serves: frozenset[str]) -> bool:
        """Return whether it serves any of these namespaces."""
        return not serves or not self.serves or bool(serves & self.serves)

    @property
    def age(self) -> tuple[datetime, str]:
        """What orders installations: the oldest goes first."""
        return self.created_at, self.home


def serves_text(namespaces: Iterable[str]) -> str:
    """Return the value of the annotation."""
    return ",".join(sorted(namespaces)) or "*"


def claims(leases: Iterable[Any]) -> list[Claim]:
    """Return what the Leases (`V1Lease`) of installations that work say; those that wait say nothing."""
    found = []
    for lease in leases:
        serves = (lease.metadata.annotations or {}).get(SERVES)
        renewed_at = lease.spec.renew_time if lease.spec else None
        if serves and renewed_at:
            names = frozenset() if serves == "*" else frozenset(serves.split(","))
            found.append(Claim(lease.metadata.namespace, names, lease.metadata.creation_timestamp, renewed_at))
    return found


def rivals(claimed: Iterable[Claim], home: str, serves: frozenset[str], now: datetime) -> list[Claim]:
    """Return the other installations that serve any of the same namespaces at the moment, the oldest first.

    A claim that was renewed in the future is none: it would hold for as long as its writer likes.
    """
    found = (claim for claim in claimed if claim.home != home and abs(now - claim.renewed_at) < GONE)
    return sorted((claim for claim in found if claim.overlaps(serves)), key=lambda claim: claim.age)


class Installations:
    """All installations, seen from one that leads its own replicas."""

    def __init__(self, api_client: ApiClient, home: str, serves: Sequence[str]) -> None:
        """`home`: namespace of the own Lease; `serves`: namespaces, none means all."""
        self._api = CoordinationV1Api(api_client)
        self._home, self._serves = home, frozenset(serves)
        self.waiting = False
        """Whether another one works, so that this one must not."""

    async def others_work(self) -> bool:
        """Return whether another installation serves any of the same namespaces, and say so once."""
        others = rivals(await self._claims(), self._home, self._serves, datetime.now(UTC))
        if others and not self.waiting:
            _LOG.warning(
                "another installation of the operator serves these namespaces: this one waits until that has been gone "
                "for a minute; uninstall one of them, or give each its own namespaces (chart: namespaces)",
                namespaces=serves_text(self._serves),
                others={claim.home: serves_text(claim.serves) for claim in others},
            )
        self.waiting = bool(others)
        return self.waiting

    async def alone(self) -> None:
        """Return once no other installation serves any of the same namespaces."""
        while await self.others_work():  # noqa: ASYNC110 - it is another process that is waited for
            # Not all at the same moment: two that see each other would both wait again.
            await asyncio.sleep(WAIT_SECONDS * random.uniform(1, 2))  # noqa: S311 - no secret

    async def watch(self) -> NoReturn:
        """Look for others, for ever. Raises `Superseded` where an older one began at the same moment as this one."""
        before: set[str] = set()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            claimed = await self._claims()
            own = next((claim for claim in claimed if claim.home == self._home), None)
            others = rivals(claimed, self._home, self._serves, datetime.now(UTC))
            older = {claim.home for claim in others if own is not None and claim.age < own.age}
            # Twice: one that has just come back withdraws its old claim as soon as it sees this one.
            if again := older & before:
                raise Superseded(f"the installation in namespace {min(again)} serves the same namespaces")
            before = older

    async def _claims(self) -> list[Claim]:
        """Return all claims, none where they can't be read: then nobody is kept from working."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                listed = await self._api.list_lease_for_all_namespaces(field_selector=f"metadata.name={LEASE}")
        except ApiException as error:
            _LOG.warning("other installations are not known: Leases can't be listed", error=error.reason)
            return []
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            _LOG.warning("other installations are not known", error=str(error) or type(error).__name__)
            return []
        return claims(listed.items)
