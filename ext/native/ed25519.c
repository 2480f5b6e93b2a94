#include "ed25519.h"

#include <stdlib.h>
#include <string.h>

#include "ed25519_keys.h"
#include "edwards25519.h"
#include "edwards_engine.h"
#include "scalar25519.h"
#include "sha512.h"

/* From here down one by one is cheaper than the bucket method. */
enum { SINGLES_MAX = 6 };
enum { SCALAR_BITS = 253, COEFFICIENT_BITS = 128 };
/* Equations that fail are spent on the search for bad signatures. Once those have had so many members
 * for each signature of the chunk, the rest is checked one by one: what a sender of bad signatures
 * can cost is bounded, however they are spread. */
enum { FAILED_PASSES = 6 };
enum { NO_TERM = 0 }; /* term 0 is the base point's */

struct assay_ed25519_verifier {
    const edwards_engine *engine;
    edwards_ready base;
    assay_key_cache *keys;
};

/* A signature that decoded. */
typedef struct {
    const edwards_ready *commitment; /* R */
    scalar response;                 /* S */
    scalar challenge;                /* k */
    scalar coefficient;              /* z */
    uint32_t key;                    /* position of A among the distinct keys */
    uint32_t index;                  /* position of the signature in the chunk */
} candidate;

/* Working memory of one chunk; the comments give the number of elements. */
typedef struct {
    const assay_ed25519_verifier *verifier;
    const uint8_t **encodings;     /* count: what is to be decoded */
    uint8_t *decoded;              /* count: 1 when it is a point */
    edwards_ready *commitments;    /* count */
    candidate *candidates;         /* count */
    edwards_ready *keys;           /* distinct keys, decoded */
    uint8_t *key_decoded;          /* distinct keys: 1 when it is a point */
    uint32_t *key_of;              /* count: the distinct key of a signature */
    const uint8_t **distinct_keys; /* distinct keys, as they came */
    uint32_t *term_of_key;         /* distinct keys: its term in the current sum, or NO_TERM */
    edwards_term *terms;           /* 2 * count + 1 */
    uint8_t *accepted;             /* count, the caller's */
    assay_ed25519_costs *costs;
    size_t bad;                    /* found so far */
    size_t failed, failed_max;     /* members of equations that failed */
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

static int candidate_holds_alone(const chunk *work, const candidate *one) {
    const edwards_engine *engine = work->verifier->engine;
    edwards_affine key, commitment;
    engine->to_affine(&key, &work->keys[one->key]);
    engine->to_affine(&commitment, one->commitment);
    return holds_alone(&one->response, &one->challenge, &key, &commitment);
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
        terms[used++] = (edwards_term){one->commitment, one->coefficient, COEFFICIENT_BITS};
    }
    scalar_negate(&base, &base);
    terms[0] = (edwards_term){&work->verifier->base, base, SCALAR_BITS};
    work->costs->sums++;
    work->costs->sum_members += end - start;
    if (!edwards_sum_multiples(work->verifier->engine, &sum, terms, used)) return NO_MEMORY;
    return edwards_has_small_order(&sum) ? SUM_ZERO : SUM_OTHER;
}

/* Decides the candidates from `start` to `end`. `known_bad`: their common equation is known to fail.
 * 0 when memory ran out. */
static int decide(chunk *work, size_t start, size_t end, int known_bad) {
    if (end - start <= SINGLES_MAX || work->failed > work->failed_max) {
        for (size_t i = start; i < end; i++) {
            const candidate *one = &work->candidates[i];
            int holds = candidate_holds_alone(work, one);
            work->costs->singles++;
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
        work->failed += end - start;
    }
    size_t middle = start + (end - start) / 2, bad_before = work->bad;
    if (!decide(work, start, middle, 0)) return 0;
    /* The whole failed: when the first half holds, the second is known to fail. */
    return decide(work, middle, end, work->bad == bad_before);
}

/* Fills key_of and distinct_keys; returns the number of distinct keys, 0 when memory ran out. */
static size_t find_distinct(chunk *work, size_t count, const uint8_t *public_keys) {
    size_t distinct = 0, size = 2;
    while (size < 2 * count) size *= 2;
    uint32_t *table = calloc(size, sizeof *table); /* distinct key + 1, or 0 */
    if (table == NULL) return 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *public_key = public_keys + 32 * i;
        size_t slot = assay_key_cache_hash(work->verifier->keys, public_key) & (size - 1);
        while (table[slot] != 0 && memcmp(work->distinct_keys[table[slot] - 1], public_key, 32))
            slot = (slot + 1) & (size - 1);
        if (table[slot] == 0) {
            work->distinct_keys[distinct] = public_key;
            table[slot] = (uint32_t)++distinct;
        }
        work->key_of[i] = table[slot] - 1;
    }
    free(table);
    return distinct;
}

/* Fills keys and key_decoded. The commitments' memory serves here; they come later. */
static void decode_keys(chunk *work, size_t distinct) {
    const assay_ed25519_verifier *verifier = work->verifier;
    edwards_ready *points = work->commitments;
    size_t unknown = 0;
    assay_key_cache_find(verifier->keys, distinct, work->distinct_keys, work->keys,
                         work->key_decoded);
    for (size_t i = 0; i < distinct; i++)
        if (!work->key_decoded[i]) work->encodings[unknown++] = work->distinct_keys[i];
    work->costs->keys_decoded += unknown;
    work->costs->keys_known += distinct - unknown;
    verifier->engine->decode(points, work->decoded, work->encodings, unknown);
    assay_key_cache_keep(verifier->keys, unknown, work->encodings, points, work->decoded);
    for (size_t i = 0, next = 0; i < distinct; i++) {
        if (work->key_decoded[i]) continue;
        work->key_decoded[i] = work->decoded[next];
        if (work->decoded[next]) work->keys[i] = points[next];
        next++;
    }
}

