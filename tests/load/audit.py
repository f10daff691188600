"""What the operator has asked the API server for, by the API server's own audit log."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.cluster import controlplane
from tests.cluster.layout import Layout
from tests.cluster.machine import Machine

READS: Final = frozenset({"get", "list", "watch"})


class AuditLog:
    """The audit log, read from where it ends now."""

    def __init__(self, layout: Layout) -> None:
        """Begin at its end."""
        self._path: Path = Machine(layout, controlplane.NAME).path(controlplane.AUDIT_LOG)
        self._offset = 0
        self.counted()

    def counted(self) -> Counter[str]:
        """Return how many requests there were since the last call, by verb and resource."""
        found: Counter[str] = Counter()
        if not self._path.exists():
            return found
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # is being written
                self._offset += len(line)
                event = json.loads(line)
                about = event.get("objectRef", {})
                resource = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
                found[f"{event['verb']} {resource or event['requestURI'].partition('?')[0]}"] += 1
        return found


def reads(counted: Mapping[str, int]) -> int:
    """Return how many of the requests are reads."""
    return sum(number for name, number in counted.items() if name.partition(" ")[0] in READS)


def writes(counted: Mapping[str, int]) -> int:
    """Return how many of the requests are writes."""
    return sum(counted.values()) - reads(counted)
