/* Feeds requests and results, damaged or not, to the parser of bodies from buffers of exactly their size,
 * takes the envelopes of those it accepts, and grows and shrinks a tree of rows. Built and run with the
 * address and undefined-behaviour sanitizers by test_hostile_input.py. Prints how many inputs were
 * accepted and refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "merkle.h"
#include "row_tree.h"
#include "sha256.h"
#include "transfers.h"

enum { BODIES = 20000, BODY_BYTES_MAX = 1024, COMMITS = 300, ROWS = 200 };

static const uint8_t CHAIN[] = {'h', 'o', 's', 't'};
static uint64_t state;
static size_t accepted, refused;

static uint32_t next_random(uint32_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

static void require(int holds) {
    if (!holds) abort();
}

static size_t put_varint(uint8_t *out, uint64_t value) {
    size_t length = 0;
    for (; value > 127; value >>= 7) out[length++] = (uint8_t)(value & 127) | 128;
    out[length++] = (uint8_t)value;
    return length;
}

static size_t put_field(uint8_t *out, uint8_t tag, const uint8_t *content, size_t length) {
    size_t size = 0;
    out[size++] = tag;
    size += put_varint(out + size, length);
    memcpy(out + size, content, length);
    return size + length;
}

static size_t put_key(uint8_t *out, uint8_t tag) {
    uint8_t key[33];
    memset(key, (int)next_random(256), sizeof key);
    return put_field(out, tag, key, next_random(40) ? 32 : 33);
}

static size_t put_text(uint8_t *out, uint8_t tag) {
    static const uint8_t text[] = "plain, \xc3\xbc, \xe2\x82\xac and \xf0\x90\x8d\x88";
    return put_field(out, tag, text, 1 + next_random(sizeof text - 1));
}

static size_t put_request(uint8_t *out) {
    uint8_t inner[BODY_BYTES_MAX], chat[BODY_BYTES_MAX];
    size_t size = put_key(out, 0x0a), length = 0;
    if (next_random(2)) {
        length = put_text(inner, 0x0a);
    } else {
        size_t said = put_varint(chat + 1, 1 + next_random(4)) + 1;
        chat[0] = 0x08;
        said += put_text(chat + said, 0x12);
        uint8_t messages[BODY_BYTES_MAX];
        length = put_field(messages, 0x0a, chat, said);
        memcpy(chat, messages, length);
        length = put_field(inner, 0x12, chat, length);
    }
    size += put_field(out + size, 0x12, inner, length);
    inner[0] = 0x20;
    length = 1 + put_varint(inner + 1, 1 + next_random(600));
    if (next_random(4) == 0) length += put_text(inner + length, 0x2a);
    size += put_field(out + size, 0x1a, inner, length);
    out[size++] = 0x20;
    size += put_varint(out + size, 1 + next_random(1u << 30));
    if (next_random(4) == 0) size += put_key(out + size, 0x32);
    if (next_random(4) == 0) size += put_key(out + size, 0x42);
    return size;
}

static size_t put_result(uint8_t *out) {
    uint8_t result[BODY_BYTES_MAX], packed[BODY_BYTES_MAX];
    size_t size = put_key(out, 0x0a), length = 0, tokens = 1 + next_random(20), bytes = 0;
    for (size_t i = 0; i < tokens; i++) bytes += put_varint(packed + bytes, next_random(70000));
    length += put_field(result, 0x0a, packed, bytes);
    bytes = 0;
    for (size_t i = 0; i < tokens; i++) bytes += put_varint(packed + bytes, 2 * next_random(900) + 1);
    length += put_field(result + length, 0x12, packed, bytes);
    result[length++] = 0x18;
    result[length++] = (uint8_t)(1 + next_random(4));
    result[length++] = 0x20;
    length += put_varint(result + length, 1 + next_random(500));
    length += put_text(result + length, 0x2a);
    length += put_text(result + length, 0x32);
    return size + put_field(out + size, 0x12, result, length);
}

static size_t put_body(uint8_t *out) {
    uint8_t message[BODY_BYTES_MAX], operation[BODY_BYTES_MAX];
    const int asks = next_random(2) != 0;
    size_t length = asks ? put_request(message) : put_result(message);
    size_t size = put_field(out, 0x0a, CHAIN, sizeof CHAIN);
    length = put_field(operation, asks ? 0x3a : 0x42, message, length);
    out[size++] = 0x10;
    size += put_varint(out + size, 95 + next_random(20));
    out[size++] = 0x20;
    size += put_varint(out + size, 1 + next_random(2000));
    size += put_field(out + size, 0x2a, operation, length);
    if (next_random(3) == 0) out[next_random((uint32_t)size)] = (uint8_t)next_random(256);
    if (next_random(8) == 0) size = 1 + next_random((uint32_t)size);
    return size;
}

/* Alone in its batch. */
static void check_body(assay_accounts *accounts, assay_window *window, assay_run_output *output) {
    static const assay_job_limits limits = {5000, 64, 1000, 20000, 4, 64, 256, 1u << 16, 2, 3, 3};
    static const assay_transfer_rules rules = {100, 10, 3, 1, 8, 5000};
    uint8_t scratch[2 * BODY_BYTES_MAX], class, key[32], id[32], owner[32] = {7};
    uint64_t height, max_fee, fee;
    uint32_t body_bytes, first, operations, receivers[32];
    uint64_t amounts[32];
    assay_slice slice = {0, (uint32_t)put_body(scratch)};
    uint8_t *payload = malloc(slice.length);
    memcpy(payload, scratch, slice.length);
    assay_bodies parsed = {&class, &height, &max_fee, &body_bytes, &first, &operations,
                           receivers, amounts, NULL, 0, 0};
    size_t transfers;
    require(assay_bodies_room(&slice, 1) <= 32);
    require(assay_parse_bodies(payload, &slice, 1, CHAIN, sizeof CHAIN, &limits, &parsed, &transfers));
    require(transfers == 0);
    if (class == ASSAY_BODY_OTHER) {
        refused++;
    } else {
        const assay_job_operation *found = &parsed.job_operations[first];
        require(found->subject + 32 <= slice.length);
        require((size_t)found->message.offset + found->message.length <= slice.length);
        require((size_t)found->engine_profile.offset + found->engine_profile.length <= slice.length);
        require((found->provider == 0 || found->provider + 32 <= slice.length) &&
                (found->seed == 0 || found->seed + 32 <= slice.length));
        memset(key, (int)next_random(20), sizeof key);
        assay_job_id(key, (uint32_t)accepted, id);
        const assay_run_batch given = {payload, key, id, &parsed};
        int charged;
        require(assay_charge_envelope(accounts, window, &given, &rules, owner, output, 0, &charged,
                                      &fee) == ASSAY_RUN_OK);
        if (charged)
            require(assay_conclude_envelope(window, &given, &rules, output, 0,
                                            next_random(2) ? NULL : "UNKNOWN_JOB",
                                            fee) == ASSAY_RUN_OK);
        accepted++;
    }
    assay_bodies_free(&parsed);
    free(payload);
}

