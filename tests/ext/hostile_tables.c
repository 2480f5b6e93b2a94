/* Feeds damaged bodies, packed rows and leaves, and random runs, to the ledger's tables, from buffers of
 * exactly their size. Built and run with the address and undefined-behaviour sanitizers by
 * test_hostile_input.py. Checks after each step that both tables find what they hold. Prints how many
 * inputs were accepted and refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sha256.h"
#include "transfers.h"

enum { KEYS = 200, BODIES_MAX = 40, BODY_BYTES_MAX = 700, RUNS = 1500, STEPS = 4000, PACKED = 20 };

static const uint8_t CHAIN[] = {'h', 'o', 's', 't'};
static uint64_t state;
static size_t accepted, refused;

static uint32_t next_random(uint32_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

static void count(int was_accepted) {
    accepted += was_accepted != 0;
    refused += was_accepted == 0;
}

static void require(int holds) {
    if (!holds) abort();
}

static void random_key(uint8_t key[32]) {
    memset(key, 0, 32);
    key[0] = (uint8_t)next_random(KEYS);
    key[31] = 7;
}

/* A copy whose end is the end of its memory. */
static void *exact(const void *bytes, size_t length) {
    void *copy = malloc(length);
    if (length > 0) memcpy(copy, bytes, length);
    return copy;
}

static size_t put_varint(uint8_t *out, uint64_t value) {
    size_t length = 0;
    for (; value > 127; value >>= 7) out[length++] = (uint8_t)(value & 127) | 128;
    out[length++] = (uint8_t)value;
    return length;
}

static size_t put_transfer(uint8_t *out, uint64_t amount) {
    uint8_t number[10];
    size_t digits = amount > 0 ? put_varint(number, amount) : 0, size = 0;
    size_t inner = 34 + (digits > 0 ? 1 + digits : 0);
    out[size++] = 0x2a;
    out[size++] = (uint8_t)(inner + 2);
    out[size++] = 0x0a;
    out[size++] = (uint8_t)inner;
    out[size++] = 0x0a;
    out[size++] = 32;
    random_key(out + size);
    size += 32;
    if (digits > 0) {
        out[size++] = 0x10;
        memcpy(out + size, number, digits);
    }
    return size + digits;
}

static size_t put_body(uint8_t *out) {
    size_t size = 0;
    out[size++] = 0x0a;
    out[size++] = sizeof CHAIN;
    memcpy(out + size, CHAIN, sizeof CHAIN);
    size += sizeof CHAIN;
    out[size++] = 0x10;
    size += put_varint(out + size, 95 + next_random(20));
    if (next_random(2)) {
        out[size++] = 0x19;
        memset(out + size, (int)(1 + next_random(255)), 8);
        size += 8;
    }
    out[size++] = 0x20;
    size += put_varint(out + size, 1 + next_random(400));
    for (uint32_t i = 1 + next_random(8); i > 0; i--)
        size += put_transfer(out + size, next_random(8) ? next_random(100) : UINT64_MAX);
    if (next_random(3) == 0) out[next_random((uint32_t)size)] = (uint8_t)next_random(256);
    if (next_random(8) == 0) size = 1 + next_random((uint32_t)size);
    return size;
}

/* Padded messages, one or two at a time, against the portable path fed byte by byte. */
static void check_hashes(void) {
    for (size_t messages = 0; messages < 6; messages++)
        for (size_t length = 0; length < 130; length++) {
            size_t padded = ASSAY_SHA256_PADDED(length);
            uint8_t *bytes = malloc(padded * messages), *digests = malloc(32 * messages);
            for (size_t i = 0; i < messages; i++) {
                for (size_t at = 0; at < length; at++)
                    bytes[padded * i + at] = (uint8_t)next_random(256);
                assay_sha256_pad(bytes + padded * i, length);
            }
            assay_sha256_padded(bytes, padded / 64, messages, digests);
            for (size_t i = 0; i < messages; i++) {
                assay_sha256_context context;
                uint8_t digest[32];
                assay_sha256_init_with(&context, assay_sha256_portable());
                for (size_t at = 0; at < length; at++)
                    assay_sha256_update(&context, bytes + padded * i + at, 1);
                assay_sha256_final(&context, digest);
                require(memcmp(digest, digests + 32 * i, 32) == 0);
            }
            free(bytes);
            free(digests);
        }
}

