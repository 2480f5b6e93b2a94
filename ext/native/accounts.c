#include "accounts.h"

#include <stdlib.h>

#include "little_endian.h"
#include "memory.h"
#include "merkle.h"

enum {
    ROWS_AT_FIRST = 64, /* a power of two, and a whole word of touched_bits */
    PREFETCH_DISTANCE = 16,
    CHANGES_KEPT_MAX = 1 << 18, /* a longer log gives its memory back at the commit */
    LEAF_BYTES = 1 + ASSAY_KEY_BYTES + 32,
};
_Static_assert(1 + LEAF_BYTES + 9 > 64 && 1 + LEAF_BYTES + 9 <= 128,
               "a row's leaf has as many blocks as a node");

static void store_amounts(uint8_t *bytes, const assay_amounts *amounts) {
    store_le64(bytes, amounts->balance);
    store_le64(bytes + 8, amounts->stake);
    store_le64(bytes + 16, amounts->unbonding);
    store_le64(bytes + 24, amounts->unbonding_until_ms);
}

static assay_amounts load_amounts(const uint8_t *bytes) {
    assay_amounts amounts = {load_le64(bytes), load_le64(bytes + 8), load_le64(bytes + 16),
                             load_le64(bytes + 24)};
    return amounts;
}

static int same_amounts(const assay_amounts *left, const assay_amounts *right) {
    return left->balance == right->balance && left->stake == right->stake &&
           left->unbonding == right->unbonding &&
           left->unbonding_until_ms == right->unbonding_until_ms;
}

int assay_amounts_empty(const assay_amounts *amounts) {
    return (amounts->balance | amounts->stake | amounts->unbonding) == 0;
}

/* Room for `count` items; doubles, so that appending is cheap on average. */
static void *grow(void *items, size_t *capacity, size_t count, size_t item_bytes) {
    size_t wanted = *capacity > 0 ? *capacity : 16;
    while (wanted < count) wanted *= 2;
    void *grown = realloc(items, wanted * item_bytes);
    if (grown != NULL) *capacity = wanted;
    return grown;
}

static int reserve_changes(assay_account_changes *changes, size_t more) {
    if (changes->capacity - changes->count >= more) return 1;
    void *grown = grow(changes->items, &changes->capacity, changes->count + more,
                       sizeof *changes->items);
    if (grown == NULL) return 0;
    changes->items = grown;
    return 1;
}

static int reserve_rows(assay_accounts *table, size_t count) {
    if (count <= table->capacity) return 1;
    size_t capacity = table->capacity;
    while (capacity < count) capacity *= 2;
    if (!assay_key_index_grow(&table->index, capacity)) return 0;
    uint64_t *bits = realloc(table->touched_bits, capacity / 8);
    if (bits == NULL) return 0;
    table->touched_bits = bits;
    assay_account *rows = assay_table_memory(capacity * sizeof *rows);
    if (rows == NULL) return 0;
    memset(bits + table->capacity / 64, 0, (capacity - table->capacity) / 8);
    memcpy(rows, table->rows, table->count * sizeof *rows);
    free(table->rows);
    table->rows = rows;
    table->capacity = capacity;
    return 1;
}

int assay_accounts_make(assay_accounts *table, uint8_t table_number, const uint64_t seed[2],
                        size_t rows_max) {
    memset(table, 0, sizeof *table);
    table->table_number = table_number;
    table->rows_max = rows_max;
    table->capacity = ROWS_AT_FIRST;
    table->rows = assay_table_memory(ROWS_AT_FIRST * sizeof *table->rows);
    table->touched_bits = calloc(ROWS_AT_FIRST / 64, sizeof *table->touched_bits);
    if (table->rows != NULL && table->touched_bits != NULL &&
        assay_key_index_make(&table->index, seed, ROWS_AT_FIRST))
        return 1;
    assay_accounts_free(table);
    return 0;
}

void assay_accounts_free(assay_accounts *table) {
    assay_key_index_free(&table->index);
    free(table->rows);
    free(table->undo.items);
    free(table->touched.items);
    free(table->touched_bits);
    free(table->dirty);
    for (int level = 0; level < ASSAY_ACCOUNT_LEVELS; level++) free(table->levels[level]);
    memset(table, 0, sizeof *table);
}