static void check_bodies(void) {
    const uint64_t seed[2] = {state, 9};
    assay_accounts accounts;
    assay_window window;
    assay_run_output output;
    memset(&output, 0, sizeof output);
    require(assay_accounts_make(&accounts, 1, seed, 100));
    require(assay_window_make(&window, seed, 8));
    for (int who = 0; who < 10; who++) {
        uint8_t key[32];
        const assay_amounts rich = {100000000, 0, 0, 0};
        memset(key, who, sizeof key);
        require(assay_accounts_reserve(&accounts, 1, 1) == ASSAY_LEDGER_OK);
        assay_accounts_create(&accounts, key, assay_key_hash(&accounts.index, key), &rich);
    }
    for (int i = 0; i < BODIES; i++) check_body(&accounts, &window, &output);
    require(output.receipts.count > 0 && window.count > 0);
    assay_leaves_free(&output.receipts);
    assay_leaves_free(&output.events);
    assay_accounts_free(&accounts);
    assay_window_free(&window);
}

/* Every root is that over all leaves. */
static void check_tree(void) {
    assay_row_tree tree;
    memset(&tree, 0, sizeof tree);
    for (int round = 0; round < COMMITS; round++) {
        const size_t before = tree.rows, rows = next_random(ROWS);
        uint8_t root[32], expected[32], *hashes = malloc(32 * (rows + 1));
        uint32_t *dirty = malloc(sizeof *dirty * (rows + 1));
        size_t count = 0;
        require(assay_row_tree_reserve(&tree, rows));
        for (size_t row = 0; row < rows; row++) {
            const int changes = row >= before || row + 1 == rows || next_random(5) == 0;
            if (!changes) continue;
            memset(tree.levels[0] + 32 * row, (int)next_random(256), 32);
            dirty[count++] = (uint32_t)row;
        }
        if (rows > 0) memcpy(hashes, tree.levels[0], 32 * rows);
        assay_row_tree_update(&tree, rows, dirty, count);
        assay_row_tree_root(&tree, root);
        if (rows > 0) assay_merkle_reduce(hashes, rows, 0, NULL);
        if (rows == 0) assay_merkle_empty(expected);
        require(memcmp(root, rows == 0 ? expected : hashes, 32) == 0);
        free(hashes);
        free(dirty);
    }
    assay_row_tree_free(&tree);
}

int main(int arguments_count, char **arguments) {
    state = arguments_count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    assay_sha256_select();
    check_bodies();
    check_tree();
    printf("%zu accepted, %zu refused\n", accepted, refused);
    return 0;
}
