/* Eight lanes of 64-bit words (field25519_ifma.h) for edwards_lanes.h. */
#include "edwards_engine.h"

#if defined(__x86_64__) || defined(ASSAY_IFMA_EMULATED)

#include "field25519_ifma.h"

/* Bits of lanes, the same in both groups of four. */
enum { FIRST = 0x11, SECOND = 0x22, THIRD = 0x44, EVEN = 0x55, ODD = 0xaa };
/* Orders of the words of each group, two bits a word, the lowest first. */
enum {
    SWAP_PAIRS = 0xb1,      /* 1, 0, 3, 2 */
    SWAP_FIRST_PAIR = 0xe1, /* 1, 0, 2, 3 */
    LEFT = 0x84,            /* 0, 1, 0, 2 */
    RIGHT = 0xde,           /* 2, 3, 1, 3 */
};

LANES_INLINE void lanes_gather(lanes *out, lane_row *const places[GROUPS]) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const __m256i low = _mm256_loadu_si256((const __m256i *)places[0][i]);
        const __m256i high = _mm256_loadu_si256((const __m256i *)places[1][i]);
        out->limb[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
}

LANES_INLINE void lanes_scatter(lane_row *const places[GROUPS], const lanes *a) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        _mm256_storeu_si256((__m256i *)places[0][i], _mm512_castsi512_si256(a->limb[i]));
        _mm256_storeu_si256((__m256i *)places[1][i], _mm512_extracti64x4_epi64(a->limb[i], 1));
    }
}

/* The opposite has y - x and y + x in each other's place and 2p - 2dxy, which is fitting. */
LANES_INLINE void lanes_load_ready(lanes *out, const lane_row *const rows[GROUPS],
                                   unsigned negative) {
    const __mmask8 groups = (__mmask8)((negative & 1) * 0x0f | (negative >> 1) * 0xf0);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const __m256i low = _mm256_loadu_si256((const __m256i *)rows[0][i]);
        const __m256i high = _mm256_loadu_si256((const __m256i *)rows[1][i]);
        const __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
        const __m512i swapped = _mm512_mask_permutex_epi64(both, groups, both, SWAP_FIRST_PAIR);
        out->limb[i] =
            _mm512_mask_sub_epi64(swapped, (__mmask8)(groups & THIRD), lanes_twice_p(i), both);
    }
}

LANES_INLINE void lanes_store_ready(edwards_ready out[LANES], const lanes *difference,
                                    const lanes *sum, const lanes *product) {
    for (int i = 0; i < 5; i++) {
        uint64_t words[3][LANES];
        _mm512_storeu_si512(words[0], difference->limb[i]);
        _mm512_storeu_si512(words[1], sum->limb[i]);
        _mm512_storeu_si512(words[2], product->limb[i]);
        for (int lane = 0; lane < LANES; lane++) {
            for (int part = 0; part < 3; part++) out[lane].words[i][part] = words[part][lane];
            out[lane].words[i][3] = i == 0 ? 2 : 0;
        }
    }
}

LANES_INLINE void lanes_multiply_crosswise(lanes *out, const lanes *a, const lanes *b) {
    lanes_columns columns;
    lanes_multiply_columns(&columns, a, b, ODD); /* B and D have the bias */
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const __m512i own = columns.sum[i], other = _mm512_permutex_epi64(own, SWAP_PAIRS);
        columns.sum[i] = _mm512_mask_sub_epi64(_mm512_add_epi64(other, own), EVEN, other, own);
    }
    lanes_carry(out, &columns);
}

LANES_INLINE void lanes_spread(lanes *left, lanes *right, const lanes *sums) {
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        left->limb[i] = _mm512_permutex_epi64(sums->limb[i], LEFT);
        right->limb[i] = _mm512_permutex_epi64(sums->limb[i], RIGHT);
    }
}

LANES_INLINE void lanes_multiply_open(lanes *out, const lanes *a, const lanes *b) {
    lanes_columns columns;
    lanes_multiply_columns(&columns, a, b, SECOND); /* Y has the bias */
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        const __m512i own = columns.sum[i], other = _mm512_permutex_epi64(own, SWAP_PAIRS);
        const __m512i sum = _mm512_mask_add_epi64(own, SECOND, other, own);
        columns.sum[i] = _mm512_mask_sub_epi64(sum, FIRST, other, own);
    }
    lanes_carry(out, &columns);
}

#include "edwards_lanes.h"

static const edwards_engine IFMA_ENGINE = {
    .name = "ifma",
    .windows_at_once = GROUPS,
    .decode = decode,
    .from_affine = from_affine,
    .to_affine = to_affine,
    .sum_windows = sum_windows,
    .sum_few = sum_few,
};

#if defined(ASSAY_IFMA_EMULATED)

const edwards_engine *edwards_ifma(void) {
    return &IFMA_ENGINE;
}

#else

const edwards_engine *edwards_ifma(void) {
    /* The compiler's run-time check asks for the operating system's part, too (XGETBV: the upper halves
     * of the registers and the masks are saved). */
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512ifma") ? &IFMA_ENGINE
                                                                                    : NULL;
}

#endif

#else

const edwards_engine *edwards_ifma(void) {
    return NULL;
}

#endif
