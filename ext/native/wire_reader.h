/* Reads canonical protobuf: what a serialiser writes, and nothing else.
 *
 * Every function takes what it names, or returns 0 with the cursor anywhere. None reads beyond `end`. */
#ifndef ASSAY_WIRE_READER_H
#define ASSAY_WIRE_READER_H

#include <stddef.h>
#include <stdint.h>

#define ASSAY_NUMBER_BYTES_MAX 10u

typedef struct {
    const uint8_t *data;
    size_t at, end;
} assay_reader;

static inline int assay_at_tag(const assay_reader *cursor, uint8_t tag) {
    return cursor->at < cursor->end && cursor->data[cursor->at] == tag;
}

/* A minimal number of 64 bits; 0 has one byte. */
static inline int assay_take_any_number(assay_reader *cursor, uint64_t *number) {
    uint64_t value = 0;
    for (unsigned group = 0; group < ASSAY_NUMBER_BYTES_MAX && cursor->at < cursor->end; group++) {
        uint8_t byte = cursor->data[cursor->at++];
        if (group == ASSAY_NUMBER_BYTES_MAX - 1 && byte > 1) return 0;
        value |= (uint64_t)(byte & 0x7f) << (7 * group);
        if (byte & 0x80) continue;
        *number = value;
        return byte != 0 || group == 0;
    }
    return 0;
}

/* The same, but not 0: the default is never written. */
static inline int assay_take_number(assay_reader *cursor, uint64_t *number) {
    return assay_take_any_number(cursor, number) && *number != 0;
}

/* A field that is left out when it is 0. */
static inline int assay_take_optional(assay_reader *cursor, uint8_t tag, uint64_t *number) {
    *number = 0;
    if (!assay_at_tag(cursor, tag)) return 1;
    cursor->at++;
    return assay_take_number(cursor, number);
}

/* The same for a field that must not be above `most`. */
static inline int assay_take_bounded(assay_reader *cursor, uint8_t tag, uint32_t most,
                                     uint32_t *number) {
    uint64_t value;
    if (!assay_take_optional(cursor, tag, &value) || value > most) return 0;
    *number = (uint32_t)value;
    return 1;
}

/* The content behind a tag and a length, as a cursor of its own; the outer one goes on behind it. */
static inline int assay_take_content(assay_reader *cursor, uint8_t tag, assay_reader *content) {
    uint64_t size;
    if (!assay_at_tag(cursor, tag)) return 0;
    cursor->at++;
    if (!assay_take_any_number(cursor, &size) || size > cursor->end - cursor->at) return 0;
    content->data = cursor->data;
    content->at = cursor->at;
    content->end = cursor->at += (size_t)size;
    return 1;
}

/* A string or bytes field that is left out when it is empty; `content` is then empty. */
static inline int assay_take_string(assay_reader *cursor, uint8_t tag, assay_reader *content) {
    content->data = cursor->data;
    content->at = content->end = cursor->at;
    if (!assay_at_tag(cursor, tag)) return 1;
    return assay_take_content(cursor, tag, content) && content->at < content->end;
}

/* Whether the rest is UTF-8 (RFC 3629). */
int assay_is_utf8(const assay_reader *text);

#endif
