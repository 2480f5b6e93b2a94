#include "bodies.h"

#include <stdlib.h>
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
    TAG_REQUEST_INFERENCE = 0x3a,
    TAG_SUBMIT_RESULT = 0x42,
};
enum {
    RECEIVER_BYTES = 32,
    SALT_BYTES = 8,
    /* Tag and length of operation, transfer and receiver, then the receiver. */
    OPERATION_BYTES_MIN = 3 * 2 + RECEIVER_BYTES,
    JOB_OPERATIONS_AT_FIRST = 64,
};

static int take_chain_id(assay_reader *cursor, const uint8_t *chain_id, size_t length) {
    uint64_t size;
    if (!assay_take_optional(cursor, TAG_CHAIN_ID, &size)) return 0;
    if (size != length || size > cursor->end - cursor->at) return 0;
    if (length > 0 && memcmp(cursor->data + cursor->at, chain_id, length) != 0) return 0;
    cursor->at += length;
    return 1;
}

static int take_salt(assay_reader *cursor) {
    static const uint8_t zeros[SALT_BYTES];
    if (!assay_at_tag(cursor, TAG_SALT)) return 1;
    cursor->at++;
    if (cursor->end - cursor->at < SALT_BYTES) return 0;
    cursor->at += SALT_BYTES;
    return memcmp(cursor->data + cursor->at - SALT_BYTES, zeros, SALT_BYTES) != 0;
}

/* All lengths fit one byte, because a transfer has one size but for its amount. */
static inline int take_transfer(assay_reader *cursor, uint32_t *receiver, uint64_t *amount) {
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
    return assay_take_number(cursor, amount) && cursor->at == end;
}

/* Where the next operation of a job goes; NULL when there is no memory. */
static assay_job_operation *next_job_operation(assay_bodies *out) {
    if (out->job_operation_count == out->job_operation_capacity) {
        size_t wanted = out->job_operation_capacity > 0 ? 2 * out->job_operation_capacity
                                                        : JOB_OPERATIONS_AT_FIRST;
        assay_job_operation *grown = realloc(out->job_operations, wanted * sizeof *grown);
        if (grown == NULL) return NULL;
        out->job_operations = grown;
        out->job_operation_capacity = wanted;
    }
    return &out->job_operations[out->job_operation_count];
}

/* The only operation of the rest, if it belongs to a job; it is written to `out`. */
static assay_body_class take_job_operation(assay_reader *cursor, const assay_job_limits *limits,
                                           assay_job_operation *out) {
    assay_reader operation, message;
    if (!assay_take_content(cursor, TAG_OPERATION, &operation) || cursor->at != cursor->end)
        return ASSAY_BODY_OTHER;
    const int asks = assay_at_tag(&operation, TAG_REQUEST_INFERENCE);
    if (!assay_take_content(&operation, asks ? TAG_REQUEST_INFERENCE : TAG_SUBMIT_RESULT, &message) ||
        operation.at != operation.end)
        return ASSAY_BODY_OTHER;
    if (asks) return assay_read_request(message, limits, out) ? ASSAY_BODY_REQUEST : ASSAY_BODY_OTHER;
    return assay_read_result(message, limits, out) ? ASSAY_BODY_RESULT : ASSAY_BODY_OTHER;
}

static uint32_t take_transfers(assay_reader *cursor, size_t first, assay_bodies *out) {
    uint32_t transfers = 0;
    for (; cursor->at < cursor->end; transfers++)
        if (transfers == ASSAY_OPERATIONS_MAX ||
            !take_transfer(cursor, &out->receivers[first + transfers],
                           &out->amounts[first + transfers]))
            return 0;
    return transfers;
}

/* `job` is NULL where operations of jobs are not asked for. */
static assay_body_class parse_body(assay_reader *cursor, const uint8_t *chain_id,
                                   size_t chain_id_length, size_t index, size_t first,
                                   const assay_job_limits *limits, assay_job_operation *job,
                                   assay_bodies *out) {
    if (!take_chain_id(cursor, chain_id, chain_id_length)) return ASSAY_BODY_OTHER;
    if (!assay_take_optional(cursor, TAG_VALID_UNTIL_HEIGHT, &out->valid_until_heights[index]))
        return ASSAY_BODY_OTHER;
    if (!take_salt(cursor)) return ASSAY_BODY_OTHER;
    if (!assay_take_optional(cursor, TAG_MAX_FEE, &out->max_fees[index])) return ASSAY_BODY_OTHER;
    assay_reader operations = *cursor;
    out->operation_counts[index] = take_transfers(cursor, first, out);
    if (out->operation_counts[index] > 0) return ASSAY_BODY_PLAIN;
    out->operation_counts[index] = 1;
    return job == NULL ? ASSAY_BODY_OTHER : take_job_operation(&operations, limits, job);
}

size_t assay_bodies_room(const assay_slice *bodies, size_t count) {
    size_t room = 0;
    for (size_t i = 0; i < count; i++) {
        size_t most = bodies[i].length / OPERATION_BYTES_MIN;
        room += most < ASSAY_OPERATIONS_MAX ? most : ASSAY_OPERATIONS_MAX;
    }
    return room;
}

int assay_parse_bodies(const uint8_t *data, const assay_slice *bodies, size_t count,
                       const uint8_t *chain_id, size_t chain_id_length,
                       const assay_job_limits *limits, assay_bodies *out, size_t *transfers) {
    *transfers = 0;
    for (size_t i = 0; i < count; i++) {
        assay_reader cursor = {data, bodies[i].offset, (size_t)bodies[i].offset + bodies[i].length};
        assay_job_operation *job = limits == NULL ? NULL : next_job_operation(out);
        if (limits != NULL && job == NULL) return 0;
        assay_body_class class =
            parse_body(&cursor, chain_id, chain_id_length, i, *transfers, limits, job, out);
        out->body_bytes[i] = bodies[i].length;
        out->classes[i] = (uint8_t)class;
        switch (class) {
        case ASSAY_BODY_PLAIN:
            out->first_operations[i] = (uint32_t)*transfers;
            *transfers += out->operation_counts[i];
            break;
        case ASSAY_BODY_REQUEST:
        case ASSAY_BODY_RESULT:
            out->first_operations[i] = (uint32_t)out->job_operation_count++;
            break;
        case ASSAY_BODY_OTHER:
            out->valid_until_heights[i] = 0;
            out->max_fees[i] = 0;
            out->first_operations[i] = 0;
            out->operation_counts[i] = 0;
        }
    }
    return 1;
}

void assay_bodies_free(assay_bodies *bodies) {
    free(bodies->job_operations);
    bodies->job_operations = NULL;
    bodies->job_operation_count = bodies->job_operation_capacity = 0;
}
