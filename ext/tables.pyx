"""Records by key, with undo, and their rows. See tables.pyi for the contract."""

from bisect import bisect_left, insort
from heapq import heappop, heappush
from operator import itemgetter

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t
from libc.stdlib cimport free

from ext.packing cimport Layout, buffer, more
from ext.rows cimport ASSAY_ROW_TREE_ROWS_MAX, RowTree

cdef extern from "little_endian.h" nogil:
    void store_le32(void *data, uint32_t word)

cdef enum:
    NUMBER_BYTES = 4

ROWS_MAX = ASSAY_ROW_TREE_ROWS_MAX
ROW_NUMBER_BYTES = NUMBER_BYTES

key_of = itemgetter(1)


cdef class UndoLog:
    # (table, key, record before, whether the key was dirty before)
    cdef list entries

    def __cinit__(self):
        self.entries = []

    def __len__(self):
        return len(self.entries)

    def rollback(self, Py_ssize_t kept):
        cdef RecordTable table
        if kept < 0:
            raise ValueError(f"{kept} changes cannot be kept")
        while len(self.entries) > kept:
            table, key, record, was_dirty = self.entries.pop()
            table.replace(key, record)
            if not was_dirty:
                table.dirty.discard(key)

    def clear(self):
        self.entries.clear()


cdef class RecordTable:
    cdef readonly object number
    cdef readonly Py_ssize_t key_bytes
    cdef readonly list changed
    cdef Layout layout
    cdef UndoLog undo
    cdef Py_ssize_t group_bytes
    cdef dict records
    cdef dict by_prefix
    cdef dict by_suffix
    cdef dict numbers
    cdef set dirty
    cdef RowTree tree
    # Every free number is in both; the heap may hold some that are free no longer.
    cdef set free_numbers
    cdef list free_heap

    def __init__(self, number, Layout layout not None, Py_ssize_t key_bytes, UndoLog undo not None,
                 Py_ssize_t group_bytes=0, bint with_suffixes=False):
        if not 0 <= group_bytes <= key_bytes:
            raise ValueError(f"groups of {group_bytes} bytes in keys of {key_bytes}")
        self.number = number
        self.key_bytes = key_bytes
        self.changed = []
        self.layout = layout
        self.undo = undo
        self.group_bytes = group_bytes
        self.records = {}
        self.by_prefix = {}
        self.by_suffix = {} if with_suffixes else None
        self.numbers = {}
        self.dirty = set()
        self.tree = RowTree(int(number).to_bytes(1, "little"))
        self.free_numbers = set()
        self.free_heap = []

    def __class_getitem__(cls, record):
        return cls

    def __len__(self):
        return len(self.records)

    def get(self, key):
        return self.records.get(key)

    def scan(self, bytes group not None=b""):
        for key in self.by_prefix.get(group, ()) if len(group) > 0 else sorted(self.records):
            yield key, self.records[key]

    def ending(self, bytes suffix not None):
        if self.by_suffix is None:
            raise TypeError(f"table {self.number!r} does not know its keys by what they end with")
        for key in self.by_suffix.get(suffix, ()):
            yield key, self.records[key]

    def put(self, bytes key not None, record):
        self.undo.entries.append((self, key, self.replace(key, record), key in self.dirty))
        self.dirty.add(key)

    cdef object replace(self, bytes key, object record):
        """Set the record, or delete it with None; what was there."""
        before = self.records.get(key)
        if record is not None:
            self.records[key] = record
            if before is None and self.group_bytes > 0:
                insort(self.by_prefix.setdefault(key[:self.group_bytes], []), key)
                if self.by_suffix is not None:
                    insort(self.by_suffix.setdefault(key[self.group_bytes:], []), key)
        elif before is not None:
            del self.records[key]
            if self.group_bytes > 0:
                leave(self.by_prefix, key[:self.group_bytes], key)
                if self.by_suffix is not None:
                    leave(self.by_suffix, key[self.group_bytes:], key)
        return before

    def load(self, dict values not None):
        cdef Py_ssize_t row
        cdef bytes key, value
        rows = {}
        for key, value in values.items():
            row = int.from_bytes(value[:NUMBER_BYTES], "little")
            if len(value) < NUMBER_BYTES or row >= ROWS_MAX or row in rows:
                raise ValueError(f"key {key.hex()}: a bad or repeated row number")
            try:
                record = self.layout.unpack(value[NUMBER_BYTES:])
            except ValueError as error:
                raise ValueError(f"key {key.hex()}: {error}") from error
            self.replace(key, record)
            self.numbers[key] = row
            rows[row] = key, value
        for row in range(max(rows, default=-1) + 1):
            if row in rows:
                key, value = rows[row]
                self.tree.set(row, key, value[NUMBER_BYTES:])
            else:
                self.tree.clear(row)
                self.free_numbers.add(row)
                self.free_heap.append(row)
        self.tree.commit()

    def commit(self):
        cdef list changes = [], kept = []
        cdef bytes key
        for key in sorted(self.dirty):
            record = self.records.get(key)
            if record is not None:
                kept.append((key, record))
            elif key in self.numbers:
                row = self.numbers.pop(key)
                self.free_numbers.add(row)
                heappush(self.free_heap, row)
                self.tree.clear(row)
                changes.append((self.number, key, None))
        self.dirty.clear()
        self.changed = self.set_rows(kept, changes)
        if changes:
            self.end_with_a_row()
            self.tree.commit()
        changes.sort(key=key_of)
        return changes

    cdef list set_rows(self, list kept, list changes):
        """Rows of the records that are new or another than before, which it returns."""
        cdef list changed = []
        cdef buffer out
        cdef bytes key
        cdef Py_ssize_t row
        out.data = NULL
        out.length = out.capacity = 0
        try:
            for key, record in kept:
                known = self.numbers.get(key)
                if known is None:
                    known = self.numbers[key] = self.next_number()
                row = known
                out.length = 0
                store_le32(more(&out, NUMBER_BYTES), <uint32_t>row)
                self.layout.put(&out, record)
                if self.tree.set_row(row, key, out.data + NUMBER_BYTES, out.length - NUMBER_BYTES):
                    stored = PyBytes_FromStringAndSize(<const char *>out.data, out.length)
                    changes.append((self.number, key, stored))
                    changed.append((key, record))
        finally:
            free(out.data)
        return changed

    cdef Py_ssize_t next_number(self) except -1:
        """The lowest free number, or that behind the last row."""
        cdef Py_ssize_t size = len(self.tree)
        while self.free_heap:
            number = heappop(self.free_heap)
            if number in self.free_numbers:
                self.free_numbers.discard(number)
                return number
        if size >= ROWS_MAX:
            raise OverflowError(f"table {self.number!r} is full with {ROWS_MAX} rows")
        return size

    cdef int end_with_a_row(self) except -1:
        cdef Py_ssize_t size = len(self.tree)
        while size > 0 and size - 1 in self.free_numbers:
            size -= 1
            self.free_numbers.discard(size)
        self.tree.truncate(size)
        return 0

    def rows(self):
        for key, record in self.scan():
            row = self.numbers[key].to_bytes(NUMBER_BYTES, "little")
            yield self.number, key, row + self.layout.pack(record)

    @property
    def root(self):
        return self.tree.root


def put(RecordTable table not None, bytes key not None, record):
    table.put(key, record)


cdef int leave(dict groups, bytes name, bytes key) except -1:
    cdef list group = groups[name]
    del group[bisect_left(group, key)]
    if len(group) == 0:
        del groups[name]
    return 0