static void check_accounts(const assay_accounts *table) {
    for (uint32_t row = 0; row < table->count; row++) {
        const uint8_t *key = table->rows[row].key;
        require(assay_accounts_find(table, key, assay_key_hash(&table->index, key)) == row);
    }
    uint64_t used = 0;
    for (uint64_t at = 0; at <= table->index.mask; at++) used += table->index.slots[at] != 0;
    require(used == table->count);
}

static void check_window(const assay_window *window) {
    size_t ids = 0;
    for (size_t i = 0; i < window->height_count; i++) ids += window->heights[i].count;
    require(ids == window->count);
    uint64_t used = 0;
    for (uint64_t at = 0; at <= window->index.mask; at++) used += window->index.slots[at] != 0;
    require(used == window->count);
    for (size_t i = 0; i < window->count; i++) {
        size_t place = (window->head + i) & (window->capacity - 1);
        const uint8_t *id = window->ids + 32 * place;
        require(assay_window_find(window, id, assay_key_hash(&window->index, id)) == place);
    }
}

static void commit(assay_accounts *table) {
    size_t changed;
    require(assay_accounts_settle(table, &changed) == ASSAY_LEDGER_OK);
    uint8_t *packed = malloc(ASSAY_ACCOUNT_ROW_BYTES * changed);
    uint8_t path[32 * ASSAY_ACCOUNT_LEVELS], root[32];
    assay_accounts_commit(table, packed);
    assay_accounts_root(table, root);
    for (uint32_t row = 0; row < table->count; row += 17) assay_accounts_proof(table, row, path);
    free(packed);
}

static void put_le(uint8_t *out, uint64_t value, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) out[i] = (uint8_t)(value >> 8 * i);
}

static void apply_packed(assay_accounts *table) {
    uint8_t packed[ASSAY_ACCOUNT_ROW_BYTES * PACKED];
    size_t rows = next_random(PACKED), number = next_random((uint32_t)table->count + 2), failed_at;
    for (size_t i = 0; i < rows; i++, number += 1 + (next_random(9) == 0)) {
        uint8_t *row = packed + ASSAY_ACCOUNT_ROW_BYTES * i;
        put_le(row, number, 4);
        if (number < table->count)
            memcpy(row + 4, table->rows[number].key, 32);
        else
            random_key(row + 4);
        for (int field = 0; field < 4; field++) put_le(row + 36 + 8 * field, next_random(3), 8);
    }
    uint8_t *bytes = exact(packed, ASSAY_ACCOUNT_ROW_BYTES * rows);
    size_t before = table->count;
    assay_ledger_status status =
        assay_accounts_apply(table, bytes, rows, (int)next_random(2), &failed_at);
    require(status == ASSAY_LEDGER_OK || (table->count == before && failed_at < rows));
    count(status == ASSAY_LEDGER_OK);
    free(bytes);
}

static void check_table(void) {
    const uint64_t seed[2] = {state, ~state};
    assay_accounts table;
    size_t savepoint = 0;
    require(assay_accounts_make(&table, 1, seed, KEYS - 20));
    for (int step = 0; step < STEPS; step++) {
        uint8_t key[32];
        random_key(key);
        uint32_t hash = assay_key_hash(&table.index, key);
        uint32_t row = assay_accounts_find(&table, key, hash), kind = next_random(40);
        assay_amounts amounts = {next_random(3), next_random(2), next_random(2), next_random(2)};
        require(assay_accounts_reserve(&table, 1, 1) == ASSAY_LEDGER_OK);
        if (kind == 0) {
            commit(&table);
            savepoint = 0;
        } else if (kind == 1) {
            savepoint = next_random((uint32_t)table.undo.count + 1);
            assay_accounts_rollback(&table, savepoint);
        } else if (kind == 2) {
            assay_accounts_rollback(&table, 0);
            apply_packed(&table);
        } else if (row != ASSAY_NO_ROW) {
            assay_accounts_set(&table, row, &amounts);
        } else {
            row = assay_accounts_create(&table, key, hash, &amounts);
            require((row == ASSAY_NO_ROW) == (table.count == table.rows_max && row != table.count - 1));
        }
        if (step % 50 == 0) check_accounts(&table);
    }
    assay_accounts_free(&table);
}

