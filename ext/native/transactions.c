#include "transactions.h"

#include <string.h>

#include "sha256.h"

/* Wire tags: field number << 3 | 2 (length-delimited). */
enum {
    TAG_BODY = 0x0a,
    TAG_PUBLIC_KEY = 0x12,
    TAG_SIGNATURE = 0x1a,
    TAG_TRANSACTION = 0x0a,
    TAG_ATTESTATION = 0x12,
};
/* Four groups of seven bits hold every length that can be valid here. */
enum { LENGTH_GROUPS_MAX = 4 };

static const uint8_t TRANSACTION_TAG[] = {'t', 'x'};
static const uint8_t SIGNING_TAG[] = {'t', 'x', '-', 's', 'i', 'g', 'n'};

/* Reads a tag byte that must be `tag`, then a length; leaves `*position` at the content, which is
 * certain to lie before `end`. */
static inline assay_parse_status open_field(const uint8_t *data, size_t end, uint8_t tag,
                                            size_t *position, uint32_t *content) {
    size_t at = *position;
    uint32_t value = 0;
    if (at >= end) return ASSAY_PARSE_TRUNCATED;
    if (data[at] != tag) return ASSAY_PARSE_UNEXPECTED_FIELD;
    at++;
    for (unsigned group = 0;; group++) {
        *position = at;
        if (group == LENGTH_GROUPS_MAX) return ASSAY_PARSE_LENGTH_TOO_LARGE;
        if (at >= end) return ASSAY_PARSE_TRUNCATED;
        uint8_t byte = data[at++];
        value |= (uint32_t)(byte & 0x7f) << (7 * group);
        if (byte & 0x80) continue;
        if (byte == 0 && group > 0) return ASSAY_PARSE_LENGTH_NOT_MINIMAL;
        break;
    }
    *position = at;
    if (value > end - at) {
        *position = end;
        return ASSAY_PARSE_TRUNCATED;
    }
    *content = value;
    return ASSAY_PARSE_OK;
}

assay_parse_status assay_parse_signed_tx(const uint8_t *data, size_t start, size_t end,
                                         assay_signed_tx *out, size_t *failed_at) {
    size_t position = start;
    uint32_t size;
    assay_parse_status status;
    *failed_at = start;
    if (end - start > ASSAY_PAYLOAD_BYTES_MAX) return ASSAY_PARSE_PAYLOAD_TOO_LONG;

    status = open_field(data, end, TAG_BODY, &position, &size);
    *failed_at = position;
    if (status != ASSAY_PARSE_OK) return status;
    if (size == 0 || size > ASSAY_BODY_BYTES_MAX) return ASSAY_PARSE_BODY_SIZE;
    out->body.offset = (uint32_t)position;
    out->body.length = size;
    position += size;

    status = open_field(data, end, TAG_PUBLIC_KEY, &position, &size);
    *failed_at = position;
    if (status != ASSAY_PARSE_OK) return status;
    if (size != ASSAY_PUBLIC_KEY_BYTES) return ASSAY_PARSE_PUBLIC_KEY_SIZE;
    out->public_key = (uint32_t)position;
    position += size;

    status = open_field(data, end, TAG_SIGNATURE, &position, &size);
    *failed_at = position;
    if (status != ASSAY_PARSE_OK) return status;
    if (size != ASSAY_SIGNATURE_BYTES) return ASSAY_PARSE_SIGNATURE_SIZE;
    out->signature = (uint32_t)position;
    position += size;

    *failed_at = position;
    return position == end ? ASSAY_PARSE_OK : ASSAY_PARSE_TRAILING_BYTES;
}

assay_parse_status assay_count_batch(const uint8_t *data, size_t length, size_t *transactions,
                                     size_t *attestations, size_t *failed_at) {
    size_t position = 0;
    *transactions = 0;
    *attestations = 0;
    *failed_at = 0;
    if (length > ASSAY_PAYLOAD_BYTES_MAX) return ASSAY_PARSE_PAYLOAD_TOO_LONG;
    while (position < length) {
        size_t start = position;
        uint32_t size;
        /* Transactions first: once an attestation was seen, only attestations may follow. */
        uint8_t tag = *attestations == 0 && data[position] == TAG_TRANSACTION ? TAG_TRANSACTION
                                                                              : TAG_ATTESTATION;
        assay_parse_status status = open_field(data, length, tag, &position, &size);
        *failed_at = position;
        if (status != ASSAY_PARSE_OK) return status;
        if (tag == TAG_TRANSACTION) {
            if (++*transactions > ASSAY_TRANSACTIONS_MAX) {
                *failed_at = start;
                return ASSAY_PARSE_TOO_MANY_TRANSACTIONS;
            }
        } else {
            if (size == 0 || size > ASSAY_ATTESTATION_BYTES_MAX)
                return ASSAY_PARSE_ATTESTATION_SIZE;
            if (++*attestations > ASSAY_ATTESTATIONS_MAX) {
                *failed_at = start;
                return ASSAY_PARSE_TOO_MANY_ATTESTATIONS;
            }
        }
        position += size;
    }
    return ASSAY_PARSE_OK;
}

assay_parse_status assay_parse_batch(const uint8_t *data, size_t length, assay_slice *bodies,
                                     uint8_t *public_keys, uint8_t *signatures, uint8_t *ids,
                                     assay_slice *attestations, size_t *failed_at) {
    size_t position = 0, transaction = 0, attestation = 0;
    while (position < length) {
        uint8_t tag = data[position];
        uint32_t size;
        assay_parse_status status = open_field(data, length, tag, &position, &size);
        *failed_at = position;
        if (status != ASSAY_PARSE_OK) return status;
        if (tag == TAG_TRANSACTION) {
            assay_signed_tx parsed;
            status = assay_parse_signed_tx(data, position, position + size, &parsed, failed_at);
            if (status != ASSAY_PARSE_OK) return status;
            const uint8_t *public_key = data + parsed.public_key;
            bodies[transaction] = parsed.body;
            memcpy(public_keys + 32 * transaction, public_key, ASSAY_PUBLIC_KEY_BYTES);
            memcpy(signatures + 64 * transaction, data + parsed.signature, ASSAY_SIGNATURE_BYTES);
            assay_transaction_id(data + parsed.body.offset, parsed.body.length, public_key,
                                 ids + 32 * transaction);
            transaction++;
        } else {
            attestations[attestation].offset = (uint32_t)position;
            attestations[attestation].length = size;
            attestation++;
        }
        position += size;
    }
    return ASSAY_PARSE_OK;
}

void assay_transaction_id(const uint8_t *body, size_t length, const uint8_t *public_key,
                          uint8_t id[32]) {
    assay_sha256_context context;
    assay_tagged_tag(&context, TRANSACTION_TAG, sizeof TRANSACTION_TAG);
    assay_tagged_field(&context, body, length);
    assay_tagged_field(&context, public_key, ASSAY_PUBLIC_KEY_BYTES);
    assay_sha256_final(&context, id);
}

void assay_signing_digest(const uint8_t *chain_id, size_t chain_id_length, const uint8_t *body,
                          size_t length, uint8_t digest[32]) {
    assay_sha256_context context;
    assay_tagged_tag(&context, SIGNING_TAG, sizeof SIGNING_TAG);
    assay_tagged_field(&context, chain_id, chain_id_length);
    assay_tagged_field(&context, body, length);
    assay_sha256_final(&context, digest);
}
