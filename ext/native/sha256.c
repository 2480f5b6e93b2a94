#include "sha256.h"

#include <stdlib.h>
#include <string.h>

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define ASSAY_SHA256_X86 1
#include <cpuid.h>
#include <immintrin.h>
#else
#define ASSAY_SHA256_X86 0
#endif

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t ROUND_CONSTANTS[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u, 0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
    0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u, 0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
    0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu, 0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
    0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u, 0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
    0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u, 0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
    0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u, 0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
    0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u, 0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u, 0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u,
};

/* The same of the square roots of the first 8 primes. */
static const uint32_t INITIAL_STATE[8] = {
    0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au, 0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u,
};

static inline uint32_t load_be32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
           (uint32_t)bytes[3];
}

static inline void store_be32(uint8_t *bytes, uint32_t word) {
    bytes[0] = (uint8_t)(word >> 24);
    bytes[1] = (uint8_t)(word >> 16);
    bytes[2] = (uint8_t)(word >> 8);
    bytes[3] = (uint8_t)word;
}

static inline void store_le32(uint8_t *bytes, uint32_t word) {
    bytes[0] = (uint8_t)word;
    bytes[1] = (uint8_t)(word >> 8);
    bytes[2] = (uint8_t)(word >> 16);
    bytes[3] = (uint8_t)(word >> 24);
}

static inline uint32_t rotate_right(uint32_t word, unsigned bits) {
    return word >> bits | word << (32 - bits);
}

static inline uint32_t schedule_word(const uint32_t window[16], unsigned round) {
    uint32_t two_back = window[(round - 2) & 15];
    uint32_t fifteen_back = window[(round - 15) & 15];
    uint32_t sigma_one =
        rotate_right(two_back, 17) ^ rotate_right(two_back, 19) ^ (two_back >> 10);
    uint32_t sigma_zero =
        rotate_right(fifteen_back, 7) ^ rotate_right(fifteen_back, 18) ^ (fifteen_back >> 3);
    return sigma_one + window[(round - 7) & 15] + sigma_zero + window[round & 15];
}

static void compress_portable(uint32_t state[8], const uint8_t *data, size_t blocks) {
    for (; blocks > 0; blocks--, data += ASSAY_SHA256_BLOCK_SIZE) {
        uint32_t window[16];
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (unsigned round = 0; round < 64; round++) {
            uint32_t word = round < 16 ? load_be32(data + 4 * round) : schedule_word(window, round);
            window[round & 15] = word;
            uint32_t choice = (e & f) ^ (~e & g);
            uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
            uint32_t sum_one = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
            uint32_t sum_zero = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
            uint32_t first = h + sum_one + choice + ROUND_CONSTANTS[round] + word;
            uint32_t second = sum_zero + majority;
            h = g;
            g = f;
            f = e;
            e = d + first;
            d = c;
            c = b;
            b = a;
            a = first + second;
        }
        state[0] += a;
        state[1] += b;
        state[2] += c;
        state[3] += d;
        state[4] += e;
        state[5] += f;
        state[6] += g;
        state[7] += h;
    }
}

