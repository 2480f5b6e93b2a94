/* Points of -x^2 + y^2 = 1 + d x^2 y^2 modulo 2^255 - 19. The addition formulas are complete: they hold
 * for every pair of points, small order and equal ones included. Public data only. */
#ifndef ASSAY_EDWARDS25519_H
#define ASSAY_EDWARDS25519_H

#include <stddef.h>
#include <stdint.h>

#include "field25519.h"
#include "scalar25519.h"

/* Extended coordinates: x = X/Z, y = Y/Z, T = XY/Z. All reduced. */
typedef struct {
    field x, y, z, t;
} edwards_point;

/* An affine point made ready to be added: y + x, y - x and 2dxy. Limbs below 3 * 2^51 + 2^14. */
typedef struct {
    field sum, difference, product;
} edwards_affine;

/* A projective point made ready to be added: Y + X, Y - X, 2Z and 2dT. Limbs likewise. */
typedef struct {
    field sum, difference, twice_z, product;
} edwards_cached;

extern const edwards_affine EDWARDS_BASE;
extern const field EDWARDS_D, EDWARDS_2D; /* the curve's d and its double */
extern const field EDWARDS_ROOT_OF_MINUS_ONE;

/* Decodes two points at once (one exponentiation each, run side by side). Bit i of the result says
 * that encoding i is a point. ZIP-215: y may be p or more, and x = 0 may carry a sign bit. */
unsigned edwards_decode_pair(edwards_affine out[2], const uint8_t first[32],
                             const uint8_t second[32]);

void edwards_identity(edwards_point *out);
void edwards_add(edwards_point *out, const edwards_point *a, const edwards_cached *b);
void edwards_subtract_affine(edwards_point *out, const edwards_point *a, const edwards_affine *b);
void edwards_double(edwards_point *out, const edwards_point *a);
/* 1 when 8 * point is the identity, else 0. */
int edwards_has_small_order(const edwards_point *point);

/* out = b * B - a * A, B the base point. `edwards_prepare` must have run once before. */
void edwards_prepare(void);
void edwards_double_multiply(edwards_point *out, const scalar *b, const scalar *a,
                             const edwards_affine *point);

#endif
