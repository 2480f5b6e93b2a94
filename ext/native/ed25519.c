#include "ed25519.h"

#include <stdlib.h>
#include <string.h>

#include "edwards25519.h"
#include "scalar25519.h"
#include "sha512.h"

/* From here down one by one is cheaper than the bucket method. */
enum { SINGLES_MAX = 12 };
enum { SCALAR_BITS = 253, COEFFICIENT_BITS = 128 };
/* Each failed search spends a batch equation; once this share of the signatures was found bad, the
 * rest is checked one by one, which bounds what a sender of bad signatures can cost. */
enum { BAD_SHARE = 16 };

/* A signature that decoded. */
typedef struct {
    edwards_affine point[2]; /* A and R */
    scalar response;         /* S */
    scalar challenge;        /* k */
    scalar coefficient;      /* z */
    size_t index;
} candidate;

typedef struct {
    const candidate *candidates;
    edwards_term *terms; /* room for 2 * count + 1 */
    uint8_t *accepted;
    size_t bad, bad_max;
} search;

enum verdict { SUM_ZERO, SUM_OTHER, NO_MEMORY };

/* 0 when an encoding is refused. */
static int decode(candidate *out, const uint8_t public_key[32], assay_message message,
                  const uint8_t signature[64]) {
    uint8_t digest[ASSAY_SHA512_SIZE];
    assay_sha512_context context;
    if (!scalar_load_canonical(&out->response, signature + 32)) return 0;
    if (edwards_decode_pair(out->point, public_key, signature) != 3) return 0;
    assay_sha512_init(&context);
    assay_sha512_update(&context, signature, 32);
    assay_sha512_update(&context, public_key, 32);
    assay_sha512_update(&context, message.data, message.length);
    assay_sha512_final(&context, digest);
    scalar_reduce(&out->challenge, digest);
    return 1;
}

/* [8]([S]B - [k]A - R) = 0 */
static int holds_alone(const candidate *one) {
    edwards_point sum;
    edwards_double_multiply(&sum, &one->response, &one->challenge, &one->point[0]);
    edwards_subtract_affine(&sum, &sum, &one->point[1]);
    return edwards_has_small_order(&sum);
}

int assay_ed25519_verify(const uint8_t public_key[32], assay_message message,
                         const uint8_t signature[64]) {
    candidate one;
    return decode(&one, public_key, message, signature) && holds_alone(&one);
}

/* [8](sum z k A + sum z R - [sum z S]B) = 0 over the candidates from `start` to `end`. */
static enum verdict holds_together(const search *task, size_t start, size_t end) {
    size_t count = end - start;
    scalar base = {{0, 0, 0, 0}}, product;
    edwards_term *keys = task->terms + 1, *commitments = keys + count;
    edwards_point sum;
    for (size_t i = 0; i < count; i++) {
        const candidate *one = &task->candidates[start + i];
        scalar_multiply(&product, &one->coefficient, &one->response);
        scalar_add(&base, &base, &product);
        keys[i].point = &one->point[0];
        keys[i].bits = SCALAR_BITS;
        scalar_multiply(&keys[i].multiplier, &one->coefficient, &one->challenge);
        commitments[i].point = &one->point[1];
        commitments[i].bits = COEFFICIENT_BITS;
        commitments[i].multiplier = one->coefficient;
    }
    task->terms[0].point = &EDWARDS_BASE;
    task->terms[0].bits = SCALAR_BITS;
    scalar_negate(&task->terms[0].multiplier, &base);
    if (!edwards_sum_multiples(&sum, task->terms, 2 * count + 1)) return NO_MEMORY;
    return edwards_has_small_order(&sum) ? SUM_ZERO : SUM_OTHER;
}

/* Decides the candidates from `start` to `end`. `known_bad`: their common equation is known to fail.
 * 0 when memory ran out. */
static int decide(search *task, size_t start, size_t end, int known_bad) {
    if (end - start <= SINGLES_MAX || task->bad > task->bad_max) {
        for (size_t i = start; i < end; i++) {
            int holds = holds_alone(&task->candidates[i]);
            task->accepted[task->candidates[i].index] = (uint8_t)holds;
            task->bad += !holds;
        }
        return 1;
    }
    if (!known_bad) {
        enum verdict verdict = holds_together(task, start, end);
        if (verdict == NO_MEMORY) return 0;
        if (verdict == SUM_ZERO) {
            for (size_t i = start; i < end; i++) task->accepted[task->candidates[i].index] = 1;
            return 1;
        }
    }
    size_t middle = start + (end - start) / 2, bad_before = task->bad;
    if (!decide(task, start, middle, 0)) return 0;
    /* The whole failed: when the first half holds, the second is known to fail. */
    return decide(task, middle, end, task->bad == bad_before);
}

static int verify_chunk(size_t count, const uint8_t *public_keys, const assay_message *messages,
                        const uint8_t *signatures, const uint8_t *coefficients,
                        uint8_t *accepted) {
    candidate *candidates = malloc(count * sizeof *candidates);
    edwards_term *terms = malloc((2 * count + 1) * sizeof *terms);
    size_t decoded = 0;
    int done = candidates != NULL && terms != NULL;
    if (done) {
        for (size_t i = 0; i < count; i++) {
            candidate *next = &candidates[decoded];
            accepted[i] = 0;
            if (!decode(next, public_keys + 32 * i, messages[i], signatures + 64 * i)) continue;
            const uint8_t *random = coefficients + ASSAY_ED25519_COEFFICIENT_SIZE * i;
            next->coefficient = (scalar){{load_le64(random), load_le64(random + 8), 0, 0}};
            next->index = i;
            decoded++;
        }
        search task = {candidates, terms, accepted, 0, count / BAD_SHARE};
        done = decide(&task, 0, decoded, 0);
    }
    free(candidates);
    free(terms);
    return done;
}

int assay_ed25519_verify_batch(size_t count, const uint8_t *public_keys,
                               const assay_message *messages, const uint8_t *signatures,
                               const uint8_t *coefficients, uint8_t *accepted) {
    for (size_t start = 0; start < count; start += ASSAY_ED25519_BATCH_MAX) {
        size_t size = count - start;
        if (size > ASSAY_ED25519_BATCH_MAX) size = ASSAY_ED25519_BATCH_MAX;
        if (!verify_chunk(size, public_keys + 32 * start, messages + start,
                          signatures + 64 * start,
                          coefficients + ASSAY_ED25519_COEFFICIENT_SIZE * start,
                          accepted + start))
            return 0;
    }
    return 1;
}

void assay_ed25519_prepare(void) {
    edwards_prepare();
}