/* Gathers the signatures that decode; returns how many there are. */
static size_t gather(chunk *work, size_t count, const uint8_t *public_keys,
                     const assay_message *messages, const uint8_t *signatures,
                     const uint8_t *coefficients) {
    size_t gathered = 0;
    for (size_t i = 0; i < count; i++) work->encodings[i] = signatures + 64 * i;
    work->verifier->engine->decode(work->commitments, work->decoded, work->encodings, count);
    for (size_t i = 0; i < count; i++) {
        candidate *next = &work->candidates[gathered];
        const uint8_t *random = coefficients + ASSAY_ED25519_COEFFICIENT_SIZE * i;
        work->accepted[i] = 0;
        if (!work->decoded[i] || !work->key_decoded[work->key_of[i]]) continue;
        if (!scalar_load_canonical(&next->response, signatures + 64 * i + 32)) continue;
        challenge_of(&next->challenge, public_keys + 32 * i, messages[i], signatures + 64 * i);
        next->coefficient = (scalar){{load_le64(random), load_le64(random + 8), 0, 0}};
        next->commitment = &work->commitments[i];
        next->key = work->key_of[i];
        next->index = (uint32_t)i;
        gathered++;
    }
    return gathered;
}

static int verify_chunk(const assay_ed25519_verifier *verifier, size_t count,
                        const uint8_t *public_keys, const assay_message *messages,
                        const uint8_t *signatures, const uint8_t *coefficients, uint8_t *accepted,
                        assay_ed25519_costs *costs) {
    chunk work = {
        .verifier = verifier,
        .encodings = malloc(count * sizeof *work.encodings),
        .decoded = malloc(count),
        .commitments = malloc(count * sizeof *work.commitments),
        .candidates = malloc(count * sizeof *work.candidates),
        .keys = malloc(count * sizeof *work.keys),
        .key_decoded = malloc(count),
        .key_of = malloc(count * sizeof *work.key_of),
        .distinct_keys = malloc(count * sizeof *work.distinct_keys),
        .term_of_key = calloc(count, sizeof *work.term_of_key), /* all NO_TERM */
        .terms = malloc((2 * count + 1) * sizeof *work.terms),
        .accepted = accepted,
        .costs = costs,
        .failed_max = FAILED_PASSES * count,
    };
    int done = 0;
    if (work.encodings && work.decoded && work.commitments && work.candidates && work.keys &&
        work.key_decoded && work.key_of && work.distinct_keys && work.term_of_key && work.terms) {
        size_t distinct = find_distinct(&work, count, public_keys);
        if (distinct > 0) {
            decode_keys(&work, distinct);
            size_t gathered =
                gather(&work, count, public_keys, messages, signatures, coefficients);
            done = decide(&work, 0, gathered, 0);
        }
    }
    free(work.encodings);
    free(work.decoded);
    free(work.commitments);
    free(work.candidates);
    free(work.keys);
    free(work.key_decoded);
    free(work.key_of);
    free(work.distinct_keys);
    free(work.term_of_key);
    free(work.terms);
    return done;
}

int assay_ed25519_verify_batch(assay_ed25519_verifier *verifier, size_t count,
                               const uint8_t *public_keys, const assay_message *messages,
                               const uint8_t *signatures, const uint8_t *coefficients,
                               uint8_t *accepted, assay_ed25519_costs *costs) {
    for (size_t start = 0; start < count; start += ASSAY_ED25519_BATCH_MAX) {
        size_t size = count - start;
        if (size > ASSAY_ED25519_BATCH_MAX) size = ASSAY_ED25519_BATCH_MAX;
        if (!verify_chunk(verifier, size, public_keys + 32 * start, messages + start,
                          signatures + 64 * start,
                          coefficients + ASSAY_ED25519_COEFFICIENT_SIZE * start, accepted + start,
                          costs))
            return 0;
    }
    return 1;
}

enum { ENGINES_MAX = 3 };
static const edwards_engine *engines[ENGINES_MAX + 1]; /* fastest first, ended by NULL */
static const char *engine_names[ENGINES_MAX + 1]; /* theirs, likewise */

const char *const *assay_ed25519_engines(void) {
    return engine_names;
}

assay_ed25519_verifier *assay_ed25519_verifier_new(
    const char *name, size_t kept_keys, const uint8_t secret[ASSAY_ED25519_SECRET_SIZE]) {
    const edwards_engine *const *engine = engines;
    while (*engine != NULL && strcmp((*engine)->name, name) != 0) engine++;
    if (*engine == NULL) return NULL;
    assay_ed25519_verifier *verifier = malloc(sizeof *verifier);
    if (verifier == NULL) return NULL;
    verifier->engine = *engine;
    verifier->keys = assay_key_cache_new(kept_keys, secret);
    if (verifier->keys == NULL) {
        free(verifier);
        return NULL;
    }
    verifier->engine->from_affine(&verifier->base, &EDWARDS_BASE);
    return verifier;
}

void assay_ed25519_verifier_free(assay_ed25519_verifier *verifier) {
    if (verifier == NULL) return;
    assay_key_cache_free(verifier->keys);
    free(verifier);
}

void assay_ed25519_prepare(void) {
    const edwards_engine *const fastest_first[ENGINES_MAX] = {edwards_ifma(), edwards_avx2(),
                                                              edwards_portable()};
    size_t known = 0;
    edwards_prepare();
    for (size_t i = 0; i < ENGINES_MAX; i++) {
        if (fastest_first[i] == NULL) continue;
        engines[known] = fastest_first[i];
        engine_names[known++] = fastest_first[i]->name;
    }
    engines[known] = NULL;
    engine_names[known] = NULL;
}
