"""Account rows and the window of included ids. See ledger.pyi for the contract."""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ext.sha256 cimport assay_sha256_select

KEY_BYTES = 32
ACCOUNT_ROW_BYTES = 68
ROWS_MAX = 1 << 31
WINDOW_BLOCKS_MAX = 65536

assay_sha256_select()

# By assay_ledger_status.
EXPLANATIONS = (
    None,
    "there is no memory",
    "the table holds as many rows as it may",
    "changes stand uncommitted: commit or roll back first",
    "its number leaves a gap, or is not new",
    "its number does not rise",
    "its number belongs to another key",
    "its key has a row already",
    "an account without money must be zeros",
    "ids of a higher height are there already",
    "its height is too far above the oldest: drop_through first",
    "an id is there already",
)


class TableFullError(Exception):
    pass


cdef object refused(assay_ledger_status status, object where):
    """The exception for a status that is not OK."""
    if status == ASSAY_LEDGER_NO_MEMORY:
        return MemoryError(f"{where}: {EXPLANATIONS[<int>status]}")
    if status == ASSAY_LEDGER_FULL:
        return TableFullError(f"{where}: {EXPLANATIONS[<int>status]}")
    return ValueError(f"{where}: {EXPLANATIONS[<int>status]}")


cdef int take_seed(uint64_t *seed) except -1:
    cdef bytes fresh = os.urandom(16)
    memcpy(seed, PyBytes_AS_STRING(fresh), 16)
    return 0


cdef const uint8_t *key_of(object key, str name) except NULL:
    if type(key) is not bytes or len(<bytes>key) != 32:
        raise ValueError(f"{name} must be {KEY_BYTES} bytes: {key!r}")
    return <const uint8_t *>PyBytes_AS_STRING(key)


cdef const uint8_t *bytes_at(object data):
    return <const uint8_t *>PyBytes_AS_STRING(data)


cdef bytes digest_of(const uint8_t *source):
    return PyBytes_FromStringAndSize(<const char *>source, 32)


cdef bytes empty_bytes(size_t length):
    return PyBytes_FromStringAndSize(NULL, length)


