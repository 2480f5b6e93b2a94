/* Integers modulo the group order L = 2^252 + 27742317777372353535851937790883648493,
 * as four little-endian 64-bit limbs, always in [0, L). */
#ifndef ASSAY_SCALAR25519_H
#define ASSAY_SCALAR25519_H

#include <stdint.h>

typedef struct {
    uint64_t limb[4];
} scalar;

/* Reads 32 bytes; 0 when they are not below L. */
int scalar_load_canonical(scalar *out, const uint8_t bytes[32]);
/* 64 bytes modulo L. */
void scalar_reduce(scalar *out, const uint8_t bytes[64]);
/* Sums and products modulo L. */
void scalar_add(scalar *out, const scalar *a, const scalar *b);
void scalar_multiply(scalar *out, const scalar *a, const scalar *b);
void scalar_negate(scalar *out, const scalar *a);
/* Signed digits, each zero or odd and below 2^(width - 1) in size, any two non-zero ones at least
 * `width` places apart: scalar = sum of digits[i] * 2^i. 2 <= width <= 8. */
#define SCALAR_DIGITS 254
void scalar_sparse_digits(int8_t digits[SCALAR_DIGITS], const scalar *a, unsigned width);

#endif