#if ASSAY_SHA256_X86
/* The instructions keep the state as the pairs (A,B,E,F) and (C,D,G,H), highest word first. */
__attribute__((target("sha,sse4.1,ssse3"))) static void compress_x86(
    uint32_t state[8], const uint8_t *data, size_t blocks) {
    const __m128i byte_order = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(abcd, efgh, 8);
    __m128i cdgh = _mm_blend_epi16(efgh, abcd, 0xF0);

    for (; blocks > 0; blocks--, data += ASSAY_SHA256_BLOCK_SIZE) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i words[4];
        for (int group = 0; group < 4; group++)
            words[group] = _mm_shuffle_epi8(
                _mm_loadu_si128((const __m128i *)(data + 16 * group)), byte_order);
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++) {
            __m128i current = words[group & 3];
            __m128i keyed = _mm_add_epi32(
                current, _mm_loadu_si128((const __m128i *)(ROUND_CONSTANTS + 4 * group)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, keyed);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(keyed, 0x0E));
            if (group < 12) {
                __m128i last = words[(group + 3) & 3];
                __m128i seven_back = _mm_alignr_epi8(last, words[(group + 2) & 3], 4);
                __m128i sum = _mm_add_epi32(
                    _mm_sha256msg1_epu32(current, words[(group + 1) & 3]), seven_back);
                words[group & 3] = _mm_sha256msg2_epu32(sum, last);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }

    __m128i feba = _mm_shuffle_epi32(abef, 0x1B);
    __m128i dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* The same for two messages at once: each step of one waits for its own last one, so a second fills the
 * gaps. */
__attribute__((target("sha,sse4.1,ssse3"))) static void compress_two_x86(
    uint32_t states[2][8], const uint8_t *first, const uint8_t *second, size_t blocks) {
    const __m128i byte_order = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    const uint8_t *data[2] = {first, second};
    __m128i abef[2], cdgh[2];
    for (int lane = 0; lane < 2; lane++) {
        __m128i abcd = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)states[lane]), 0xB1);
        __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(states[lane] + 4)), 0x1B);
        abef[lane] = _mm_alignr_epi8(abcd, efgh, 8);
        cdgh[lane] = _mm_blend_epi16(efgh, abcd, 0xF0);
    }
    for (; blocks > 0; blocks--) {
        const __m128i abef_before[2] = {abef[0], abef[1]}, cdgh_before[2] = {cdgh[0], cdgh[1]};
        __m128i words[2][4];
        for (int lane = 0; lane < 2; lane++) {
            for (int group = 0; group < 4; group++)
                words[lane][group] = _mm_shuffle_epi8(
                    _mm_loadu_si128((const __m128i *)(data[lane] + 16 * group)), byte_order);
            data[lane] += ASSAY_SHA256_BLOCK_SIZE;
        }
#pragma GCC unroll 16
        for (int group = 0; group < 16; group++) {
            const __m128i constants =
                _mm_loadu_si128((const __m128i *)(ROUND_CONSTANTS + 4 * group));
#pragma GCC unroll 2
            for (int lane = 0; lane < 2; lane++) {
                __m128i current = words[lane][group & 3];
                __m128i keyed = _mm_add_epi32(current, constants);
                cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], keyed);
                abef[lane] =
                    _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], _mm_shuffle_epi32(keyed, 0x0E));
                if (group < 12) {
                    __m128i last = words[lane][(group + 3) & 3];
                    __m128i seven_back = _mm_alignr_epi8(last, words[lane][(group + 2) & 3], 4);
                    __m128i sum = _mm_add_epi32(
                        _mm_sha256msg1_epu32(current, words[lane][(group + 1) & 3]), seven_back);
                    words[lane][group & 3] = _mm_sha256msg2_epu32(sum, last);
                }
            }
        }
        for (int lane = 0; lane < 2; lane++) {
            abef[lane] = _mm_add_epi32(abef[lane], abef_before[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], cdgh_before[lane]);
        }
    }
    for (int lane = 0; lane < 2; lane++) {
        __m128i feba = _mm_shuffle_epi32(abef[lane], 0x1B);
        __m128i dchg = _mm_shuffle_epi32(cdgh[lane], 0xB1);
        _mm_storeu_si128((__m128i *)states[lane], _mm_blend_epi16(feba, dchg, 0xF0));
        _mm_storeu_si128((__m128i *)(states[lane] + 4), _mm_alignr_epi8(dchg, feba, 8));
    }
}

static int processor_has_sha(void) {
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return 0;
    if (!(ecx & bit_SSSE3) || !(ecx & bit_SSE4_1)) return 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return 0;
    return (ebx >> 29) & 1;
}
#endif

typedef void (*compress_two)(uint32_t states[2][8], const uint8_t *first, const uint8_t *second,
                             size_t blocks);

static assay_sha256_compress selected = compress_portable;
static compress_two selected_two = NULL; /* NULL: one at a time */

assay_sha256_compress assay_sha256_portable(void) {
    return compress_portable;
}

assay_sha256_compress assay_sha256_native(void) {
#if ASSAY_SHA256_X86
    if (processor_has_sha()) return compress_x86;
#endif
    return NULL;
}

void assay_sha256_select(void) {
    const char *wanted = getenv("ASSAY_SHA256");
    assay_sha256_compress native = assay_sha256_native();
    int portable = native == NULL || (wanted != NULL && strcmp(wanted, "portable") == 0);
    selected = portable ? compress_portable : native;
    selected_two = NULL;
#if ASSAY_SHA256_X86
    if (!portable) selected_two = compress_two_x86;
#endif
}

void assay_sha256_init(assay_sha256_context *context) {
    assay_sha256_init_with(context, selected);
}

