#include "sha512.h"

#include <string.h>

/* First 64 bits of the fractional parts of the cube roots of the first 80 primes. */
static const uint64_t ROUND_CONSTANTS[80] = {
    0x428a2f98d728ae22u, 0x7137449123ef65cdu, 0xb5c0fbcfec4d3b2fu, 0xe9b5dba58189dbbcu,
    0x3956c25bf348b538u, 0x59f111f1b605d019u, 0x923f82a4af194f9bu, 0xab1c5ed5da6d8118u,
    0xd807aa98a3030242u, 0x12835b0145706fbeu, 0x243185be4ee4b28cu, 0x550c7dc3d5ffb4e2u,
    0x72be5d74f27b896fu, 0x80deb1fe3b1696b1u, 0x9bdc06a725c71235u, 0xc19bf174cf692694u,
    0xe49b69c19ef14ad2u, 0xefbe4786384f25e3u, 0x0fc19dc68b8cd5b5u, 0x240ca1cc77ac9c65u,
    0x2de92c6f592b0275u, 0x4a7484aa6ea6e483u, 0x5cb0a9dcbd41fbd4u, 0x76f988da831153b5u,
    0x983e5152ee66dfabu, 0xa831c66d2db43210u, 0xb00327c898fb213fu, 0xbf597fc7beef0ee4u,
    0xc6e00bf33da88fc2u, 0xd5a79147930aa725u, 0x06ca6351e003826fu, 0x142929670a0e6e70u,
    0x27b70a8546d22ffcu, 0x2e1b21385c26c926u, 0x4d2c6dfc5ac42aedu, 0x53380d139d95b3dfu,
    0x650a73548baf63deu, 0x766a0abb3c77b2a8u, 0x81c2c92e47edaee6u, 0x92722c851482353bu,
    0xa2bfe8a14cf10364u, 0xa81a664bbc423001u, 0xc24b8b70d0f89791u, 0xc76c51a30654be30u,
    0xd192e819d6ef5218u, 0xd69906245565a910u, 0xf40e35855771202au, 0x106aa07032bbd1b8u,
    0x19a4c116b8d2d0c8u, 0x1e376c085141ab53u, 0x2748774cdf8eeb99u, 0x34b0bcb5e19b48a8u,
    0x391c0cb3c5c95a63u, 0x4ed8aa4ae3418acbu, 0x5b9cca4f7763e373u, 0x682e6ff3d6b2b8a3u,
    0x748f82ee5defb2fcu, 0x78a5636f43172f60u, 0x84c87814a1f0ab72u, 0x8cc702081a6439ecu,
    0x90befffa23631e28u, 0xa4506cebde82bde9u, 0xbef9a3f7b2c67915u, 0xc67178f2e372532bu,
    0xca273eceea26619cu, 0xd186b8c721c0c207u, 0xeada7dd6cde0eb1eu, 0xf57d4f7fee6ed178u,
    0x06f067aa72176fbau, 0x0a637dc5a2c898a6u, 0x113f9804bef90daeu, 0x1b710b35131c471bu,
    0x28db77f523047d84u, 0x32caab7b40c72493u, 0x3c9ebe0a15c9bebcu, 0x431d67c49c100d4cu,
    0x4cc5d4becb3e42b6u, 0x597f299cfc657e2au, 0x5fcb6fab3ad6faecu, 0x6c44198c4a475817u,
};

/* The same of the square roots of the first 8 primes. */
static const uint64_t INITIAL_STATE[8] = {
    0x6a09e667f3bcc908u, 0xbb67ae8584caa73bu, 0x3c6ef372fe94f82bu, 0xa54ff53a5f1d36f1u,
    0x510e527fade682d1u, 0x9b05688c2b3e6c1fu, 0x1f83d9abfb41bd6bu, 0x5be0cd19137e2179u,
};

static inline uint64_t load_be64(const uint8_t *bytes) {
    uint64_t word = 0;
    for (int index = 0; index < 8; index++) word = word << 8 | bytes[index];
    return word;
}

static inline void store_be64(uint8_t *bytes, uint64_t word) {
    for (int index = 0; index < 8; index++) bytes[index] = (uint8_t)(word >> (56 - 8 * index));
}

static inline uint64_t rotate_right(uint64_t word, unsigned bits) {
    return word >> bits | word << (64 - bits);
}

