/* Ed25519 verification by ZIP-215: one cofactored equation for one signature and for many.
 *
 *   accepted  <=>  A and R decode to curve points (non-canonical encodings too), S < L,
 *                  and [8][S]B = [8]R + [8][k]A with k = SHA-512(R | A | message) mod L.
 *
 * Batches check [8](sum z_i (R_i + k_i A_i) - [sum z_i S_i]B) = 0 with secret random 128-bit z_i; a batch
 * that fails is halved until the bad signatures are found. docs/ed25519.md has the derivations. */
#ifndef ASSAY_ED25519_H
#define ASSAY_ED25519_H

#include <stddef.h>
#include <stdint.h>

#define ASSAY_ED25519_KEY_SIZE 32
#define ASSAY_ED25519_SIGNATURE_SIZE 64
#define ASSAY_ED25519_COEFFICIENT_SIZE 16
#define ASSAY_ED25519_SECRET_SIZE 32
/* More signatures than this are checked as several batches, which bounds the memory of one call. */
#define ASSAY_ED25519_BATCH_MAX 8192

typedef struct {
    const uint8_t *data;
    size_t length;
} assay_message;

/* Builds the tables; call once, when a module is loaded. */
void assay_ed25519_prepare(void);

/* 1 when the signature is accepted, else 0. */
int assay_ed25519_verify(const uint8_t public_key[32], assay_message message,
                         const uint8_t signature[64]);

/* What checks batches: a way of doing the arithmetic, and public keys decoded before. Threads may
 * share one. Its answers depend on neither. */
typedef struct assay_ed25519_verifier assay_ed25519_verifier;

/* What batches have cost so far; tests count with it. */
typedef struct {
    uint64_t sums;         /* equations over several signatures */
    uint64_t sum_members;  /* signatures in them, each time one took part */
    uint64_t singles;      /* equations of one signature */
    uint64_t keys_decoded; /* public keys that had to be decoded */
    uint64_t keys_known;   /* and those that were kept from before */
} assay_ed25519_costs;

/* Names of the ways this processor can work, fastest first, then NULL. */
const char *const *assay_ed25519_engines(void);
/* `secret` keys the table of `kept_keys` places. NULL when memory ran out or there is no such engine. */
assay_ed25519_verifier *assay_ed25519_verifier_new(
    const char *engine, size_t kept_keys, const uint8_t secret[ASSAY_ED25519_SECRET_SIZE]);
void assay_ed25519_verifier_free(assay_ed25519_verifier *verifier);

/* Fills `accepted` (1 or 0 each) for `count` signatures: keys of 32 and signatures of 64 bytes stand one
 * after another. `coefficients` holds 16 fresh random bytes for each. Adds to `costs`. 0 when memory
 * ran out. */
int assay_ed25519_verify_batch(assay_ed25519_verifier *verifier, size_t count,
                               const uint8_t *public_keys, const assay_message *messages,
                               const uint8_t *signatures, const uint8_t *coefficients,
                               uint8_t *accepted, assay_ed25519_costs *costs);

#endif
