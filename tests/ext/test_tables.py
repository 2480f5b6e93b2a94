"""Tables of records: what `State` does not ask of them. Its own tests have the rest."""

import pytest

from ext.packing import unsigned
from ext.tables import RecordTable, UndoLog

KEYS = [bytes([group, item]) for group in range(2) for item in range(2)]


def a_table(undo: UndoLog, **options: bool) -> RecordTable[int]:
    return RecordTable(7, unsigned(2), 2, undo, group_bytes=1, **options)


def test_keys_are_found_by_what_they_begin_or_end_with() -> None:
    table = a_table(UndoLog(), with_suffixes=True)
    for key in reversed(KEYS):
        table.put(key, key[0])
    table.put(KEYS[1], None)
    assert list(table.scan(KEYS[0][:1])) == [(KEYS[0], 0)]
    assert list(table.ending(KEYS[2][1:])) == [(KEYS[0], 0), (KEYS[2], 1)]
    assert list(table.ending(KEYS[3][1:])) == [(KEYS[3], 1)]
    with pytest.raises(TypeError, match="table 7"):
        list(a_table(UndoLog()).ending(b"\0"))


def test_tables_that_share_a_log_are_undone_together_newest_first() -> None:
    undo = UndoLog()
    first, second = a_table(undo), a_table(undo)
    first.put(KEYS[0], 1)
    kept = len(undo)
    second.put(KEYS[0], 2)
    first.put(KEYS[0], 3)
    first.put(KEYS[0], 4)
    undo.rollback(kept)
    assert (first.get(KEYS[0]), second.get(KEYS[0]), len(undo)) == (1, None, kept)
    assert second.commit() == []
    assert [key for _, key, _ in first.commit()] == [KEYS[0]]
    with pytest.raises(ValueError, match="-1 changes"):
        undo.rollback(-1)


def test_a_commit_tells_which_records_are_new_or_another() -> None:
    table = a_table(UndoLog())
    for key in reversed(KEYS):
        table.put(key, 1)
    table.commit()
    assert table.changed == [(key, 1) for key in KEYS]
    table.put(KEYS[0], 2)
    table.put(KEYS[1], 1)
    table.put(KEYS[2], None)
    assert [value for _, _, value in table.commit()] == [b"\0\0\0\0\2\0", None]
    assert table.changed == [(KEYS[0], 2)]


def test_a_record_that_its_layout_refuses_is_no_row() -> None:
    table = a_table(UndoLog())
    table.put(KEYS[0], 1 << 16)
    with pytest.raises(ValueError, match="does not fit 2 bytes"):
        table.commit()
    with pytest.raises(ValueError, match="groups of 3 bytes in keys of 2"):
        RecordTable(7, unsigned(2), 2, UndoLog(), group_bytes=3)
