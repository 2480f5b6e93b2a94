/* Feeds damaged payloads and signatures to the native code from buffers of exactly their size. Built and
 * run with the address and undefined-behaviour sanitizers by test_hostile_input.py: an access out of
 * bounds, an overflow or a leak ends it. Prints how many inputs were accepted and refused. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ed25519.h"
#include "merkle.h"
#include "transactions.h"

enum { PAYLOADS = 40000, SIGNATURES = 200, LEAVES_MAX = 40, PARTS_MAX = 4 };

static uint64_t state;

static uint32_t next_random(uint32_t limit) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % limit;
}

static size_t put_varint(uint8_t *out, size_t value) {
    size_t length = 0;
    for (; value > 127; value >>= 7) out[length++] = (uint8_t)(value & 127) | 128;
    out[length++] = (uint8_t)value;
    return length;
}

/* A canonical payload of a few transactions and attestations. */
static size_t valid_payload(uint8_t *out) {
    size_t length = 0;
    for (uint32_t i = next_random(PARTS_MAX); i > 0; i--) {
        uint8_t inner[512];
        size_t body = 1 + next_random(200), size = 0;
        inner[size++] = 0x0a;
        size += put_varint(inner + size, body);
        memset(inner + size, (int)next_random(256), body);
        size += body;
        inner[size++] = 0x12;
        inner[size++] = 32;
        memset(inner + size, (int)next_random(256), 32);
        size += 32;
        inner[size++] = 0x1a;
        inner[size++] = 64;
        memset(inner + size, (int)next_random(256), 64);
        size += 64;
        out[length++] = 0x0a;
        length += put_varint(out + length, size);
        memcpy(out + length, inner, size);
        length += size;
    }
    for (uint32_t i = next_random(PARTS_MAX); i > 0; i--) {
        size_t size = 1 + next_random(150);
        out[length++] = 0x12;
        length += put_varint(out + length, size);
        memset(out + length, (int)next_random(256), size);
        length += size;
    }
    return length;
}

static int parse(const uint8_t *payload, size_t length) {
    size_t transactions, attestations, failed_at;
    assay_signed_tx single;
    assay_parse_signed_tx(payload, 0, length, &single, &failed_at);
    if (failed_at > length) abort();
    if (assay_count_batch(payload, length, &transactions, &attestations, &failed_at) !=
        ASSAY_PARSE_OK) {
        if (failed_at > length) abort();
        return 0;
    }
    assay_slice *bodies = malloc(transactions * sizeof *bodies);
    assay_slice *slices = malloc(attestations * sizeof *slices);
    uint8_t *keys = malloc(32 * transactions), *signatures = malloc(64 * transactions);
    uint8_t *ids = malloc(32 * transactions);
    int accepted = assay_parse_batch(payload, length, bodies, keys, signatures, ids, slices,
                                     &failed_at) == ASSAY_PARSE_OK;
    if (!accepted && failed_at > length) abort();
    free(bodies);
    free(slices);
    free(keys);
    free(signatures);
    free(ids);
    return accepted;
}

static void damage(uint8_t *bytes, size_t *length) {
    for (uint32_t i = next_random(3); i > 0 && *length > 0; i--)
        bytes[next_random((uint32_t)*length)] = (uint8_t)next_random(256);
    if (next_random(4) == 0) *length = next_random((uint32_t)*length + 1);
}

static size_t check_payloads(void) {
    size_t accepted = 0;
    for (int round = 0; round < PAYLOADS; round++) {
        uint8_t scratch[4096];
        size_t length = valid_payload(scratch);
        damage(scratch, &length);
        uint8_t *exact = malloc(length);
        memcpy(exact, scratch, length);
        accepted += (size_t)parse(exact, length);
        free(exact);
    }
    return accepted;
}

static void check_signatures(void) {
    uint8_t *keys = malloc(32 * SIGNATURES), *signatures = malloc(64 * SIGNATURES);
    uint8_t *coefficients = malloc(16 * SIGNATURES), *accepted = malloc(SIGNATURES);
    assay_message *messages = malloc(SIGNATURES * sizeof *messages);
    for (size_t i = 0; i < 32 * SIGNATURES; i++) keys[i] = (uint8_t)next_random(256);
    for (size_t i = 0; i < 64 * SIGNATURES; i++)
        signatures[i] = (uint8_t)next_random(i % 64 == 63 ? 16 : 256);
    for (size_t i = 0; i < 16 * SIGNATURES; i++) coefficients[i] = (uint8_t)next_random(256);
    for (size_t i = 0; i < SIGNATURES; i++) {
        /* Every other signature is the trivially valid one of the identity point. */
        if (i % 2 == 0) {
            memset(keys + 32 * i, 0, 32);
            memset(signatures + 64 * i, 0, 64);
            keys[32 * i] = signatures[64 * i] = 1;
        }
        messages[i].length = next_random(300);
        messages[i].data = malloc(messages[i].length);
        memset((uint8_t *)messages[i].data, (int)i, messages[i].length);
    }
    for (const char *const *engine = assay_ed25519_engines(); *engine != NULL; engine++)
        for (size_t kept = 0; kept <= 2 * SIGNATURES; kept += SIGNATURES / 2) {
            assay_ed25519_costs costs = {0};
            assay_ed25519_verifier *verifier =
                assay_ed25519_verifier_new(*engine, kept, coefficients);
            if (verifier == NULL) abort();
            for (int again = 0; again < 2; again++) {
                memset(accepted, 2, SIGNATURES);
                if (!assay_ed25519_verify_batch(verifier, SIGNATURES, keys, messages, signatures,
                                                coefficients, accepted, &costs))
                    abort();
                for (size_t i = 0; i < SIGNATURES; i++)
                    if (accepted[i] != (i % 2 == 0)) abort();
            }
            assay_ed25519_verifier_free(verifier);
        }
    for (size_t i = 0; i < SIGNATURES; i++) {
        free((uint8_t *)messages[i].data);
    }
    free(keys);
    free(signatures);
    free(coefficients);
    free(accepted);
    free(messages);
}

static void check_trees(void) {
    for (size_t leaves = 1; leaves <= LEAVES_MAX; leaves++)
        for (size_t index = 0; index < leaves; index++) {
            uint8_t *hashes = malloc(32 * leaves), path[32 * ASSAY_MERKLE_PATH_MAX], leaf[32];
            for (size_t i = 0; i < 32 * leaves; i++) hashes[i] = (uint8_t)next_random(256);
            memcpy(leaf, hashes + 32 * index, 32);
            size_t steps = assay_merkle_reduce(hashes, leaves, index, path);
            uint8_t *exact = malloc(32 * steps);
            memcpy(exact, path, 32 * steps);
            if (!assay_merkle_verify(leaf, index, leaves, exact, steps, hashes)) abort();
            free(exact);
            free(hashes);
        }
}

int main(int count, char **arguments) {
    state = count > 1 ? strtoull(arguments[1], NULL, 10) : 1;
    size_t accepted = check_payloads();
    assay_ed25519_prepare();
    check_signatures();
    check_trees();
    printf("%zu accepted, %zu refused\n", accepted, PAYLOADS - accepted);
    return 0;
}