assay_ledger_status assay_accounts_reserve(assay_accounts *table, size_t changes,
                                           size_t creations) {
    size_t rows = table->count + creations;
    if (rows > table->rows_max) rows = table->rows_max;
    if (reserve_rows(table, rows) && reserve_changes(&table->undo, changes) &&
        reserve_changes(&table->touched, changes))
        return ASSAY_LEDGER_OK;
    return ASSAY_LEDGER_NO_MEMORY;
}

void assay_accounts_set(assay_accounts *table, uint32_t row, const assay_amounts *amounts) {
    assay_amounts *now = &table->rows[row].amounts;
    assay_account_change change = {row, 0, *now};
    uint64_t bit = 1ULL << row % 64;
    table->undo.items[table->undo.count++] = change;
    /* A row made since the commit is in the next one anyway. */
    if (row < table->committed && !(table->touched_bits[row / 64] & bit)) {
        table->touched_bits[row / 64] |= bit;
        table->touched.items[table->touched.count++] = change;
    }
    *now = *amounts;
    if (assay_amounts_empty(now)) now->unbonding_until_ms = 0;
}

uint32_t assay_accounts_create(assay_accounts *table, const uint8_t *key, uint32_t hash,
                               const assay_amounts *amounts) {
    if (table->count >= table->rows_max) return ASSAY_NO_ROW;
    uint32_t row = (uint32_t)table->count++;
    assay_account_change change = {row, 1, {0, 0, 0, 0}};
    table->undo.items[table->undo.count++] = change;
    memcpy(table->rows[row].key, key, ASSAY_KEY_BYTES);
    table->rows[row].amounts = *amounts;
    if (assay_amounts_empty(amounts)) table->rows[row].amounts.unbonding_until_ms = 0;
    assay_key_index_insert(&table->index, hash, row);
    return row;
}

void assay_accounts_rollback(assay_accounts *table, size_t savepoint) {
    while (table->undo.count > savepoint) {
        const assay_account_change *change = &table->undo.items[--table->undo.count];
        assay_account *row = &table->rows[change->row];
        if (change->created) {
            assay_key_index_remove(&table->index, assay_key_hash(&table->index, row->key),
                                   change->row);
            table->count--;
        } else {
            row->amounts = change->before;
        }
    }
}

/* Levels for `count` leaves. Level l of a tree with room for c leaves has room for c >> l nodes. */
static int reserve_tree(assay_accounts *table, size_t count) {
    if (count <= table->tree_capacity) return 1;
    size_t capacity = table->capacity;
    for (int level = 0; level < ASSAY_ACCOUNT_LEVELS && capacity >> level > 0; level++) {
        const size_t bytes = ASSAY_MERKLE_HASH_SIZE * (capacity >> level);
        uint8_t *nodes = assay_table_memory(bytes);
        if (nodes == NULL) return 0;
        if (table->levels[level] != NULL)
            memcpy(nodes, table->levels[level],
                   ASSAY_MERKLE_HASH_SIZE * (table->tree_capacity >> level));
        free(table->levels[level]);
        table->levels[level] = nodes;
    }
    table->tree_capacity = capacity;
    return 1;
}

assay_ledger_status assay_accounts_settle(assay_accounts *table, size_t *changed) {
    assay_account_changes *touched = &table->touched;
    size_t kept = 0;
    if (!reserve_tree(table, table->count)) return ASSAY_LEDGER_NO_MEMORY;
    for (size_t i = 0; i < touched->count; i++) {
        uint32_t row = touched->items[i].row;
        if (same_amounts(&touched->items[i].before, &table->rows[row].amounts))
            table->touched_bits[row / 64] &= ~(1ULL << row % 64);
        else
            touched->items[kept++] = touched->items[i];
    }
    touched->count = kept;
    *changed = kept + (table->count - table->committed);
    if (*changed > table->dirty_capacity) {
        void *grown = grow(table->dirty, &table->dirty_capacity, *changed, sizeof *table->dirty);
        if (grown == NULL) return ASSAY_LEDGER_NO_MEMORY;
        table->dirty = grown;
    }
    return ASSAY_LEDGER_OK;
}

