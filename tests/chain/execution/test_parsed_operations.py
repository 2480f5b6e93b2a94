"""Requests and results parsed natively: accepted, and read, exactly as Python's own rules do."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from chain.execution import jobs
from chain.execution.jobs import Request, Result
from ext.bodies import OTHER, PLAIN, REQUEST, RESULT, parse_bodies
from ext.transactions import parse_batch
from tests.chain.execution.parsed import CHAIN, assert_parsed_alike, parse

U32_MAX = (1 << 32) - 1
MANY_IDS = inference.TokenIds(ids=range(200))
keys = st.sampled_from([b"", bytes(31), bytes(32), bytes(range(32)), bytes(33)])
u32 = st.one_of(st.integers(0, 3), st.integers(0, 300), st.just(U32_MAX))
u64 = st.one_of(st.integers(0, 300), st.just((1 << 64) - 1))
texts = st.one_of(st.text(max_size=8), st.sampled_from(["", "x" * 130, "\0", "ü€𐍈"]))
roles = st.sampled_from([*inference.Role.values(), 9])
chats = st.builds(
    inference.Chat,
    messages=st.lists(st.builds(inference.ChatMessage, role=roles, content=texts), max_size=3),
)
ids = st.builds(inference.TokenIds, ids=st.lists(u32, max_size=4))
inputs = st.one_of(
    st.builds(inference.InferenceInput, text=texts),
    st.builds(inference.InferenceInput, chat=chats),
    st.builds(inference.InferenceInput, token_ids=ids),
    st.just(inference.InferenceInput()),
)
samplings = st.builds(
    inference.Sampling,
    temperature_milli=st.sampled_from([0, 800, 5_000, 5_001]),
    top_k=st.sampled_from([0, 64, 65]),
    top_p_milli=st.sampled_from([0, 1_000, 1_001]),
    max_output_tokens=st.sampled_from([0, 1, 16, U32_MAX]),
    stop=st.lists(st.sampled_from(["", "a", "b" * 64, "b" * 65]), max_size=5),
    min_tokens=st.sampled_from([0, 1, 16, 17]),
    logprob_ceiling_milli=st.sampled_from([0, 20_000, 20_001]),
)
requests = st.builds(
    pb.RequestInference,
    model=keys,
    input=st.none() | inputs,
    sampling=st.none() | samplings,
    max_price=u64,
    tier=st.sampled_from([*pb.Tier.values(), 3]),
    provider=keys,
    answer_within_ms=u32,
    seed=keys,
)
good_requests = st.builds(
    pb.RequestInference,
    model=st.just(bytes(32)),
    input=st.builds(inference.InferenceInput, text=st.just("why?")),
    sampling=st.none() | st.builds(inference.Sampling, max_output_tokens=u32, stop=st.just(["."])),
    max_price=u64,
    tier=st.sampled_from(pb.Tier.values()),
    answer_within_ms=u32,
)
results = st.builds(
    inference.InferenceResult,
    token_ids=st.lists(u32, max_size=3),
    logprobs=st.lists(st.sampled_from([-(1 << 31), -300, -1, 0, -1, 0, 1]), max_size=3),
    finish_reason=st.sampled_from([*inference.FinishReason.values(), 4]),
    input_tokens=u32,
    text=texts,
    engine_profile=texts,
)
good_results = st.builds(
    inference.InferenceResult,
    token_ids=st.lists(u32, min_size=2, max_size=2),
    logprobs=st.lists(st.integers(-(1 << 31), 0), min_size=2, max_size=2),
    finish_reason=st.just(inference.FINISH_REASON_STOP),
    input_tokens=st.integers(1, U32_MAX),
    text=texts,
    engine_profile=texts,
)
answers = st.builds(
    pb.SubmitResult, job=st.just(bytes(32)) | keys, result=good_results | st.none() | results
)
operations = st.one_of(
    st.builds(pb.Op, request_inference=good_requests),
    st.builds(pb.Op, request_inference=requests),
    st.builds(pb.Op, submit_result=answers),
)
bodies = st.builds(
    pb.TxBody,
    chain_id=st.sampled_from([CHAIN] * 6 + ["", "another"]),
    valid_until_height=u64,
    salt=u64,
    max_fee=u64,
    ops=st.sampled_from([1, 1, 1, 1, 2]).flatmap(
        lambda count: st.lists(operations, min_size=count, max_size=count)
    ),
    account=st.sampled_from([b""] * 6 + [bytes(32)]),
)


def a_body(operation: pb.Op) -> pb.TxBody:
    return pb.TxBody(chain_id=CHAIN, valid_until_height=9, salt=7, max_fee=5, ops=[operation])


def a_request(**fields: object) -> pb.TxBody:
    given_fields = {
        "model": bytes(32),
        "input": inference.InferenceInput(text="why?"),
        "sampling": inference.Sampling(max_output_tokens=3),
    } | fields
    return a_body(pb.Op(request_inference=pb.RequestInference(**given_fields)))  # type: ignore[arg-type]


def in_chat(count: int, **fields: object) -> inference.InferenceInput:
    message = inference.ChatMessage(**fields)  # type: ignore[arg-type]
    return inference.InferenceInput(chat=inference.Chat(messages=[message] * count))


def an_answer(count: int = 2, **fields: object) -> pb.TxBody:
    given_fields = {
        "token_ids": [300] * count,
        "logprobs": [-(1 << 20)] * count,
        "finish_reason": inference.FINISH_REASON_LENGTH,
        "input_tokens": 4,
        "text": "blü",
        "engine_profile": "reference/float32",
    } | fields
    result = inference.InferenceResult(**given_fields)  # type: ignore[arg-type]
    return a_body(pb.Op(submit_result=pb.SubmitResult(job=bytes(32), result=result)))


@settings(max_examples=300, deadline=None)
@given(bodies)
@example(a_request())
@example(a_request(provider=bytes(range(32)), seed=bytes(range(32)), tier=pb.TIER_CRITICAL))
@example(an_answer())
def test_what_protobuf_writes_is_read_as_pythons_rules_read_it(message: pb.TxBody) -> None:
    assert_parsed_alike(message.SerializeToString(deterministic=True))


@settings(max_examples=400, deadline=None)
@given(bodies, st.data())
def test_a_damaged_body_is_taken_only_if_it_is_still_canonical_and_in_order(
    message: pb.TxBody, data: st.DataObject
) -> None:
    encoded = bytearray(message.SerializeToString(deterministic=True))
    start = data.draw(st.integers(0, len(encoded)))
    end = data.draw(st.integers(start, min(len(encoded), start + 3)))
    encoded[start:end] = data.draw(
        st.one_of(st.binary(max_size=3), st.sampled_from([b"\x10\x00", b"\x80\x00", b"\xed\xa0"]))
    )
    if encoded:
        assert_parsed_alike(bytes(encoded))


@pytest.mark.parametrize("message", [a_request(), an_answer()])
def test_every_cut_and_every_flipped_bit_is_judged_as_pythons_rules_do(message: pb.TxBody) -> None:
    body = message.SerializeToString(deterministic=True)
    assert assert_parsed_alike(body) != OTHER
    for length in range(1, len(body)):
        assert_parsed_alike(body[:length])
    for place in range(len(body)):
        for bit in range(8):
            flipped = bytearray(body)
            flipped[place] ^= 1 << bit
            assert_parsed_alike(bytes(flipped))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"\xc3\xbc\xe2\x82\xac\xf0\x90\x8d\x88", REQUEST),
        (b"\xf4\x8f\xbf\xbf", REQUEST),
        (b"\xf4\x90\x80\x80", OTHER),
        (b"\xf0\x8f\xbf\xbf", OTHER),
        (b"\xe0\x9f\xbf", OTHER),
        (b"\xed\x9f\xbf", REQUEST),
        (b"\xed\xa0\x80", OTHER),
        (b"\xc1\xbf", OTHER),
        (b"\xc3", OTHER),
        (b"\xe2\x82", OTHER),
        (b"\xf0\x90\x8d", OTHER),
        (b"\xff", OTHER),
        (b"\x80", OTHER),
    ],
)
def test_text_is_utf8_or_nothing(text: bytes, kind: int) -> None:
    stand_in = "~" * len(text)
    message = a_request(input=inference.InferenceInput(text=stand_in))
    body = message.SerializeToString(deterministic=True).replace(stand_in.encode(), text)
    assert assert_parsed_alike(body) == kind


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (a_request(input=inference.InferenceInput(token_ids=MANY_IDS)), REQUEST),
        (a_request(input=in_chat(1, role=2)), OTHER),
        (a_request(input=in_chat(jobs.MESSAGES_MAX, role=1, content="x")), REQUEST),
        (a_request(input=in_chat(jobs.MESSAGES_MAX + 1, role=1, content="x")), OTHER),
        (a_request(input=in_chat(1, content="x")), OTHER),
        (a_request(sampling=None), REQUEST),
        (a_request(sampling=inference.Sampling(min_tokens=1)), OTHER),
        (an_answer(0), OTHER),
        (an_answer(300), RESULT),
        (an_answer(logprobs=[-1]), OTHER),
        (an_answer(logprobs=[0, -1]), RESULT),
        (an_answer(logprobs=[0, 1]), OTHER),
        (an_answer(text="x" * jobs.RESULT_TEXT_BYTES_MAX), RESULT),
        (an_answer(text="x" * (jobs.RESULT_TEXT_BYTES_MAX + 1)), OTHER),
    ],
)
def test_the_bounds_are_pythons_own(message: pb.TxBody, kind: int) -> None:
    assert assert_parsed_alike(message.SerializeToString(deterministic=True)) == kind


def test_a_batch_keeps_transfers_and_operations_of_jobs_apart() -> None:
    transfer = pb.Op(transfer=pb.Transfer(to=bytes(32), amount=4))
    messages = [a_body(transfer), a_request(), pb.TxBody(chain_id=CHAIN), an_answer(), a_request()]
    signed = [
        pb.SignedTx(body=message.SerializeToString(), public_key=bytes(32), signature=bytes(64))
        for message in messages
    ]
    batch = parse_batch(pb.BatchPayload(transactions=signed).SerializeToString())
    parsed = parse_bodies(batch, CHAIN.encode(), jobs.LIMITS)
    assert parsed.classes.tolist() == [PLAIN, REQUEST, OTHER, RESULT, REQUEST]
    assert parsed.result(3, Result)[2] == 2
    assert parsed.request(1, Request) == parsed.request(4, Request)
    with pytest.raises(ValueError, match="body 3 is of class 3, not 2"):
        parsed.request(3, Request)
    with pytest.raises(IndexError):
        parsed.sender(5)
    without_limits = parse_bodies(batch, CHAIN.encode())
    assert without_limits.classes.tolist() == [PLAIN, OTHER, OTHER, OTHER, OTHER]


def test_what_is_not_a_body_of_its_class_has_no_fields() -> None:
    parsed = parse(b"\xff")
    assert parsed.classes.tolist() == [OTHER]
    with pytest.raises(ValueError, match="not 3"):
        parsed.result(0, Result)
