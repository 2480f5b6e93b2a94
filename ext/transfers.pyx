"""Runs of plain transfers, and envelopes. See transfers.pyi for the contract."""

import numpy

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ext.bodies cimport ASSAY_BODY_OTHER, Bodies, assay_bodies
from ext.ledger cimport (
    ASSAY_LEDGER_OK,
    AccountTable,
    IdWindow,
    assay_accounts,
    assay_window,
    assay_window_accepts,
)
from ext.sha256 cimport assay_sha256_select

from ext.ledger import TableFullError

cdef extern from "leaves.h" nogil:
    ctypedef enum assay_leaves_status:
        ASSAY_LEAVES_OK
        ASSAY_LEAVES_NO_MEMORY
        ASSAY_LEAVES_TOO_LONG
    ctypedef struct assay_leaves:
        uint8_t *data
        size_t length
        uint8_t *ends
        size_t count
    void assay_leaves_free(assay_leaves *leaves)
    assay_leaves_status assay_leaves_reserve(assay_leaves *leaves, size_t more, size_t bytes)
    uint8_t *assay_leaves_open(assay_leaves *leaves, size_t bytes)
    void assay_leaves_truncate(assay_leaves *leaves, size_t count)
    int assay_leaves_root(const uint8_t *data, const uint8_t *ends, size_t count, uint8_t *root,
                          size_t index, uint8_t *path, size_t *steps)

cdef extern from "transfers.h" nogil:
    const uint32_t ASSAY_BASIS_POINTS
    ctypedef struct assay_transfer_rules:
        uint64_t height
        uint64_t fee_per_transaction
        uint64_t fee_per_operation
        uint64_t fee_per_byte
        uint32_t window_blocks
        uint32_t fee_burn_bps
        uint64_t accounts_max
    ctypedef struct assay_run_output:
        assay_leaves receipts
        assay_leaves events
        uint64_t burned
    ctypedef struct assay_run_batch:
        const uint8_t *payload
        const uint8_t *public_keys
        const uint8_t *ids
        const assay_bodies *bodies
    ctypedef enum assay_run_status:
        ASSAY_RUN_OK
        ASSAY_RUN_NO_MEMORY
        ASSAY_RUN_FULL
        ASSAY_RUN_OVERFLOW
        ASSAY_RUN_LEAVES_TOO_LONG
    assay_run_status assay_run_transfers(
        assay_accounts *accounts, assay_window *window, const assay_run_batch *batch,
        const assay_transfer_rules *rules, const uint8_t *lane_owner, assay_run_output *output,
        size_t *position, size_t stop)
    const size_t ASSAY_REASON_BYTES_MAX
    assay_leaves_status assay_add_event(
        assay_leaves *events, uint8_t kind, const uint8_t *subject, const uint8_t *other,
        uint64_t amount, uint8_t code)
    assay_run_status assay_charge_envelope(
        assay_accounts *accounts, assay_window *window, const assay_run_batch *batch,
        const assay_transfer_rules *rules, const uint8_t *lane_owner, assay_run_output *output,
        size_t index, int *charged, uint64_t *fee)
    assay_run_status assay_conclude_envelope(
        assay_window *window, const assay_run_batch *batch, const assay_transfer_rules *rules,
        assay_run_output *output, size_t index, const char *reason, uint64_t fee)
    void assay_check_transfers(
        assay_accounts *accounts, assay_window *window, const assay_run_batch *batch,
        const assay_transfer_rules *rules, const uint8_t *lane_owner, size_t count,
        uint8_t *refusals, uint64_t *seen, uint64_t *bounds)

# By assay_refusal.
ACCEPTED = 0
EXPIRED = 1
TOO_FAR_AHEAD = 2
REPLAYED = 3
FEE_TOO_LOW = 4
INSUFFICIENT_BALANCE = 5
AMOUNT_ZERO = 6
STATE_FULL = 7

assay_sha256_select()


cdef class TransferRules:
    cdef assay_transfer_rules rules

    def __init__(self, *, uint64_t height, uint32_t window_blocks, uint64_t fee_per_transaction,
                 uint64_t fee_per_operation, uint64_t fee_per_byte, uint32_t fee_burn_bps,
                 uint64_t accounts_max):
        if fee_burn_bps > ASSAY_BASIS_POINTS:
            raise ValueError(f"fee_burn_bps is {fee_burn_bps}, at most {ASSAY_BASIS_POINTS}")
        self.rules.height = height
        self.rules.window_blocks = window_blocks
        self.rules.fee_per_transaction = fee_per_transaction
        self.rules.fee_per_operation = fee_per_operation
        self.rules.fee_per_byte = fee_per_byte
        self.rules.fee_burn_bps = fee_burn_bps
        self.rules.accounts_max = accounts_max


