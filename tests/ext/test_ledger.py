"""The account table and the window of ids against plain dictionaries."""

import os
import struct
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ext import merkle
from ext.ledger import ACCOUNT_ROW_BYTES, AccountTable, IdWindow, TableFullError

TABLE_NUMBER = 1
U64_MAX = (1 << 64) - 1
ZEROS = (0, 0, 0, 0)

Amounts = tuple[int, int, int, int]


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "little")


def amounts_of(amounts: Amounts) -> bytes:
    return struct.pack("<4Q", *amounts)


def leaf_of(key: bytes, amounts: Amounts, table_number: int = TABLE_NUMBER) -> bytes:
    return merkle.leaf_hash(bytes([table_number]) + key + amounts_of(amounts))


def packed_row(number: int, key: bytes, amounts: Amounts) -> bytes:
    return struct.pack("<I", number) + key + amounts_of(amounts)


def canonical(amounts: Amounts) -> Amounts:
    """An account without money is all zeros."""
    return amounts if any(amounts[:3]) else ZEROS


# Few keys, so that rows are met again; few amounts, so that some changes change nothing.
keys = st.integers(0, 40).map(key_of)
numbers = st.one_of(st.integers(0, 2), st.integers(0, U64_MAX))
all_amounts = st.tuples(numbers, numbers, numbers, numbers)


class AccountTableModel(RuleBasedStateMachine):
    """Random puts, savepoints, rollbacks and commits, beside a dictionary in insertion order."""

    def __init__(self) -> None:
        super().__init__()
        self.table = AccountTable(TABLE_NUMBER)
        self.rows: dict[bytes, Amounts] = {}
        self.committed: dict[bytes, Amounts] = {}
        self.savepoints: list[tuple[int, dict[bytes, Amounts]]] = []
        self.follower = AccountTable(TABLE_NUMBER)
        """A node that only reads journals."""

    @rule(key=keys, amounts=all_amounts)
    def put(self, key: bytes, amounts: Amounts) -> None:
        self.table.put(key, *amounts)
        if key in self.rows or any(amounts[:3]):
            self.rows[key] = canonical(amounts)

    @rule()
    def save(self) -> None:
        self.savepoints.append((self.table.savepoint(), dict(self.rows)))

    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        if not self.savepoints:
            self.table.rollback(0)
            self.rows = dict(self.committed)
            return
        place = data.draw(st.integers(0, len(self.savepoints) - 1))
        savepoint, rows = self.savepoints[place]
        del self.savepoints[place + 1 :]
        self.table.rollback(savepoint)
        self.rows = dict(rows)

    @rule()
    def commit(self) -> None:
        packed = self.table.commit()
        assert packed == b"".join(
            packed_row(number, key, amounts)
            for number, (key, amounts) in enumerate(self.rows.items())
            if self.committed.get(key) != amounts
        )
        self.follower.apply(packed)
        self.committed = dict(self.rows)
        self.savepoints.clear()
        assert self.follower.root == self.table.root
        assert self.follower.pack(0, len(self.rows)) == self.table.pack(0, len(self.rows))

    @rule(key=keys)
    def look_up(self, key: bytes) -> None:
        assert self.table.get(key) == self.rows.get(key)
        number = list(self.rows).index(key) if key in self.rows else None
        assert self.table.number(key) == number

    @rule(data=st.data())
    def prove(self, data: st.DataObject) -> None:
        leaves = [leaf_of(key, amounts) for key, amounts in self.committed.items()]
        number = data.draw(st.integers(0, len(leaves)))
        if number == len(leaves):
            with pytest.raises(IndexError):
                self.table.proof(number)
        else:
            assert self.table.proof(number) == merkle.proof(leaves, number)

    @invariant()
    def rows_and_root_are_the_models(self) -> None:
        assert len(self.table) == len(self.rows)
        for number, (key, amounts) in enumerate(self.rows.items()):
            assert self.table.row(number) == (key, *amounts)
        leaves = [leaf_of(key, amounts) for key, amounts in self.committed.items()]
        assert self.table.root == merkle.root(leaves)
        unbonding = [key for key, amounts in self.rows.items() if amounts[2]]
        assert self.table.unbonding_keys() == unbonding


