"""What a step reports always fits into a termination message, and comes out of it as it went in."""

import json

from hypothesis import given
from hypothesis import strategies as st

from multiarchbuild.api import limits
from multiarchbuild.api.platforms import SUPPORTED, Platform
from multiarchbuild.api.reasons import Reason
from multiarchbuild.api.results import (
    MAX_BYTES,
    Built,
    CacheUse,
    Failure,
    Published,
    PublishedPlatform,
    PushedImage,
    Resolved,
    Source,
    dump,
    load,
)
from multiarchbuild.api.status import PlatformStatus, SourceStatus

ANY = st.characters(codec="utf-8")
# Escapes and characters of four bytes: what makes an encoded text longer than the text.
LONG = st.builds(str.__mul__, st.sampled_from(["a", "é", "𝄞", "\x00", '"', "line\n"]), st.integers(0, 12_000))
TEXT = st.text(ANY, max_size=200) | LONG
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)
SIZES = st.integers(0, 10**15)
SOURCES = st.builds(
    Source,
    commit=st.none() | st.text("0123456789abcdef", min_size=40, max_size=40),
    ref=st.none() | st.text(ANY, max_size=limits.REF),
    author=st.none() | TEXT,
    time=st.none() | st.integers(),
)
TAGS = st.lists(st.text("abcXYZ019_.-", min_size=1, max_size=limits.TAG), unique=True, max_size=limits.TAGS).map(tuple)
PLATFORMS = st.lists(
    st.builds(PublishedPlatform, platform=st.sampled_from(SUPPORTED), digest=DIGESTS, size=SIZES),
    unique_by=lambda image: Platform.parse(image.platform),
).map(tuple)
RESULTS = (
    st.builds(Resolved, source=SOURCES)
    | st.builds(
        Built, digest=DIGESTS, cache=st.builds(CacheUse, hits=SIZES, total=SIZES), source_time=st.none() | SIZES
    )
    | st.builds(
        Built, digest=DIGESTS, warnings=st.lists(st.text("abc ()0", max_size=limits.WARNING), max_size=5).map(tuple)
    )
    | st.builds(Published, digest=DIGESTS, tags=TAGS, platforms=PLATFORMS, signature=st.none() | DIGESTS)
)


@given(RESULTS)
def test_a_result_fits_and_is_read_as_it_was_written(result: Resolved | Built | Published) -> None:
    message = dump(result)
    assert len(message) <= MAX_BYTES
    assert load(message.decode()) == result


def test_the_longest_index_fits() -> None:
    digest = f"sha256:{'f' * 64}"
    platforms = {Platform.parse(text): text for text in SUPPORTED}.values()
    published = Published(
        digest=digest,
        tags=tuple(f"{number:0>{limits.TAG}}" for number in range(limits.TAGS)),
        platforms=tuple(PublishedPlatform(platform=text, digest=digest, size=10**13) for text in platforms),
        signature=digest,
    )
    assert len(dump(published)) <= MAX_BYTES


@given(st.sampled_from(Reason), TEXT, TEXT)
def test_a_failure_fits_and_keeps_its_reason(reason: Reason, text: str, log: str) -> None:
    failure = Failure(reason=reason, message=text, log_tail=log)
    message = dump(failure)
    assert len(message) <= MAX_BYTES
    read = load(message.decode())
    assert isinstance(read, Failure)
    assert read.reason is reason
    assert text.startswith(read.message)
    assert log.endswith(read.log_tail)


@given(TEXT, TEXT)
def test_no_more_of_a_failure_is_cut_than_must_be(text: str, log: str) -> None:
    failure = Failure(reason=Reason.BUILD_FAILED, message=text, log_tail=log)
    read = load(dump(failure).decode())
    assert isinstance(read, Failure)
    spare = MAX_BYTES - len(dump(failure))
    assert read == failure or spare < len(json.dumps("\x00"))
    assert read.message == failure.message or not read.log_tail


@given(st.lists(TEXT, max_size=9))
def test_warnings_leave_room_for_what_was_built(warnings: list[str]) -> None:
    images = tuple(PushedImage(platform=name, digest=f"sha256:{'f' * 64}") for name in SUPPORTED[: limits.PLATFORMS])
    built = Built(digest=f"sha256:{'f' * 64}", images=images, warnings=tuple(warnings))
    message = dump(built)
    assert len(message) <= MAX_BYTES
    read = load(message.decode())
    assert isinstance(read, Built)
    assert read.images == images
    assert read.warnings == built.warnings[: len(read.warnings)]
    assert PlatformStatus(platform="linux/amd64", warnings=read.warnings)


def test_a_byte_that_is_no_text_does_no_harm() -> None:
    read = load(dump(Failure(reason=Reason.BUILD_FAILED, message="caf\udce9")).decode())
    assert isinstance(read, Failure)
    assert read.message == "caf?"


@given(SOURCES)
def test_whatever_a_commit_claims_has_room_in_status(source: Source) -> None:
    assert SourceStatus(author=source.author, ref=source.ref, commit=source.commit).author == source.author
    assert source.time is None or 0 <= source.time < 253402300800


@given(st.text(ANY) | st.sampled_from(["", "null", "{}", '{"result":{}}', '{"result":{"kind":"failure"}}']))
def test_a_message_that_no_step_wrote_is_none(message: str) -> None:
    assert load(message) is None


def test_fields_of_a_newer_step_are_ignored() -> None:
    assert load('{"result":{"kind":"resolved","source":{"ref":"main","new":1},"new":1}}') == Resolved(
        source=Source(ref="main")
    )
