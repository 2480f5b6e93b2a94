"""Several sequences in one pass over the weights: the bits each would have got alone."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.reference.model import Extension, Model
from tests.runtime.test_forward import logits_in_blocks, make_model, tokens_of
from tests.runtime.tiny_model import TinyModel

SEQUENCES = 9
TOKENS = 40


@pytest.fixture(scope="module", params=[1, 2], ids=["one thread", "two threads"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("batches")
    return make_model(folder, TinyModel(heads=8, kv_heads=1, seed=11), request.param)


@pytest.fixture(scope="module")
def alone(model: Model) -> list[np.ndarray]:
    """Logits of each sequence, one token after the other."""
    return [logits_in_blocks(model, ids_of(model, number), 1) for number in range(SEQUENCES)]


def ids_of(model: Model, number: int) -> list[int]:
    return [(token + 7 * number) % model.config.vocabulary for token in tokens_of(model, TOKENS)]


@settings(max_examples=15)
@given(st.integers(2, SEQUENCES), st.integers(0, 1 << 32))
def test_any_cut_into_passes_gives_each_sequence_its_own_bits(
    model: Model, alone: list[np.ndarray], count: int, seed: int
) -> None:
    """Prompts and single tokens of sequences of different lengths share passes as it comes."""
    random = Random(seed)
    sequences = [model.sequence(TOKENS + 16 * number) for number in range(count)]
    found: list[list[np.ndarray]] = [[] for _ in range(count)]
    while any(sequence.length < TOKENS for sequence in sequences):
        extensions, members = [], []
        for number, sequence in enumerate(sequences):
            rows = min(random.choice((0, 1, 1, 1, 2, 5, 13)), TOKENS - sequence.length)
            if rows:
                ids = ids_of(model, number)[sequence.length : sequence.length + rows]
                extensions.append(Extension(sequence, ids, 0))
                members.append(number)
        if not extensions:
            continue
        for number, logits in zip(members, model.extend_together(extensions), strict=True):
            found[number].append(logits[:, : model.config.vocabulary])
    for number in range(count):
        assert np.concatenate(found[number]).tobytes() == alone[number].tobytes()


def test_logits_come_only_for_the_rows_asked_for(model: Model, alone: list[np.ndarray]) -> None:
    wanted = ((TOKENS, 0), (TOKENS - 1, 1), (0, TOKENS), (TOKENS - 3, 3))
    given_back = model.extend_together(
        [
            Extension(model.sequence(TOKENS), ids_of(model, number), first)
            for number, (first, _) in enumerate(wanted)
        ]
    )
    for number, (first, rows) in enumerate(wanted):
        assert len(given_back[number]) == rows
        expected = alone[number][first:]
        assert given_back[number][:, : model.config.vocabulary].tobytes() == expected.tobytes()


def test_a_sequence_cannot_be_in_a_pass_twice(model: Model) -> None:
    sequence = model.sequence(TOKENS)
    with pytest.raises(ValueError, match="once in a pass"):
        model.extend_together([Extension(sequence, [1], 0), Extension(sequence, [2], 0)])
    assert sequence.length == 0


def test_one_bad_extension_leaves_all_sequences_as_they_were(model: Model) -> None:
    first, second = model.sequence(TOKENS), model.sequence(TOKENS)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        model.extend_together([Extension(first, [1], 0), Extension(second, [261], 0)])
    assert first.length == second.length == 0
