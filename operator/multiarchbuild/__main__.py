"""`python -m multiarchbuild`: the operator, the steps and the command line are one program in one image."""

import sys

USAGE = """usage: multiarchbuild run [OPTION …]     run the operator (run --help lists its options)
       multiarchbuild step NAME …        run a step in its pod: resolve, build or publish
       multiarchbuild qemu NAME …        run a part of the QEMU DaemonSet: register, label or remove
       multiarchbuild profile NAME …     run a part of the DaemonSets of profiles: lay, load or label
       multiarchbuild selftest FILE      create a MultiArchBuild and wait for its image, as `helm test` does
       multiarchbuild cli COMMAND …      what `kubectl mab` does (cli --help lists its commands)
       multiarchbuild --version"""


def main(argv: list[str] | None = None) -> int:
    """Dispatch the command line and return the exit code.

    Imports are deferred: a step starts in every build, and must not pay for the operator's libraries.
    """
    command, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    match command:
        case "run":
            from multiarchbuild import controller  # noqa: PLC0415

            return controller.main(rest)
        case "step":
            from multiarchbuild import steps  # noqa: PLC0415

            return steps.main(rest)
        case "qemu":
            from multiarchbuild import qemu  # noqa: PLC0415

            return qemu.main(rest)
        case "profile":
            from multiarchbuild import profile  # noqa: PLC0415

            return profile.main(rest)
        case "selftest":
            from multiarchbuild.controller import selftest  # noqa: PLC0415

            return selftest.main(rest)
        case "cli":
            from multiarchbuild import cli  # noqa: PLC0415

            return cli.main(rest)
        case "--version":
            from multiarchbuild import __version__  # noqa: PLC0415

            sys.stdout.write(f"{__version__}\n")
            return 0
        case "-h" | "--help":
            sys.stdout.write(f"{USAGE}\n")
            return 0
    sys.stderr.write(f"error: unknown command {command!r}\n{USAGE}\n")
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