void assay_sha256_init_with(assay_sha256_context *context, assay_sha256_compress compress) {
    memcpy(context->state, INITIAL_STATE, sizeof INITIAL_STATE);
    context->length = 0;
    context->buffered = 0;
    context->compress = compress;
}

void assay_sha256_update(assay_sha256_context *context, const uint8_t *data, size_t length) {
    if (length == 0) return; /* data may be NULL here */
    context->length += length;
    if (context->buffered > 0) {
        size_t wanted = ASSAY_SHA256_BLOCK_SIZE - context->buffered;
        size_t taken = length < wanted ? length : wanted;
        memcpy(context->buffer + context->buffered, data, taken);
        context->buffered += taken;
        data += taken;
        length -= taken;
        if (context->buffered < ASSAY_SHA256_BLOCK_SIZE) return;
        context->compress(context->state, context->buffer, 1);
        context->buffered = 0;
    }
    size_t blocks = length / ASSAY_SHA256_BLOCK_SIZE;
    if (blocks > 0) context->compress(context->state, data, blocks);
    data += blocks * ASSAY_SHA256_BLOCK_SIZE;
    length -= blocks * ASSAY_SHA256_BLOCK_SIZE;
    if (length > 0) memcpy(context->buffer, data, length);
    context->buffered = length;
}

static void store_digest(uint8_t *digest, const uint32_t state[8]) {
    for (int word = 0; word < 8; word++) store_be32(digest + 4 * word, state[word]);
}

void assay_sha256_final(assay_sha256_context *context, uint8_t digest[ASSAY_SHA256_SIZE]) {
    const size_t length_offset = ASSAY_SHA256_BLOCK_SIZE - 8;
    uint64_t bits = context->length * 8;
    size_t used = context->buffered;
    context->buffer[used++] = 0x80;
    if (used > length_offset) {
        memset(context->buffer + used, 0, ASSAY_SHA256_BLOCK_SIZE - used);
        context->compress(context->state, context->buffer, 1);
        used = 0;
    }
    memset(context->buffer + used, 0, length_offset - used);
    store_be32(context->buffer + length_offset, (uint32_t)(bits >> 32));
    store_be32(context->buffer + length_offset + 4, (uint32_t)bits);
    context->compress(context->state, context->buffer, 1);
    store_digest(digest, context->state);
}

void assay_sha256_pad(uint8_t *message, size_t length) {
    size_t padded = ASSAY_SHA256_PADDED(length);
    uint64_t bits = (uint64_t)length * 8;
    message[length] = 0x80;
    memset(message + length + 1, 0, padded - length - 9);
    store_be32(message + padded - 8, (uint32_t)(bits >> 32));
    store_be32(message + padded - 4, (uint32_t)bits);
}

void assay_sha256_padded(const uint8_t *messages, size_t blocks, size_t count, uint8_t *digests) {
    const size_t bytes = ASSAY_SHA256_BLOCK_SIZE * blocks;
    uint32_t states[2][8];
    for (; selected_two != NULL && count >= 2; count -= 2) {
        memcpy(states[0], INITIAL_STATE, sizeof INITIAL_STATE);
        memcpy(states[1], INITIAL_STATE, sizeof INITIAL_STATE);
        selected_two(states, messages, messages + bytes, blocks);
        store_digest(digests, states[0]);
        store_digest(digests + ASSAY_SHA256_SIZE, states[1]);
        messages += 2 * bytes;
        digests += 2 * ASSAY_SHA256_SIZE;
    }
    for (; count > 0; count--) {
        memcpy(states[0], INITIAL_STATE, sizeof INITIAL_STATE);
        selected(states[0], messages, blocks);
        store_digest(digests, states[0]);
        messages += bytes;
        digests += ASSAY_SHA256_SIZE;
    }
}

void assay_tagged_tag(assay_sha256_context *context, const uint8_t *tag, size_t length) {
    uint8_t prefix = (uint8_t)length;
    assay_sha256_init(context);
    assay_sha256_update(context, &prefix, 1);
    assay_sha256_update(context, tag, length);
}

void assay_tagged_field(assay_sha256_context *context, const uint8_t *field, size_t length) {
    uint8_t prefix[4];
    store_le32(prefix, (uint32_t)length);
    assay_sha256_update(context, prefix, sizeof prefix);
    assay_sha256_update(context, field, length);
}
