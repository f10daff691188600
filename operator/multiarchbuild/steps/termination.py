"""How a step ends: its result in the termination message, its exit code, and a last line in the log."""

import signal
import sys
import traceback
from collections.abc import Callable

from multiarchbuild.api import results
from multiarchbuild.api.reasons import Reason

from .errors import StepError
from .log import say
from .mounts import Mounts

Result = results.Resolved | results.Built | results.Published


def conclude(mounts: Mounts, step: Callable[[], Result]) -> int:
    """Run `step`, write its result or why it failed into the termination message, and return the exit code."""
    # As process 1 of a container, a program that sets no handler ignores SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    result: Result | results.Failure
    try:
        result = step()
    except StepError as error:
        say(f"ERROR {error.reason}: {error.message}")
        result = results.Failure(reason=error.reason, message=error.message, log_tail=error.log_tail)
    except Exception as error:  # noqa: BLE001 - a bug must reach status too, not only the log
        trace = traceback.format_exc()
        say(trace)
        message = f"The step has a bug: {type(error).__name__}: {error}"
        result = results.Failure(reason=Reason.STEP_FAILED, message=message, log_tail=trace)
    mounts.termination_log.write_bytes(results.dump(result))
    return 1 if isinstance(result, results.Failure) else 0
