"""What a request body asks, and every way in which it may not."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.v1 import inference_pb2
from chain.gateway.errors import GatewayError
from chain.gateway.questions import Question, parse_chat, parse_completion
from ext.hashing import tagged_hash

DEFAULT_TOKENS = 99
MESSAGES = [{"role": "user", "content": "Why?"}]
names = st.sampled_from(
    [
        *("model", "messages", "prompt", "temperature", "top_p", "max_tokens", "stop", "seed"),
        *("n", "stream", "stream_options", "logprobs", "tools", "assay", "user", "nonsense"),
        *("role", "content", "type", "text", "include_usage", "max_price", "provider", "tier"),
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["user", "text", "standard", "\ud800"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=6),
    max_leaves=12,
)


def chat(**more: Any) -> Question:
    return parse_chat({"model": "m", "messages": MESSAGES, **more}, DEFAULT_TOKENS)


def completion(**more: Any) -> Question:
    return parse_completion({"model": "m", "prompt": "Why?", **more}, DEFAULT_TOKENS)


def refusal(**more: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        chat(**more)
    assert caught.value.status == 400
    return caught.value


def test_what_is_not_said_is_as_openais_api_has_it() -> None:
    question = chat()
    sampling = question.request.sampling
    assert (sampling.temperature_milli, sampling.top_p_milli) == (1000, 1000)
    assert sampling.max_output_tokens == DEFAULT_TOKENS
    assert question.request.seed == b""
    assert not (question.stream or question.logprobs or question.include_usage)
    assert question.max_price is None


def test_numbers_become_thousandths() -> None:
    sampling = chat(temperature=0.7, top_p=0.95, max_tokens=5).request.sampling
    assert (sampling.temperature_milli, sampling.top_p_milli) == (700, 950)
    assert chat(top_p=0).request.sampling.top_p_milli == 1
    assert chat(temperature=0).request.sampling.temperature_milli == 0


def test_the_newer_name_of_the_limit_counts_before_the_older_one() -> None:
    both = chat(max_tokens=5, max_completion_tokens=6)
    assert both.request.sampling.max_output_tokens == 6


def test_a_seed_is_the_one_that_the_command_makes_of_the_number() -> None:
    assert chat(seed=7).request.seed == tagged_hash(b"user-seed", b"7")
    assert chat(seed=0).request.seed == tagged_hash(b"user-seed", b"0")


def test_parts_of_a_text_are_joined_and_a_developer_is_the_system() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    question = chat(messages=[{"role": "developer", "content": parts}])
    (message,) = question.request.input.chat.messages
    assert (message.role, message.content) == (inference_pb2.ROLE_SYSTEM, "ab")


@pytest.mark.parametrize("prompt", [[5, 6], [[5, 6]]])
def test_token_ids_are_a_prompt(prompt: Any) -> None:
    assert list(completion(prompt=prompt).request.input.token_ids.ids) == [5, 6]


@pytest.mark.parametrize("stop", ["x", ["x"]])
def test_one_stop_may_stand_alone(stop: Any) -> None:
    assert list(chat(stop=stop).request.sampling.stop) == ["x"]


def test_what_asks_for_nothing_is_taken() -> None:
    chat(
        **{"n": 1, "tools": [], "tool_choice": "none", "presence_penalty": 0, "logit_bias": {}},
        **{"response_format": {"type": "text"}, "user": "u", "store": False, "audio": None},
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n", True),
        ("tools", [{"type": "function"}]),
        ("tool_choice", "required"),
        ("functions", [{}]),
        ("logit_bias", {"50256": -100}),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("top_logprobs", 3),
        ("response_format", {"type": "json_object"}),
        ("modalities", ["text", "audio"]),
        ("reasoning_effort", "high"),
        ("store", True),
        ("service_tier", "priority"),
    ],
)
def test_what_the_protocol_cannot_do_is_refused_by_name(name: str, value: Any) -> None:
    error = refusal(**{name: value})
    assert (error.code, error.parameter) == ("UNSUPPORTED", name)
    assert error.message.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("more", "code", "place"),
    [
        ({"temperatur": 1}, "UNKNOWN_ARGUMENT", "temperatur"),
        ({"assay": {"top_kk": 1}}, "UNKNOWN_ARGUMENT", "assay.top_kk"),
        ({"stream_options": {"usage": True}}, "UNKNOWN_ARGUMENT", "stream_options.usage"),
        ({"temperature": "hot"}, "MALFORMED", "temperature"),
        ({"temperature": -1}, "MALFORMED", "temperature"),
        ({"temperature": True}, "MALFORMED", "temperature"),
        ({"top_p": 1.5}, "MALFORMED", "top_p"),
        ({"max_tokens": 0}, "MALFORMED", "max_tokens"),
        ({"max_tokens": 1.5}, "MALFORMED", "max_tokens"),
        ({"max_tokens": 1 << 32}, "MALFORMED", "max_tokens"),
        ({"seed": 1 << 64}, "MALFORMED", "seed"),
        ({"stream": "yes"}, "MALFORMED", "stream"),
        ({"stop": [1]}, "MALFORMED", "stop[0]"),
        ({"model": None}, "MALFORMED", "model"),
        ({"messages": []}, "MALFORMED", "messages"),
        ({"messages": ["Why?"]}, "MALFORMED", "messages[0]"),
        ({"messages": [{"role": "user"}]}, "MALFORMED", "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "MALFORMED", "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "4"}]}, "UNSUPPORTED", "messages[0].role"),
        (
            {"messages": [{"role": "user", "content": "x", "name": "Ann"}]},
            "UNSUPPORTED",
            "messages[0].name",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "UNSUPPORTED",
            "messages[0].content[0]",
        ),
        ({"assay": {"tier": "gold"}}, "MALFORMED", "assay.tier"),
        ({"assay": {"provider": "me"}}, "BAD_ADDRESS", "assay.provider"),
        ({"assay": {"max_price": 1 << 63}}, "MALFORMED", "assay.max_price"),
    ],
)
def test_a_mistake_is_told_with_its_place(more: dict[str, Any], code: str, place: str) -> None:
    error = refusal(**more)
    assert (error.code, error.parameter) == (code, place)
    assert error.message.startswith(place)


@pytest.mark.parametrize("logprobs", [1, 5, True])
def test_the_likeliest_alternatives_are_not_to_be_had(logprobs: Any) -> None:
    with pytest.raises(GatewayError) as caught:
        completion(logprobs=logprobs)
    assert caught.value.code == "UNSUPPORTED"


def test_several_prompts_are_not_one() -> None:
    with pytest.raises(GatewayError) as caught:
        completion(prompt=["a", "b"])
    assert caught.value.code == "UNSUPPORTED"


@settings(max_examples=60)
@given(st.dictionaries(names, values, max_size=8))
def test_any_object_is_a_question_or_a_clear_refusal(body: dict[str, Any]) -> None:
    for parse in (parse_chat, parse_completion):
        try:
            question = parse({"model": "m", "messages": MESSAGES, **body}, DEFAULT_TOKENS)
        except GatewayError as error:
            assert error.status == 400
            json.dumps(error.body()).encode()
        else:
            question.request.SerializeToString()
