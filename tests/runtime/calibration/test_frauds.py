from dataclasses import replace

import pytest

from runtime.calibration.corpus import CalibrationJob, build_corpus
from runtime.calibration.frauds import (
    GROUND_SEEDS,
    Asked,
    Family,
    Greedy,
    Honest,
    OtherRequest,
    OtherSeed,
    OtherTemperature,
    SwappedTokens,
    asked_of,
    families,
    simple_frauds,
)
from runtime.engine import ChatInput, Completion, FinishReason, TextInput

JOBS = build_corpus(1, 200, 64)


def completion_of(token_ids: tuple[int, ...], logprobs: tuple[int, ...]) -> Completion:
    return Completion(token_ids, logprobs, FinishReason.LENGTH, 5, "", "engine")


def only(fraud_asks: list[Asked]) -> Asked:
    (asked,) = fraud_asks
    return asked


def words_of(asked: ChatInput | TextInput) -> list[str]:
    text = asked.text if isinstance(asked, TextInput) else asked.messages[-1].content
    return text.split(" ")


def test_the_honest_ask_what_they_were_asked() -> None:
    for job in JOBS[:10]:
        assert only(Honest().asks(job)) == Asked(job.input, job.sampling, job.seed)


def test_every_fraud_asks_for_something_else_or_has_other_weights_or_tampers() -> None:
    for fraud in simple_frauds():
        for job in JOBS:
            for asked in fraud.asks(job):
                changed = asked != asked_of(job)
                assert changed is (fraud.family is Family.REQUEST), fraud.name
        assert (fraud.weights is not None) is (fraud.family is Family.WEIGHTS)


def test_names_are_distinct_and_each_has_a_family() -> None:
    names = [fraud.name for fraud in simple_frauds()]
    assert len(set(names)) == len(names)
    assert set(names) < set(families())


def test_a_missing_system_message_is_all_that_changes() -> None:
    fraud = OtherRequest("no-system-message")
    for job in JOBS:
        if job.has_system and isinstance(job.input, ChatInput):
            assert only(fraud.asks(job)).input == ChatInput(job.input.messages[1:])
        else:
            assert fraud.asks(job) == []


def test_another_system_message_keeps_the_other_messages() -> None:
    fraud = OtherRequest("other-system-message")
    job = next(job for job in JOBS if job.has_system)
    asked = only(fraud.asks(job)).input
    assert isinstance(asked, ChatInput)
    assert isinstance(job.input, ChatInput)
    assert asked.messages[0] != job.input.messages[0]
    assert asked.messages[1:] == job.input.messages[1:]


def test_exactly_one_word_changes() -> None:
    fraud = OtherRequest("changed-word")
    for job in JOBS:
        asked = only(fraud.asks(job)).input
        assert isinstance(asked, ChatInput | TextInput)
        assert isinstance(job.input, ChatInput | TextInput)
        pairs = zip(words_of(asked), words_of(job.input), strict=True)
        assert sum(ours != theirs for ours, theirs in pairs) == 1


def test_the_colder_sample_at_790_for_800_and_leave_greedy_jobs_alone() -> None:
    asked = {
        job.sampling.temperature_milli: [
            asked.sampling.temperature_milli for asked in OtherTemperature().asks(job)
        ]
        for job in JOBS
    }
    assert asked == {0: [], 800: [790], 1_200: [1_185]}


def test_the_greedy_change_nothing_but_the_temperature() -> None:
    job = sampled_job()
    assert only(Greedy().asks(job)).sampling == replace(job.sampling, temperature_milli=0)


def sampled_job() -> CalibrationJob:
    return next(job for job in JOBS if job.sampling.temperature_milli == 800)


def test_ground_seeds_are_several_and_the_likeliest_output_is_claimed() -> None:
    fraud, job = OtherSeed(GROUND_SEEDS), sampled_job()
    seeds = {asked.seed for asked in fraud.asks(job)}
    assert len(seeds) == GROUND_SEEDS
    assert job.seed not in seeds
    outputs = [completion_of((1, 2), (-9, -9)), completion_of((3,), (-4,))]
    assert fraud.claims(job, outputs) == outputs[1]


def test_one_pair_of_neighbours_is_swapped_and_the_last_token_stays() -> None:
    ids = tuple(range(100, 140))
    for job in JOBS[:50]:
        honest = completion_of(ids, tuple(-i for i in range(40)))
        claimed = SwappedTokens().claims(job, [honest])
        moved = [place for place in range(40) if claimed.token_ids[place] != ids[place]]
        assert len(moved) == 2
        assert moved[1] == moved[0] + 1 <= 31
        assert sorted(claimed.token_ids) == sorted(ids)
        assert claimed.logprobs[moved[0]] == honest.logprobs[moved[1]]


@pytest.mark.parametrize("ids", [(7,), (7, 8), (7, 7, 7, 7)])
def test_what_has_no_different_neighbours_is_left_alone(ids: tuple[int, ...]) -> None:
    honest = completion_of(ids, (-1,) * len(ids))
    assert SwappedTokens().claims(JOBS[0], [honest]) == honest