static inline uint64_t schedule_word(const uint64_t window[16], unsigned round) {
    uint64_t two_back = window[(round - 2) & 15];
    uint64_t fifteen_back = window[(round - 15) & 15];
    uint64_t sigma_one =
        rotate_right(two_back, 19) ^ rotate_right(two_back, 61) ^ (two_back >> 6);
    uint64_t sigma_zero =
        rotate_right(fifteen_back, 1) ^ rotate_right(fifteen_back, 8) ^ (fifteen_back >> 7);
    return sigma_one + window[(round - 7) & 15] + sigma_zero + window[round & 15];
}

/* One round, with the roles of the eight words given by the caller instead of moving them. */
#define ROUND(a, b, c, d, e, f, g, h, round)                                                     \
    do {                                                                                         \
        uint64_t word_ =                                                                         \
            (round) < 16 ? load_be64(data + 8 * (round)) : schedule_word(window, (round));       \
        window[(round) & 15] = word_;                                                            \
        uint64_t sum_ = rotate_right(e, 14) ^ rotate_right(e, 18) ^ rotate_right(e, 41);         \
        uint64_t first_ = h + sum_ + (g ^ (e & (f ^ g))) + ROUND_CONSTANTS[round] + word_;       \
        sum_ = rotate_right(a, 28) ^ rotate_right(a, 34) ^ rotate_right(a, 39);                  \
        d += first_;                                                                             \
        h = first_ + sum_ + ((a & b) | (c & (a | b)));                                           \
    } while (0)

static void compress(uint64_t state[8], const uint8_t *data, size_t blocks) {
    for (; blocks > 0; blocks--, data += ASSAY_SHA512_BLOCK_SIZE) {
        uint64_t window[16];
        uint64_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint64_t e = state[4], f = state[5], g = state[6], h = state[7];
#pragma GCC unroll 10
        for (unsigned round = 0; round < 80; round += 8) {
            ROUND(a, b, c, d, e, f, g, h, round);
            ROUND(h, a, b, c, d, e, f, g, round + 1);
            ROUND(g, h, a, b, c, d, e, f, round + 2);
            ROUND(f, g, h, a, b, c, d, e, round + 3);
            ROUND(e, f, g, h, a, b, c, d, round + 4);
            ROUND(d, e, f, g, h, a, b, c, round + 5);
            ROUND(c, d, e, f, g, h, a, b, round + 6);
            ROUND(b, c, d, e, f, g, h, a, round + 7);
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

void assay_sha512_init(assay_sha512_context *context) {
    memcpy(context->state, INITIAL_STATE, sizeof INITIAL_STATE);
    context->length = 0;
    context->buffered = 0;
}

void assay_sha512_update(assay_sha512_context *context, const uint8_t *data, size_t length) {
    if (length == 0) return; /* data may be NULL here */
    context->length += length;
    if (context->buffered > 0) {
        size_t wanted = ASSAY_SHA512_BLOCK_SIZE - context->buffered;
        size_t taken = length < wanted ? length : wanted;
        memcpy(context->buffer + context->buffered, data, taken);
        context->buffered += taken;
        data += taken;
        length -= taken;
        if (context->buffered < ASSAY_SHA512_BLOCK_SIZE) return;
        compress(context->state, context->buffer, 1);
        context->buffered = 0;
    }
    size_t blocks = length / ASSAY_SHA512_BLOCK_SIZE;
    if (blocks > 0) compress(context->state, data, blocks);
    data += blocks * ASSAY_SHA512_BLOCK_SIZE;
    length -= blocks * ASSAY_SHA512_BLOCK_SIZE;
    if (length > 0) memcpy(context->buffer, data, length);
    context->buffered = length;
}

void assay_sha512_final(assay_sha512_context *context, uint8_t digest[ASSAY_SHA512_SIZE]) {
    /* The length field has 16 bytes, of which the upper eight are zero for any length that fits. */
    const size_t length_offset = ASSAY_SHA512_BLOCK_SIZE - 16;
    size_t used = context->buffered;
    context->buffer[used++] = 0x80;
    if (used > length_offset) {
        memset(context->buffer + used, 0, ASSAY_SHA512_BLOCK_SIZE - used);
        compress(context->state, context->buffer, 1);
        used = 0;
    }
    memset(context->buffer + used, 0, ASSAY_SHA512_BLOCK_SIZE - 8 - used);
    store_be64(context->buffer + ASSAY_SHA512_BLOCK_SIZE - 8, context->length * 8);
    compress(context->state, context->buffer, 1);
    for (int word = 0; word < 8; word++) store_be64(digest + 8 * word, context->state[word]);
}
