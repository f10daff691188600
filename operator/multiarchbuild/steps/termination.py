"""How a step ends: its result in the termination message and as the last line of its log, and its exit code."""

import os
import signal
import sys
import traceback
from collections.abc import Callable

from multiarchbuild.api import results
from multiarchbuild.api.answers import NONCE_ENV, REQUEST_ENV, answer_line, exporting_line, record_lines
from multiarchbuild.api.reasons import Reason

from .errors import StepError
from .log import say
from .mounts import Mounts

Result = results.Resolved | results.Built | results.Published


def tell_exporting() -> None:
    """Tell the operator that the image is being pushed, and what comes after it may begin."""
    if nonce := os.environ.get(NONCE_ENV):
        say(exporting_line(nonce, os.environ[REQUEST_ENV]))


def conclude(mounts: Mounts, step: Callable[[], Result], request: str | None = None) -> int:
    """Run `step`, write its result or why it failed into the termination message, and return the exit code.

    `request` is what it is the result of, where one container has several in a row.
    """
    # As process 1 of a container, a program that sets no handler ignores SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    result: Result | results.Failure
    record = b""
    try:
        result = step()
    except StepError as error:
        say(f"ERROR {error.reason}: {error.message}")
        result = results.Failure(reason=error.reason, message=error.message, log_tail=error.log_tail)
        record = error.record
    except Exception as error:  # noqa: BLE001 - a bug must reach status too, not only the log
        trace = traceback.format_exc()
        say(trace)
        message = f"The step has a bug: {type(error).__name__}: {error}"
        result = results.Failure(reason=Reason.STEP_FAILED, message=message, log_tail=trace)
    report = results.dump(result, request)
    # First, so that whoever read the answer may rely on it.
    mounts.termination_log.write_bytes(report)
    if nonce := os.environ.get(NONCE_ENV):
        for line in record_lines(nonce, os.environ[REQUEST_ENV], record):
            say(line)
        say(answer_line(nonce, os.environ[REQUEST_ENV], report))
    return 1 if isinstance(result, results.Failure) else 0
