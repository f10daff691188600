"""What all unit tests have in common."""

import os

from hypothesis import settings

# A machine that is busy is no failure of the code.
settings.register_profile("searching", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "searching"))
