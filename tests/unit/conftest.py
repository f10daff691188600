"""What all unit tests have in common."""

from hypothesis import settings

# A machine that is busy is no failure of the code.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