cdef class RunOutput:
    cdef assay_run_output output
    cdef cython.pymutex lock

    def __dealloc__(self):
        assay_leaves_free(&self.output.receipts)
        assay_leaves_free(&self.output.events)

    @property
    def receipts(self):
        return <Py_ssize_t>self.output.receipts.count

    @property
    def events(self):
        return <Py_ssize_t>self.output.events.count

    @property
    def burned(self):
        return self.output.burned

    def append_receipt(self, bytes leaf not None):
        with self.lock:
            return append(&self.output.receipts, leaf)

    def append_event(self, bytes leaf not None):
        with self.lock:
            return append(&self.output.events, leaf)

    def emit(self, uint8_t kind, bytes subject not None, bytes other, uint64_t amount,
             uint8_t code):
        cdef const uint8_t *second = NULL
        cdef assay_leaves_status status
        if len(subject) != 32 or (other is not None and len(other) != 32):
            raise ValueError("an event's subject, and what else it names, have 32 bytes")
        if other is not None:
            second = <const uint8_t *>PyBytes_AS_STRING(other)
        with self.lock:
            status = assay_add_event(
                &self.output.events, kind, <const uint8_t *>PyBytes_AS_STRING(subject), second,
                amount, code)
        if status != ASSAY_LEAVES_OK:
            raise unfit(status)

    def truncate_events(self, count):
        with self.lock:
            if not 0 <= count <= <Py_ssize_t>self.output.events.count:
                raise ValueError(f"{count} events of {self.output.events.count} cannot be kept")
            assay_leaves_truncate(&self.output.events, count)

    def receipt_leaves(self):
        with self.lock:
            return packed(&self.output.receipts)

    def event_leaves(self):
        with self.lock:
            return packed(&self.output.events)

    def receipts_root(self):
        with self.lock:
            return root_of(&self.output.receipts)

    def events_root(self):
        with self.lock:
            return root_of(&self.output.events)


cdef object no_room():
    return OverflowError("the leaves of one block exceed 4 GiB")


cdef object unfit(assay_leaves_status status):
    """The exception for a status that is not OK."""
    if status == ASSAY_LEAVES_TOO_LONG:
        return no_room()
    return MemoryError("no memory for another leaf")


cdef object append(assay_leaves *leaves, bytes leaf):
    cdef assay_leaves_status status = assay_leaves_reserve(leaves, 1, len(leaf))
    if status != ASSAY_LEAVES_OK:
        raise unfit(status)
    memcpy(assay_leaves_open(leaves, len(leaf)), PyBytes_AS_STRING(leaf), len(leaf))
    return <Py_ssize_t>leaves.count - 1


cdef object packed(assay_leaves *leaves):
    return (
        PyBytes_FromStringAndSize(<const char *>leaves.data, leaves.length),
        PyBytes_FromStringAndSize(<const char *>leaves.ends, 4 * leaves.count),
    )


cdef bytes root_of(assay_leaves *leaves):
    cdef uint8_t root[32]
    cdef bint done
    with nogil:
        done = assay_leaves_root(leaves.data, leaves.ends, leaves.count, root, 0, NULL, NULL)
    if not done:
        raise MemoryError(f"no memory for {leaves.count} leaf hashes")
    return PyBytes_FromStringAndSize(<const char *>root, 32)


cdef const uint8_t *owner_of(bytes lane_owner) except NULL:
    if len(lane_owner) != 32:
        raise ValueError(f"the lane owner has {len(lane_owner)} bytes, 32 are needed")
    return <const uint8_t *>PyBytes_AS_STRING(lane_owner)


cdef assay_run_batch batch_of(Bodies bodies):
    """Pointers into `bodies`, which holds at least one."""
    cdef assay_run_batch batch
    batch.payload = bodies.payload
    batch.public_keys = bodies.public_keys
    batch.ids = bodies.ids
    batch.bodies = &bodies.parsed
    return batch


def run(AccountTable accounts not None, IdWindow window not None, Bodies bodies not None,
        start, stop, TransferRules rules not None, bytes lane_owner not None,
        RunOutput output not None):
    cdef assay_run_batch batch
    cdef assay_run_status status = ASSAY_RUN_OK
    cdef size_t position, end
    cdef bint accepted
    cdef const uint8_t *owner = owner_of(lane_owner)
    if not 0 <= start <= stop <= bodies.count:
        raise IndexError(f"bodies {start} to {stop} are not in a batch of {bodies.count}")
    if start == stop:
        return stop
    batch = batch_of(bodies)
    position, end = start, stop
    # Always in this order, so that two runs cannot wait for each other.
    with accounts.lock, window.lock, output.lock:
        accepted = assay_window_accepts(&window.window, rules.rules.height) == ASSAY_LEDGER_OK
        if accepted:
            with nogil:
                status = assay_run_transfers(
                    &accounts.table, &window.window, &batch, &rules.rules, owner, &output.output,
                    &position, end)
    if not accepted:
        raise wrong_height(rules.rules.height)
    if status != ASSAY_RUN_OK:
        raise stopped(status, position)
    return position


