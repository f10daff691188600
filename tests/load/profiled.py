"""The operator under cProfile, in seconds of CPU: `python -m tests.load.profiled FILE run …`."""

import cProfile
import sys
import time

from multiarchbuild.__main__ import main

if __name__ == "__main__":
    file = sys.argv.pop(1)
    profile = cProfile.Profile(time.process_time)
    code = profile.runcall(main)
    profile.dump_stats(file)
    sys.exit(code)