static void check_ids(void) {
    const uint64_t seed[2] = {state, 3};
    assay_window window;
    uint64_t height = 1;
    require(assay_window_make(&window, seed, 6));
    for (int step = 0; step < STEPS; step++) {
        size_t ids = next_random(12), first;
        uint8_t joined[32 * 12], leaves[4 * 12];
        for (size_t i = 0; i < ids; i++) {
            random_key(joined + 32 * i);
            joined[32 * i + 1] = (uint8_t)next_random(4);
            put_le(leaves + 4 * i, next_random(1000), 4);
        }
        uint8_t *exact_ids = exact(joined, 32 * ids), *exact_leaves = exact(leaves, 4 * ids);
        const size_t before = window.count;
        int loaded = assay_window_load(&window, height, exact_ids,
                                       next_random(2) ? exact_leaves : NULL, ids) == ASSAY_LEDGER_OK;
        require(window.count == before + (loaded ? ids : 0));
        count(loaded);
        free(exact_ids);
        free(exact_leaves);
        height += next_random(3) == 0;
        if (next_random(4) == 0) assay_window_drop_through(&window, height - next_random(6));
        size_t held = assay_window_range(&window, height, &first);
        uint8_t *copied = malloc(32 * held);
        assay_window_copy(&window, first, held, copied, NULL);
        free(copied);
        if (step % 50 == 0) check_window(&window);
    }
    assay_window_free(&window);
}

/* Bodies of one batch in one buffer, parsed into arrays of exactly their size. */
typedef struct {
    uint8_t *payload, *keys, *ids;
    assay_slice slices[BODIES_MAX];
    assay_bodies parsed;
    size_t count;
} batch;

static void make_batch(batch *batch) {
    uint8_t scratch[BODIES_MAX * BODY_BYTES_MAX];
    size_t length = 0;
    batch->count = 1 + next_random(BODIES_MAX - 1);
    for (size_t i = 0; i < batch->count; i++) {
        batch->slices[i].offset = (uint32_t)length;
        batch->slices[i].length = (uint32_t)put_body(scratch + length);
        length += batch->slices[i].length;
    }
    size_t room = assay_bodies_room(batch->slices, batch->count);
    batch->payload = exact(scratch, length);
    batch->keys = malloc(32 * batch->count);
    batch->ids = malloc(32 * batch->count);
    for (size_t i = 0; i < batch->count; i++) {
        random_key(batch->keys + 32 * i);
        random_key(batch->ids + 32 * i);
        batch->ids[32 * i + 2] = (uint8_t)next_random(200);
    }
    batch->parsed.classes = malloc(batch->count);
    batch->parsed.valid_until_heights = malloc(8 * batch->count);
    batch->parsed.max_fees = malloc(8 * batch->count);
    batch->parsed.body_bytes = malloc(4 * batch->count);
    batch->parsed.first_operations = malloc(4 * batch->count);
    batch->parsed.operation_counts = malloc(4 * batch->count);
    batch->parsed.receivers = malloc(4 * room);
    batch->parsed.amounts = malloc(8 * room);
    uint8_t *chain = exact(CHAIN, sizeof CHAIN);
    size_t operations;
    require(assay_parse_bodies(batch->payload, batch->slices, batch->count, chain, sizeof CHAIN, NULL,
                               &batch->parsed, &operations));
    require(operations <= room);
    for (size_t i = 0; i < operations; i++) require(batch->parsed.receivers[i] + 32 <= length);
    for (size_t i = 0; i < batch->count; i++) count(batch->parsed.classes[i] == ASSAY_BODY_PLAIN);
    free(chain);
}

static void free_batch(batch *batch) {
    free(batch->payload);
    free(batch->keys);
    free(batch->ids);
    free(batch->parsed.classes);
    free(batch->parsed.valid_until_heights);
    free(batch->parsed.max_fees);
    free(batch->parsed.body_bytes);
    free(batch->parsed.first_operations);
    free(batch->parsed.operation_counts);
    free(batch->parsed.receivers);
    free(batch->parsed.amounts);
}

