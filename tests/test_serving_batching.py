"""Micro-batching promises: everybody gets their own answer, the guilty fail alone, nobody waits
for ever."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.serving.batching import Closed, Failure, Full, MicroBatcher

PATIENCE = 20.0


def run(coroutine):
    """Run a coroutine; the limit is against hanging only."""
    return asyncio.run(asyncio.wait_for(coroutine, PATIENCE))


async def started(work, **options):
    batcher = MicroBatcher(work, **options)
    await batcher.start()
    return batcher


def doubled(items):
    return [2 * item for item in items]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(), max_size=9), max_size=12),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.002]),
)
def test_each_caller_gets_its_own_results_in_order(requests, most, wait):
    sizes = []

    def work(items):
        sizes.append(len(items))
        return doubled(items)

    async def ask():
        batcher = await started(work, max_batch=most, max_wait=wait, queue=1000)
        found = await asyncio.gather(*[batcher.submit(items) for items in requests])
        await batcher.close()
        return found, batcher.depth

    found, depth = run(ask())
    assert found == [[2 * item for item in items] for items in requests]
    assert sum(sizes) == sum(map(len, requests))
    assert max(sizes, default=0) <= most
    assert depth == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), max_size=5), max_size=8), st.integers(1, 8))
def test_a_poisonous_item_fails_alone(requests, most):
    """Incident: one odd product in a batch of 32 took 31 others with it."""

    def work(items):
        if any(items):
            raise ValueError("the secret text of a product")
        return ["fine"] * len(items)

    async def ask():
        batcher = await started(work, max_batch=most, max_wait=0.001)
        found = await asyncio.gather(*[batcher.submit(items) for items in requests])
        await batcher.close()
        return found

    for poison, result in zip(
        [p for items in requests for p in items],
        [r for one in run(ask()) for r in one],
        strict=True,
    ):
        if poison:
            assert result == Failure("the pricer failed (ValueError)")  # and no text of anybody
        else:
            assert result == "fine"


@pytest.mark.parametrize("wrong", [lambda items: items[1:], lambda items: [*items, 1]])
def test_a_wrong_number_of_results_is_a_failure_and_never_somebody_elses_price(wrong):
    async def ask():
        batcher = await started(wrong, max_wait=0.01)
        found = await batcher.submit([1, 2, 3])
        await batcher.close()
        return found

    assert all("results for 1 products" in one.reason for one in run(ask()))


def test_a_pricer_that_exits_does_not_end_the_thread():
    def work(items):
        if items == [0]:
            raise SystemExit(3)
        return items

    async def ask():
        batcher = await started(work, max_batch=1)
        found = await batcher.submit([0]) + await batcher.submit([5])
        await batcher.close()
        return found

    assert run(ask()) == [Failure("the pricer failed (SystemExit)"), 5]


def test_a_hang_fails_its_batch_and_others_go_on():
    """A pricer that never comes back is left behind, with its thread; the next gets another."""
    released = threading.Event()

    def work(items):
        if "hangs" in items:
            released.wait(PATIENCE)
        return items

    async def ask():
        batcher = await started(work, max_batch=4, max_wait=0.05, patience=0.2)
        found = await batcher.submit(["a", "hangs", "b"])
        after = await batcher.submit(["c"])
        await batcher.close()
        return found, after, batcher.hung

    found, after, hung = run(ask())
    released.set()
    assert found[0] == "a"
    assert found[2].hung  # two hangs, and the rest of the batch was given up
    assert found[1].hung
    assert "did not answer within 0.2 s" in found[1].reason
    assert after == ["c"]
    assert hung == 2


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back():
    gate, seen = threading.Event(), []

    def work(items):
        seen.extend(items)
        gate.wait(PATIENCE)
        return items

    async def ask():
        batcher = await started(work, max_batch=1, max_wait=0, queue=3)
        first = asyncio.ensure_future(batcher.submit([1]))
        while not seen:
            await asyncio.sleep(0.001)
        rest = asyncio.ensure_future(batcher.submit([2, 3, 4]))
        await asyncio.sleep(0)
        with pytest.raises(Full) as full:
            await batcher.submit([5])
        gate.set()
        found = await first + await rest
        await batcher.close()
        return found, full.value.seconds

    found, seconds = run(ask())
    assert found == [1, 2, 3, 4]
    assert seconds > 0


def test_a_request_larger_than_the_queue_gets_its_turn():
    """Incident to be: with a queue of 32, a request of 64 was told to come back, for ever."""

    async def ask():
        batcher = await started(doubled, max_batch=2, queue=2)
        found = await batcher.submit([1, 2, 3])
        await batcher.close()
        return found

    assert run(ask()) == [2, 4, 6]


def test_cancelled_requests_are_skipped_and_their_places_are_free():
    """Incident: clients that had long hung up were still priced, and kept the others out."""
    gate, seen = threading.Event(), []

    def work(items):
        seen.extend(items)
        gate.wait(PATIENCE)
        return items

    async def ask():
        batcher = await started(work, max_batch=2, max_wait=0, queue=4)
        first = asyncio.ensure_future(batcher.submit(["first"]))
        while not seen:
            await asyncio.sleep(0.001)
        gone = asyncio.ensure_future(batcher.submit(["gone"] * 4))
        await asyncio.sleep(0)
        assert batcher.depth == 4
        gone.cancel()
        await asyncio.wait([gone])
        assert batcher.depth == 0
        last = asyncio.ensure_future(batcher.submit(["last"]))
        await asyncio.sleep(0)
        gate.set()
        found = await first + await last
        await batcher.close()
        return found

    assert run(ask()) == ["first", "last"]
    assert "gone" not in seen


def test_closing_finishes_what_was_taken_and_takes_nothing_more():
    gate = threading.Event()

    def work(items):
        gate.wait(PATIENCE)
        return items

    async def ask():
        batcher = await started(work, max_batch=2, max_wait=5.0)
        taken = [asyncio.ensure_future(batcher.submit([n])) for n in range(5)]
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(Closed):
            await batcher.submit([9])
        gate.set()
        await closing
        return [one for task in taken for one in await task]

    assert run(ask()) == [0, 1, 2, 3, 4]


def test_what_cannot_be_finished_while_closing_gets_a_reason():
    released = threading.Event()

    async def ask():
        batcher = await started(lambda items: released.wait(PATIENCE), max_batch=1, max_wait=0)
        taken = [asyncio.ensure_future(batcher.submit([n])) for n in range(3)]
        await asyncio.sleep(0.01)
        await batcher.close(0.05)
        return [one for task in taken for one in await task]

    found = run(ask())
    released.set()
    assert all(isinstance(one, Failure) and "stopped" in one.reason for one in found)


def test_a_busy_batcher_fills_its_batches():
    """While one batch is at work the next one fills by itself: that is where the speed is from."""
    gate, sizes = threading.Semaphore(0), []

    def work(items):
        sizes.append(len(items))
        gate.acquire(timeout=PATIENCE)
        return items

    async def ask():
        batcher = await started(work, max_batch=8, max_wait=0)
        first = asyncio.ensure_future(batcher.submit([0]))
        while not sizes:
            await asyncio.sleep(0.001)
        rest = [asyncio.ensure_future(batcher.submit([n])) for n in range(8)]
        await asyncio.sleep(0)
        gate.release(2)
        await asyncio.gather(first, *rest)
        await batcher.close()

    run(ask())
    assert sizes == [1, 8]
