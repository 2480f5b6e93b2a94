/* Checks vectors from standard input, one a line: key, message ("-" for none) and signature in hex, then
 * 1 or 0 for the verdict. Each alone, then all in one batch, by every engine, with no keys kept and with
 * keys kept from the batch before. Prints how many were right; ends with 1 at the first that is not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ed25519.h"

enum { VECTORS_MAX = 4096, LINE_MAX_LENGTH = 1 << 16, KEPT = 64 };

static uint8_t keys[32 * VECTORS_MAX], signatures[64 * VECTORS_MAX];
static uint8_t coefficients[16 * VECTORS_MAX], accepted[VECTORS_MAX], expected[VECTORS_MAX];
static assay_message messages[VECTORS_MAX];
static char line[LINE_MAX_LENGTH], text[LINE_MAX_LENGTH];
static char key_text[65], signature_text[129];

static void from_hex(uint8_t *out, const char *digits, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned byte;
        if (sscanf(digits + 2 * i, "%2x", &byte) != 1) abort();
        out[i] = (uint8_t)byte;
    }
}

static size_t read_vectors(void) {
    size_t count = 0;
    while (fgets(line, sizeof line, stdin) != NULL) {
        unsigned verdict;
        if (count == VECTORS_MAX) abort();
        if (sscanf(line, "%64s %65535s %128s %1u", key_text, text, signature_text, &verdict) != 4)
            abort();
        size_t length = text[0] == '-' ? 0 : strlen(text) / 2;
        uint8_t *message = malloc(length); /* exactly its size: a step outside is seen */
        from_hex(message, text, length);
        from_hex(keys + 32 * count, key_text, 32);
        from_hex(signatures + 64 * count, signature_text, 64);
        messages[count] = (assay_message){message, length};
        expected[count++] = (uint8_t)verdict;
    }
    return count;
}

static int all_right(size_t count, const char *how) {
    for (size_t i = 0; i < count; i++)
        if (accepted[i] != expected[i]) {
            fprintf(stderr, "vector %zu, %s: %d, not %d\n", i, how, accepted[i], expected[i]);
            return 0;
        }
    return 1;
}

static int batches_right(size_t count, const char *engine, size_t kept) {
    assay_ed25519_costs costs = {0};
    assay_ed25519_verifier *verifier = assay_ed25519_verifier_new(engine, kept, coefficients);
    int right = verifier != NULL;
    for (int again = 0; right && again < 2; again++) {
        memset(accepted, 2, count);
        right = assay_ed25519_verify_batch(verifier, count, keys, messages, signatures,
                                           coefficients, accepted, &costs) &&
                all_right(count, engine);
    }
    assay_ed25519_verifier_free(verifier);
    return right;
}

int main(void) {
    uint64_t state = 1;
    size_t count = read_vectors();
    int right = 1;
    assay_ed25519_prepare();
    for (size_t i = 0; i < sizeof coefficients; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        coefficients[i] = (uint8_t)(state >> 56);
    }
    for (size_t i = 0; i < count; i++)
        accepted[i] = (uint8_t)assay_ed25519_verify(keys + 32 * i, messages[i], signatures + 64 * i);
    right = all_right(count, "alone");
    for (const char *const *engine = assay_ed25519_engines(); *engine != NULL; engine++)
        right = right && batches_right(count, *engine, 0) && batches_right(count, *engine, KEPT);
    for (size_t i = 0; i < count; i++) free((uint8_t *)messages[i].data);
    if (right) printf("%zu right\n", count);
    return !right;
}
