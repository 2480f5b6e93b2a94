"""From vLLM's tokens to a result."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.detokenizer import EndRules
from runtime.engine import FinishReason
from runtime.sampling import LOGPROB_LOWEST
from runtime.vllm_engine.output import Output, fixed_logprob

END = 0


def token_bytes(token_id: int) -> bytes:
    return b"" if token_id == END else bytes([token_id])


def output(limit: int = 8, stop: tuple[str, ...] = ()) -> Output:
    return Output(token_bytes, EndRules(stop, frozenset({END}), limit))


def push_all(grown: Output, text: bytes) -> str:
    return "".join(grown.push(byte, -0.5).text for byte in text)


@pytest.mark.parametrize(
    ("text", "stop", "limit", "expected"),
    [
        (b"ab\x00", (), 8, FinishReason.STOP),
        (b"abcd", (), 4, FinishReason.LENGTH),
        (b"abcd", ("cd",), 8, FinishReason.STOP_STRING),
        (b"abc\x00", (), 4, FinishReason.STOP),
        (b"abcd", ("cd",), 4, FinishReason.STOP_STRING),
    ],
)
def test_an_output_ends_by_the_rules(
    text: bytes, stop: tuple[str, ...], limit: int, expected: FinishReason
) -> None:
    grown = output(limit, stop)
    ended = []
    for byte in text:
        grown.push(byte, -0.5)
        ended.append(grown.ended)
    assert ended == [False] * (len(text) - 1) + [True]
    completion = grown.completion(3, "some-profile")
    assert completion.finish_reason is expected
    assert completion.token_ids == tuple(text)
    assert completion.logprobs == (-(1 << 19),) * len(text)
    assert (completion.input_tokens, completion.engine_profile) == (3, "some-profile")


def test_nothing_comes_after_the_end_and_no_result_before_it() -> None:
    grown = output()
    with pytest.raises(ValueError, match="has not ended"):
        grown.completion(1, "p")
    grown.push(END, 0.0)
    with pytest.raises(ValueError, match="after the end"):
        grown.push(65, 0.0)


def test_steps_hold_back_what_may_become_a_stop_string() -> None:
    grown = output(stop=("bc",))
    assert push_all(grown, b"ab") == "a"
    assert push_all(grown, b"xbc") == "bx"
    assert grown.completion(1, "p").text == "abx"


def test_half_a_character_is_sent_with_its_other_half() -> None:
    grown = output()
    assert push_all(grown, "é".encode()[:1]) == ""
    assert push_all(grown, "é".encode()[1:]) == "é"


@given(st.floats(max_value=0.0, allow_nan=False))
def test_log_probabilities_are_rounded_to_their_unit(logprob: float) -> None:
    fixed = fixed_logprob(logprob)
    assert LOGPROB_LOWEST <= fixed <= 0
    if logprob > -2047:
        assert abs(fixed - logprob * (1 << 20)) <= 0.5


def test_a_log_probability_above_zero_by_rounding_is_zero() -> None:
    assert fixed_logprob(1e-7) == 0


def test_what_is_no_number_is_no_log_probability() -> None:
    with pytest.raises(ValueError, match="not a number"):
        fixed_logprob(float("nan"))