/* Rows that the commit changes, rising, into `dirty`; clears their marks. */
static size_t gather_dirty(assay_accounts *table) {
    size_t found = 0;
    for (size_t word = 0; word < (table->committed + 63) / 64; word++) {
        uint64_t bits = table->touched_bits[word];
        for (; bits != 0; bits &= bits - 1)
            table->dirty[found++] = (uint32_t)(64 * word + (size_t)__builtin_ctzll(bits));
        table->touched_bits[word] = 0;
    }
    for (size_t row = table->committed; row < table->count; row++)
        table->dirty[found++] = (uint32_t)row;
    return found;
}

static void queue_row(assay_merkle_queue *queue, assay_accounts *table, uint32_t row) {
    uint8_t leaf[LEAF_BYTES];
    leaf[0] = table->table_number;
    memcpy(leaf + 1, table->rows[row].key, ASSAY_KEY_BYTES);
    store_amounts(leaf + 1 + ASSAY_KEY_BYTES, &table->rows[row].amounts);
    assay_merkle_queue_leaf(queue, leaf, LEAF_BYTES,
                            table->levels[0] + ASSAY_MERKLE_HASH_SIZE * (size_t)row);
}

/* Parents of `dirty` nodes, level by level; the list becomes its own parents, so it stays sorted. */
static void update_tree(assay_accounts *table, assay_merkle_queue *queue, size_t dirty) {
    size_t nodes = table->count;
    for (int level = 0; nodes > 1; level++) {
        const uint8_t *below = table->levels[level];
        uint8_t *above = table->levels[level + 1];
        size_t parents = 0;
        for (size_t i = 0; i < dirty; i++) {
            uint32_t parent = table->dirty[i] / 2;
            if (parents > 0 && table->dirty[parents - 1] == parent) continue;
            table->dirty[parents++] = parent;
        }
        for (size_t i = 0; i < parents; i++) {
            const size_t parent = table->dirty[i], left = 2 * parent;
            if (i + PREFETCH_DISTANCE < parents) {
                size_t ahead = table->dirty[i + PREFETCH_DISTANCE];
                __builtin_prefetch(below + ASSAY_MERKLE_HASH_SIZE * 2 * ahead);
                __builtin_prefetch(above + ASSAY_MERKLE_HASH_SIZE * ahead, 1);
            }
            if (left + 1 < nodes)
                assay_merkle_queue_node(queue, below + ASSAY_MERKLE_HASH_SIZE * left,
                                        below + ASSAY_MERKLE_HASH_SIZE * (left + 1),
                                        above + ASSAY_MERKLE_HASH_SIZE * parent);
            else /* an odd last node is promoted */
                memcpy(above + ASSAY_MERKLE_HASH_SIZE * parent,
                       below + ASSAY_MERKLE_HASH_SIZE * left, ASSAY_MERKLE_HASH_SIZE);
        }
        assay_merkle_queue_flush(queue);
        dirty = parents;
        nodes = (nodes + 1) / 2;
    }
}

static void pack_row(const assay_accounts *table, uint32_t row, uint8_t *packed) {
    store_le32(packed, row);
    memcpy(packed + 4, table->rows[row].key, ASSAY_KEY_BYTES);
    store_amounts(packed + 4 + ASSAY_KEY_BYTES, &table->rows[row].amounts);
}

static void clear_changes(assay_account_changes *changes) {
    changes->count = 0;
    if (changes->capacity <= CHANGES_KEPT_MAX) return;
    free(changes->items);
    changes->items = NULL;
    changes->capacity = 0;
}

void assay_accounts_commit(assay_accounts *table, uint8_t *packed) {
    assay_merkle_queue queue;
    assay_merkle_queue_open(&queue, ASSAY_MERKLE_NODE_BLOCKS); /* as many as a row's leaf has */
    size_t dirty = gather_dirty(table);
    for (size_t i = 0; i < dirty; i++) {
        uint32_t row = table->dirty[i];
        if (i + PREFETCH_DISTANCE < dirty) {
            size_t ahead = table->dirty[i + PREFETCH_DISTANCE];
            __builtin_prefetch(&table->rows[ahead]);
            __builtin_prefetch(table->levels[0] + ASSAY_MERKLE_HASH_SIZE * ahead, 1);
        }
        if (packed != NULL) pack_row(table, row, packed + ASSAY_ACCOUNT_ROW_BYTES * i);
        queue_row(&queue, table, row);
    }
    assay_merkle_queue_flush(&queue);
    update_tree(table, &queue, dirty);
    table->committed = table->count;
    clear_changes(&table->touched);
    clear_changes(&table->undo);
}

