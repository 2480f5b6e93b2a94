#include "job_operations.h"

#include <string.h>

#include "little_endian.h"
#include "sha256.h"

/* Wire tags: field number << 3 | wire type. */
enum {
    REQUEST_MODEL = 0x0a,
    REQUEST_INPUT = 0x12,
    REQUEST_SAMPLING = 0x1a,
    REQUEST_MAX_PRICE = 0x20,
    REQUEST_TIER = 0x28,
    REQUEST_PROVIDER = 0x32,
    REQUEST_ANSWER_WITHIN_MS = 0x38,
    REQUEST_SEED = 0x42,
    INPUT_TEXT = 0x0a,
    INPUT_CHAT = 0x12,
    INPUT_TOKEN_IDS = 0x1a,
    CHAT_MESSAGE = 0x0a,
    MESSAGE_ROLE = 0x08,
    MESSAGE_CONTENT = 0x12,
    TOKEN_IDS = 0x0a,
    SAMPLING_TEMPERATURE_MILLI = 0x08,
    SAMPLING_TOP_K = 0x10,
    SAMPLING_TOP_P_MILLI = 0x18,
    SAMPLING_MAX_OUTPUT_TOKENS = 0x20,
    SAMPLING_STOP = 0x2a,
    SAMPLING_MIN_TOKENS = 0x30,
    SAMPLING_LOGPROB_CEILING_MILLI = 0x38,
    SUBMIT_JOB = 0x0a,
    SUBMIT_RESULT = 0x12,
    RESULT_TOKEN_IDS = 0x0a,
    RESULT_LOGPROBS = 0x12,
    RESULT_FINISH_REASON = 0x18,
    RESULT_INPUT_TOKENS = 0x20,
    RESULT_TEXT = 0x2a,
    RESULT_ENGINE_PROFILE = 0x32,
};

static const uint8_t REQUEST_TAG[] = {'r', 'e', 'q', 'u', 'e', 's', 't'};
static const uint8_t RESULT_TAG[] = {'r', 'e', 's', 'u', 'l', 't'};
static const uint8_t JOB_TAG[] = {'j', 'o', 'b'};

static void digest_of(const assay_reader *message, const uint8_t *tag, size_t tag_length,
                      uint8_t digest[32]) {
    assay_sha256_context context;
    assay_tagged_tag(&context, tag, tag_length);
    assay_tagged_field(&context, message->data + message->at, message->end - message->at);
    assay_sha256_final(&context, digest);
}

static assay_slice slice_of(const assay_reader *content) {
    assay_slice slice = {(uint32_t)content->at, (uint32_t)(content->end - content->at)};
    return slice;
}

/* A field of 32 bytes; `*offset` stays as it is where it is left out. */
static int take_key(assay_reader *cursor, uint8_t tag, uint32_t *offset) {
    assay_reader content;
    if (!assay_at_tag(cursor, tag)) return 1;
    if (!assay_take_content(cursor, tag, &content)) return 0;
    *offset = (uint32_t)content.at;
    return content.end - content.at == ASSAY_JOB_ID_BYTES;
}

static int take_messages(assay_reader chat, const assay_job_limits *limits, uint32_t *bytes) {
    assay_reader message, content;
    uint32_t count = 0, role;
    for (; chat.at < chat.end; count++) {
        if (count == limits->messages_max || !assay_take_content(&chat, CHAT_MESSAGE, &message))
            return 0;
        if (!assay_take_bounded(&message, MESSAGE_ROLE, limits->role_max, &role) || role == 0) return 0;
        if (!assay_take_string(&message, MESSAGE_CONTENT, &content)) return 0;
        if (message.at != message.end || !assay_is_utf8(&content)) return 0;
        *bytes += (uint32_t)(content.end - content.at);
    }
    return count > 0;
}

/* Packed numbers of 32 bits; how many. */
static int count_numbers(assay_reader packed, uint32_t *count) {
    uint64_t number;
    for (*count = 0; packed.at < packed.end; ++*count)
        if (!assay_take_any_number(&packed, &number) || number > UINT32_MAX) return 0;
    return 1;
}

/* Exactly one kind of input, with something in it. */
static int take_input(assay_reader input, const assay_job_limits *limits,
                      assay_job_operation *out) {
    assay_reader content, ids;
    if (assay_at_tag(&input, INPUT_TEXT)) {
        if (!assay_take_content(&input, INPUT_TEXT, &content) || !assay_is_utf8(&content)) return 0;
        out->input_bytes = (uint32_t)(content.end - content.at);
    } else if (assay_at_tag(&input, INPUT_CHAT)) {
        if (!assay_take_content(&input, INPUT_CHAT, &content)) return 0;
        if (!take_messages(content, limits, &out->input_bytes)) return 0;
    } else if (assay_at_tag(&input, INPUT_TOKEN_IDS)) {
        if (!assay_take_content(&input, INPUT_TOKEN_IDS, &content)) return 0;
        if (!assay_take_string(&content, TOKEN_IDS, &ids) || content.at != content.end) return 0;
        if (!count_numbers(ids, &out->input_tokens)) return 0;
    }
    return input.at == input.end && (out->input_bytes > 0 || out->input_tokens > 0);
}

