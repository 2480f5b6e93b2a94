/* SHA-256 (FIPS 180-4) with a portable path and one for the x86 SHA extensions. */
#ifndef ASSAY_SHA256_H
#define ASSAY_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define ASSAY_SHA256_SIZE 32
#define ASSAY_SHA256_BLOCK_SIZE 64

/* Absorbs `blocks` blocks of 64 bytes into the eight state words. */
typedef void (*assay_sha256_compress)(uint32_t state[8], const uint8_t *data, size_t blocks);

typedef struct {
    uint32_t state[8];
    uint64_t length;
    size_t buffered;
    assay_sha256_compress compress;
    uint8_t buffer[ASSAY_SHA256_BLOCK_SIZE];
} assay_sha256_context;

/* The portable path, always there. */
assay_sha256_compress assay_sha256_portable(void);
/* The path for this processor's SHA instructions, or NULL where there are none. */
assay_sha256_compress assay_sha256_native(void);
/* Chooses the fastest path for assay_sha256_init; call once, when a module is loaded. */
void assay_sha256_select(void);

void assay_sha256_init(assay_sha256_context *context);
void assay_sha256_init_with(assay_sha256_context *context, assay_sha256_compress compress);
void assay_sha256_update(assay_sha256_context *context, const uint8_t *data, size_t length);
void assay_sha256_final(assay_sha256_context *context, uint8_t digest[ASSAY_SHA256_SIZE]);

/* The chain's domain-separated hash, piece by piece: one tag, then any number of fields.
 * A tag has at most 255 bytes and a field at most 2^32 - 1: the caller checks. */
void assay_tagged_tag(assay_sha256_context *context, const uint8_t *tag, size_t length);
void assay_tagged_field(assay_sha256_context *context, const uint8_t *field, size_t length);

#endif
