import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from multiarchbuild.api.answers import answer_line, is_answer, read_record, record_lines
from multiarchbuild.api.record import (
    MAX_BYTES,
    MAX_STEPS,
    BuilderRecord,
    BuildRecord,
    StepRecord,
    bounded,
    dump,
    redacted,
    schema,
)

NONCE, OTHER = "1" * 32, "2" * 32


def builder(steps: list[StepRecord]) -> BuilderRecord:
    return bounded(BuilderRecord(platforms=("linux/amd64",)), steps)


@given(st.binary(max_size=20_000))
def test_a_record_comes_out_of_a_log_as_it_was(record: bytes) -> None:
    lines = ["#1 [1/2] FROM busybox", *record_lines(NONCE, "app-1", record), answer_line(NONCE, "app-1", b"{}")]
    assert read_record(lines, NONCE, "app-1") == record
    assert read_record(lines, OTHER, "app-1") == b""
    assert read_record(lines, NONCE, "app-2") == b""
    assert all(is_answer(line) for line in lines[1:]), "people are not shown them"
    assert all(len(line) < 8192 for line in lines)


def test_half_a_record_and_one_that_unpacks_to_too_much_are_none() -> None:
    lines = list(record_lines(NONCE, "app-1", bytes(range(256)) * 3 + str(list(range(5000))).encode()))
    assert len(lines) > 1
    assert read_record(lines[1:], NONCE, "app-1") == b""
    assert read_record(record_lines(NONCE, "app-1", bytes(10_000_000)), NONCE, "app-1") == b""
    assert read_record(["multiarch.build/record " + NONCE + " app-1 1/1 !!!"], NONCE, "app-1") == b""


def test_the_longest_steps_and_those_that_failed_stay_and_refer_to_each_other() -> None:
    steps = [StepRecord(name=f"step {number}", seconds=number % 7) for number in range(MAX_STEPS + 100)]
    steps[-1] = StepRecord(name="fails", error="exit code: 1", inputs=(6, 0), because=6)
    record = builder(steps)
    assert len(record.steps) == MAX_STEPS
    assert record.left_out == 100
    fails = record.steps[-1]
    assert [record.steps[at].name for at in fails.inputs] == ["step 6"]
    assert fails.because is not None
    assert record.steps[fails.because].name == "step 6"


def test_a_record_is_bounded_in_bytes() -> None:
    record = builder([StepRecord(name="\U0001f40b" * 240, error="\\" * 240, seconds=1)] * MAX_STEPS)
    assert len(dump(record)) <= MAX_BYTES
    assert BuilderRecord.model_validate_json(dump(record)).left_out > 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ADD https://user:token@host/a.tgz /", "ADD https://host/a.tgz /"),
        ("ADD https://host/a.tgz?sig=abc&x=1 /", "ADD https://host/a.tgz?… /"),
        ("COPY --from=hunter22 /a /b", "COPY --from=$TOKEN /a /b"),
        ("RUN echo $TOKEN", "RUN echo $TOKEN"),
        ("COPY v1 /v1", "COPY v1 /v1"),
        ("ADD http://a/http://b?sig=abc https://c? /", "ADD http://a/http://b?… https://c? /"),
        (
            "FROM docker.io/library/busybox:1.36@sha256:abc",
            "FROM docker.io/library/busybox:1.36@sha256:abc",
        ),
    ],
)
def test_what_may_be_a_secret_is_left_out_of_names(text: str, shown: str) -> None:
    assert redacted(text, {"TOKEN": "hunter22", "V": "v1"}) == shown


def test_a_name_full_of_urls_takes_no_time() -> None:
    began = time.process_time()
    text = "RUN fetch " + "http://" * 100_000
    assert redacted(text, {}) == text
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "wrong",
    [
        '"phases":{"build":Infinity}',
        '"phases":{"build":1e999}',
        '"phases":{"build":NaN}',
        '"phases":{"build":1e300}',
        '"phases":{"build":-1}',
        '"steps":[{"name":"a","at":1e999}]',
        '"steps":[{"name":"a","seconds":1e999}]',
        f'"steps":[{{"name":"a","bytes":1{"0" * 400}}}]',
        f'"pulled":1{"0" * 400}',
    ],
)
def test_a_forged_record_of_times_and_sizes_that_nothing_has_is_none(wrong: str) -> None:
    with pytest.raises(ValidationError):
        BuilderRecord.model_validate_json(f'{{"platforms":["linux/amd64"],{wrong}}}')


def test_a_record_of_a_newer_version_is_read() -> None:
    newer: dict[str, Any] = json.loads(dump(BuildRecord(name="app", namespace="team", run="12345678")))
    newer |= {
        "version": "v2",
        "more": 1,
        "builders": [{"platforms": ["linux/amd64"], "steps": [{"name": "a", "why": "New"}]}],
    }
    record = BuildRecord.model_validate(newer)
    assert record.builders[0].steps[0].why == "New"


def test_the_schema_says_what_is_required() -> None:
    assert {"name", "namespace", "run"} <= set(schema()["required"])
    assert schema()["properties"]["builders"]["items"] == {"$ref": "#/$defs/BuilderRecord"}
