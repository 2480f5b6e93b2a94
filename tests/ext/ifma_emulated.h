/* The AVX-512 instructions that ext/native/field25519_ifma.h and edwards25519_ifma.c use, by their
 * intrinsics' names, each as Intel's manual describes it but in portable C. With ASSAY_IFMA_EMULATED this
 * stands in for <immintrin.h>, and every processor runs the same source. */
#ifndef ASSAY_TESTS_IFMA_EMULATED_H
#define ASSAY_TESTS_IFMA_EMULATED_H

#include <stdint.h>
#include <string.h>

typedef struct {
    uint64_t word[8];
} __m512i;

typedef struct {
    uint64_t word[4];
} __m256i;

typedef uint8_t __mmask8;

#define IFMA_EMULATED static inline __attribute__((unused))
#define IFMA_LOW_52 ((1ull << 52) - 1)

/* Defines `name` with the parameters that follow: word i of the result is `expression`. */
#define IFMA_EACH(name, expression, ...)                          \
    IFMA_EMULATED __m512i name(__VA_ARGS__) {                     \
        __m512i out;                                              \
        for (int i = 0; i < 8; i++) out.word[i] = (expression);   \
        return out;                                               \
    }

/* The whole product of two words' low 52 bits: 104 bits. */
IFMA_EMULATED unsigned __int128 ifma_product(uint64_t a, uint64_t b) {
    return (unsigned __int128)(a & IFMA_LOW_52) * (b & IFMA_LOW_52);
}

/* The word of i's group of four that bits 2i and 2i + 1 of `order` name (modulo 4). */
IFMA_EMULATED int ifma_place(int i, int order) {
    return (i & 4) + (order >> 2 * (i & 3) & 3);
}

IFMA_EACH(_mm512_setzero_si512, 0, void)
IFMA_EACH(_mm512_set1_epi64, (uint64_t)a, long long a)
IFMA_EACH(_mm512_maskz_set1_epi64, mask >> i & 1 ? (uint64_t)a : 0, __mmask8 mask, long long a)
IFMA_EACH(_mm512_add_epi64, a.word[i] + b.word[i], __m512i a, __m512i b)
IFMA_EACH(_mm512_sub_epi64, a.word[i] - b.word[i], __m512i a, __m512i b)
IFMA_EACH(_mm512_and_si512, a.word[i] & b.word[i], __m512i a, __m512i b)
IFMA_EACH(_mm512_slli_epi64, count > 63 ? 0 : a.word[i] << count, __m512i a, unsigned count)
IFMA_EACH(_mm512_srli_epi64, count > 63 ? 0 : a.word[i] >> count, __m512i a, unsigned count)
IFMA_EACH(_mm512_mask_add_epi64, mask >> i & 1 ? a.word[i] + b.word[i] : otherwise.word[i],
          __m512i otherwise, __mmask8 mask, __m512i a, __m512i b)
IFMA_EACH(_mm512_mask_sub_epi64, mask >> i & 1 ? a.word[i] - b.word[i] : otherwise.word[i],
          __m512i otherwise, __mmask8 mask, __m512i a, __m512i b)
IFMA_EACH(_mm512_mask_blend_epi64, mask >> i & 1 ? b.word[i] : a.word[i], __mmask8 mask, __m512i a,
          __m512i b)
IFMA_EACH(_mm512_madd52lo_epu64,
          sum.word[i] + ((uint64_t)ifma_product(a.word[i], b.word[i]) & IFMA_LOW_52), __m512i sum,
          __m512i a, __m512i b)
IFMA_EACH(_mm512_madd52hi_epu64, sum.word[i] + (uint64_t)(ifma_product(a.word[i], b.word[i]) >> 52),
          __m512i sum, __m512i a, __m512i b)
IFMA_EACH(_mm512_permutex_epi64, a.word[ifma_place(i, order)], __m512i a, int order)
IFMA_EACH(_mm512_mask_permutex_epi64,
          mask >> i & 1 ? a.word[ifma_place(i, order)] : otherwise.word[i], __m512i otherwise,
          __mmask8 mask, __m512i a, int order)
IFMA_EACH(_mm512_broadcast_i64x4, a.word[i & 3], __m256i a)
IFMA_EACH(_mm512_inserti64x4, i >> 2 == half ? b.word[i & 3] : a.word[i], __m512i a, __m256i b,
          int half)
/* What stands in the upper half afterwards is undefined. */
IFMA_EACH(_mm512_castsi256_si512, i < 4 ? a.word[i] : 0xdeadbeefdeadbeef, __m256i a)

IFMA_EMULATED __m256i _mm512_extracti64x4_epi64(__m512i a, int half) {
    __m256i out;
    memcpy(&out, a.word + 4 * half, sizeof out);
    return out;
}

IFMA_EMULATED __m256i _mm512_castsi512_si256(__m512i a) {
    return _mm512_extracti64x4_epi64(a, 0);
}

IFMA_EMULATED __m512i _mm512_loadu_si512(const void *from) {
    __m512i out;
    memcpy(&out, from, sizeof out);
    return out;
}

IFMA_EMULATED void _mm512_storeu_si512(void *to, __m512i a) {
    memcpy(to, &a, sizeof a);
}

IFMA_EMULATED __m256i _mm256_loadu_si256(const __m256i *from) {
    __m256i out;
    memcpy(&out, from, sizeof out);
    return out;
}

IFMA_EMULATED void _mm256_storeu_si256(__m256i *to, __m256i a) {
    memcpy(to, &a, sizeof a);
}

#endif
