"""`kubectl mab`: builds as a person at a terminal, or a script, sees them.

Results go to standard output, progress and what is said to people to standard error; `errors` has the exit codes.
"""

import logging
import sys
from collections.abc import Sequence

from multiarchbuild import __version__

from .arguments import commands
from .errors import INTERRUPTED, CliError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser, _ = commands()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["help"]:  # as people know it from kubectl
        words = [*words[1:2], "--help"]
    arguments = parser.parse_args(words)
    if arguments.version:
        sys.stdout.write(f"{__version__}\n")
        return 0
    if arguments.command is None:
        parser.print_help()
        return 0
    # Imports are deferred: completion is asked at each press of a key.
    from .run import run  # noqa: PLC0415

    # urllib3 tells of each request that it repeats; whether one failed in the end is said once, by an error.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    try:
        return run(arguments)
    except CliError as error:
        from .console import visible  # noqa: PLC0415

        sys.stderr.write(f"error: {visible(str(error))}\n")
        return error.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read has had enough, as `head` does. Nothing may be written at exit either.
        sys.stdout = None
        return 0


def complete_main() -> int:
    """Answer `kubectl_complete-mab`, which kubectl runs to complete `kubectl mab …`."""
    from .complete import answer  # noqa: PLC0415

    sys.stdout.write(answer(sys.argv[1:]))
    return 0
