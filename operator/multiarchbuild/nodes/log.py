"""The log is standard output: what `kubectl logs` shows."""


def say(message: str) -> None:
    """Print a line at once."""
    print(message, flush=True)  # noqa: T201 - the log
