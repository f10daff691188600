"""When a login is exchanged anew, and what happens where that fails."""

from dataclasses import dataclass, field
from typing import cast

import pytest

from multiarchbuild.api.identity import Identity
from multiarchbuild.api.reasons import Reason
from multiarchbuild.oci.credentials import Credentials
from multiarchbuild.oci.errors import DeniedError, RefusedError, RegistryError
from multiarchbuild.oci.identity import Exchange, Exchanged
from multiarchbuild.steps.errors import StepError
from multiarchbuild.steps.identities import Renewed


@dataclass
class Provider:
    """Exchanges for logins of 100 s."""

    error: RegistryError | None = None
    given: int = 0
    identity: Identity = field(default_factory=lambda: Identity.model_validate({"provider": "Google"}))
    host: str = "r.test"

    def login(self) -> Exchanged:
        if self.error:
            raise self.error
        self.given += 1
        return Exchanged(Credentials("u", str(self.given)), 100)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_login_is_used_until_a_fifth_of_its_life_is_left(clock: Clock) -> None:
    provider = Provider()
    renewed = Renewed(cast("Exchange", provider), "output.identity", clock)
    passwords = []
    for seconds in (0, 79, 2, 79, 2):
        clock.now += seconds
        passwords.append(renewed().password)
    assert passwords == ["1", "1", "2", "2", "3"]


def test_a_renewal_that_fails_is_tried_again_while_the_login_is_good(clock: Clock) -> None:
    provider = Provider()
    renewed = Renewed(cast("Exchange", provider), "output.identity", clock)
    renewed()
    provider.error = RefusedError("away")
    clock.now += 85
    assert renewed().password == "1"
    provider.error = None
    assert renewed().password == "1", "not asked again at once"
    clock.now += 31
    assert renewed().password == "2"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(DeniedError("no"), Reason.IDENTITY_DENIED), (RefusedError("away"), Reason.IDENTITY_UNAVAILABLE)],
)
def test_without_a_login_the_step_fails(clock: Clock, error: RegistryError, reason: Reason) -> None:
    provider = Provider()
    renewed = Renewed(cast("Exchange", provider), "cache.identity", clock)
    renewed()
    provider.error = error
    clock.now += 101
    with pytest.raises(StepError) as failed:
        renewed()
    assert failed.value.reason is reason
    assert failed.value.message.startswith("cache.identity (google/metadata) ")
