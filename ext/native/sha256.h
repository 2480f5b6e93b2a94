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
/* Chooses the path for assay_sha256_init and assay_sha256_padded: the fastest, or the portable one when
 * the environment says ASSAY_SHA256=portable. Call once, when a module is loaded. */
void assay_sha256_select(void);

void assay_sha256_init(assay_sha256_context *context);
void assay_sha256_init_with(assay_sha256_context *context, assay_sha256_compress compress);
void assay_sha256_update(assay_sha256_context *context, const uint8_t *data, size_t length);
void assay_sha256_final(assay_sha256_context *context, uint8_t digest[ASSAY_SHA256_SIZE]);

/* Bytes of a message of `length` bytes with its padding. */
#define ASSAY_SHA256_PADDED(length) (((length) + 9 + 63) / 64 * 64)
/* Writes the padding behind `length` bytes of a message in a buffer of ASSAY_SHA256_PADDED(length). */
void assay_sha256_pad(uint8_t *message, size_t length);
/* Digests of `count` padded messages of `blocks` blocks each, one after another. Two at a time where the
 * processor gains by it, because one message leaves its SHA unit half idle. */
void assay_sha256_padded(const uint8_t *messages, size_t blocks, size_t count, uint8_t *digests);

/* The chain's domain-separated hash, piece by piece: one tag, then any number of fields.
 * A tag has at most 255 bytes and a field at most 2^32 - 1: the caller checks. */
void assay_tagged_tag(assay_sha256_context *context, const uint8_t *tag, size_t length);
void assay_tagged_field(assay_sha256_context *context, const uint8_t *field, size_t length);

#endif
