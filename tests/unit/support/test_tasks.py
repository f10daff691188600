"""Work beside a test."""

import asyncio

import pytest

from tests.support.tasks import beside


async def test_work_ends_with_the_block_and_its_failure_is_told() -> None:
    ended = []

    async def works() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("works")

    async def fails() -> None:
        raise ValueError("it failed")

    async with beside(works()):
        await asyncio.sleep(0)
    assert ended == ["works"]
    with pytest.raises(ValueError, match="it failed"):
        async with beside(works(), fails()):
            await asyncio.sleep(0)
    assert ended == ["works", "works"]


async def test_a_block_that_fails_is_told_and_not_what_failed_beside_it() -> None:
    async def fails() -> None:
        raise ValueError("beside it")

    async def block() -> None:
        async with beside(fails()):
            await asyncio.sleep(0)
            raise KeyError("of the block")

    with pytest.raises(KeyError):
        await block()
