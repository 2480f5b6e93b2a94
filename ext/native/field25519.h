/* Arithmetic modulo p = 2^255 - 19 on five limbs of 51 bits: value = sum of limb[i] * 2^(51 i).
 *
 * Limb bounds, the whole contract of this file:
 *   reduced  every limb < 2^51 + 2^14. Results of multiply, square and load are reduced.
 *   loose    every limb < 2^54. Operands of multiply and square may be loose.
 * add, subtract and subtract_loose do not carry; each says what it needs and gives. docs/ed25519.md
 * derives the bounds. Nothing here is constant time: only public data comes this way. */
#ifndef ASSAY_FIELD25519_H
#define ASSAY_FIELD25519_H

#include <stdint.h>
#include <string.h>

#if !defined(__SIZEOF_INT128__)
#error "a 64-bit compiler with unsigned __int128 is needed"
#endif

typedef unsigned __int128 assay_u128;

typedef struct {
    uint64_t limb[5];
} field;

#define FIELD_MASK 0x7ffffffffffffull
#if !defined(FIELD_INLINE) /* a build for sanitizers asks for small functions instead */
#define FIELD_INLINE static inline __attribute__((always_inline, unused))
#endif

static const field FIELD_ZERO = {{0, 0, 0, 0, 0}};
static const field FIELD_ONE = {{1, 0, 0, 0, 0}};

FIELD_INLINE uint64_t load_le64(const uint8_t *bytes) {
    uint64_t word = 0;
    for (int index = 7; index >= 0; index--) word = word << 8 | bytes[index];
    return word;
}

/* The low 255 bits, which may stand for a value of p or more. */
FIELD_INLINE void field_load(field *out, const uint8_t bytes[32]) {
    uint64_t a = load_le64(bytes), b = load_le64(bytes + 8);
    uint64_t c = load_le64(bytes + 16), d = load_le64(bytes + 24);
    out->limb[0] = a & FIELD_MASK;
    out->limb[1] = (a >> 51 | b << 13) & FIELD_MASK;
    out->limb[2] = (b >> 38 | c << 26) & FIELD_MASK;
    out->limb[3] = (c >> 25 | d << 39) & FIELD_MASK;
    out->limb[4] = (d >> 12) & FIELD_MASK;
}

/* Limbs of the sum are the sums of the limbs. */
FIELD_INLINE void field_add(field *out, const field *a, const field *b) {
    for (int i = 0; i < 5; i++) out->limb[i] = a->limb[i] + b->limb[i];
}

/* a - b + 2p: b must be reduced. Adds less than 2^52 to a's limbs. */
FIELD_INLINE void field_subtract(field *out, const field *a, const field *b) {
    out->limb[0] = a->limb[0] + 0xfffffffffffdaull - b->limb[0];
    for (int i = 1; i < 5; i++) out->limb[i] = a->limb[i] + 0xffffffffffffeull - b->limb[i];
}

/* Loose to reduced: one carry of each limb into the next, the last one's 19-fold into the first. */
FIELD_INLINE void field_carry(field *a) {
    uint64_t carry = 19 * (a->limb[4] >> 51);
    for (int i = 0; i < 5; i++) {
        uint64_t next = a->limb[i] >> 51;
        a->limb[i] = (a->limb[i] & FIELD_MASK) + carry;
        carry = next;
    }
}

/* Brings products (each < 2^115) to reduced limbs. */
FIELD_INLINE void field_carry_products(field *out, assay_u128 product[5]) {
    for (int i = 0; i < 4; i++) product[i + 1] += (uint64_t)(product[i] >> 51);
    uint64_t low = ((uint64_t)product[0] & FIELD_MASK) + 19 * (uint64_t)(product[4] >> 51);
    out->limb[0] = low & FIELD_MASK;
    out->limb[1] = ((uint64_t)product[1] & FIELD_MASK) + (low >> 51);
    for (int i = 2; i < 5; i++) out->limb[i] = (uint64_t)product[i] & FIELD_MASK;
}

/* Loose operands, reduced result. 2^255 = 19 mod p folds the upper half. */
FIELD_INLINE void field_multiply(field *out, const field *a, const field *b) {
    const uint64_t a0 = a->limb[0], a1 = a->limb[1], a2 = a->limb[2], a3 = a->limb[3];
    const uint64_t a4 = a->limb[4];
    const uint64_t b0 = b->limb[0], b1 = b->limb[1], b2 = b->limb[2], b3 = b->limb[3];
    const uint64_t b4 = b->limb[4];
    const uint64_t c1 = 19 * b1, c2 = 19 * b2, c3 = 19 * b3, c4 = 19 * b4;
    assay_u128 product[5];
    product[0] = (assay_u128)a0 * b0 + (assay_u128)a1 * c4 + (assay_u128)a2 * c3 +
                 (assay_u128)a3 * c2 + (assay_u128)a4 * c1;
    product[1] = (assay_u128)a0 * b1 + (assay_u128)a1 * b0 + (assay_u128)a2 * c4 +
                 (assay_u128)a3 * c3 + (assay_u128)a4 * c2;
    product[2] = (assay_u128)a0 * b2 + (assay_u128)a1 * b1 + (assay_u128)a2 * b0 +
                 (assay_u128)a3 * c4 + (assay_u128)a4 * c3;
    product[3] = (assay_u128)a0 * b3 + (assay_u128)a1 * b2 + (assay_u128)a2 * b1 +
                 (assay_u128)a3 * b0 + (assay_u128)a4 * c4;
    product[4] = (assay_u128)a0 * b4 + (assay_u128)a1 * b3 + (assay_u128)a2 * b2 +
                 (assay_u128)a3 * b1 + (assay_u128)a4 * b0;
    field_carry_products(out, product);
}

/* Loose operand, reduced result. */
FIELD_INLINE void field_square(field *out, const field *a) {
    const uint64_t a0 = a->limb[0], a1 = a->limb[1], a2 = a->limb[2], a3 = a->limb[3];
    const uint64_t a4 = a->limb[4];
    const uint64_t d0 = 2 * a0, d1 = 2 * a1, d2 = 2 * a2;
    const uint64_t c3 = 19 * a3, c4 = 19 * a4;
    assay_u128 product[5];
    product[0] = (assay_u128)a0 * a0 + (assay_u128)d1 * c4 + (assay_u128)d2 * c3;
    product[1] = (assay_u128)d0 * a1 + (assay_u128)d2 * c4 + (assay_u128)a3 * c3;
    product[2] = (assay_u128)d0 * a2 + (assay_u128)a1 * a1 + (assay_u128)(2 * a3) * c4;
    product[3] = (assay_u128)d0 * a3 + (assay_u128)d1 * a2 + (assay_u128)a4 * c4;
    product[4] = (assay_u128)d0 * a4 + (assay_u128)d1 * a3 + (assay_u128)a2 * a2;
    field_carry_products(out, product);
}

/* 1 when two reduced elements are equal modulo p, else 0. */
int field_equal(const field *a, const field *b);
/* 1 when a reduced element is zero modulo p, else 0. */
int field_is_zero(const field *a);
/* Lowest bit of the representative in [0, p) of a reduced element. */
int field_parity(const field *a);
/* -a of a reduced element; the result is loose. */
FIELD_INLINE void field_negate(field *out, const field *a) {
    field_subtract(out, &FIELD_ZERO, a);
}
/* a^((p - 5) / 8) of two elements at once: two chains of squarings hide each other's latency. */
void field_power_pair(field out[2], const field a[2]);

#endif
