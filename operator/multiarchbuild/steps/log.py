"""The log of a step is its standard output: what `kubectl logs` shows."""


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)
