"""A buildkitd that does not start: whose fault that may be."""

from pathlib import Path

import pytest

from multiarchbuild.api.reasons import Reason
from multiarchbuild.steps.daemon import await_daemon
from multiarchbuild.steps.errors import StepError


@pytest.mark.parametrize(
    ("on_volume", "reason", "words"),
    [
        (False, Reason.BUILDER_UNSUPPORTED, "unprivileged user namespaces"),
        (True, Reason.CACHE_VOLUME_FAILED, "with what the volume of the cache holds"),
    ],
)
def test_of_one_that_has_a_volume_that_is_suspected_first(
    tmp_path: Path, reason: Reason, words: str, *, on_volume: bool
) -> None:
    with pytest.raises(StepError, match=words) as caught:
        await_daemon(tmp_path / "buildkitd.sock", seconds=0, on_volume=on_volume)
    assert caught.value.reason is reason
