from collections.abc import Iterator

import numpy as np
import pytest

from runtime.calibration.corpus import build_corpus
from runtime.calibration.sides import Generation, ReferenceSide, Replay
from runtime.calibration.steering import Allowance, liking, steer
from runtime.calibration.thresholds import Bound
from runtime.engine import Completion, SamplingRule, TextInput
from tests.runtime.tiny_model import TinyModel, tiny_package

NAT = 1 << 20
LOTS, NOTHING = Bound(1 << 31, 0), Bound(0, 0)
SEED = bytes(range(32))


@pytest.fixture(scope="module")
def side(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReferenceSide]:
    package = tiny_package(tmp_path_factory.mktemp("model"), TinyModel(context_tokens=512))
    side = ReferenceSide.load(package)
    yield side
    side.close()


def replay_of(
    side: ReferenceSide, prompt: list[int], rule: SamplingRule, claim: Completion
) -> np.ndarray:
    item = Replay(tuple(prompt), rule, SEED, claim.token_ids)
    ((_, columns),) = side.replay([item], 1)
    return columns


@pytest.mark.parametrize("temperature_milli", [0, 800, 1_200])
def test_who_is_allowed_nothing_gives_the_honest_output(
    side: ReferenceSide, temperature_milli: int
) -> None:
    for job in build_corpus(1, 4, 48):
        rule = SamplingRule(temperature_milli, 0, 0, 48)
        prompt = side.tokenize(job.input)
        ((_, honest),) = side.generate([Generation(tuple(prompt), rule, job.seed)], 1)
        for allowance in (
            Allowance(0, LOTS, LOTS),
            Allowance(NAT, NOTHING, LOTS),
            Allowance(NAT, LOTS, NOTHING),
        ):
            steered = steer(side.engine, prompt, rule, job.seed, allowance)
            assert steered.token_ids == honest.token_ids
            assert steered.logprobs == honest.logprobs
            assert steered.finish_reason == honest.finish_reason


@pytest.mark.parametrize("temperature_milli", [0, 800])
def test_a_steered_output_stays_within_its_allowance_and_uses_it(
    side: ReferenceSide, temperature_milli: int
) -> None:
    rule = SamplingRule(temperature_milli, 0, 0, 64)
    prompt = side.tokenize(TextInput("A tale of two"))
    steered = steer(
        side.engine, prompt, rule, SEED, Allowance(NAT // 2, Bound(5 * NAT, 0), Bound(NAT, 0))
    )
    columns = replay_of(side, prompt, rule, steered)
    assert 0 < columns[:, 1].max() <= NAT // 2
    assert 0 < np.count_nonzero(columns[:, 0] != steered.token_ids) <= 5
    assert columns[:, 1].sum() <= NAT + 64  # a unit a token for the rounding of two
    # Its log-probabilities are the true ones, within the rounding of two.
    assert np.abs(columns[:, 2] - np.array(steered.logprobs)).max() <= 2


def test_it_takes_what_it_likes_best(side: ReferenceSide) -> None:
    rule = SamplingRule(800, 0, 0, 24)
    prompt = side.tokenize(TextInput("A tale of two"))

    def mean_liking(nats: int) -> float:
        steered = steer(side.engine, prompt, rule, SEED, Allowance(nats * NAT, LOTS, LOTS))
        return float(liking(np.array(steered.token_ids, np.int64)).astype(np.float64).mean())

    assert mean_liking(0) < mean_liking(1) < mean_liking(8)


def test_stop_strings_are_refused(side: ReferenceSide) -> None:
    with pytest.raises(ValueError, match="no stop strings"):
        steer(
            side.engine, [5], SamplingRule(0, 0, 0, 4, ("x",)), SEED, Allowance(0, NOTHING, NOTHING)
        )