TestAccountTable = AccountTableModel.TestCase
TestAccountTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_many_rows_grow_the_table_and_keep_their_numbers_and_root() -> None:
    table = AccountTable(7)
    expected: list[tuple[bytes, Amounts]] = []
    for number in range(3_000):
        key = merkle.leaf_hash(struct.pack("<I", number))
        expected.append((key, (number + 1, 2 * number, number % 3, number % 3)))
        table.put(key, *expected[-1][1])
        if number % 700 == 0:
            table.commit()
    table.commit()
    for number in range(0, 3_000, 7):
        key, (balance, *rest) = expected[number]
        expected[number] = (key, (balance + 5, rest[0], rest[1], rest[2]))
        table.put(key, *expected[number][1])
    assert len(table.commit()) == ACCOUNT_ROW_BYTES * len(range(0, 3_000, 7))
    leaves = [leaf_of(key, amounts, 7) for key, amounts in expected]
    assert table.root == merkle.root(leaves)
    assert [table.number(key) for key, _ in expected] == list(range(3_000))
    assert merkle.verify_proof(leaves[2_999], 2_999, 3_000, table.proof(2_999), table.root)


def test_two_tables_agree_though_their_hash_seeds_differ() -> None:
    tables = [AccountTable(TABLE_NUMBER) for _ in range(2)]
    for table in tables:
        for number in range(500):
            table.put(key_of(number * 7919), number + 1, 0, 0, 0)
    assert tables[0].commit() == tables[1].commit()
    assert tables[0].root == tables[1].root


def test_a_table_restored_from_chunks_is_the_one_that_was_packed() -> None:
    table = AccountTable(TABLE_NUMBER)
    for number in range(1_000):
        table.put(key_of(number), number + 1, number, number, number)
    table.put(key_of(3), 0, 0, 0, 9)
    table.commit()
    restored = AccountTable(TABLE_NUMBER)
    for start in range(0, 1_000, 300):
        restored.load(table.pack(start, 300))
    assert restored.root == table.root
    assert restored.commit() == b""
    assert restored.pack(0, 2_000) == table.pack(0, 2_000)
    assert table.pack(1_000, 5) == table.pack(5_000, 5) == b""
    for each in (table, restored):
        each.put(key_of(10_000), 1, 1, 1, 1)
        each.put(key_of(5), 1, 1, 1, 1)
    assert restored.commit() == table.commit()
    assert restored.root == table.root


ONE = packed_row(0, key_of(1), (1, 2, 3, 4))
TWO = packed_row(1, key_of(2), (5, 0, 0, 0))


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (ONE[:-1], "67 bytes are not rows of 68"),
        (TWO, "packed row 0: its number leaves a gap"),
        (ONE + ONE, "packed row 1: its number does not rise"),
        (ONE + packed_row(1, key_of(1), (1, 0, 0, 0)), "packed row 1: its key has a row already"),
        (ONE + packed_row(2, key_of(2), (1, 0, 0, 0)), "packed row 1: its number leaves a gap"),
        (ONE + packed_row(1, key_of(2), (0, 0, 0, 1)), "packed row 1: an account without money"),
        (ONE + packed_row(0xFFFFFFFF, key_of(2), (1, 0, 0, 0)), "packed row 1: its number leaves"),
    ],
)
@pytest.mark.parametrize("method", ["load", "apply"])
def test_packed_rows_that_no_table_wrote_are_refused_whole(
    method: str, packed: bytes, message: str
) -> None:
    table = AccountTable(TABLE_NUMBER)
    with pytest.raises(ValueError, match=message):
        getattr(table, method)(packed)
    assert len(table) == 0
    assert table.root == merkle.root([])
    getattr(table, method)(ONE + TWO)
    assert table.get(key_of(2)) == (5, 0, 0, 0)


def test_replay_refuses_another_key_for_a_known_number_and_load_any_known_number() -> None:
    table = AccountTable(TABLE_NUMBER)
    table.load(ONE + TWO)
    root = table.root
    with pytest.raises(ValueError, match="its number belongs to another key"):
        table.apply(packed_row(0, key_of(1), (9, 9, 9, 9)) + packed_row(1, key_of(3), (1, 0, 0, 0)))
    with pytest.raises(ValueError, match="leaves a gap, or is not new"):
        table.load(TWO)
    assert (table.root, table.get(key_of(1))) == (root, (1, 2, 3, 4))
    table.apply(packed_row(1, key_of(2), ZEROS))
    assert table.root == merkle.root([leaf_of(key_of(1), (1, 2, 3, 4)), leaf_of(key_of(2), ZEROS)])


def test_packed_rows_are_not_mixed_into_changes_under_way() -> None:
    table = AccountTable(TABLE_NUMBER)
    table.put(key_of(1), 1, 0, 0, 0)
    for method in (table.load, table.apply):
        with pytest.raises(ValueError, match="changes stand uncommitted"):
            method(ONE)
    table.rollback(0)
    table.load(ONE)
    assert len(table) == 1


