/* The ways of doing the bulk of a batch's work: portable, four elements at once with AVX2 and fused
 * multiply-add, eight at once with AVX-512 and its multiply-add of 52-bit integers (IFMA). All decode
 * the same encodings to the same points and give the same sums. */
#ifndef ASSAY_EDWARDS_ENGINE_H
#define ASSAY_EDWARDS_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "edwards25519.h"

/* A decoded point in the form its engine adds fastest. */
typedef union {
    edwards_affine affine; /* portable */
    double doubles[5][4];  /* AVX2: limbs of y - x, y + x, 2dxy, 2, side by side; reduced */
    uint64_t words[5][4];  /* IFMA: likewise */
} edwards_ready;

/* What one digit's size collects. */
typedef union {
    edwards_point point;  /* portable */
    double doubles[5][4]; /* AVX2: limbs of Y - X, Y + X, T, Z, side by side; twice, reduced */
    uint64_t words[5][4]; /* IFMA: likewise; reduced */
} edwards_bucket;

/* One term of a sum of multiples: `bits` bounds the scalar, 0 <= scalar < 2^bits <= 2^253. */
typedef struct {
    const edwards_ready *point;
    scalar multiplier;
    unsigned bits;
} edwards_term;

enum { WINDOWS_AT_ONCE_MAX = 2 };

typedef struct {
    const char *name;
    unsigned windows_at_once;
    /* Sets decoded[i] to 1 and out[i] to the point of encodings[i], or decoded[i] to 0. */
    void (*decode)(edwards_ready *out, uint8_t *decoded, const uint8_t *const *encodings,
                   size_t count);
    void (*from_affine)(edwards_ready *out, const edwards_affine *point);
    void (*to_affine)(edwards_affine *out, const edwards_ready *point);
    /* sums[j] = the sum of digits[j * stride + i] * points[i], for j below windows_at_once; no digit
     * is larger than `half` in size. There are windows_at_once * (half + 1) buckets. */
    void (*sum_windows)(edwards_point *sums, edwards_bucket *buckets, size_t half,
                        const edwards_term *terms, const int16_t *digits, size_t stride,
                        size_t count);
    /* The whole sum, faster than by windows where terms are few. 0 when memory ran out. NULL where an
     * engine has no such way. */
    int (*sum_few)(edwards_point *sum, const edwards_term *terms, size_t count);
} edwards_engine;

const edwards_engine *edwards_portable(void);
/* NULL on processors without AVX2 and FMA. */
const edwards_engine *edwards_avx2(void);
/* NULL on processors without AVX-512 F and IFMA, and where the operating system does not save their
 * registers. */
const edwards_engine *edwards_ifma(void);

/* Sum of multiplier * point over the terms (Pippenger's bucket method). 0 when memory ran out. */
int edwards_sum_multiples(const edwards_engine *engine, edwards_point *out,
                          const edwards_term *terms, size_t count);

#endif