cdef class AccountTable:
    def __cinit__(self, table_number, rows_max=ROWS_MAX):
        cdef uint64_t seed[2]
        if not 0 <= table_number <= 255:
            raise ValueError(f"the table number is {table_number}, must fit a byte")
        if not 1 <= rows_max <= ROWS_MAX:
            raise ValueError(f"rows_max is {rows_max}, allowed are 1 to {ROWS_MAX}")
        take_seed(seed)
        if not assay_accounts_make(&self.table, table_number, seed, rows_max):
            raise MemoryError("no memory for an account table")

    def __dealloc__(self):
        assay_accounts_free(&self.table)

    def __len__(self):
        with self.lock:
            return <Py_ssize_t>self.table.count

    def get(self, key):
        cdef const uint8_t *start = key_of(key, "a key")
        cdef assay_amounts amounts
        cdef uint32_t row
        with self.lock:
            row = self.find(start)
            if row == ASSAY_NO_ROW:
                return None
            amounts = self.table.rows[row].amounts
        return (amounts.balance, amounts.stake, amounts.unbonding, amounts.unbonding_until_ms)

    def put(self, key, uint64_t balance, uint64_t stake, uint64_t unbonding,
            uint64_t unbonding_until_ms):
        cdef const uint8_t *start = key_of(key, "a key")
        cdef assay_amounts amounts
        cdef assay_ledger_status status
        cdef uint32_t hashed, row
        amounts.balance = balance
        amounts.stake = stake
        amounts.unbonding = unbonding
        amounts.unbonding_until_ms = unbonding_until_ms
        with self.lock:
            status = assay_accounts_reserve(&self.table, 1, 1)
            if status == ASSAY_LEDGER_OK:
                hashed = assay_key_hash(&self.table.index, start)
                row = assay_accounts_find(&self.table, start, hashed)
                if row != ASSAY_NO_ROW:
                    assay_accounts_set(&self.table, row, &amounts)
                elif not assay_amounts_empty(&amounts):
                    row = assay_accounts_create(&self.table, start, hashed, &amounts)
                    if row == ASSAY_NO_ROW:
                        status = ASSAY_LEDGER_FULL
        if status != ASSAY_LEDGER_OK:
            raise refused(status, f"account {key.hex()}")

    def number(self, key):
        cdef const uint8_t *start = key_of(key, "a key")
        cdef uint32_t row
        with self.lock:
            row = self.find(start)
        return None if row == ASSAY_NO_ROW else row

    def row(self, number):
        cdef assay_account row
        with self.lock:
            if not 0 <= number < <Py_ssize_t>self.table.count:
                raise IndexError(f"row {number} is not in a table of {self.table.count} rows")
            row = self.table.rows[<size_t>number]
        return (
            digest_of(row.key), row.amounts.balance, row.amounts.stake, row.amounts.unbonding,
            row.amounts.unbonding_until_ms,
        )

    def unbonding_keys(self):
        cdef list keys = []
        cdef size_t row
        with self.lock:
            for row in range(self.table.count):
                if self.table.rows[row].amounts.unbonding != 0:
                    keys.append(digest_of(self.table.rows[row].key))
        return keys

    def savepoint(self):
        with self.lock:
            return <Py_ssize_t>self.table.undo.count

    def rollback(self, savepoint):
        cdef size_t target
        with self.lock:
            if not 0 <= savepoint <= <Py_ssize_t>self.table.undo.count:
                raise ValueError(
                    f"savepoint {savepoint} lies ahead: {self.table.undo.count} changes stand")
            target = savepoint
            with nogil:
                assay_accounts_rollback(&self.table, target)

    def commit(self):
        cdef assay_ledger_status status
        cdef size_t changed = 0
        cdef bytes packed
        cdef uint8_t *out
        with self.lock:
            with nogil:
                status = assay_accounts_settle(&self.table, &changed)
            if status != ASSAY_LEDGER_OK:
                raise refused(status, "a commit")
            packed = empty_bytes(68 * changed)
            out = <uint8_t *>PyBytes_AS_STRING(packed)
            with nogil:
                assay_accounts_commit(&self.table, out)
        return packed

    @property
    def root(self):
        cdef uint8_t root[32]
        with self.lock:
            assay_accounts_root(&self.table, root)
        return digest_of(root)

    def proof(self, number):
        cdef uint8_t path[32 * 32]
        cdef size_t steps
        with self.lock:
            if not 0 <= number < <Py_ssize_t>self.table.committed:
                raise IndexError(
                    f"row {number} is not in a tree of {self.table.committed} leaves")
            steps = assay_accounts_proof(&self.table, number, path)
        return [digest_of(path + 32 * step) for step in range(<Py_ssize_t>steps)]

    def pack(self, start, count):
        cdef size_t first, rows
        cdef bytes packed
        cdef uint8_t *out
        if start < 0 or count < 0:
            raise ValueError(f"start {start} and count {count} must be at least 0")
        with self.lock:
            first = min(start, <Py_ssize_t>self.table.count)
            rows = min(count, <Py_ssize_t>(self.table.count - first))
            packed = empty_bytes(68 * rows)
            out = <uint8_t *>PyBytes_AS_STRING(packed)
            with nogil:
                assay_accounts_pack(&self.table, first, rows, out)
        return packed

    def load(self, bytes packed not None):
        self.take(packed, 1)

    def apply(self, bytes packed not None):
        self.take(packed, 0)

    cdef uint32_t find(self, const uint8_t *key) noexcept:
        return assay_accounts_find(&self.table, key, assay_key_hash(&self.table.index, key))

    cdef int take(self, bytes packed, bint append_only) except -1:
        cdef size_t rows = len(packed) // 68, failed_at = 0
        cdef const uint8_t *data = bytes_at(packed)
        cdef assay_ledger_status status
        if len(packed) % 68 != 0:
            raise ValueError(f"{len(packed)} bytes are not rows of {ACCOUNT_ROW_BYTES}")
        with self.lock:
            with nogil:
                status = assay_accounts_apply(&self.table, data, rows, append_only, &failed_at)
        if status != ASSAY_LEDGER_OK:
            raise refused(status, f"packed row {failed_at}")
        return 0


