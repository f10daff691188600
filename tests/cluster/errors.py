"""The one error that a user of the cluster tool is meant to read."""


class ClusterError(Exception):
    """Something outside this tool is in the way; the message says what, where, and what to do next."""
