/* Account rows in order of first appearance, with undo, and their RFC 6962 tree.
 *
 * A row that was made and committed stays, so its number is its leaf's place in the tree. An account
 * without money is a row of zeros. Nothing here is thread-safe: the owner locks. */
#ifndef ASSAY_ACCOUNTS_H
#define ASSAY_ACCOUNTS_H

#include <stddef.h>
#include <stdint.h>

#include "key_index.h"

#define ASSAY_ACCOUNT_ROWS_MAX 0x80000000u
#define ASSAY_ACCOUNT_ROW_BYTES 68u
/* Levels of a tree over ASSAY_ACCOUNT_ROWS_MAX rows, leaves and root included. */
#define ASSAY_ACCOUNT_LEVELS 32

/* The order is that of EXPLANATIONS in ledger.pyx. */
typedef enum {
    ASSAY_LEDGER_OK = 0,
    ASSAY_LEDGER_NO_MEMORY,
    ASSAY_LEDGER_FULL,
    ASSAY_LEDGER_UNCOMMITTED,
    ASSAY_LEDGER_GAP,
    ASSAY_LEDGER_NOT_RISING,
    ASSAY_LEDGER_WRONG_KEY,
    ASSAY_LEDGER_KNOWN_KEY,
    ASSAY_LEDGER_NOT_ZERO,
    ASSAY_LEDGER_HEIGHT_FALLS,
    ASSAY_LEDGER_HEIGHT_TOO_FAR,
    ASSAY_LEDGER_KNOWN_ID,
} assay_ledger_status;

typedef struct {
    uint64_t balance, stake, unbonding, unbonding_until_ms;
} assay_amounts;

/* One cache line. */
typedef struct {
    uint8_t key[ASSAY_KEY_BYTES];
    assay_amounts amounts;
} assay_account;

/* What a row held before a change. */
typedef struct {
    uint32_t row;
    uint32_t created;
    assay_amounts before;
} assay_account_change;

typedef struct {
    assay_account_change *items;
    size_t count, capacity;
} assay_account_changes;

typedef struct {
    assay_key_index index;
    assay_account *rows;
    size_t count, capacity, rows_max;
    size_t committed;              /* rows that are in the tree */
    assay_account_changes undo;    /* every change since the commit, oldest first */
    assay_account_changes touched; /* committed rows as of the commit, one entry a row */
    uint64_t *touched_bits;        /* the rows that have an entry in `touched` */
    uint32_t *dirty;               /* room for a commit's walk up the tree */
    size_t dirty_capacity;
    uint8_t *levels[ASSAY_ACCOUNT_LEVELS];
    size_t tree_capacity;
    uint8_t table_number;
} assay_accounts;

/* 0 when there is no memory. `rows_max` is 1 to ASSAY_ACCOUNT_ROWS_MAX. */
int assay_accounts_make(assay_accounts *table, uint8_t table_number, const uint64_t seed[2],
                        size_t rows_max);
void assay_accounts_free(assay_accounts *table);

static inline uint32_t assay_accounts_find(const assay_accounts *table, const uint8_t *key,
                                           uint32_t hash) {
    return assay_key_index_find(&table->index, (const uint8_t *)table->rows, sizeof(assay_account),
                                key, hash);
}

/* Room for so many changes, of which so many may make rows: until it is used up, set and create
 * cannot fail for want of memory. */
assay_ledger_status assay_accounts_reserve(assay_accounts *table, size_t changes, size_t creations);
/* Both need room that was reserved. An account without money becomes zeros. */
void assay_accounts_set(assay_accounts *table, uint32_t row, const assay_amounts *amounts);
/* The key must have no row. Makes none, and gives ASSAY_NO_ROW, when the table is full. */
uint32_t assay_accounts_create(assay_accounts *table, const uint8_t *key, uint32_t hash,
                               const assay_amounts *amounts);
int assay_amounts_empty(const assay_amounts *amounts);
void assay_accounts_rollback(assay_accounts *table, size_t savepoint);

/* Counts the rows that a commit will give, after making room for it. May be called again. */
assay_ledger_status assay_accounts_settle(assay_accounts *table, size_t *changed);
/* After assay_accounts_settle: writes the changed rows (unless `packed` is NULL), brings the tree up to
 * date and drops the undo log. */
void assay_accounts_commit(assay_accounts *table, uint8_t *packed);
void assay_accounts_root(const assay_accounts *table, uint8_t root[32]);
/* Siblings of a committed row, lowest first; their number. Room for ASSAY_ACCOUNT_LEVELS. */
size_t assay_accounts_proof(const assay_accounts *table, uint32_t row, uint8_t *path);

void assay_accounts_pack(const assay_accounts *table, size_t start, size_t count, uint8_t *packed);
/* Sets and appends packed rows and commits, or changes nothing; `*failed_at` is then the place of the
 * packed row that was refused. With `append_only` every row must be new. */
assay_ledger_status assay_accounts_apply(assay_accounts *table, const uint8_t *packed, size_t rows,
                                         int append_only, size_t *failed_at);

#endif
