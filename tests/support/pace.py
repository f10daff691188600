"""How fast this machine is, for tests that say how soon something has to be done.

Such a bound is meant for an idle machine. Multiplied by `slowness()` it means the same on one that is slower or busy.
"""

import subprocess
import sys
import time

_WORK = "import json; [json.dumps(list(range(1000))) for _ in range(6000)]"
_SECONDS = 0.5
"""What it takes on an idle core of the machine that the bounds were chosen on, the start of Python included."""


def slowness() -> float:
    """Return how many times longer than on that machine a program takes here and now, at least 1."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-S", "-E", "-c", _WORK], check=True)
    return max(1.0, (time.monotonic() - started) / _SECONDS)
