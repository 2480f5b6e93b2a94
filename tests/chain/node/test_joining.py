"""Which snapshot a node takes, and from whom: never one that blocks can replace."""

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.v1 import peer_pb2
from chain.node.joining import CHUNK_CALLS, Offered, Offers, _Download, choose
from chain.snapshot_anchor import Anchor
from chain.state_snapshots import CHUNK_BYTES, STATE_FILE_NAME, Manifest
from consensus.values import Certificate
from ext.hashing import sha256
from tests.builders import genesis

VALIDATORS = genesis().validator_set()
BEHIND = 100
KEPT = Offers(1, ())


def offered(height: int, content: int = 1) -> Offered:
    return Offered(height, bytes((content,)) * 32, 1_000)


def test_far_behind_is_so_many_blocks_or_that_more_than_a_third_forgot_the_next() -> None:
    near, far = offered(50), offered(150)
    kept = {peer: Offers(1, (near, far)) for peer in (0, 1)}
    assert choose(kept, 49, VALIDATORS, BEHIND) == (far, [0, 1])
    assert choose(kept, 51, VALIDATORS, BEHIND) is None
    one_forgot = {0: Offers(60, (near,)), 1: KEPT}
    assert choose(one_forgot, 20, VALIDATORS, BEHIND) is None
    two_forgot = {0: Offers(60, (near,)), 1: Offers(40, ())}
    assert choose(two_forgot, 20, VALIDATORS, BEHIND) == (near, [0])
    assert choose(two_forgot, 50, VALIDATORS, BEHIND) is None


def test_what_more_than_a_third_offer_alike_goes_before_what_is_newer() -> None:
    honest, alone = offered(200, 1), offered(900, 2)
    offers = {0: Offers(1, (honest,)), 1: Offers(1, (honest,)), 2: Offers(1, (alone,))}
    assert choose(offers, 0, VALIDATORS, BEHIND) == (honest, [0, 1])
    del offers[1]
    assert choose(offers, 0, VALIDATORS, BEHIND) == (alone, [2])


def test_what_was_begun_is_gone_on_with() -> None:
    old, new = offered(200, 1), offered(300, 2)
    offers = {peer: Offers(1, (old, new)) for peer in (0, 1, 2)}
    assert choose(offers, 0, VALIDATORS, BEHIND) == (new, [0, 1, 2])
    assert choose(offers, 0, VALIDATORS, BEHIND, old.content) == (old, [0, 1, 2])
    assert choose(offers, 150, VALIDATORS, BEHIND, old.content) == (new, [0, 1, 2])


def test_one_validator_that_offers_what_it_does_not_give_is_not_asked_for_ever() -> None:
    lie, honest = offered(900, 1), offered(200, 2)
    alone = {0: Offers(1, (lie,)), 1: Offers(1, (honest,)), 2: KEPT}
    assert choose(alone, 0, VALIDATORS, BEHIND) == (lie, [0])
    assert choose(alone, 0, VALIDATORS, BEHIND, lie.content) == (lie, [0])
    assert choose(alone, 0, VALIDATORS, BEHIND, lie.content, {lie.content}) == (honest, [1])
    backed = {**alone, 2: Offers(1, (honest,))}
    assert choose(backed, 0, VALIDATORS, BEHIND, lie.content) == (honest, [1, 2])
    only = {0: Offers(1, (lie,))}
    assert choose(only, 0, VALIDATORS, BEHIND, None, {lie.content}) == (lie, [0])


def test_what_a_third_offers_is_gone_on_with_although_it_could_not_be_had_once() -> None:
    old, new = offered(200, 1), offered(300, 2)
    offers = {peer: Offers(1, (old, new)) for peer in (0, 1, 2)}
    chosen = choose(offers, 0, VALIDATORS, BEHIND, old.content, {old.content})
    assert chosen == (old, [0, 1, 2])


class Giver:
    """Gives chunks of a state of zeros, at once or not at all."""

    def __init__(self, gives: bool) -> None:
        self.gives = gives
        self.asked = 0

    async def Chunk(  # noqa: N802
        self, request: peer_pb2.SnapshotRequest, timeout: float
    ) -> peer_pb2.SnapshotData:
        self.asked += 1
        if not self.gives:
            await asyncio.Event().wait()
        return peer_pb2.SnapshotData(data=bytes(CHUNK_BYTES))


async def test_a_peer_that_is_slow_holds_up_one_call_and_not_all(tmp_path: Path) -> None:
    chunks = 40
    digest = sha256(bytes(CHUNK_BYTES))
    size = chunks * CHUNK_BYTES
    anchor = Anchor(bytes(32), bytes(32), (), (), Certificate.__new__(Certificate))
    manifest = Manifest(1, "", bytes(32), 1, size, (digest,) * chunks, anchor)
    download = _Download(genesis(), tmp_path, Offered(1, bytes(32), size), {}, ())
    givers = {0: Giver(gives=False), 1: Giver(gives=True), 2: Giver(gives=True)}
    download._stubs = cast(Any, givers)
    (tmp_path / STATE_FILE_NAME).touch()
    left = list(range(chunks))

    async def work() -> None:
        while left:
            await download._chunk(manifest, left.pop())

    workers = [asyncio.create_task(work()) for _ in range(CHUNK_CALLS)]
    async with asyncio.timeout(60):
        while left or sum(not worker.done() for worker in workers) > 1:
            await asyncio.sleep(0.01)
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    assert givers[0].asked == 1
    assert givers[1].asked + givers[2].asked == chunks - 1


@pytest.mark.parametrize("offers", [{}, {0: KEPT, 1: KEPT}])
def test_without_an_offer_there_is_nothing_to_take(offers: dict[int, Offers]) -> None:
    assert choose(offers, 0, VALIDATORS, BEHIND) is None


@given(
    offers=st.dictionaries(
        st.integers(0, 3),
        st.builds(
            Offers,
            st.integers(1, 400),
            st.lists(st.builds(offered, st.integers(1, 400), st.integers(0, 3)), max_size=2).map(
                tuple
            ),
        ),
    ),
    final_height=st.integers(0, 400),
)
def test_what_is_taken_is_ahead_and_those_who_are_asked_have_it(
    offers: dict[int, Offers], final_height: int
) -> None:
    chosen = choose(offers, final_height, VALIDATORS, BEHIND)
    if chosen is not None:
        snapshot, peers = chosen
        assert snapshot.height > final_height
        assert peers == [peer for peer in sorted(offers) if snapshot in offers[peer].snapshots]
        assert peers