cdef class IdWindow:
    def __cinit__(self, blocks):
        cdef uint64_t seed[2]
        if not 1 <= blocks <= WINDOW_BLOCKS_MAX:
            raise ValueError(f"blocks is {blocks}, allowed are 1 to {WINDOW_BLOCKS_MAX}")
        take_seed(seed)
        if not assay_window_make(&self.window, seed, blocks):
            raise MemoryError("no memory for a window of ids")

    def __dealloc__(self):
        assay_window_free(&self.window)

    @property
    def blocks(self):
        return self.window.blocks

    def __len__(self):
        with self.lock:
            return <Py_ssize_t>self.window.count

    def __contains__(self, id):
        cdef const uint8_t *start = key_of(id, "an id")
        with self.lock:
            return self.find(start) != ASSAY_NO_ROW

    def add(self, id, uint64_t height, uint32_t leaf):
        cdef const uint8_t *start = key_of(id, "an id")
        cdef uint8_t packed[4]
        cdef assay_ledger_status status
        cdef int byte
        for byte in range(4):
            packed[byte] = <uint8_t>(leaf >> 8 * byte)
        with self.lock:
            status = assay_window_load(&self.window, height, start, packed, 1)
        if status != ASSAY_LEDGER_OK:
            raise refused(status, f"id {id.hex()} at height {height}")

    def locate(self, id):
        cdef const uint8_t *start = key_of(id, "an id")
        cdef uint32_t place, leaf
        cdef uint64_t height
        with self.lock:
            place = self.find(start)
            if place == ASSAY_NO_ROW:
                return None
            height = assay_window_height_at(&self.window, place)
            leaf = self.window.leaves[place]
        return (height, leaf)

    def heights(self):
        with self.lock:
            return [
                self.window.heights[place].height
                for place in range(<Py_ssize_t>self.window.height_count)
            ]

    def ids_at(self, uint64_t height):
        cdef bytes ids
        cdef size_t first, count
        with self.lock:
            count = assay_window_range(&self.window, height, &first)
            ids = empty_bytes(32 * count)
            assay_window_copy(
                &self.window, first, count, <uint8_t *>PyBytes_AS_STRING(ids), NULL)
        return ids

    def leaves_at(self, uint64_t height):
        cdef bytes leaves
        cdef size_t first, count
        with self.lock:
            count = assay_window_range(&self.window, height, &first)
            leaves = empty_bytes(4 * count)
            assay_window_copy(
                &self.window, first, count, NULL, <uint8_t *>PyBytes_AS_STRING(leaves))
        return leaves

    def drop_through(self, height):
        cdef uint64_t last
        if height < 0:
            return
        last = height
        with self.lock:
            with nogil:
                assay_window_drop_through(&self.window, last)

    def load(self, uint64_t height, bytes ids not None, bytes leaves=None):
        cdef size_t count = len(ids) // 32
        cdef const uint8_t *start = bytes_at(ids)
        cdef const uint8_t *places = NULL
        cdef assay_ledger_status status
        if len(ids) % 32 != 0:
            raise ValueError(f"{len(ids)} bytes are not ids of {KEY_BYTES}")
        if leaves is not None:
            if <size_t>len(leaves) != 4 * count:
                raise ValueError(f"{len(leaves)} bytes of leaf indices for {count} ids")
            places = bytes_at(leaves)
        with self.lock:
            with nogil:
                status = assay_window_load(&self.window, height, start, places, count)
        if status != ASSAY_LEDGER_OK:
            raise refused(status, f"ids at height {height}")

    cdef uint32_t find(self, const uint8_t *id) noexcept:
        return assay_window_find(&self.window, id, assay_key_hash(&self.window.index, id))