def test_a_full_table_says_so_and_stays_usable() -> None:
    table = AccountTable(TABLE_NUMBER, rows_max=2)
    table.load(ONE + TWO)
    with pytest.raises(TableFullError, match="as many rows as it may"):
        table.put(key_of(3), 1, 0, 0, 0)
    table.put(key_of(2), 6, 0, 0, 0)
    assert table.commit() == packed_row(1, key_of(2), (6, 0, 0, 0))
    with pytest.raises(TableFullError):
        table.apply(packed_row(2, key_of(3), (1, 0, 0, 0)))
    assert len(table) == 2


def test_what_cannot_be_a_key_an_amount_or_a_place_is_an_error() -> None:
    table = AccountTable(TABLE_NUMBER)
    table.put(key_of(1), U64_MAX, U64_MAX, U64_MAX, U64_MAX)
    for key in (b"", bytes(31), bytes(33), None, "x" * 32):
        with pytest.raises(ValueError, match="a key must be 32 bytes"):
            table.get(key)  # type: ignore[arg-type]
    for amount in (-1, 1 << 64):
        with pytest.raises(OverflowError):
            table.put(key_of(1), amount, 0, 0, 0)
    for number in (-1, 1, 1 << 70):
        with pytest.raises(IndexError):
            table.row(number)
    with pytest.raises(IndexError):
        table.proof(0)
    for savepoint in (-1, 2, 1 << 70):
        with pytest.raises(ValueError, match="lies ahead"):
            table.rollback(savepoint)
    for start, count in ((-1, 1), (0, -1)):
        with pytest.raises(ValueError, match="at least 0"):
            table.pack(start, count)
    for number, rows_max in ((-1, 1), (256, 1), (1, 0), (1, (1 << 31) + 1)):
        with pytest.raises(ValueError, match=r"table number|rows_max"):
            AccountTable(number, rows_max)
    assert table.get(key_of(1)) == (U64_MAX, U64_MAX, U64_MAX, U64_MAX)


def test_a_root_does_not_move_before_the_commit() -> None:
    table = AccountTable(TABLE_NUMBER)
    table.put(key_of(1), 1, 0, 0, 0)
    assert table.root == merkle.root([])
    table.commit()
    root = table.root
    table.put(key_of(2), 1, 0, 0, 0)
    assert table.root == root
    table.rollback(0)
    assert (table.commit(), table.root) == (b"", root)


ROOT_OF_MANY = """
from ext.ledger import AccountTable
table = AccountTable(1)
for number in range(777):
    table.put(number.to_bytes(32, "big"), number + 1, 0, 0, 0)
    if number % 50 == 0:
        table.commit()
table.commit()
print(table.root.hex())
"""


def test_the_root_is_the_same_with_and_without_the_processors_sha_instructions() -> None:
    roots = {
        subprocess.run(
            [sys.executable, "-c", ROOT_OF_MANY],
            env=os.environ | {"ASSAY_SHA256": path},
            capture_output=True,
            check=True,
            text=True,
            timeout=240,
        ).stdout
        for path in ("fastest", "portable")
    }
    leaves = [leaf_of(number.to_bytes(32, "big"), (number + 1, 0, 0, 0)) for number in range(777)]
    assert roots == {merkle.root(leaves).hex() + "\n"}


