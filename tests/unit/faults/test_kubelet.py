"""What the kubelet of the rig does when the API server refuses."""

from typing import cast

import pytest

from tests.faults.rig.api import Api, ApiError
from tests.faults.rig.kubelet import Kubelet

MODIFIED = "Operation cannot be fulfilled on pods: the object has been modified; please apply your changes"
ANOTHER = "Precondition failed: UID in precondition: 1, UID in object meta: 2"


@pytest.mark.parametrize(("status", "message", "tries"), [(409, MODIFIED, 3), (409, ANOTHER, 1), (404, "gone", 1)])
async def test_a_conflict_with_other_writers_is_no_end_and_another_pod_is(
    status: int, message: str, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_: float) -> None:
        pass

    monkeypatch.setattr("asyncio.sleep", at_once)
    asked = 0

    async def work() -> None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise ApiError(status, {"message": message}, "PATCH pod")

    await Kubelet(cast("Api", None), lambda _: 0.0)._after_a_while("end", work)
    assert asked == tries