static void check_leaves(const assay_leaves *leaves) {
    uint8_t root[32], path[32 * 64];
    size_t steps;
    uint8_t *data = exact(leaves->data, leaves->length), *ends = exact(leaves->ends, 4 * leaves->count);
    require(assay_leaves_valid(ends, leaves->count, leaves->length));
    for (size_t index = 0; index < leaves->count; index += 1 + leaves->count / 3)
        require(assay_leaves_root(data, ends, leaves->count, root, index, path, &steps));
    if (leaves->count > 0) {
        ends[next_random((uint32_t)(4 * leaves->count))] = (uint8_t)next_random(256);
        if (assay_leaves_valid(ends, leaves->count, leaves->length))
            require(assay_leaves_root(data, ends, leaves->count, root, 0, NULL, NULL));
    }
    free(data);
    free(ends);
}

static void check_only(assay_accounts *accounts, assay_window *window, const assay_run_batch *given,
                       const assay_transfer_rules *rules, const uint8_t *owner, size_t bodies) {
    uint8_t *refusals = malloc(bodies);
    uint64_t *seen = malloc(8 * bodies), *bounds = malloc(8 * bodies);
    assay_check_transfers(accounts, window, given, rules, owner, bodies, refusals, seen, bounds);
    for (size_t i = 0; i < bodies; i++)
        require(refusals[i] <= ASSAY_REFUSAL_STATE_FULL &&
                (refusals[i] == ASSAY_REFUSAL_NONE || given->bodies->classes[i] == ASSAY_BODY_PLAIN));
    free(refusals);
    free(seen);
    free(bounds);
}

static void check_runs(void) {
    const uint64_t seed[2] = {state, 9};
    assay_transfer_rules rules = {100, 10, 3, 0, 8, 5000, 0};
    assay_accounts accounts;
    assay_window window;
    uint8_t owner[32];
    require(assay_accounts_make(&accounts, 1, seed, KEYS - 20));
    require(assay_window_make(&window, seed, 6));
    for (int round = 0; round < RUNS; round++) {
        assay_run_output output;
        batch batch;
        memset(&output, 0, sizeof output);
        make_batch(&batch);
        random_key(owner);
        const assay_run_batch given = {batch.payload, batch.keys, batch.ids, &batch.parsed};
        const size_t savepoint = accounts.undo.count;
        rules.accounts_max = round % 3 ? UINT32_MAX : accounts.count + next_random(3);
        check_only(&accounts, &window, &given, &rules, owner, batch.count);
        require(accounts.undo.count == savepoint);
        for (size_t at = 0; at < batch.count; at++) {
            assay_run_status status = assay_run_transfers(&accounts, &window, &given, &rules, owner,
                                                          &output, &at, batch.count);
            require(status != ASSAY_RUN_NO_MEMORY && status != ASSAY_RUN_LEAVES_TOO_LONG);
        }
        check_leaves(&output.receipts);
        check_leaves(&output.events);
        if (next_random(4) == 0) assay_accounts_rollback(&accounts, savepoint);
        if (next_random(4) == 0) commit(&accounts);
        if (next_random(20) == 0) assay_window_drop_through(&window, 100);
        for (uint32_t row = 0; row < accounts.count && accounts.undo.count == 0; row++) {
            assay_amounts rich = {row % 9 ? 500 : UINT64_MAX - 300, row % 2, 0, row % 2};
            require(assay_accounts_reserve(&accounts, 1, 0) == ASSAY_LEDGER_OK);
            if (round % 7 == 0) assay_accounts_set(&accounts, row, &rich);
        }
        if (accounts.count < 20) {
            uint8_t key[32];
            assay_amounts rich = {100000, 0, 0, 0};
            random_key(key);
            uint32_t hash = assay_key_hash(&accounts.index, key);
            require(assay_accounts_reserve(&accounts, 1, 1) == ASSAY_LEDGER_OK);
            if (assay_accounts_find(&accounts, key, hash) == ASSAY_NO_ROW)
                assay_accounts_create(&accounts, key, hash, &rich);
        }
        if (round % 25 == 0) {
            check_accounts(&accounts);
            check_window(&window);
        }
        assay_leaves_free(&output.receipts);
        assay_leaves_free(&output.events);
        free_batch(&batch);
    }
    assay_accounts_free(&accounts);
    assay_window_free(&window);
}

int main(int arguments_count, char **arguments) {
    state = arguments_count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    check_hashes(); /* by the portable path, which is chosen until another is */
    assay_sha256_select();
    check_hashes();
    check_table();
    check_ids();
    check_runs();
    printf("%zu accepted, %zu refused\n", accepted, refused);
    return 0;
}
