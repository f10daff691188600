"""Words of `v1alpha1` that have changed. Imports no pydantic: the command line loads this at each key press."""

from enum import StrEnum
from typing import Self


class Capitalised(StrEnum):
    """Values that were in lower case before, as objects in the cluster and the ConfigMaps of their runs may have them.

    The API server takes no such value any more, but keeps the one that an object has: it was a default of each.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        return next((each for each in cls if each.value.lower() == value), None)
