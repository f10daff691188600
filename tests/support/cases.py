"""Bug reports as small builds: the format of `tests/cases`, told in its README."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).parents[1] / "cases"
SECONDS = 240.0
_LINE = re.compile(r"# ([a-z]+): (.+)")
_CONTINUED = re.compile(r"# {2,}(\S.*)")
_ONCE = ("report", "wrong", "right", "expect")
_MANY = ("prepare", "check")
_OPTIONAL = ("time",)


class CaseError(ValueError):
    """A file is not a case; the message names the file and what to change."""


@dataclass(frozen=True)
class Case:
    """One case, with REGISTRY and GITURL still in its texts."""

    path: Path
    name: str
    """Of the build, and of the repository that the script makes."""
    result: str
    """Ready, Failed or Refused."""
    reasons: frozenset[str]
    """One of these is the reason of condition Ready where it is False."""
    prepare: tuple[str, ...]
    checks: tuple[str, ...]
    seconds: float
    manifest: str

    @property
    def script(self) -> Path | None:
        """What makes its repositories or its archive, where it needs any."""
        script = self.path.with_suffix(".sh")
        return script if script.exists() else None

    @property
    def needs_git(self) -> bool:
        """Whether it is built from a repository."""
        return "GITURL" in self.manifest


def read(path: Path) -> Case:
    """Read a case.

    Raises:
        CaseError: It is not written as the README of `tests/cases` says.
    """
    text = path.read_text(encoding="utf-8")
    head = _head(path, text)
    for key in _ONCE:
        if len(head.get(key, ())) != 1:
            raise CaseError(f"{path.name}: write one line `# {key}: …`")
    result, _, reasons = head["expect"][0].partition(" ")
    if result not in {"Ready", "Failed", "Refused"} or (result == "Failed") != bool(reasons):
        raise CaseError(f"{path.name}: `# expect:` is Ready, Failed REASON[,REASON] or Refused")
    time = head.get("time", [f"{SECONDS:.0f}"])
    if len(time) != 1 or not time[0].isdigit():
        raise CaseError(f"{path.name}: `# time:` is one number of seconds")
    return Case(
        path=path,
        name=_name(path, text),
        result=result,
        reasons=frozenset(reason.strip() for reason in reasons.split(",") if reason),
        prepare=tuple(head.get("prepare", ())),
        checks=tuple(head.get("check", ())),
        seconds=float(time[0]),
        manifest=text,
    )


def _head(path: Path, text: str) -> Mapping[str, list[str]]:
    """Return the values of each key in the comment lines that the file begins with."""
    head: dict[str, list[str]] = {}
    last: list[str] | None = None
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if found := _LINE.fullmatch(line):
            if found[1] not in (*_ONCE, *_MANY, *_OPTIONAL):
                raise CaseError(f"{path.name}: unknown key `# {found[1]}:`")
            last = head.setdefault(found[1], [])
            last.append(found[2])
        elif last and (more := _CONTINUED.fullmatch(line)):
            last[-1] += f" {more[1]}"
        else:
            raise CaseError(f"{path.name}: {line!r} is neither `# key: value` nor continues one by two spaces")
    return head


def _name(path: Path, text: str) -> str:
    objects = [entry for entry in yaml.safe_load_all(text) if entry]
    names = [entry["metadata"]["name"] for entry in objects if entry["kind"] == "MultiArchBuild"]
    short = path.stem.partition("-")[2]
    if names != [short]:
        raise CaseError(f"{path.name}: has to hold one MultiArchBuild, named {short}; found {names or 'none'}")
    return short