def test_two_threads_may_call_one_table() -> None:
    table = AccountTable(TABLE_NUMBER)

    def write(offset: int) -> None:
        for number in range(2_000):
            table.put(key_of(offset + number), 1, 0, 0, 0)
            table.get(key_of(number))
            if number % 500 == 0:
                table.commit()

    threads = [threading.Thread(target=write, args=(10_000 * place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table.commit()
    rows = [table.row(number) for number in range(len(table))]
    assert len({row[0] for row in rows}) == len(rows) == 6_000
    assert table.root == merkle.root([leaf_of(row[0], row[1:]) for row in rows])


ids = st.integers(0, 300).map(key_of)


class IdWindowModel(RuleBasedStateMachine):
    """Random additions and drops, beside a dictionary from id to (height, leaf)."""

    BLOCKS = 8

    def __init__(self) -> None:
        super().__init__()
        self.window = IdWindow(self.BLOCKS)
        self.places: dict[bytes, tuple[int, int]] = {}
        self.height = 1

    def accepts(self, height: int) -> bool:
        heights = [place[0] for place in self.places.values()]
        return not heights or max(heights) <= height <= min(heights) + self.BLOCKS

    @rule(id=ids, leaf=st.integers(0, (1 << 32) - 1), step=st.sampled_from([0, 0, 0, 1, -1, 9]))
    def add(self, id: bytes, leaf: int, step: int) -> None:
        height = max(self.height + step, 0)
        if id in self.places or not self.accepts(height):
            with pytest.raises(ValueError, match=r"an id is there|higher height|too far above"):
                self.window.add(id, height, leaf)
        else:
            self.window.add(id, height, leaf)
            self.places[id] = (height, leaf)
            self.height = height

    @rule(many=st.lists(ids, max_size=80), given_leaves=st.booleans())
    def load(self, many: list[bytes], given_leaves: bool) -> None:
        numbers = [3 * place for place in range(len(many))] if given_leaves else range(len(many))
        leaves = struct.pack(f"<{len(many)}I", *numbers) if given_leaves else None
        fresh = len({*many, *self.places}) == len(many) + len(self.places)
        if fresh and self.accepts(self.height):
            self.window.load(self.height, b"".join(many), leaves)
            self.places |= {id: (self.height, leaf) for id, leaf in zip(many, numbers, strict=True)}
        else:
            with pytest.raises(ValueError, match=r"an id is there|higher height|too far above"):
                self.window.load(self.height, b"".join(many), leaves)

    @rule(back=st.integers(0, 4))
    def drop(self, back: int) -> None:
        height = max(self.height - back, 0)
        self.window.drop_through(height)
        self.places = {id: place for id, place in self.places.items() if place[0] > height}

    @rule()
    def next_height(self) -> None:
        self.height += 1

    @rule(id=ids)
    def look_up(self, id: bytes) -> None:
        assert self.window.locate(id) == self.places.get(id)
        assert (id in self.window) == (id in self.places)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert len(self.window) == len(self.places)
        heights = sorted({place[0] for place in self.places.values()})
        assert self.window.heights() == heights
        for height in [*heights, self.height + 1]:
            here = {id: place[1] for id, place in self.places.items() if place[0] == height}
            assert self.window.ids_at(height) == b"".join(here)
            assert self.window.leaves_at(height) == struct.pack(f"<{len(here)}I", *here.values())


TestIdWindow = IdWindowModel.TestCase
TestIdWindow.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_window_that_turns_for_long_still_finds_every_id() -> None:
    window = IdWindow(4)
    for height in range(1, 200):
        first = 37 * height
        for number in range(first, first + 37):
            window.add(key_of(number), height, number - first)
        window.drop_through(height - 3)  # below 0 at first
        held = 37 * min(height, 3)
        assert len(window) == held
        for number in range(first + 37 - held, first + 37):
            assert window.locate(key_of(number)) == divmod(number, 37)
        assert key_of(first + 36 - held) not in window


def test_what_cannot_be_an_id_or_a_window_is_an_error() -> None:
    window = IdWindow(256)
    assert window.blocks == 256
    window.add(key_of(1), 5, 0)
    for id in (b"", bytes(31), bytes(33)):
        for call in (window.locate, window.__contains__, lambda id: window.add(id, 5, 0)):
            with pytest.raises(ValueError, match="an id must be 32 bytes"):
                call(id)
    with pytest.raises(ValueError, match="33 bytes are not ids of 32"):
        window.load(5, bytes(33))
    with pytest.raises(ValueError, match="3 bytes of leaf indices for 1 ids"):
        window.load(5, key_of(2), bytes(3))
    for blocks in (0, -1, 65_537):
        with pytest.raises(ValueError, match="allowed are 1 to 65536"):
            IdWindow(blocks)
    assert window.heights() == [5]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=40), st.data())
def test_packed_leaves_have_the_root_and_proofs_of_their_list(
    leaves: list[bytes], data: st.DataObject
) -> None:
    joined, ends, length = b"".join(leaves), b"", 0
    for leaf in leaves:
        length += len(leaf)
        ends += struct.pack("<I", length)
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    assert merkle.packed_root(joined, ends) == merkle.root(hashes)
    for index in range(len(leaves)):
        assert merkle.packed_proof(joined, ends, index) == merkle.proof(hashes, index)
    for wrong_data, wrong_ends in ((joined + b"x", ends), (joined, ends + b"\0")):
        with pytest.raises(ValueError, match="do not rise"):
            merkle.packed_root(wrong_data, wrong_ends)
    with pytest.raises(IndexError):
        merkle.packed_proof(joined, ends, len(leaves))
    if leaves:
        place = data.draw(st.integers(0, len(leaves) - 1))
        damaged = ends[: 4 * place] + b"\xff\xff\xff\xff" + ends[4 * place + 4 :]
        with pytest.raises(ValueError, match="do not rise"):
            merkle.packed_root(joined, damaged)
