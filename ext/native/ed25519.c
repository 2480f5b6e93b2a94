#include "ed25519.h"

#include <stdlib.h>
#include <string.h>

#include "edwards25519.h"
#include "scalar25519.h"
#include "sha512.h"

/* From here down one by one is cheaper than the bucket method. */
enum { SINGLES_MAX = 6 };
enum { SCALAR_BITS = 253, COEFFICIENT_BITS = 128 };
/* Each failed search spends a batch equation; once this share of the signatures was found bad, the
 * rest is checked one by one, which bounds what a sender of bad signatures can cost. */
enum { BAD_SHARE = 16 };
enum { NO_TERM = 0 }; /* term 0 is the base point's */

/* A signature that decoded, but for its key, which others may share. */
typedef struct {
    edwards_affine commitment; /* R */
    scalar response;           /* S */
    scalar challenge;          /* k */
    scalar coefficient;        /* z */
    uint32_t key;              /* position of A among the distinct keys */
    uint32_t index;            /* position of the signature in the chunk */
} candidate;

/* Working memory of one chunk; the comments give the number of elements. */
typedef struct {
    candidate *candidates;  /* count */
    edwards_affine *keys;   /* distinct keys, decoded */
    uint8_t *key_decoded;   /* distinct keys: 1 when it is a point */
    uint32_t *key_of;       /* count: the distinct key of a signature */
    uint32_t *key_found;    /* distinct keys: the first signature that has it */
    uint32_t *term_of_key;  /* distinct keys: its term in the current sum, or NO_TERM */
    edwards_term *terms;    /* 2 * count + 1 */
    uint8_t *accepted;      /* count, the caller's */
    size_t bad, bad_max;
} chunk;

enum verdict { SUM_ZERO, SUM_OTHER, NO_MEMORY };

static void challenge_of(scalar *out, const uint8_t public_key[32], assay_message message,
                         const uint8_t commitment[32]) {
    uint8_t digest[ASSAY_SHA512_SIZE];
    assay_sha512_context context;
    assay_sha512_init(&context);
    assay_sha512_update(&context, commitment, 32);
    assay_sha512_update(&context, public_key, 32);
    assay_sha512_update(&context, message.data, message.length);
    assay_sha512_final(&context, digest);
    scalar_reduce(out, digest);
}

/* [8]([S]B - [k]A - R) = 0 */
static int holds_alone(const scalar *response, const scalar *challenge, const edwards_affine *key,
                       const edwards_affine *commitment) {
    edwards_point sum;
    edwards_double_multiply(&sum, response, challenge, key);
    edwards_subtract_affine(&sum, &sum, commitment);
    return edwards_has_small_order(&sum);
}

int assay_ed25519_verify(const uint8_t public_key[32], assay_message message,
                         const uint8_t signature[64]) {
    scalar response, challenge;
    edwards_affine points[2];
    if (!scalar_load_canonical(&response, signature + 32)) return 0;
    if (edwards_decode_pair(points, public_key, signature) != 3) return 0;
    challenge_of(&challenge, public_key, message, signature);
    return holds_alone(&response, &challenge, &points[0], &points[1]);
}

/* [8](sum z k A + sum z R - [sum z S]B) = 0 over the candidates from `start` to `end`, with one term
 * for each distinct A. */
static enum verdict holds_together(chunk *work, size_t start, size_t end) {
    scalar base = {{0, 0, 0, 0}}, product;
    edwards_term *terms = work->terms;
    edwards_point sum;
    uint32_t used = 1;
    for (size_t i = start; i < end; i++) {
        const candidate *one = &work->candidates[i];
        scalar_multiply(&product, &one->coefficient, &one->response);
        scalar_add(&base, &base, &product);
        scalar_multiply(&product, &one->coefficient, &one->challenge);
        uint32_t *term = &work->term_of_key[one->key];
        if (*term == NO_TERM) {
            *term = used++;
            terms[*term] = (edwards_term){&work->keys[one->key], product, SCALAR_BITS};
        } else {
            scalar_add(&terms[*term].multiplier, &terms[*term].multiplier, &product);
        }
    }
    for (size_t i = start; i < end; i++) {
        const candidate *one = &work->candidates[i];
        work->term_of_key[one->key] = NO_TERM;
        terms[used++] = (edwards_term){&one->commitment, one->coefficient, COEFFICIENT_BITS};
    }
    scalar_negate(&base, &base);
    terms[0] = (edwards_term){&EDWARDS_BASE, base, SCALAR_BITS};
    if (!edwards_sum_multiples(&sum, terms, used)) return NO_MEMORY;
    return edwards_has_small_order(&sum) ? SUM_ZERO : SUM_OTHER;
}

/* Decides the candidates from `start` to `end`. `known_bad`: their common equation is known to fail.
 * 0 when memory ran out. */
static int decide(chunk *work, size_t start, size_t end, int known_bad) {
    if (end - start <= SINGLES_MAX || work->bad > work->bad_max) {
        for (size_t i = start; i < end; i++) {
            const candidate *one = &work->candidates[i];
            int holds = holds_alone(&one->response, &one->challenge, &work->keys[one->key],
                                    &one->commitment);
            work->accepted[one->index] = (uint8_t)holds;
            work->bad += !holds;
        }
        return 1;
    }
    if (!known_bad) {
        enum verdict verdict = holds_together(work, start, end);
        if (verdict == NO_MEMORY) return 0;
        if (verdict == SUM_ZERO) {
            for (size_t i = start; i < end; i++) work->accepted[work->candidates[i].index] = 1;
            return 1;
        }
    }
    size_t middle = start + (end - start) / 2, bad_before = work->bad;
    if (!decide(work, start, middle, 0)) return 0;
    /* The whole failed: when the first half holds, the second is known to fail. */
    return decide(work, middle, end, work->bad == bad_before);
}