static int take_sampling(assay_reader sampling, const assay_job_limits *limits,
                         assay_job_operation *out) {
    assay_reader text;
    uint32_t number, stops = 0, min_tokens;
    if (!assay_take_bounded(&sampling, SAMPLING_TEMPERATURE_MILLI, limits->temperature_milli_max,
                            &number) ||
        !assay_take_bounded(&sampling, SAMPLING_TOP_K, limits->top_k_max, &number) ||
        !assay_take_bounded(&sampling, SAMPLING_TOP_P_MILLI, limits->top_p_milli_max, &number) ||
        !assay_take_bounded(&sampling, SAMPLING_MAX_OUTPUT_TOKENS, UINT32_MAX,
                            &out->output_tokens))
        return 0;
    for (; assay_at_tag(&sampling, SAMPLING_STOP); stops++) {
        if (stops == limits->stop_strings_max) return 0;
        if (!assay_take_string(&sampling, SAMPLING_STOP, &text) || !assay_is_utf8(&text)) return 0;
        if (text.end - text.at > limits->stop_bytes_max) return 0;
    }
    return assay_take_bounded(&sampling, SAMPLING_MIN_TOKENS, out->output_tokens, &min_tokens) &&
           assay_take_bounded(&sampling, SAMPLING_LOGPROB_CEILING_MILLI,
                              limits->logprob_ceiling_milli_max, &number) &&
           sampling.at == sampling.end;
}

int assay_read_request(assay_reader message, const assay_job_limits *limits,
                       assay_job_operation *out) {
    const assay_reader whole = message;
    assay_reader content;
    memset(out, 0, sizeof *out);
    if (!take_key(&message, REQUEST_MODEL, &out->subject) || out->subject == 0) return 0;
    if (!assay_take_content(&message, REQUEST_INPUT, &content)) return 0;
    if (!take_input(content, limits, out)) return 0;
    if (assay_at_tag(&message, REQUEST_SAMPLING)) {
        if (!assay_take_content(&message, REQUEST_SAMPLING, &content)) return 0;
        if (!take_sampling(content, limits, out)) return 0;
    }
    if (!assay_take_optional(&message, REQUEST_MAX_PRICE, &out->max_price)) return 0;
    if (!assay_take_bounded(&message, REQUEST_TIER, limits->tier_max, &out->tier)) return 0;
    if (!take_key(&message, REQUEST_PROVIDER, &out->provider)) return 0;
    if (!assay_take_bounded(&message, REQUEST_ANSWER_WITHIN_MS, UINT32_MAX,
                            &out->answer_within_ms))
        return 0;
    if (!take_key(&message, REQUEST_SEED, &out->seed) || message.at != message.end) return 0;
    out->message = slice_of(&whole);
    digest_of(&whole, REQUEST_TAG, sizeof REQUEST_TAG, out->digest);
    return 1;
}

/* As many log-probabilities as tokens, none above 0. They are zigzag numbers: even from 0 up. */
static int are_logprobs(assay_reader packed, uint32_t count) {
    uint64_t number;
    for (; packed.at < packed.end; count--) {
        if (count == 0 || !assay_take_any_number(&packed, &number)) return 0;
        if (number > UINT32_MAX || (number != 0 && number % 2 == 0)) return 0;
    }
    return count == 0;
}

int assay_read_result(assay_reader message, const assay_job_limits *limits,
                      assay_job_operation *out) {
    assay_reader result, ids, logprobs, text, profile;
    uint32_t finish_reason;
    memset(out, 0, sizeof *out);
    if (!take_key(&message, SUBMIT_JOB, &out->subject) || out->subject == 0) return 0;
    if (!assay_take_content(&message, SUBMIT_RESULT, &result) || message.at != message.end)
        return 0;
    const assay_reader whole = result;
    if (!assay_take_string(&result, RESULT_TOKEN_IDS, &ids)) return 0;
    if (!count_numbers(ids, &out->output_tokens) || out->output_tokens == 0) return 0;
    if (!assay_take_string(&result, RESULT_LOGPROBS, &logprobs)) return 0;
    if (!are_logprobs(logprobs, out->output_tokens)) return 0;
    if (!assay_take_bounded(&result, RESULT_FINISH_REASON, limits->finish_reason_max,
                            &finish_reason) ||
        finish_reason == 0)
        return 0;
    if (!assay_take_bounded(&result, RESULT_INPUT_TOKENS, UINT32_MAX, &out->input_tokens) ||
        out->input_tokens == 0)
        return 0;
    if (!assay_take_string(&result, RESULT_TEXT, &text) || !assay_is_utf8(&text)) return 0;
    if (text.end - text.at > limits->text_bytes_max) return 0;
    if (!assay_take_string(&result, RESULT_ENGINE_PROFILE, &profile) || !assay_is_utf8(&profile))
        return 0;
    if (result.at != result.end) return 0;
    out->engine_profile = slice_of(&profile);
    out->message = slice_of(&whole);
    digest_of(&whole, RESULT_TAG, sizeof RESULT_TAG, out->digest);
    return 1;
}

void assay_job_id(const uint8_t transaction[32], uint32_t operation, uint8_t job[32]) {
    assay_sha256_context context;
    uint8_t place[4];
    store_le32(place, operation);
    assay_tagged_tag(&context, JOB_TAG, sizeof JOB_TAG);
    assay_tagged_field(&context, transaction, ASSAY_JOB_ID_BYTES);
    assay_tagged_field(&context, place, sizeof place);
    assay_sha256_final(&context, job);
}
