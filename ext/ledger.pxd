"""C declarations of accounts.h and window.h, and the tables' layout, for ext.transfers."""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "accounts.h" nogil:
    const size_t ASSAY_ACCOUNT_ROWS_MAX
    const uint32_t ASSAY_NO_ROW
    ctypedef enum assay_ledger_status:
        ASSAY_LEDGER_OK
        ASSAY_LEDGER_NO_MEMORY
        ASSAY_LEDGER_FULL
    ctypedef struct assay_key_index:
        pass
    ctypedef struct assay_amounts:
        uint64_t balance
        uint64_t stake
        uint64_t unbonding
        uint64_t unbonding_until_ms
    ctypedef struct assay_account:
        uint8_t key[32]
        assay_amounts amounts
    ctypedef struct assay_account_changes:
        size_t count
    ctypedef struct assay_accounts:
        assay_key_index index
        assay_account *rows
        size_t count
        size_t committed
        assay_account_changes undo
    uint32_t assay_key_hash(const assay_key_index *index, const uint8_t *key)
    int assay_accounts_make(assay_accounts *table, uint8_t table_number, const uint64_t *seed,
                            size_t rows_max)
    void assay_accounts_free(assay_accounts *table)
    uint32_t assay_accounts_find(const assay_accounts *table, const uint8_t *key, uint32_t hash)
    assay_ledger_status assay_accounts_reserve(assay_accounts *table, size_t changes,
                                               size_t creations)
    void assay_accounts_set(assay_accounts *table, uint32_t row, const assay_amounts *amounts)
    uint32_t assay_accounts_create(assay_accounts *table, const uint8_t *key, uint32_t hash,
                                   const assay_amounts *amounts)
    int assay_amounts_empty(const assay_amounts *amounts)
    void assay_accounts_rollback(assay_accounts *table, size_t savepoint)
    assay_ledger_status assay_accounts_settle(assay_accounts *table, size_t *changed)
    void assay_accounts_commit(assay_accounts *table, uint8_t *packed)
    void assay_accounts_root(const assay_accounts *table, uint8_t *root)
    size_t assay_accounts_proof(const assay_accounts *table, uint32_t row, uint8_t *path)
    void assay_accounts_pack(const assay_accounts *table, size_t start, size_t count,
                             uint8_t *packed)
    assay_ledger_status assay_accounts_apply(assay_accounts *table, const uint8_t *packed,
                                             size_t rows, int append_only, size_t *failed_at)

cdef extern from "window.h" nogil:
    ctypedef struct assay_window_height:
        uint64_t height
    ctypedef struct assay_window:
        assay_key_index index
        uint32_t *leaves
        size_t count
        assay_window_height *heights
        size_t height_count
        uint32_t blocks
    int assay_window_make(assay_window *window, const uint64_t *seed, uint32_t blocks)
    void assay_window_free(assay_window *window)
    uint32_t assay_window_find(const assay_window *window, const uint8_t *id, uint32_t hash)
    assay_ledger_status assay_window_accepts(const assay_window *window, uint64_t height)
    uint64_t assay_window_height_at(const assay_window *window, uint32_t place)
    size_t assay_window_range(const assay_window *window, uint64_t height, size_t *first)
    void assay_window_copy(const assay_window *window, size_t first, size_t count, uint8_t *ids,
                           uint8_t *leaves)
    void assay_window_drop_through(assay_window *window, uint64_t height)
    assay_ledger_status assay_window_load(assay_window *window, uint64_t height,
                                          const uint8_t *ids, const uint8_t *leaves, size_t count)

cdef class AccountTable:
    cdef assay_accounts table
    cdef cython.pymutex lock
    cdef uint32_t find(self, const uint8_t *key) noexcept
    cdef int take(self, bytes packed, bint append_only) except -1

cdef class IdWindow:
    cdef assay_window window
    cdef cython.pymutex lock
    cdef uint32_t find(self, const uint8_t *id) noexcept
