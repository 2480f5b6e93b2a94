"""Tables, their roots, undo, and what survives a restart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.records import Account, Verifier
from chain.state import Change, State, StateError, TableNumber
from consensus.wire import encode
from ext import merkle
from ext.hashing import tagged_hash

KEYS = [tagged_hash(b"key", bytes([index])) for index in range(8)]


def an_account(balance: int) -> Account:
    return Account(balance=balance, stake=0, unbonding=0, unbonding_until_ms=0)


def root_by_the_book(state: State) -> bytes:
    """The state root spelled out from the rows alone."""
    tables: dict[int, list[bytes]] = {number: [] for number in TableNumber}
    for number, key, value in sorted(state.rows()):
        row = tagged_hash(b"row", bytes([number]), key, value)
        tables[number].append(merkle.leaf_hash(row))
    return merkle.root(
        [
            merkle.leaf_hash(tagged_hash(b"table", bytes([number]), merkle.root(tables[number])))
            for number in sorted(tables)
        ]
    )


writes = st.lists(st.tuples(st.sampled_from(KEYS), st.none() | st.integers(0, 3)), max_size=12)


def write(state: State, changes: list[tuple[bytes, int | None]]) -> None:
    for key, balance in changes:
        state.put(state.accounts, key, None if balance is None else an_account(balance))


def apply_journal(rows: dict[tuple[int, bytes], bytes], journal: tuple[Change, ...]) -> None:
    for number, key, value in journal:
        if value is None:
            del rows[number, key]
        else:
            rows[number, key] = value


@given(st.lists(writes, max_size=4))
def test_the_root_is_the_tree_over_all_rows_and_journals_rebuild_them(
    blocks: list[list[tuple[bytes, int | None]]],
) -> None:
    state = State()
    rows: dict[tuple[int, bytes], bytes] = {}
    for changes in blocks:
        write(state, changes)
        journal = state.commit()
        assert list(journal) == sorted(journal, key=lambda change: change[:2])
        apply_journal(rows, journal)
        assert state.root() == root_by_the_book(state)
    assert sorted((*key, value) for key, value in rows.items()) == list(state.rows())
    assert State.from_rows(reversed(list(state.rows()))).root() == state.root()


@given(writes, writes, writes, writes)
def test_rollback_leaves_no_trace(
    before: list[tuple[bytes, int | None]],
    kept: list[tuple[bytes, int | None]],
    undone: list[tuple[bytes, int | None]],
    after: list[tuple[bytes, int | None]],
) -> None:
    plain, tried = State(), State()
    for state in (plain, tried):
        write(state, before)
        state.commit()
        write(state, kept)
    savepoint = tried.savepoint()
    write(tried, undone)
    tried.rollback(savepoint)
    assert list(tried.accounts.scan()) == list(plain.accounts.scan())
    for state in (plain, tried):
        write(state, after)
    assert tried.commit() == plain.commit()
    assert tried.root() == plain.root()


def test_a_write_that_changes_nothing_is_not_in_the_journal() -> None:
    state = State()
    state.put(state.accounts, KEYS[0], an_account(1))
    assert len(state.commit()) == 1
    state.put(state.accounts, KEYS[0], an_account(2))
    state.put(state.accounts, KEYS[0], an_account(1))
    state.put(state.accounts, KEYS[1], an_account(1))
    state.put(state.accounts, KEYS[1], None)
    assert state.commit() == ()


def test_the_same_row_in_another_table_gives_another_root() -> None:
    """Tables enter the hashes by number, so no row can pass for one of another table."""
    roots = []
    for name in ("accounts", "models"):
        state = State()
        table = getattr(state, name)
        state.put(table, KEYS[0], Verifier(since_height=1, engine_profile="exact"))
        state.commit()
        roots.append(table.root)
    assert roots[0] != roots[1]


def test_scan_gives_keys_of_a_prefix_in_order() -> None:
    state = State()
    for number in (3, 1, 2):
        key = KEYS[0] + number.to_bytes(2, "big")
        state.put(state.verifiers, key, Verifier(since_height=number, engine_profile="exact"))
    state.put(state.verifiers, KEYS[1] + bytes(2), Verifier(since_height=9, engine_profile="exact"))
    found = [record.since_height for _, record in state.verifiers.scan(KEYS[0])]
    assert found == [1, 2, 3]
    assert len(state.verifiers) == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((99, KEYS[0], b""), "table 99 is unknown"),
        ((1, b"short", encode(an_account(1))), "bad or repeated key"),
        ((1, KEYS[0], b"\x00"), "table ACCOUNTS"),
    ],
)
def test_rows_that_are_not_ours_are_refused(row: tuple[int, bytes, bytes], message: str) -> None:
    with pytest.raises(StateError, match=message):
        State.from_rows([row])


def test_a_row_stored_twice_is_refused() -> None:
    row = (1, KEYS[0], encode(an_account(1)))
    with pytest.raises(StateError, match="repeated"):
        State.from_rows([row, row])
