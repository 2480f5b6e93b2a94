#include "bodies.h"

#include <string.h>

/* Wire tags: field number << 3 | wire type. */
enum {
    TAG_CHAIN_ID = 0x0a,
    TAG_VALID_UNTIL_HEIGHT = 0x10,
    TAG_SALT = 0x19,
    TAG_MAX_FEE = 0x20,
    TAG_OPERATION = 0x2a,
    TAG_TRANSFER = 0x0a,
    TAG_RECEIVER = 0x0a,
    TAG_AMOUNT = 0x10,
};
enum {
    RECEIVER_BYTES = 32,
    SALT_BYTES = 8,
    NUMBER_BYTES_MAX = 10,
    /* Tag and length of operation, transfer and receiver, then the receiver. */
    OPERATION_BYTES_MIN = 3 * 2 + RECEIVER_BYTES,
};

typedef struct {
    const uint8_t *data;
    size_t at, end;
} reader;

static inline int at_tag(const reader *cursor, uint8_t tag) {
    return cursor->at < cursor->end && cursor->data[cursor->at] == tag;
}

/* A minimal number of 64 bits that is not 0, the default that is never written. */
static inline int take_number(reader *cursor, uint64_t *number) {
    uint64_t value = 0;
    for (unsigned group = 0; group < NUMBER_BYTES_MAX && cursor->at < cursor->end; group++) {
        uint8_t byte = cursor->data[cursor->at++];
        if (group == NUMBER_BYTES_MAX - 1 && byte > 1) return 0;
        value |= (uint64_t)(byte & 0x7f) << (7 * group);
        if (byte & 0x80) continue;
        *number = value;
        return byte != 0;
    }
    return 0;
}

/* A field that is left out when it is 0. */
static inline int take_optional(reader *cursor, uint8_t tag, uint64_t *number) {
    *number = 0;
    if (!at_tag(cursor, tag)) return 1;
    cursor->at++;
    return take_number(cursor, number);
}

static int take_chain_id(reader *cursor, const uint8_t *chain_id, size_t length) {
    uint64_t size;
    if (!take_optional(cursor, TAG_CHAIN_ID, &size)) return 0;
    if (size != length || size > cursor->end - cursor->at) return 0;
    if (length > 0 && memcmp(cursor->data + cursor->at, chain_id, length) != 0) return 0;
    cursor->at += length;
    return 1;
}

static int take_salt(reader *cursor) {
    static const uint8_t zeros[SALT_BYTES];
    if (!at_tag(cursor, TAG_SALT)) return 1;
    cursor->at++;
    if (cursor->end - cursor->at < SALT_BYTES) return 0;
    cursor->at += SALT_BYTES;
    return memcmp(cursor->data + cursor->at - SALT_BYTES, zeros, SALT_BYTES) != 0;
}

/* All lengths fit one byte, because a transfer has one size but for its amount. */
static inline int take_transfer(reader *cursor, uint32_t *receiver, uint64_t *amount) {
    const uint8_t *field = cursor->data + cursor->at;
    if (cursor->end - cursor->at < OPERATION_BYTES_MIN) return 0;
    size_t size = field[1];
    if (field[0] != TAG_OPERATION || size < OPERATION_BYTES_MIN - 2 || size >= 0x80) return 0;
    if (size > cursor->end - cursor->at - 2) return 0;
    if (field[2] != TAG_TRANSFER || field[3] != size - 2) return 0;
    if (field[4] != TAG_RECEIVER || field[5] != RECEIVER_BYTES) return 0;
    *receiver = (uint32_t)cursor->at + 6;
    size_t end = cursor->at + 2 + size;
    cursor->at += OPERATION_BYTES_MIN;
    *amount = 0;
    if (cursor->at == end) return 1;
    if (cursor->data[cursor->at++] != TAG_AMOUNT) return 0;
    return take_number(cursor, amount) && cursor->at == end;
}

static assay_body_class parse_body(reader *cursor, const uint8_t *chain_id, size_t chain_id_length,
                                   size_t index, size_t first, assay_bodies *out) {
    uint32_t operations = 0;
    if (!take_chain_id(cursor, chain_id, chain_id_length)) return ASSAY_BODY_OTHER;
    if (!take_optional(cursor, TAG_VALID_UNTIL_HEIGHT, &out->valid_until_heights[index]))
        return ASSAY_BODY_OTHER;
    if (!take_salt(cursor)) return ASSAY_BODY_OTHER;
    if (!take_optional(cursor, TAG_MAX_FEE, &out->max_fees[index])) return ASSAY_BODY_OTHER;
    for (; cursor->at < cursor->end; operations++)
        if (operations == ASSAY_OPERATIONS_MAX ||
            !take_transfer(cursor, &out->receivers[first + operations],
                           &out->amounts[first + operations]))
            return ASSAY_BODY_OTHER;
    out->operation_counts[index] = operations;
    return operations > 0 ? ASSAY_BODY_PLAIN : ASSAY_BODY_OTHER;
}

size_t assay_bodies_room(const assay_slice *bodies, size_t count) {
    size_t room = 0;
    for (size_t i = 0; i < count; i++) {
        size_t most = bodies[i].length / OPERATION_BYTES_MIN;
        room += most < ASSAY_OPERATIONS_MAX ? most : ASSAY_OPERATIONS_MAX;
    }
    return room;
}

size_t assay_parse_bodies(const uint8_t *data, const assay_slice *bodies, size_t count,
                          const uint8_t *chain_id, size_t chain_id_length, assay_bodies *out) {
    size_t operations = 0;
    for (size_t i = 0; i < count; i++) {
        reader cursor = {data, bodies[i].offset, (size_t)bodies[i].offset + bodies[i].length};
        out->body_bytes[i] = bodies[i].length;
        out->classes[i] =
            (uint8_t)parse_body(&cursor, chain_id, chain_id_length, i, operations, out);
        if (out->classes[i] == ASSAY_BODY_PLAIN) {
            out->first_operations[i] = (uint32_t)operations;
            operations += out->operation_counts[i];
        } else {
            out->valid_until_heights[i] = 0;
            out->max_fees[i] = 0;
            out->first_operations[i] = 0;
            out->operation_counts[i] = 0;
        }
    }
    return operations;
}
