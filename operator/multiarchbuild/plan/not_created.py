"""Children that were asked for and not created: refused, or an object of others has the name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from multiarchbuild.api.reasons import Reason

from .identity import alternatives

ASK_AGAIN = timedelta(minutes=1)
"""When a child that was refused is asked for again."""
ASK_SOON = timedelta(seconds=2)
"""When one is that lacks what may have been applied together with the build."""


@dataclass(frozen=True, slots=True)
class NotCreated:
    """What the API server did not create in this look, by name. No other child waits for these."""

    refused: Mapping[str, str] = field(default_factory=dict)
    """Refused by admission or validation, with the API server's words."""
    awaited: Mapping[str, str] = field(default_factory=dict)
    """What lacks something that may have been applied together with the build, with the API server's words."""
    taken: frozenset[str] = frozenset()
    """Names of objects that this build does not control."""
    failed: frozenset[str] = frozenset()
    """What got no answer, as when a webhook does not respond: it is asked for again soon."""
    not_handed: frozenset[str] = frozenset()
    """Kept builders that did not take what was to be handed to them: a pod is created instead."""

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self.refused or self.awaited or self.taken or self.failed or self.not_handed)

    def __contains__(self, name: object) -> bool:
        """Return whether the child of this name is among them."""
        return name in self.refused or name in self.awaited or name in self.taken or name in self.failed

    def __or__(self, other: "NotCreated") -> "NotCreated":
        """Return both together."""
        return NotCreated(
            {**self.refused, **other.refused},
            {**self.awaited, **other.awaited},
            self.taken | other.taken,
            self.failed | other.failed,
            self.not_handed | other.not_handed,
        )


@dataclass(frozen=True, slots=True)
class Child:
    """A child to create."""

    name: str
    reason: Reason | None = None
    """Why it is not created in this look; None when it is."""
    message: str = ""
    """What is against it, and what to do."""
    ask_after: timedelta = timedelta()
    """When to ask for it again, where there is a reason."""
    failed: bool = False
    """Whether it can't be asked for in this look."""


def child(name: str, not_created: NotCreated) -> Child:
    """Return the child that `name` was made for: under its next name where objects of others have those before."""
    names = alternatives(name)
    free = next((each for each in names if each not in not_created.taken), None)
    if free is None:
        taken = ", ".join(names)
        return rejected(
            name, f"Objects that this build does not control have the names {taken}: delete or rename them."
        )
    if free in not_created.refused:
        return rejected(free, _refusal(free, not_created.refused[free]))
    if free in not_created.awaited:
        words = not_created.awaited[free].rstrip(".")
        message = f"waiting for what {free} needs, which may have been applied with the build: {words}"
        return Child(free, Reason.PENDING, message, ASK_SOON)
    return Child(free, failed=free in not_created.failed)


def rejected(name: str, message: str) -> Child:
    """Return a child that waits for somebody to change what is against it."""
    return Child(name, Reason.POD_REJECTED, message, ASK_AGAIN)


def frees_itself(message: str) -> bool:
    """Return whether a refusal ends without anybody's action: a quota has room again when something else ends."""
    return "exceeded quota" in message


def _refusal(name: str, words: str) -> str:
    advice = (
        "The operator tries again until the quota has room."
        if frees_itself(words)
        else "The operator tries again each minute; change what the API server objects to."
    )
    return f"The API server refused {name}: {words.rstrip('.')}. {advice}"
