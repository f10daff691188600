"""The one exception that building the cluster's programs and images raises."""


class BuildError(Exception):
    """Something the local cluster needs cannot be made here.

    The message is for a person: what happened, to what, and what to do next. It may have several lines.
    """
