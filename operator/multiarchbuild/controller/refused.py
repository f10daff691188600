"""What `decide` never sees: specs that can't be read, children that the API server refuses."""

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from multiarchbuild import __version__
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.status import Status
from multiarchbuild.api.stored import newer_than_operator
from multiarchbuild.plan.summary import unreadable_spec

REFUSED_SECONDS: Final = 60.0
"""When the API server is asked again for what it refused."""
WORDS_SECONDS: Final = 120.0
"""Least time between two quotations of a refusal that says something else each time."""
COMES_SECONDS: Final = 30.0
"""How long what a pod names may be missing before that is a refusal: it may have been applied with the build."""
_SHOWN: Final = 64
"""Characters of a value that a message shows."""
_TOGETHER: Final = 8
"""Refusals of a quota that are asked again when one builder has gone: hundreds may wait."""
_REMEMBERED: Final = 10_000
"""Refusals that are kept; without a memory of it, the API server is only asked sooner."""


@dataclass(slots=True)
class _Refusal:
    answer: str
    quoted_at: float
    ask_at: float
    quota_of: str = ""
    """Namespace whose quota it was."""


class Refusals:
    """What the API server refused to create, and when it may be asked again.

    Nothing but a change of what the build asks for brings it forward: an event is no reason to believe that the answer
    is another by now, and a refusal has events of its own.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Know of none; `clock` returns seconds."""
        self._clock = clock
        self._known: dict[Hashable, _Refusal] = {}
        self._awaited: dict[Hashable, float] = {}
        """When was first asked for what may come by itself."""

    def standing(self, what: Hashable) -> str | None:
        """Return the API server's words while it may not be asked again for `what`."""
        known = self._known.get(what)
        return known.answer if known is not None and self._clock() < known.ask_at else None

    def refused(self, what: Hashable, answer: str, quota_of: str = "") -> str:
        """Note a refusal and return the words to quote: those of before where these only have other ids in them."""
        now, known = self._clock(), self._known.pop(what, None)
        if known is None or (_gist(known.answer) != _gist(answer) and now - known.quoted_at >= WORDS_SECONDS):
            known = _Refusal(answer, quoted_at=now, ask_at=now)
        known.ask_at, known.quota_of = now + REFUSED_SECONDS, quota_of
        self._known[what] = known
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return known.answer

    def is_awaited(self, what: Hashable) -> bool:
        """Return whether what `what` lacks is waited for since an answer before this one."""
        return what in self._awaited

    def may_come(self, what: Hashable) -> bool:
        """Return whether to wait for what `what` lacks, as it may have been applied together with the build."""
        since = self._awaited.setdefault(what, self._clock())
        if len(self._awaited) > _REMEMBERED:
            del self._awaited[next(iter(self._awaited))]
        return self._clock() < since + COMES_SECONDS

    def has_room(self, namespace: str) -> None:
        """Let the API server be asked now for what the quota of `namespace` has refused, the longest ago first."""
        now = self._clock()
        standing = [each for each in self._known.values() if each.quota_of == namespace and each.ask_at > now]
        for each in standing[:_TOGETHER]:
            each.ask_at = now

    def created(self, what: Hashable) -> None:
        """Note that it exists now."""
        self._known.pop(what, None)
        self._awaited.pop(what, None)


def _gist(answer: str) -> str:
    """Return an answer without the words that have a digit in them: ids, times, amounts, addresses."""
    return re.sub(r"\S+", lambda word: "#" if re.search(r"\d", word[0]) else word[0], answer)


def invalid_spec(status: Status, error: ValidationError, generation: int, now: datetime) -> Status:
    """Return the status of a build whose spec passed the API server's validation but not ours."""
    mistakes = "; ".join(map(_mistake, error.errors(include_url=False)))
    if newer_than_operator(error):
        message = (
            f"Operator {__version__} is older than the CustomResourceDefinition and does not understand {mistakes}. "
            "Upgrade the operator, or change the field."
        )
        return unreadable_spec(status, Reason.OPERATOR_OUTDATED, message, generation, now)
    message = f"The spec can't be understood, change it: {mistakes}"
    return unreadable_spec(status, Reason.INVALID_SPEC, message, generation, now)


def _mistake(entry: ErrorDetails) -> str:
    value = entry["input"]
    shown = f" ({value[:_SHOWN]!r})" if isinstance(value, str) else f" ({value})" if isinstance(value, int) else ""
    return f"{'.'.join(map(str, entry['loc']))}{shown}: {entry['msg']}"
