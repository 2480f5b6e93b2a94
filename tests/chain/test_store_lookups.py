"""An id leads to all places where it may stand, newest first, whatever was merged meanwhile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chain.leaves import PackedLeaves
from chain.rocks import Rocks, SteppedWriter
from chain.store_lookups import (
    PIECE_ENTRIES,
    RUN_ENTRIES_MAX,
    Entries,
    LookupKind,
    RecentLookups,
    find,
    find_in_segment,
    id_entries,
    merged,
    read_segment,
    receipt_entries,
    write_segment,
)
from ext.hashing import sha256


def identity(number: int) -> bytes:
    """Few prefixes, so that some are shared."""
    return sha256(bytes([number % 5]))[:8] + sha256(bytes([number]))[:24]


BLOCKS = st.lists(st.lists(st.integers(0, 20), max_size=6), max_size=12)


def entries_of(blocks: list[list[int]]) -> list[Entries]:
    return [
        id_entries(height, LookupKind.PAYLOAD, [identity(number) for number in numbers])
        for height, numbers in enumerate(blocks, 1)
    ]


def expected(blocks: list[list[int]], number: int) -> list[tuple[int, int]]:
    """Newest first: every entry that shares the id's prefix."""
    places = [
        (height, slot)
        for height, numbers in enumerate(blocks, 1)
        for slot, other in enumerate(numbers)
        if other % 5 == number % 5
    ]
    return places[::-1]


@given(BLOCKS)
def test_candidates_come_newest_first(blocks: list[list[int]]) -> None:
    runs = entries_of(blocks)
    recent = RecentLookups()
    for run in runs:
        recent.add(run)
    for number in range(6):
        found = find(merged(runs), identity(number), LookupKind.PAYLOAD)
        assert found == expected(blocks, number)
        assert list(recent.find(identity(number), LookupKind.PAYLOAD)) == found
        assert find(merged(runs), identity(number), LookupKind.ORIGIN) == []


@given(BLOCKS, st.integers(0, 12))
def test_what_is_on_disk_is_forgotten_and_nothing_else(blocks: list[list[int]], cut: int) -> None:
    recent = RecentLookups()
    for run in entries_of(blocks):
        recent.add(run)
    through = recent.through(cut)
    assert set(through["height"].tolist()) == {
        height for height, numbers in enumerate(blocks, 1) if numbers and height <= cut
    }
    recent.forget(cut)
    for number in range(5):
        wanted = [place for place in expected(blocks, number) if place[0] > cut]
        assert list(recent.find(identity(number), LookupKind.PAYLOAD)) == wanted


def test_many_small_runs_become_few() -> None:
    recent = RecentLookups()
    for height in range(1, 200):
        recent.add(id_entries(height, LookupKind.ORIGIN, [sha256(bytes([height]))]))
    assert len(recent._runs) <= 8
    for height in range(1, 200):
        assert list(recent.find(sha256(bytes([height])), LookupKind.ORIGIN)) == [(height, 0)]


def test_no_commit_merges_more_than_the_bound() -> None:
    recent = RecentLookups()
    ids = [sha256(index.to_bytes(4, "big")) for index in range(RUN_ENTRIES_MAX // 3)]
    for height in range(1, 10):
        recent.add(id_entries(height, LookupKind.ORIGIN, ids))
        assert max(len(run.entries) for run in recent._runs) <= RUN_ENTRIES_MAX
    assert list(recent.find(ids[7], LookupKind.ORIGIN)) == [(at, 7) for at in range(9, 0, -1)]


@settings(max_examples=20)
@given(st.integers(1, 3 * PIECE_ENTRIES), st.integers(1, 40))
def test_a_segment_is_found_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, count: int, prefixes: int
) -> None:
    ids = [sha256(bytes([n % prefixes]))[:8] + n.to_bytes(24, "big") for n in range(count)]
    entries = id_entries(7, LookupKind.PAYLOAD, ids)
    rocks = Rocks(tmp_path_factory.mktemp("segment") / "rocks")
    writer = SteppedWriter(rocks)
    other = write_segment(writer, 4, id_entries(3, LookupKind.PAYLOAD, ids[:1]))
    segment = write_segment(writer, 5, entries)
    writer.finish()
    assert (segment.first, segment.last, segment.entries) == (7, 7, count)
    assert np.array_equal(read_segment(rocks, segment), entries)
    for number in range(min(prefixes, count)):
        found = find_in_segment(rocks, segment, ids[number], LookupKind.PAYLOAD)
        assert found == [(7, slot) for slot in range(count) if slot % prefixes == number][::-1]
    assert find_in_segment(rocks, other, ids[0], LookupKind.PAYLOAD) == [(3, 0)]
    assert find_in_segment(rocks, segment, bytes(32), LookupKind.PAYLOAD) == []
    assert find_in_segment(rocks, segment, b"\xff" * 32, LookupKind.PAYLOAD) == []
    rocks.close()


@given(st.lists(st.tuples(st.sampled_from(b"TJ"), st.binary(min_size=8, max_size=40)), max_size=9))
def test_a_receipt_is_found_by_the_id_behind_its_tag(leaves: list[tuple[int, bytes]]) -> None:
    packed = PackedLeaves.from_list(bytes([tag]) + data for tag, data in leaves)
    entries = receipt_entries(4, packed)
    assert len(entries) == len(leaves)
    for slot, (tag, data) in enumerate(leaves):
        kind = LookupKind.TRANSACTION if tag == ord("T") else LookupKind.JOB
        assert (4, slot) in find(entries, data, kind)
