/* Little-endian words in byte strings, whatever the processor's own order. */
#ifndef ASSAY_LITTLE_ENDIAN_H
#define ASSAY_LITTLE_ENDIAN_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ASSAY_LE32(word) (word)
#define ASSAY_LE64(word) (word)
#else
#define ASSAY_LE32(word) __builtin_bswap32(word)
#define ASSAY_LE64(word) __builtin_bswap64(word)
#endif

static inline uint32_t load_le32(const uint8_t *bytes) {
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return ASSAY_LE32(word);
}

static inline uint64_t load_le64(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return ASSAY_LE64(word);
}

static inline void store_le32(uint8_t *bytes, uint32_t word) {
    word = ASSAY_LE32(word);
    memcpy(bytes, &word, sizeof word);
}

static inline void store_le64(uint8_t *bytes, uint64_t word) {
    word = ASSAY_LE64(word);
    memcpy(bytes, &word, sizeof word);
}

#endif