cdef object wrong_height(uint64_t height):
    return ValueError(
        f"the window takes no ids of height {height}: it holds a higher one, or "
        "drop_through was left out")


cdef object stopped(assay_run_status status, size_t position):
    """The exception for a status that is not OK."""
    if status == ASSAY_RUN_NO_MEMORY:
        return MemoryError(f"no memory for transaction {position}")
    if status == ASSAY_RUN_FULL:
        return TableFullError(f"transaction {position} needs a row more than the table may hold")
    if status == ASSAY_RUN_OVERFLOW:
        return OverflowError(f"transaction {position} brings a sum above 64 bits")
    return no_room()


cdef class Envelopes:
    cdef AccountTable accounts
    cdef IdWindow window
    cdef Bodies bodies
    cdef TransferRules rules
    cdef bytes lane_owner
    cdef RunOutput output

    def __init__(self, AccountTable accounts not None, IdWindow window not None,
                 Bodies bodies not None, TransferRules rules not None, bytes lane_owner not None,
                 RunOutput output not None):
        owner_of(lane_owner)
        self.accounts = accounts
        self.window = window
        self.bodies = bodies
        self.rules = rules
        self.lane_owner = lane_owner
        self.output = output

    def charge(self, Py_ssize_t index):
        cdef assay_run_batch batch
        cdef assay_run_status status = ASSAY_RUN_OK
        cdef int charged = 0
        cdef uint64_t fee = 0
        cdef bint accepted
        self.check(index)
        batch = batch_of(self.bodies)
        with self.accounts.lock, self.window.lock, self.output.lock:
            accepted = assay_window_accepts(
                &self.window.window, self.rules.rules.height) == ASSAY_LEDGER_OK
            if accepted:
                status = assay_charge_envelope(
                    &self.accounts.table, &self.window.window, &batch, &self.rules.rules,
                    owner_of(self.lane_owner), &self.output.output, index, &charged, &fee)
        if not accepted:
            raise wrong_height(self.rules.rules.height)
        if status != ASSAY_RUN_OK:
            raise stopped(status, index)
        return fee if charged else None

    def conclude(self, Py_ssize_t index, uint64_t fee, reason):
        cdef assay_run_batch batch
        cdef assay_run_status status = ASSAY_RUN_OK
        cdef Py_ssize_t length
        cdef const char *text = PyUnicode_AsUTF8AndSize(reason, &length)
        cdef bint accepted
        if <size_t>length > ASSAY_REASON_BYTES_MAX:
            raise ValueError(
                f"the reason has {length} bytes, at most {ASSAY_REASON_BYTES_MAX} are allowed")
        self.check(index)
        batch = batch_of(self.bodies)
        with self.window.lock, self.output.lock:
            accepted = assay_window_accepts(
                &self.window.window, self.rules.rules.height) == ASSAY_LEDGER_OK
            if accepted:
                status = assay_conclude_envelope(
                    &self.window.window, &batch, &self.rules.rules, &self.output.output, index,
                    NULL if length == 0 else text, fee)
        if not accepted:
            raise wrong_height(self.rules.rules.height)
        if status != ASSAY_RUN_OK:
            raise stopped(status, index)

    cdef int check(self, Py_ssize_t index) except -1:
        self.bodies.check(index)
        if self.bodies.parsed.classes[index] == ASSAY_BODY_OTHER:
            raise ValueError(f"body {index} is not parsed, so its envelope is not known")
        return 0


def check(AccountTable accounts not None, IdWindow window not None, Bodies bodies not None,
          TransferRules rules not None, bytes lane_owner not None):
    cdef assay_run_batch batch
    cdef size_t count = bodies.count
    cdef const uint8_t *owner = owner_of(lane_owner)
    # One spare row each: an empty array has no address to hand to C.
    refusals = numpy.empty(count + 1, dtype=numpy.uint8)
    seen = numpy.empty(count + 1, dtype=numpy.uint64)
    bounds = numpy.empty(count + 1, dtype=numpy.uint64)
    cdef uint8_t[::1] refusals_out = refusals
    cdef uint64_t[::1] seen_out = seen, bounds_out = bounds
    if count > 0:
        batch = batch_of(bodies)
        with accounts.lock, window.lock:
            with nogil:
                assay_check_transfers(
                    &accounts.table, &window.window, &batch, &rules.rules, owner, count,
                    &refusals_out[0], &seen_out[0], &bounds_out[0])
    return refusals[:count], seen[:count], bounds[:count]
