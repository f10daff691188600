"""The real operator a day later: as one that comes back when the time of every run is over."""

import sys
from datetime import datetime, timedelta, tzinfo
from unittest.mock import patch

from multiarchbuild.__main__ import main

DAY = timedelta(days=1)


class Tomorrow(datetime):
    """Its `now` is a day ahead of the clock."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Tomorrow":
        """Return this time tomorrow."""
        return cls.fromtimestamp((datetime.now(tz) + DAY).timestamp(), tz)


if __name__ == "__main__":
    with patch("multiarchbuild.controller.reconcile.datetime", Tomorrow):
        sys.exit(main())
