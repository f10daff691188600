"""How a step tells its result at once: a line of its log, which arrives well before the end of its container is seen.

    multiarch.build/answer <nonce> <request> <the termination message>

What a build that failed has recorded (`api.record`) comes before it, compressed, in lines of its own:

    multiarch.build/record <nonce> <request> <number>/<of how many> <zlib, base64>

Before that, a builder tells when nothing of the Dockerfile is left to do and its image is being pushed:

    multiarch.build/state <nonce> <request> exporting

The nonce is random, in the environment of the step's container and nowhere else, so that nothing that a build prints
can be taken for an answer. The termination message says the same, stays the truth, and is all that is left when the
log cannot be followed.
"""

import base64
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

NONCE_ENV: Final = "MAB_ANSWER_NONCE"
"""Environment variable of the step with the nonce; without it the step prints no answer."""
REQUEST_ENV: Final = "MAB_REQUEST"
"""Environment variable of the step with the name of what it is asked for: that of its pod."""
TAKEN: Final = '{"taken":true}'
"""Message by which a kept builder says that it has begun with a request."""
EXPORTING: Final = "exporting"
"""What a builder says when its image is being pushed. It is no answer: an older operator would take it for the last."""
MAX_LINE: Final = 8192
"""Bytes of the longest answer, above 4096 of the message and what is before it; a longer line is no answer."""
MAX_RECORD: Final = 384 * 1024
"""Bytes of the longest record, unpacked."""
_MARKER: Final = "multiarch.build/answer"
_STATE: Final = "multiarch.build/state"
_RECORD: Final = "multiarch.build/record"
_MAX_PIECES: Final = 64
"""256 KiB in all: a record that compresses so badly is not kept."""
_PIECE: Final = 4000
"""Characters of a record in one line."""
_RECORD_LINE: Final = re.compile(
    r"multiarch\.build/record ([0-9a-f]{32}) ([a-z0-9.-]{1,253}) (\d{1,3})/(\d{1,3}) ([A-Za-z0-9+/=]+)"
)
_STATE_LINE: Final = re.compile(rb"multiarch\.build/state ([0-9a-f]{32}) ([a-z0-9.-]{1,253}) (exporting)")
_LINE: Final = re.compile(rb"multiarch\.build/answer ([0-9a-f]{32}) ([a-z0-9.-]{1,253}) (\{.*\})")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step answered, or told before."""

    request: str
    """To which request."""
    message: str
    """`results.Termination` as JSON, or TAKEN or EXPORTING."""


def answer_line(nonce: str, request: str, message: bytes) -> str:
    """Return the line, without its end."""
    return f"{_MARKER} {nonce} {request} {message.decode()}"


def exporting_line(nonce: str, request: str) -> str:
    """Return the line, without its end, by which a builder tells that its image is being pushed."""
    return f"{_STATE} {nonce} {request} {EXPORTING}"


def is_answer(line: str) -> bool:
    """Return whether a line of a log is for the operator, and not for people."""
    return line.startswith((_MARKER + " ", _STATE + " ", _RECORD + " "))


class LinesOfRun:
    """Tells which lines of a builder's log are of one run: a kept builder serves several, one after the other."""

    def __init__(self, pod: str, nonce: str, run: str) -> None:
        """Begin with the first line of the log of `pod`, whose first request has its name; `run` is the id wanted."""
        self._nonce, self._run, self._request = nonce, run, pod
        self.ended = False
        """Whether the step has answered to the run, and nothing more follows of it."""

    def has(self, line: str) -> bool:
        """Return whether the next line is of the run, and for people."""
        if not is_answer(line):
            return self._is_wanted() and not self.ended
        match = _LINE.fullmatch(line.encode())
        if match and match[1].decode() == self._nonce:
            if match[3].decode() == TAKEN:
                self._request, self.ended = match[2].decode(), False
            else:
                self.ended = self._is_wanted()
        return False

    def _is_wanted(self) -> bool:
        # The name of a request is that of a pod: the build, the run, the builder and the attempt.
        return f"-{self._run}-" in self._request


def record_lines(nonce: str, request: str, record: bytes) -> Iterator[str]:
    """Yield the lines that carry a record; none for an empty one."""
    packed = base64.b64encode(zlib.compress(record, 9)).decode() if record else ""
    pieces = [packed[at : at + _PIECE] for at in range(0, len(packed), _PIECE)]
    if len(pieces) > _MAX_PIECES:
        return
    for number, piece in enumerate(pieces, 1):
        yield f"{_RECORD} {nonce} {request} {number}/{len(pieces)} {piece}"


class RecordReader:
    """Finds the record of one request in the lines of a log."""

    def __init__(self, nonce: str, request: str) -> None:
        """Take lines with this nonce and this request only."""
        self._wanted = (nonce, request)
        self._pieces: dict[int, str] = {}
        self._count = 0

    def feed(self, line: str) -> None:
        """Take one line."""
        match = _RECORD_LINE.fullmatch(line) if line.startswith(_RECORD) else None
        if match and self._wanted[0] and (match[1], match[2]) == self._wanted and int(match[3]) <= _MAX_PIECES:
            self._pieces[int(match[3])], self._count = match[5], int(match[4])

    @property
    def packed(self) -> str:
        """The record, compressed, in base64; empty where it is not all there."""
        whole = self._count and self._pieces.keys() == set(range(1, self._count + 1))
        return "".join(self._pieces[number] for number in sorted(self._pieces)) if whole else ""


def read_record(lines: Iterable[str], nonce: str, request: str) -> bytes:
    """Return the record in the lines of a log, or nothing where it is not all there."""
    reader = RecordReader(nonce, request)
    for line in lines:
        reader.feed(line)
    return unpack_record(reader.packed)


def unpack_record(packed: str) -> bytes:
    """Return a record that is compressed and in base64, or nothing where it is none or unpacks to too much."""
    try:
        unpacked = zlib.decompressobj()
        record = unpacked.decompress(base64.b64decode(packed, validate=True), MAX_RECORD)
    except (ValueError, zlib.error):
        return b""
    return record if unpacked.eof else b""


class AnswerReader:
    """Finds the answers in a log that comes in pieces; keeps no more of it than one line of MAX_LINE bytes."""

    def __init__(self, nonce: str, lines: Callable[[str], None] = lambda _: None) -> None:
        """Take lines with this nonce only; `lines` is given each, whatever it says."""
        self._nonce = nonce.encode()
        self._rest = b""
        self.lines = lines
        self._overlong = False
        """Whether what was kept of the present line was dropped: it is too long to be an answer."""

    def feed(self, chunk: bytes) -> Iterator[Answer]:
        """Take the next bytes of the log; yield the answers whose lines they complete."""
        *lines, rest = (self._rest + chunk).split(b"\n")
        if lines and self._overlong:
            del lines[0]
            self._overlong = False
        self._rest = b"" if self._overlong else rest
        if len(rest) > MAX_LINE:
            self._rest, self._overlong = b"", True
        for line in lines:
            if self._nonce not in line or len(line) > MAX_LINE:
                continue
            self.lines(line.decode(errors="replace"))
            match = _LINE.fullmatch(line) or _STATE_LINE.fullmatch(line)
            if match and match[1] == self._nonce:
                yield Answer(match[2].decode(), match[3].decode(errors="replace"))
