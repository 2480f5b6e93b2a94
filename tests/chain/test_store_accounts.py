"""Journals of account rows and the pages they become."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.store_accounts import PAGE_ROWS, ROW, merge_changes, split_into_pages, update_page


def packed(rows: dict[int, int]) -> bytes:
    """Rows by number, rising, told apart by a content."""
    return b"".join(
        number.to_bytes(4, "little") + rows[number].to_bytes(64, "little")
        for number in sorted(rows)
    )


def unpacked(data: bytes) -> dict[int, int]:
    return {
        int(row["number"]): int.from_bytes(row["content"].tobytes(), "little")
        for row in np.frombuffer(data, ROW)
    }


JOURNALS = st.lists(
    st.dictionaries(st.integers(0, 3 * PAGE_ROWS), st.integers(0, 9), max_size=20), max_size=8
)


@given(JOURNALS)
def test_of_each_row_the_newest_content_stays(journals: list[dict[int, int]]) -> None:
    expected: dict[int, int] = {}
    for journal in journals:
        expected |= journal
    merged = merge_changes(b"".join(packed(journal) for journal in journals))
    assert unpacked(merged.tobytes()) == expected
    assert merged["number"].tolist() == sorted(expected)
    pages = dict(split_into_pages(merged))
    assert sorted(pages) == sorted({number // PAGE_ROWS for number in expected})
    for page, rows in pages.items():
        assert set(rows["number"] // PAGE_ROWS) == {page}
    assert sum(len(rows) for rows in pages.values()) == len(expected)


@given(st.integers(0, 40), st.integers(0, 10), st.sets(st.integers(0, 39)), st.integers(0, 2))
def test_a_page_takes_changes_and_new_rows(
    old: int, new: int, changed: set[int], page: int
) -> None:
    first = page * PAGE_ROWS
    before = {first + place: 1 for place in range(old)}
    changes = {first + place: 2 for place in changed if place < old}
    changes |= {first + old + place: 3 for place in range(new)}
    if changes:
        after = update_page(page, packed(before), merge_changes(packed(changes)))
        assert unpacked(after) == before | changes


@pytest.mark.parametrize(("old", "row"), [(0, 1), (3, 4), (3, 5), (0, PAGE_ROWS - 1)])
@pytest.mark.parametrize("page", [0, 1])
def test_a_gap_between_rows_is_told(page: int, old: int, row: int) -> None:
    first = page * PAGE_ROWS
    before = packed({first + place: 1 for place in range(old)})
    with pytest.raises(ValueError, match=f"account rows of page {page} have gaps"):
        update_page(page, before, merge_changes(packed({first + row: 1})))


def test_rows_of_a_bad_length_are_told() -> None:
    with pytest.raises(ValueError, match="multiple"):
        merge_changes(packed({0: 1}) + b"half a row")