void assay_accounts_root(const assay_accounts *table, uint8_t root[32]) {
    int level = 0;
    if (table->committed == 0) {
        assay_merkle_empty(root);
        return;
    }
    for (size_t nodes = table->committed; nodes > 1; nodes = (nodes + 1) / 2) level++;
    memcpy(root, table->levels[level], ASSAY_MERKLE_HASH_SIZE);
}

size_t assay_accounts_proof(const assay_accounts *table, uint32_t row, uint8_t *path) {
    size_t steps = 0, nodes = table->committed, at = row;
    for (int level = 0; nodes > 1; level++, at /= 2, nodes = (nodes + 1) / 2) {
        size_t sibling = at ^ 1;
        if (sibling < nodes)
            memcpy(path + ASSAY_MERKLE_HASH_SIZE * steps++,
                   table->levels[level] + ASSAY_MERKLE_HASH_SIZE * sibling, ASSAY_MERKLE_HASH_SIZE);
    }
    return steps;
}

void assay_accounts_pack(const assay_accounts *table, size_t start, size_t count, uint8_t *packed) {
    for (size_t i = 0; i < count; i++)
        pack_row(table, (uint32_t)(start + i), packed + ASSAY_ACCOUNT_ROW_BYTES * i);
}

static assay_ledger_status apply_row(assay_accounts *table, const uint8_t *packed, int append_only) {
    const uint8_t *key = packed + 4;
    uint32_t number = load_le32(packed), hash = assay_key_hash(&table->index, key);
    assay_amounts amounts = load_amounts(key + ASSAY_KEY_BYTES);
    if (number > table->count || (append_only && number < table->count)) return ASSAY_LEDGER_GAP;
    if (assay_amounts_empty(&amounts) && amounts.unbonding_until_ms != 0)
        return ASSAY_LEDGER_NOT_ZERO;
    if (number < table->count) {
        if (memcmp(table->rows[number].key, key, ASSAY_KEY_BYTES) != 0)
            return ASSAY_LEDGER_WRONG_KEY;
        assay_accounts_set(table, number, &amounts);
        return ASSAY_LEDGER_OK;
    }
    if (assay_accounts_find(table, key, hash) != ASSAY_NO_ROW) return ASSAY_LEDGER_KNOWN_KEY;
    if (assay_accounts_create(table, key, hash, &amounts) == ASSAY_NO_ROW) return ASSAY_LEDGER_FULL;
    return ASSAY_LEDGER_OK;
}

assay_ledger_status assay_accounts_apply(assay_accounts *table, const uint8_t *packed, size_t rows,
                                         int append_only, size_t *failed_at) {
    size_t changed;
    assay_ledger_status status = ASSAY_LEDGER_OK;
    *failed_at = 0;
    if (table->undo.count > 0) return ASSAY_LEDGER_UNCOMMITTED;
    for (size_t i = 0; i < rows && status == ASSAY_LEDGER_OK; i++) {
        const uint8_t *row = packed + ASSAY_ACCOUNT_ROW_BYTES * i;
        *failed_at = i;
        if (i > 0 && load_le32(row) <= load_le32(row - ASSAY_ACCOUNT_ROW_BYTES))
            status = ASSAY_LEDGER_NOT_RISING;
        else
            status = assay_accounts_reserve(table, 1, 1);
        if (status == ASSAY_LEDGER_OK) status = apply_row(table, row, append_only);
    }
    if (status == ASSAY_LEDGER_OK) status = assay_accounts_settle(table, &changed);
    if (status == ASSAY_LEDGER_OK)
        assay_accounts_commit(table, NULL);
    else
        assay_accounts_rollback(table, 0);
    return status;
}
