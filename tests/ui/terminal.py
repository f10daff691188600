"""Pictures of `kubectl mab` as a terminal of 80 and of 200 columns shows it: `python -m tests.ui.terminal FOLDER`.

The real command line runs in a pseudo-terminal, against an API server and a registry of its own (`tests.ui.stage`).
"""

import argparse
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from pathlib import Path
from typing import Final

import yaml
from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME
from rich.text import Text

from tests.ui.stage import Stage, furnished

WIDTHS: Final = (80, 200)
COMMANDS: Final = {
    "list": ("list",),
    "follow": ("status", "checkout", "--follow"),
    "failed": ("status", "search"),
    "compare": ("compare", "shop", "--plain-http"),
}
_FRAME: Final = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
"""With what rich goes back to draw the next frame."""
_SECONDS: Final = 5.0
"""How long after its first output a command is ended that follows a run in progress."""
_FONT: Final = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""Of the network: a picture must not load anything."""


def shown(stage: Stage, arguments: tuple[str, ...], width: int) -> str:
    """Return what a command writes to a terminal with so many columns, escape sequences included."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(_kubeconfig(stage), file)
        file.flush()
        ours, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        environment = {**os.environ, "KUBECONFIG": file.name, "TERM": "xterm-256color"}
        environment.pop("NO_COLOR", None)
        argv = [sys.executable, "-m", "multiarchbuild", "cli", *arguments]
        with subprocess.Popen(argv, stdin=its, stdout=its, stderr=its, env=environment) as process:
            os.close(its)
            written = _read(ours)
            timer = threading.Timer(_SECONDS, process.kill)
            timer.start()
            written += b"".join(iter(lambda: _read(ours), b""))
            timer.cancel()
        os.close(ours)
    *_, last = (frame for frame in _FRAME.split(written.decode()) if frame.strip())
    # A name of the same length, so that columns stay where they are.
    return last.replace("\r\n", "\n").replace(f"127.0.0.1:{stage.port}", "reg.example.com")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # as Linux says that the other side is closed
        return b""


def _kubeconfig(stage: Stage) -> dict[str, object]:
    context = {"cluster": "stage", "user": "you", "namespace": "team-a"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stage",
        "clusters": [{"name": "stage", "cluster": {"server": f"http://127.0.0.1:{stage.port}"}}],
        "users": [{"name": "you", "user": {}}],
        "contexts": [{"name": "stage", "context": context}],
    }


def picture(text: str, width: int, title: str) -> str:
    """Return an SVG of a terminal with this text, whose lines go on in the next row where they are too long."""
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True)
    for line in Text.from_ansi(text.rstrip("\n")).split(allow_blank=True):
        for row in line.divide(range(width, len(line), width)):
            console.print(row, no_wrap=True, crop=False, highlight=False)
    svg = console.export_svg(
        title=title, theme=DEFAULT_TERMINAL_THEME, unique_id=re.sub(r"\W+", "-", f"{title}-{width}")
    )
    return _FONT.sub("", svg).replace("Fira Code, monospace", "monospace")


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    with Stage().serving() as stage:
        furnished(stage, builds=8)
        for name, arguments in COMMANDS.items():
            title = f"kubectl mab {' '.join(each for each in arguments if each != '--plain-http')}"
            for width in WIDTHS:
                svg = picture(shown(stage, arguments, width), width, title)
                (folder / f"cli-{name}-{width}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
