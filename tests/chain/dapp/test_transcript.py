"""No token is told twice, and none that is not the answer's."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain.dapp.events import Tokens
from chain.dapp.transcript import AnswerChanged, Transcript

ANSWER = [("a", 1, -5), ("", 2, -6), ("bc", 3, -7), ("d", 4, 0), ("é", 5, -1)]
TEXT = "".join(text for text, _, _ in ANSWER)
IDS = tuple(token for _, token, _ in ANSWER)
LOGPROBS = tuple(logprob for _, _, logprob in ANSWER)
cuts = st.lists(st.integers(0, len(ANSWER)), max_size=4)


def told(pieces: list[Tokens | None]) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    some = [piece for piece in pieces if piece is not None]
    return (
        "".join(piece.text for piece in some),
        tuple(token for piece in some for token in piece.token_ids),
        tuple(value for piece in some for value in piece.logprobs),
    )


def stream(transcript: Transcript, upto: int, cut: list[int]) -> list[Tokens | None]:
    """Tell the answer from its start, in pieces that end at `cut`, and break off at `upto`."""
    transcript.begin()
    places = sorted({0, upto, *(place for place in cut if place < upto)})
    pieces = []
    for start, end in pairwise(places):
        part = ANSWER[start:end]
        pieces.append(
            transcript.add(
                "".join(text for text, _, _ in part),
                [token for _, token, _ in part],
                [value for _, _, value in part],
            )
        )
    return pieces


@given(st.lists(st.tuples(st.integers(0, len(ANSWER)), cuts), max_size=5))
def test_however_often_it_breaks_off_the_answer_is_told_once(
    streams: list[tuple[int, list[int]]],
) -> None:
    transcript = Transcript()
    pieces = [piece for upto, cut in streams for piece in stream(transcript, upto, cut)]
    pieces.append(transcript.complete(TEXT, IDS, LOGPROBS))
    assert told(pieces) == (TEXT, IDS, LOGPROBS)


@pytest.mark.parametrize(
    ("text", "ids", "logprobs"),
    [
        ("abX", (1, 2, 3), (-5, -6, -7)),
        ("abc", (1, 2, 9), (-5, -6, -7)),
        ("abc", (1, 2, 3), (-5, -6, -9)),
        ("ab", (1, 2, 3), (-5, -6, -7)),
        ("abc", (1, 2), (-5, -6)),
    ],
)
def test_another_answer_is_noticed(
    text: str, ids: tuple[int, ...], logprobs: tuple[int, ...]
) -> None:
    transcript = Transcript()
    stream(transcript, 3, [])
    with pytest.raises(AnswerChanged):
        transcript.complete(text, ids, logprobs)
    transcript.clear()
    assert told([transcript.complete(text, ids, logprobs)]) == (text, ids, logprobs)