/* A hash that nobody can aim at who does not know the coefficients. */
static uint64_t hash_key(const uint8_t public_key[32], const uint8_t secret[32]) {
    assay_u128 hash = 0;
    for (int i = 0; i < 32; i += 16)
        hash += (assay_u128)(load_le64(public_key + i) + load_le64(secret + i)) *
                (load_le64(public_key + i + 8) + load_le64(secret + i + 8));
    return (uint64_t)(hash >> 64) ^ (uint64_t)hash;
}

/* Fills key_of and key_found; returns the number of distinct keys, 0 when memory ran out. */
static size_t find_distinct(chunk *work, size_t count, const uint8_t *public_keys,
                            const uint8_t *coefficients) {
    size_t distinct = 0, size = 2;
    if (count < 2) { /* too few coefficients for a hash, and nothing to share */
        work->key_of[0] = work->key_found[0] = 0;
        return count;
    }
    while (size < 2 * count) size *= 2;
    uint32_t *table = calloc(size, sizeof *table); /* distinct key + 1, or 0 */
    if (table == NULL) return 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *public_key = public_keys + 32 * i;
        size_t slot = hash_key(public_key, coefficients) & (size - 1);
        while (table[slot] != 0 &&
               memcmp(public_keys + 32 * (size_t)work->key_found[table[slot] - 1], public_key, 32))
            slot = (slot + 1) & (size - 1);
        if (table[slot] == 0) {
            work->key_found[distinct] = (uint32_t)i;
            table[slot] = (uint32_t)++distinct;
        }
        work->key_of[i] = table[slot] - 1;
    }
    free(table);
    return distinct;
}

static void decode_keys(chunk *work, size_t distinct, const uint8_t *public_keys) {
    for (size_t i = 0; i < distinct; i += 2) {
        size_t other = i + 1 < distinct ? i + 1 : i;
        edwards_affine points[2];
        unsigned decoded =
            edwards_decode_pair(points, public_keys + 32 * (size_t)work->key_found[i],
                                public_keys + 32 * (size_t)work->key_found[other]);
        work->keys[other] = points[1];
        work->key_decoded[other] = (decoded >> 1) & 1;
        work->keys[i] = points[0];
        work->key_decoded[i] = decoded & 1;
    }
}

/* Gathers the signatures that decode; returns how many there are. */
static size_t gather(chunk *work, size_t count, const uint8_t *public_keys,
                     const assay_message *messages, const uint8_t *signatures,
                     const uint8_t *coefficients) {
    size_t gathered = 0;
    for (size_t i = 0; i < count; i += 2) {
        size_t other = i + 1 < count ? i + 1 : i;
        edwards_affine points[2];
        unsigned decoded =
            edwards_decode_pair(points, signatures + 64 * i, signatures + 64 * other);
        for (size_t j = i; j <= other; j++) {
            candidate *next = &work->candidates[gathered];
            const uint8_t *random = coefficients + ASSAY_ED25519_COEFFICIENT_SIZE * j;
            work->accepted[j] = 0;
            if (!(decoded >> (j - i) & 1) || !work->key_decoded[work->key_of[j]]) continue;
            if (!scalar_load_canonical(&next->response, signatures + 64 * j + 32)) continue;
            challenge_of(&next->challenge, public_keys + 32 * j, messages[j], signatures + 64 * j);
            next->coefficient = (scalar){{load_le64(random), load_le64(random + 8), 0, 0}};
            next->commitment = points[j - i];
            next->key = work->key_of[j];
            next->index = (uint32_t)j;
            gathered++;
        }
    }
    return gathered;
}

static int verify_chunk(size_t count, const uint8_t *public_keys, const assay_message *messages,
                        const uint8_t *signatures, const uint8_t *coefficients,
                        uint8_t *accepted) {
    chunk work = {
        .candidates = malloc(count * sizeof *work.candidates),
        .keys = malloc(count * sizeof *work.keys),
        .key_decoded = malloc(count),
        .key_of = malloc(count * sizeof *work.key_of),
        .key_found = malloc(count * sizeof *work.key_found),
        .term_of_key = calloc(count, sizeof *work.term_of_key), /* all NO_TERM */
        .terms = malloc((2 * count + 1) * sizeof *work.terms),
        .accepted = accepted,
        .bad_max = count / BAD_SHARE,
    };
    int done = 0;
    if (work.candidates && work.keys && work.key_decoded && work.key_of && work.key_found &&
        work.term_of_key && work.terms) {
        size_t distinct = find_distinct(&work, count, public_keys, coefficients);
        if (distinct > 0) {
            decode_keys(&work, distinct, public_keys);
            size_t gathered =
                gather(&work, count, public_keys, messages, signatures, coefficients);
            done = decide(&work, 0, gathered, 0);
        }
    }
    free(work.candidates);
    free(work.keys);
    free(work.key_decoded);
    free(work.key_of);
    free(work.key_found);
    free(work.term_of_key);
    free(work.terms);
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
