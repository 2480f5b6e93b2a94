/* SHA-512 (FIPS 180-4), for the challenge of an Ed25519 signature. */
#ifndef ASSAY_SHA512_H
#define ASSAY_SHA512_H

#include <stddef.h>
#include <stdint.h>

#define ASSAY_SHA512_SIZE 64
#define ASSAY_SHA512_BLOCK_SIZE 128

typedef struct {
    uint64_t state[8];
    uint64_t length;
    size_t buffered;
    uint8_t buffer[ASSAY_SHA512_BLOCK_SIZE];
} assay_sha512_context;

void assay_sha512_init(assay_sha512_context *context);
void assay_sha512_update(assay_sha512_context *context, const uint8_t *data, size_t length);
void assay_sha512_final(assay_sha512_context *context, uint8_t digest[ASSAY_SHA512_SIZE]);

#endif
