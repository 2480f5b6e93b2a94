"""Tables, their roots, undo, and what survives a restart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.records import Supply, Verifier
from chain.state import Change, State, StateError, TableNumber
from consensus.wire import encode, layout_of
from ext.hashing import tagged_hash
from ext.ledger import ACCOUNT_ROW_BYTES, AccountTable
from ext.tables import ROWS_MAX, RecordTable, UndoLog
from tests.chain.specification.tables import PlainState

KEYS = [tagged_hash(b"key", bytes([index])) for index in range(8)]
VERIFIER_KEYS = [KEYS[index % 2] + bytes([0, index]) for index in range(8)]
Write = tuple[int, int | None]

writes = st.lists(st.tuples(st.integers(0, 7), st.none() | st.integers(0, 3)), max_size=12)
accounts = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=6)


def a_verifier(since_height: int) -> Verifier:
    return Verifier(since_height=since_height, engine_profile="test")


def write(state: State | PlainState, changes: list[Write], credits: list[Write]) -> None:
    for index, height in changes:
        record = None if height is None else a_verifier(height)
        state.put(state.verifiers, VERIFIER_KEYS[index], record)  # type: ignore[arg-type]
    for index, balance in credits:
        state.accounts.put(KEYS[index], balance or 0, 0, 0, 0)


def apply_journal(rows: dict[tuple[int, bytes], bytes], journal: tuple[Change, ...]) -> None:
    for number, key, value in journal:
        if value is None:
            del rows[number, key]
        else:
            rows[number, key] = value


def restored(state: State) -> State:
    return State.from_rows(reversed(list(state.rows())), state.account_chunks())


@given(st.lists(st.tuples(writes, accounts), max_size=5))
def test_the_root_is_the_specifications_and_journals_rebuild_it(
    blocks: list[tuple[list[Write], list[Write]]],
) -> None:
    state, plain = State(), PlainState()
    rows: dict[tuple[int, bytes], bytes] = {}
    kept = AccountTable(TableNumber.ACCOUNTS)
    for changes, credits in blocks:
        write(state, changes, credits)
        write(plain, changes, credits)
        journal, packed = state.commit()
        plain.end_block()
        assert list(journal) == sorted(journal, key=lambda change: change[:2])
        apply_journal(rows, journal)
        kept.apply(packed)
        assert state.root() == plain.root()
    assert sorted((*key, value) for key, value in rows.items()) == list(state.rows())
    assert kept.root == state.accounts.root
    again = restored(state)
    assert again.root() == state.root()
    # A restored table goes on with the same row numbers as the one that never stopped.
    for twin in (state, again):
        write(twin, [(index, 9) for index in range(8)], [(7, 9)])
    assert again.commit() == state.commit()
    assert again.root() == state.root()


@given(writes, writes, writes, writes, accounts)
def test_rollback_leaves_no_trace(
    before: list[Write],
    kept: list[Write],
    undone: list[Write],
    after: list[Write],
    credits: list[Write],
) -> None:
    plain, tried = State(), State()
    for state in (plain, tried):
        write(state, before, [])
        state.commit()
        write(state, kept, credits[:2])
    savepoint = tried.savepoint()
    write(tried, undone, credits)
    tried.rollback(savepoint)
    assert list(tried.verifiers.scan()) == list(plain.verifiers.scan())
    assert list(tried.verifiers.scan(KEYS[1])) == list(plain.verifiers.scan(KEYS[1]))
    for state in (plain, tried):
        write(state, after, credits[2:])
    assert tried.commit() == plain.commit()
    assert tried.root() == plain.root()


def test_a_write_that_changes_nothing_is_not_in_the_journal() -> None:
    state = State()
    write(state, [(0, 1)], [(0, 1)])
    journal, packed = state.commit()
    assert (len(journal), len(packed)) == (1, ACCOUNT_ROW_BYTES)
    write(state, [(0, 2), (0, 1), (1, 1), (1, None)], [(0, 2), (0, 1)])
    assert state.commit() == ((), b"")


def test_a_row_that_went_gives_its_number_to_the_next_new_one() -> None:
    state = State()
    write(state, [(index, 1) for index in range(4)], [])
    state.commit()
    first = VERIFIER_KEYS[0]
    size = {key: value for _, key, value in state.rows()}
    write(state, [(0, None), (6, 1)], [])
    changes = {key: value for _, key, value in state.commit()[0]}
    assert changes[first] is None
    taken = changes[VERIFIER_KEYS[6]]
    assert taken is not None
    assert taken[:4] == size[first][:4]


def test_a_table_ends_with_its_last_row() -> None:
    """Or else a root would depend on rows that are gone, and a restart could not find it."""
    grown, never = State(), State()
    write(grown, [(index, 1) for index in range(8)], [])
    grown.commit()
    write(grown, [(index, None) for index in range(8)], [])
    grown.commit()
    assert grown.root() == never.root()


def test_the_same_row_in_another_table_gives_another_root() -> None:
    """Tables enter the hashes by number, so no row can pass for one of another table."""
    roots = []
    for number in (TableNumber.MODELS, TableNumber.VERIFIERS):
        table = RecordTable[Verifier](number, layout_of(Verifier), len(KEYS[0]), UndoLog())
        table.put(KEYS[0], a_verifier(1))
        table.commit()
        roots.append(table.root)
    assert roots[0] != roots[1]


def test_scan_gives_keys_of_a_group_in_order() -> None:
    state = State()
    for number in (3, 1, 2):
        key = KEYS[0] + number.to_bytes(2, "big")
        state.put(state.verifiers, key, a_verifier(number))
    state.put(state.verifiers, KEYS[1] + bytes(2), a_verifier(9))
    found = [record.since_height for _, record in state.verifiers.scan(KEYS[0])]
    assert found == [1, 2, 3]
    assert len(list(state.verifiers.scan())) == len(state.verifiers) == 4
    assert list(state.verifiers.scan(KEYS[2])) == []


SUPPLY = bytes(4) + encode(Supply(1, 0, KEYS[0]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((99, KEYS[0], b""), "table 99 is unknown"),
        ((1, KEYS[0], bytes(36)), "table 1 is unknown"),
        ((8, b"no", SUPPLY), "bad or repeated key"),
        ((8, b"", SUPPLY[:9]), "table SUPPLY"),
        ((8, b"", b"\x00"), "bad or repeated row number"),
        ((8, b"", ROWS_MAX.to_bytes(4, "little") + SUPPLY[4:]), "bad or repeated row number"),
    ],
)
def test_rows_that_are_not_ours_are_refused(row: tuple[int, bytes, bytes], message: str) -> None:
    with pytest.raises(StateError, match=message):
        State.from_rows([row], [])


def test_a_row_or_a_number_stored_twice_is_refused() -> None:
    row = (8, b"", SUPPLY)
    with pytest.raises(StateError, match="repeated key"):
        State.from_rows([row, row], [])
    value = bytes(4) + encode(a_verifier(1))
    with pytest.raises(StateError, match="repeated row number"):
        State.from_rows([(5, key, value) for key in VERIFIER_KEYS[:2]], [])


def test_account_chunks_that_are_not_ours_are_refused() -> None:
    for chunk in (b"short", (7).to_bytes(4, "little") + KEYS[0] + bytes(32)):
        with pytest.raises(StateError, match="table ACCOUNTS"):
            State.from_rows([], [chunk])
