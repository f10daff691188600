"""The line by which a step answers: found however the log is cut, and never in what a build prints."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api.answers import (
    EXPORTING,
    MAX_LINE,
    TAKEN,
    Answer,
    AnswerReader,
    LinesOfRun,
    answer_line,
    exporting_line,
    is_answer,
)
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import MAX_BYTES, Failure, dump, load

NONCE = "0123456789abcdef" * 2
OTHER = "f" * 32
RESULT = Failure(reason=Reason.BUILD_FAILED, message="RUN false: 'é\u2028\n' failed", log_tail="multi\nline\r")
MESSAGE = dump(RESULT)
LINE = answer_line(NONCE, "app-1-amd64-1", MESSAGE).encode()
ANSWER = Answer("app-1-amd64-1", MESSAGE.decode())


def read(*chunks: bytes) -> list[Answer]:
    reader = AnswerReader(NONCE)
    return [answer for chunk in chunks for answer in reader.feed(chunk)]


def cut(log: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(log) + 1) for place in places), len(log)]
    return [log[start:end] for start, end in pairwise(edges)]


@given(
    before=st.lists(st.binary(max_size=50).map(lambda line: line.replace(b"\n", b"")), max_size=5),
    places=st.lists(st.integers(min_value=0), max_size=20),
)
def test_an_answer_is_found_however_the_log_is_cut(before: list[bytes], places: list[int]) -> None:
    log = b"\n".join([*before, LINE, b"", b"more"])
    assert read(*cut(log, places)) == [ANSWER]
    assert load(read(log)[0].message) == RESULT


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"#5 0.123 " + LINE, id="output of a RUN has a prefix"),
        pytest.param(LINE + b" ", id="something after it"),
        pytest.param(answer_line(OTHER, "app-1-amd64-1", MESSAGE).encode(), id="another nonce"),
        pytest.param(answer_line("", "app-1-amd64-1", MESSAGE).encode(), id="no nonce"),
        pytest.param(LINE.replace(b"\n", b"").replace(b"{", b"["), id="not JSON"),
        pytest.param(LINE.upper(), id="another spelling"),
        pytest.param(LINE.replace(b"answer ", b"answer  "), id="two spaces"),
    ],
)
def test_nothing_else_is_an_answer(line: bytes) -> None:
    assert read(line + b"\n") == []


def test_what_a_builder_tells_before_is_read_and_no_answer_to_older_readers() -> None:
    line = exporting_line(NONCE, "app-1-amd64-1")
    assert read(f"{line}\n".encode()) == [Answer("app-1-amd64-1", EXPORTING)]
    assert read(f"{exporting_line(OTHER, 'app-1-amd64-1')}\n#1 0.1 {line}\n".encode()) == []
    assert is_answer(line), "not for people"
    assert not line.startswith("multiarch.build/answer ")
    lines = LinesOfRun("app-1-amd64-1", NONCE, "1")
    assert [lines.has(each) for each in ("#1 a", line, "#2 exporting cache", LINE.decode(), "#3 a")] == [
        *(True, False, True, False, False)
    ]


def test_a_line_that_has_not_ended_is_no_answer() -> None:
    assert read(LINE) == []
    assert read(LINE, b"\n") == [ANSWER]


@given(st.integers(min_value=1, max_value=3 * MAX_LINE), st.integers(min_value=1, max_value=100_000))
def test_of_an_endless_line_nothing_is_kept(size: int, length: int) -> None:
    reader = AnswerReader(NONCE)
    for start in range(0, length, size):
        assert list(reader.feed(b"x" * min(size, length - start))) == []
        assert len(reader._rest) <= MAX_LINE
    assert list(reader.feed(LINE + b"\n")) == [], "it is the end of that line"
    assert list(reader.feed(LINE + b"\n")) == [ANSWER]


def test_the_longest_message_fits() -> None:
    longest = dump(Failure(reason=Reason.BUILD_FAILED, message="m", log_tail="é" * 10_000))
    line = answer_line(NONCE, "r" * 253, longest)
    assert MAX_BYTES - 10 < len(longest) <= MAX_BYTES
    assert read(line.encode() + b"\n") == [Answer("r" * 253, longest.decode())]


def test_people_are_not_shown_it() -> None:
    assert is_answer(LINE.decode())
    assert not is_answer("#5 0.123 " + LINE.decode())


KEPT = "0" * 32
LOG = (
    "#1 of the first run",
    answer_line(KEPT, "app-11111111-amd64-1", b'{"result":{}}'),
    "between two runs",
    answer_line(KEPT, "app-22222222-amd64-1", TAKEN.encode()),
    "#1 of the second run",
    answer_line("1" * 32, "app-33333333-amd64-1", TAKEN.encode()),
    "#2 of the second run",
    answer_line(KEPT, "app-22222222-amd64-1", b'{"result":{}}'),
    answer_line(KEPT, "app-33333333-amd64-2", TAKEN.encode()),
    "#1 of the third run",
)


@pytest.mark.parametrize(
    ("run", "own"),
    [
        ("11111111", ["#1 of the first run"]),
        ("22222222", ["#1 of the second run", "#2 of the second run"]),
        ("33333333", ["#1 of the third run"]),
        ("44444444", []),
    ],
)
def test_of_a_log_of_several_runs_the_lines_of_one_are_found(run: str, own: list[str]) -> None:
    lines = LinesOfRun("app-11111111-amd64-1", KEPT, run)
    assert [line for line in LOG if lines.has(line)] == own


def test_the_answer_to_a_run_ends_its_lines() -> None:
    lines = LinesOfRun("app-11111111-amd64-1", KEPT, "11111111")
    assert [(lines.has(line), lines.ended) for line in LOG[:3]] == [(True, False), (False, True), (False, True)]
