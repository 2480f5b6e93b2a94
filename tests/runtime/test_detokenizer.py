import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.detokenizer import EndRules, GrowingOutput, TextStream, ending_of
from runtime.engine import FinishReason

END = 256
ENDS = frozenset({END})


def token_bytes(token_id: int) -> bytes:
    return b"" if token_id == END else bytes([token_id])


def whole_text(data: bytes, stop: tuple[str, ...] = ()) -> str:
    return ending_of(data, token_bytes, EndRules(stop, ENDS, len(data) + 1)).text


def streamed(data: bytes, stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(token_bytes, stop)
    return [*(stream.push(byte) for byte in data), stream.finish()]


@given(st.text(max_size=60))
def test_text_of_valid_utf8_is_itself_and_comes_in_whole_characters(text: str) -> None:
    pieces = streamed(text.encode())
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@given(st.binary(max_size=60))
def test_any_bytes_decode_as_replacement_decoding_does(data: bytes) -> None:
    assert whole_text(data) == data.decode(errors="replace")


@given(
    st.text(alphabet="abé🙂", max_size=40),
    st.lists(st.text(alphabet="abé🙂", min_size=1, max_size=4), max_size=4),
)
def test_streamed_pieces_make_the_final_text_cut_at_the_first_stop_string(
    text: str, stop: list[str]
) -> None:
    pieces = "".join(streamed(text.encode(), tuple(stop)))
    assert pieces == whole_text(text.encode(), tuple(stop))
    found = [text.find(item) for item in stop if item in text]
    # A stop string that ends later may begin earlier, but the stream ends with the first that is
    # whole.
    assert pieces == text[: len(pieces)]
    assert not any(item in pieces for item in stop)
    assert bool(found) == (len(pieces) < len(text))


def test_text_that_may_begin_a_stop_string_is_held_back_until_it_is_certain() -> None:
    assert streamed(b"aENx", ("END",)) == ["a", "", "", "ENx", ""]
    assert streamed(b"aEND", ("END",)) == ["a", "", "", "", ""]
    assert streamed(b"aEN", ("END",)) == ["a", "", "", "EN"]


def test_half_a_character_waits_for_its_rest() -> None:
    assert streamed("é".encode()) == ["", "é", ""]
    assert streamed("é".encode()[:1]) == ["", "\ufffd"]


@pytest.mark.parametrize(
    ("token_ids", "limit", "expected"),
    [
        ([97, END], 9, (2, FinishReason.STOP, "a")),
        ([97, END], 2, (2, FinishReason.STOP, "a")),
        ([97, 98, 99], 3, (3, FinishReason.LENGTH, "abc")),
        ([97, 120, 121], 3, (3, FinishReason.STOP_STRING, "a")),
        ([97, 120, 121, 98], 9, (3, FinishReason.STOP_STRING, "a")),
        ([97, END, 98], 9, (2, FinishReason.STOP, "a")),
        ([97, 98], 9, (2, FinishReason.UNSPECIFIED, "ab")),
        ([97, 98, 99], 2, (2, FinishReason.LENGTH, "ab")),
        ([], 2, (0, FinishReason.UNSPECIFIED, "")),
    ],
)
def test_an_output_ends_at_the_first_token_that_ends_it(
    token_ids: list[int], limit: int, expected: tuple[int, FinishReason, str]
) -> None:
    ending = ending_of(token_ids, token_bytes, EndRules(("xy",), ENDS, limit))
    assert (ending.tokens, ending.finish_reason, ending.text) == expected


@pytest.mark.parametrize(
    ("text", "least", "limit", "expected"),
    [
        (b"xyab", 0, 9, (2, FinishReason.STOP_STRING, "")),
        (b"xyab", 2, 9, (4, FinishReason.UNSPECIFIED, "xyab")),
        (b"xyab", 2, 4, (4, FinishReason.LENGTH, "xyab")),
        (b"abxy", 3, 9, (4, FinishReason.STOP_STRING, "ab")),
        (b"abxy", 4, 9, (4, FinishReason.UNSPECIFIED, "abxy")),
        (b"axyxy", 3, 9, (5, FinishReason.STOP_STRING, "axy")),
        ([97, 98, END], 2, 9, (3, FinishReason.STOP, "ab")),
        ([97, 98, END], 3, 9, (3, FinishReason.UNSPECIFIED, "ab")),
        ([97, END, 98], 3, 3, (2, FinishReason.UNSPECIFIED, "a")),
    ],
)
def test_nothing_but_the_limit_ends_an_output_before_min_tokens(
    text: bytes | list[int], least: int, limit: int, expected: tuple[int, FinishReason, str]
) -> None:
    ending = ending_of(text, token_bytes, EndRules(("xy",), ENDS, limit, least))
    assert (ending.tokens, ending.finish_reason, ending.text) == expected


@given(
    st.lists(st.sampled_from([97, 98, *"é🙂".encode(), END]), max_size=40),
    st.lists(st.text(alphabet="abé", min_size=1, max_size=3), max_size=3),
    st.integers(0, 30),
)
def test_what_grows_ends_as_the_whole_is_judged(
    token_ids: list[int], stop: list[str], least: int
) -> None:
    rules = EndRules(tuple(stop), ENDS, 30, least)
    output = GrowingOutput(token_bytes, rules)
    pieces = []
    for token_id in token_ids:
        if output.ended or output.forbids(token_id):
            break
        pieces.append(output.push(token_id))
    pieces.append(output.finish())
    taken = token_ids[: output.tokens]
    ending = ending_of(taken, token_bytes, rules)
    assert ending.text == "".join(pieces)
    assert (ending.tokens, ending.finish_reason) == (output.tokens, output.finish_reason)
    if output.finish_reason is FinishReason.STOP:
        assert output.tokens > least
    if output.finish_reason is FinishReason.STOP_STRING:
        assert output.tokens >= least


def test_an_output_takes_no_token_after_its_end_and_no_end_token_too_early() -> None:
    output = GrowingOutput(token_bytes, EndRules((), ENDS, 9, min_tokens=1))
    with pytest.raises(ValueError, match="end token 256 before min_tokens 1"):
        output.push(END)
    output.push(97)
    output.push(END)
    with pytest.raises(ValueError, match="after the end"):
        output.push(97)


def test_text_before_min_tokens_is_certain_at_once() -> None:
    output = GrowingOutput(token_bytes, EndRules(("ab",), ENDS, 9, min_tokens=3))
    assert [output.push(byte) for byte in b"aaab"] == ["a", "a", "", ""]
    assert output.finish() == ""
    assert output.finish_reason is FinishReason.STOP_STRING
