#include "wire_reader.h"

static inline int continues(uint8_t byte) { return (byte & 0xc0) == 0x80; }

int assay_is_utf8(const assay_reader *text) {
    const uint8_t *data = text->data;
    size_t at = text->at, left;
    while (at < text->end) {
        const uint8_t first = data[at++];
        if (first < 0x80) continue;
        left = text->end - at;
        if (first >= 0xc2 && first <= 0xdf) {
            if (left < 1 || !continues(data[at])) return 0;
            at += 1;
        } else if ((first & 0xf0) == 0xe0) {
            if (left < 2 || !continues(data[at]) || !continues(data[at + 1])) return 0;
            if (first == 0xe0 && data[at] < 0xa0) return 0; /* longer than need be */
            if (first == 0xed && data[at] > 0x9f) return 0; /* half of a surrogate pair */
            at += 2;
        } else if (first >= 0xf0 && first <= 0xf4) {
            if (left < 3 || !continues(data[at]) || !continues(data[at + 1]) ||
                !continues(data[at + 2]))
                return 0;
            if (first == 0xf0 && data[at] < 0x90) return 0; /* longer than need be */
            if (first == 0xf4 && data[at] > 0x8f) return 0; /* above U+10FFFF */
            at += 3;
        } else {
            return 0;
        }
    }
    return 1;
}
