from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine import (
    ChatInput,
    Completion,
    Engine,
    FinishReason,
    Message,
    RequestError,
    RequestReason,
    Role,
    SamplingRule,
    Scores,
    Step,
    TextInput,
    TokenInput,
    Verification,
)
from runtime.packages import PackageError, load
from runtime.reference.engine import BLOCK_TOKENS, ReferenceEngine
from runtime.sampling import LOGPROB_LOWEST, MARGIN_CLIP
from tests.runtime.tiny_model import TinyModel, tiny_package

Result = TypeVar("Result")
SEED = bytes(range(32))
GREEDY = SamplingRule(0, 0, 0, 20)
WARM = SamplingRule(900, 0, 950, 20)
NEVER_ENDS = SamplingRule(3000, 0, 0, 300)
ENDS_SOON = SamplingRule(3000, 0, 0, 60)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> ReferenceEngine:
    return ReferenceEngine.load(tiny_package(tmp_path_factory.mktemp("tiny")))


def run(work: Generator[Any, None, Result]) -> Result:
    while True:
        try:
            next(work)
        except StopIteration as finished:
            result: Result = finished.value
            return result


def prompt_of(engine: Engine, text: str = "hello there") -> list[int]:
    return engine.tokenize(TextInput(text))


def complete(engine: Engine, rule: SamplingRule = WARM, seed: bytes = SEED) -> Completion:
    return run(engine.generate(prompt_of(engine), rule, seed))


def verify(
    engine: Engine,
    claim: Completion,
    rule: SamplingRule = WARM,
    seed: bytes = SEED,
    positions: Sequence[int] = (),
) -> Verification:
    return run(engine.verify(prompt_of(engine), rule, seed, claim, positions))


def without_fault(scores: Scores) -> bool:
    doubt, opening_doubt = scores.doubt_sum, scores.opening_doubt_sum
    quiet = Scores(
        *(scores.positions, 0, 0, 0, 0, 0, 0, doubt, scores.input_tokens, True, True),
        *(0, 0, opening_doubt),
    )
    possible = 0 <= doubt <= scores.positions << 20 and 0 <= opening_doubt <= doubt
    return scores == quiet and possible and (scores.positions > 32 or opening_doubt == doubt)


RULES = st.builds(
    lambda least, most, **values: SamplingRule(
        max_output_tokens=most, min_tokens=min(least, most), **values
    ),
    temperature_milli=st.integers(0, 3000),
    top_k=st.integers(0, 64),
    top_p_milli=st.integers(0, 1000),
    most=st.integers(1, 120),
    stop=st.lists(st.sampled_from(["e", "th", "the", "\n", "zz"]), max_size=2).map(tuple),
    logprob_ceiling_milli=st.sampled_from([0, 0, 50, 1000, 3000, 20_000]),
    least=st.sampled_from([0, 0, 1, 30, 120]),
)


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), RULES)
def test_an_honest_claim_scores_zero_everywhere(
    engine: ReferenceEngine, seed: bytes, rule: SamplingRule
) -> None:
    claim = complete(engine, rule, seed)
    found = verify(engine, claim, rule, seed)
    assert without_fault(found.scores)
    assert found.scores.positions == len(claim.token_ids) <= rule.max_output_tokens
    assert found.scores.input_tokens == claim.input_tokens == len(prompt_of(engine))


def test_steps_make_the_completion(engine: ReferenceEngine) -> None:
    work = engine.generate(prompt_of(engine), WARM, SEED)
    steps: list[Step | None] = []
    while True:
        try:
            steps.append(next(work))
        except StopIteration as finished:
            completion = finished.value
            break
    tokens = [step for step in steps if step is not None]
    assert tuple(step.token_id for step in tokens) == completion.token_ids
    assert tuple(step.logprob for step in tokens) == completion.logprobs
    assert completion.text.startswith("".join(step.text for step in tokens))
    assert all(step.logprob <= 0 for step in tokens)
    assert completion.engine_profile == engine.profile == "reference-float32-1"


def test_a_long_prompt_yields_between_blocks(engine: ReferenceEngine) -> None:
    prompt = [5] * 90
    work = engine.generate(prompt, replace(GREEDY, max_output_tokens=1), SEED)
    assert next(work) is None
    assert isinstance(next(work), Step)
    claim = run(engine.generate(prompt, GREEDY, SEED))
    steps = list(engine.verify(prompt, GREEDY, SEED, claim, ()))
    assert len(steps) == -(-(90 + len(claim.token_ids) - 1) // BLOCK_TOKENS)


def test_jobs_that_take_turns_get_what_they_would_have_got_alone(engine: ReferenceEngine) -> None:
    seeds = [bytes([number]) * 32 for number in range(4)]
    alone = [complete(engine, WARM, seed) for seed in seeds]
    works = {seed: engine.generate(prompt_of(engine), WARM, seed) for seed in seeds}
    found: dict[bytes, Completion] = {}
    while works:
        for seed, work in list(works.items()):
            try:
                next(work)
            except StopIteration as finished:
                found[seed] = finished.value
                del works[seed]
    assert [found[seed] for seed in seeds] == alone


def test_a_job_may_be_closed_at_any_step(engine: ReferenceEngine) -> None:
    work = engine.generate(prompt_of(engine), WARM, SEED)
    next(work)
    work.close()
    assert complete(engine) == complete(engine)


def test_the_context_ends_an_output(engine: ReferenceEngine) -> None:
    for seed in (bytes([number]) * 32 for number in range(20)):
        completion = complete(engine, NEVER_ENDS, seed)
        if completion.finish_reason is FinishReason.LENGTH:
            break
    assert completion.finish_reason is FinishReason.LENGTH
    assert completion.input_tokens + len(completion.token_ids) == engine.context_tokens == 96
    assert without_fault(verify(engine, completion, NEVER_ENDS, seed).scores)


def test_an_end_token_ends_an_output_and_is_not_in_its_text(engine: ReferenceEngine) -> None:
    rule = SamplingRule(3000, 0, 0, 90)
    ended = [
        completion
        for number in range(60)
        if (completion := complete(engine, rule, bytes([number]) * 32)).finish_reason
        is FinishReason.STOP
    ]
    assert ended
    for completion in ended:
        assert completion.token_ids[-1] == 0 and 0 not in completion.token_ids[:-1]
        assert "<|end|>" not in completion.text


def test_a_stop_string_ends_an_output_and_is_not_in_its_text(engine: ReferenceEngine) -> None:
    open_ended = complete(engine, SamplingRule(900, 0, 0, 20))
    stop = next(character for character in open_ended.text if character.isascii())
    stopped = complete(engine, SamplingRule(900, 0, 0, 20, (stop,)))
    assert stopped.finish_reason is FinishReason.STOP_STRING
    assert stopped.text == open_ended.text[: open_ended.text.index(stop)]
    assert stopped.token_ids == open_ended.token_ids[: len(stopped.token_ids)]


def test_no_output_ends_before_min_tokens_but_by_the_context(engine: ReferenceEngine) -> None:
    early = early_end(engine)
    seed, tokens = early
    for least in (tokens - 1, tokens, 40):
        rule = replace(ENDS_SOON, min_tokens=least)
        completion = complete(engine, rule, seed)
        assert len(completion.token_ids) >= least
        assert 0 not in completion.token_ids[:least]
        assert without_fault(verify(engine, completion, rule, seed).scores)
    room = engine.context_tokens - len(prompt_of(engine))
    least = engine.context_tokens
    rule = replace(ENDS_SOON, max_output_tokens=least, min_tokens=least)
    assert len(complete(engine, rule, seed).token_ids) == room


def early_end(engine: ReferenceEngine) -> tuple[bytes, int]:
    """A seed with which an output ends by an end token soon, and its number of tokens."""
    for number in range(256):
        seed = bytes([number]) * 32
        completion = complete(engine, ENDS_SOON, seed)
        if completion.finish_reason is FinishReason.STOP and 3 < len(completion.token_ids) < 30:
            return seed, len(completion.token_ids)
    raise AssertionError("no seed ends an output soon")


def test_a_claim_that_ends_before_min_tokens_is_not_plausible(engine: ReferenceEngine) -> None:
    seed, tokens = early_end(engine)
    claim = complete(engine, ENDS_SOON, seed)
    for least, plausible in ((tokens - 1, True), (tokens, False), (40, False)):
        rule = replace(ENDS_SOON, min_tokens=least)
        scores = verify(engine, claim, rule, seed).scores
        assert scores.finish_plausible == plausible
        assert scores.text_matches
        assert (scores.margin_max == MARGIN_CLIP) == (not plausible)
        assert scores.outside_candidates == (not plausible)


def test_a_stop_string_counts_from_min_tokens_on(engine: ReferenceEngine) -> None:
    whole = complete(engine, replace(WARM, max_output_tokens=40))
    stop = next(character for character in whole.text if character.isascii())
    rule = replace(WARM, max_output_tokens=40, stop=(stop,))
    early = complete(engine, rule)
    assert early.finish_reason is FinishReason.STOP_STRING
    later = replace(rule, min_tokens=len(early.token_ids) + 1)
    completion = complete(engine, later)
    assert len(completion.token_ids) > len(early.token_ids)
    assert without_fault(verify(engine, completion, later).scores)
    assert not verify(engine, early, later).scores.finish_plausible


def test_a_claim_that_ignored_the_ceiling_shows_in_the_replay_only(
    engine: ReferenceEngine,
) -> None:
    asked = replace(WARM, logprob_ceiling_milli=3000)
    scores = verify(engine, complete(engine, WARM), asked).scores
    assert scores.replay_mismatches > 0 and scores.margin_sum > 0
    assert scores.distance_max == 0
    assert without_fault(verify(engine, complete(engine, asked), asked).scores)


def test_the_seed_decides_and_at_temperature_zero_does_not(engine: ReferenceEngine) -> None:
    outputs = {complete(engine, WARM, bytes([number]) * 32).token_ids for number in range(8)}
    assert len(outputs) > 4
    greedy = {complete(engine, GREEDY, bytes([number]) * 32) for number in range(3)}
    assert len(greedy) == 1


def test_a_swapped_token_is_seen_by_replay_and_by_every_logprob_after_it(
    engine: ReferenceEngine,
) -> None:
    claim = complete(engine)
    ids = list(claim.token_ids)
    ids[3] = 200 if ids[3] != 200 else 201
    scores = verify(engine, replace(claim, token_ids=tuple(ids))).scores
    assert scores.replay_mismatches >= 1 and scores.margin_max > 0
    assert scores.distance_sum > scores.distance_max > 0
    assert not scores.text_matches


@pytest.mark.parametrize(
    ("rule", "seed"),
    [
        (replace(WARM, temperature_milli=700), SEED),
        (WARM, bytes(32)),
        (replace(WARM, top_k=2), SEED),
    ],
)
def test_another_rule_or_seed_than_asked_shows_in_the_replay_only(
    engine: ReferenceEngine, rule: SamplingRule, seed: bytes
) -> None:
    scores = verify(engine, complete(engine, rule, seed)).scores
    assert scores.replay_mismatches > 0 and scores.margin_sum > 0
    assert scores.distance_max == 0


def test_another_model_shows_in_the_logprobs(engine: ReferenceEngine, tmp_path: Path) -> None:
    other = ReferenceEngine.load(tiny_package(tmp_path, TinyModel(seed=8)))
    scores = verify(engine, complete(other)).scores
    assert scores.replay_mismatches > 5 and scores.distance_sum > 1 << 20


def test_changed_logprobs_text_finish_and_profile_are_judged_apart(
    engine: ReferenceEngine,
) -> None:
    claim = complete(engine)
    shifted = replace(claim, logprobs=tuple(value - 5 for value in claim.logprobs))
    scores = verify(engine, shifted).scores
    assert (scores.distance_max, scores.distance_sum) == (5, 5 * len(claim.token_ids))
    assert scores.replay_mismatches == 0 and scores.finish_plausible and scores.text_matches
    assert not verify(engine, replace(claim, text=claim.text + "!")).scores.text_matches
    wrong = replace(claim, finish_reason=FinishReason.STOP_STRING)
    assert not verify(engine, wrong).scores.finish_plausible


def test_an_output_cut_short_is_not_plausible(engine: ReferenceEngine) -> None:
    claim = complete(engine)
    short = replace(claim, token_ids=claim.token_ids[:5], logprobs=claim.logprobs[:5])
    scores = verify(engine, short).scores
    assert scores.positions == 5 and not scores.finish_plausible
    assert scores.replay_mismatches == scores.distance_sum == 0


def test_an_output_longer_than_asked_is_scored_as_far_as_it_was_asked(
    engine: ReferenceEngine,
) -> None:
    claim = complete(engine, GREEDY)
    scores = verify(engine, claim, replace(GREEDY, max_output_tokens=4)).scores
    assert scores.positions == 4 and not scores.finish_plausible and not scores.text_matches


def test_missing_logprobs_count_the_worst(engine: ReferenceEngine) -> None:
    claim = complete(engine)
    scores = verify(engine, replace(claim, logprobs=claim.logprobs[:-2])).scores
    assert scores.distance_sum == 2 * MARGIN_CLIP and not scores.finish_plausible


def test_an_id_outside_the_vocabulary_and_all_after_it_count_the_worst(
    engine: ReferenceEngine,
) -> None:
    claim = complete(engine)
    ids = list(claim.token_ids)
    ids[4] = 261
    found = verify(engine, replace(claim, token_ids=tuple(ids)), positions=(0, 4, 19))
    worst = len(ids) - 4
    assert found.scores.replay_mismatches == found.scores.outside_candidates == worst
    assert found.scores.margin_sum == found.scores.distance_sum == worst * MARGIN_CLIP
    assert found.fingerprint[0] > LOGPROB_LOWEST
    assert found.fingerprint[1:] == (LOGPROB_LOWEST, LOGPROB_LOWEST)


CLAIMS = st.builds(
    Completion,
    token_ids=st.lists(st.integers(-3, 300), max_size=130).map(tuple),
    logprobs=st.lists(st.integers(-(2**31), 2**31 - 1), max_size=130).map(tuple),
    finish_reason=st.sampled_from(FinishReason),
    input_tokens=st.integers(0, 2**32 - 1),
    text=st.text(max_size=20),
    engine_profile=st.text(max_size=8),
)


@settings(max_examples=40, deadline=None)
@given(CLAIMS)
def test_verification_has_an_answer_to_any_claim(
    engine: ReferenceEngine, claim: Completion
) -> None:
    scores = verify(engine, claim).scores
    assert 0 <= scores.positions <= min(len(claim.token_ids), 20)
    assert scores.replay_mismatches <= scores.positions
    assert scores.margin_max <= MARGIN_CLIP and scores.distance_max <= MARGIN_CLIP
    assert scores.margin_sum <= scores.positions * MARGIN_CLIP
    assert scores.distance_sum <= scores.positions * MARGIN_CLIP
    assert not (claim.token_ids == () and scores.finish_plausible)


def test_fingerprints_are_runner_up_logprobs_and_not_in_the_claim(
    engine: ReferenceEngine,
) -> None:
    claim = complete(engine, GREEDY)
    positions = range(len(claim.token_ids))
    first = verify(engine, claim, GREEDY, positions=positions).fingerprint
    again = verify(engine, claim, GREEDY, positions=[7, 2, 7]).fingerprint
    assert again == (first[7], first[2], first[7])
    assert all(own < said for own, said in zip(first, claim.logprobs, strict=True))


@pytest.mark.parametrize("positions", [[-1], [20], [0] * 257])
def test_fingerprint_positions_outside_the_claim_are_refused(
    engine: ReferenceEngine, positions: list[int]
) -> None:
    claim = complete(engine, GREEDY)
    assert len(claim.token_ids) == 20
    with pytest.raises(RequestError) as refusal:
        verify(engine, claim, GREEDY, positions=positions)
    assert refusal.value.reason is RequestReason.BAD_FINGERPRINT_POSITION


@pytest.mark.parametrize(
    ("prompt", "seed", "reason"),
    [
        ([], SEED, RequestReason.EMPTY_INPUT),
        ([261], SEED, RequestReason.BAD_TOKEN_ID),
        ([5] * 96, SEED, RequestReason.OVER_CONTEXT),
        ([5], b"short", RequestReason.BAD_SEED),
    ],
)
def test_bad_prompts_and_seeds_are_refused_by_both_methods(
    engine: ReferenceEngine, prompt: list[int], seed: bytes, reason: RequestReason
) -> None:
    claim = Completion((), (), FinishReason.LENGTH, 0, "", "")
    for work in (
        engine.generate(prompt, GREEDY, seed),
        engine.verify(prompt, GREEDY, seed, claim, ()),
    ):
        with pytest.raises(RequestError) as refusal:
            next(work)
        assert refusal.value.reason is reason


def test_the_longest_prompt_leaves_room_for_one_token(engine: ReferenceEngine) -> None:
    completion = run(engine.generate([5] * 95, GREEDY, SEED))
    assert len(completion.token_ids) == 1
    with pytest.raises(RequestError, match="96 tokens; this model's context of 96 leaves room"):
        engine.tokenize(TokenInput((5,) * 96))


def test_a_chat_is_answered(engine: ReferenceEngine) -> None:
    prompt = engine.tokenize(ChatInput((Message(Role.USER, "hi"),)))
    assert run(engine.generate(prompt, GREEDY, SEED)).token_ids


def test_a_package_for_other_profiles_is_not_run(tmp_path: Path) -> None:
    package = tiny_package(tmp_path)
    other = replace(package, manifest=replace(package.manifest, engine_profiles=("vllm-1",)))
    with pytest.raises(PackageError, match="this engine is reference-float32-1"):
        ReferenceEngine.load(other)


def test_weights_that_contradict_the_config_are_refused(tmp_path: Path) -> None:
    package = tiny_package(tmp_path)
    config = (package.path / "config.json").read_text()
    (package.path / "config.json").write_text(config.replace('"feed_width":80', '"feed_width":96'))
    with pytest.raises(PackageError, match=r"has shape \(80, 48\)"):
        ReferenceEngine.load(package)
    with pytest.raises(PackageError, match=r"config\.json: SHA-256 differs"):
        load(package.path)


def test_two_threads_give_the_same_completion(engine: ReferenceEngine, tmp_path: Path) -> None:
    other = ReferenceEngine.load(tiny_package(tmp_path), threads=2)
    assert complete(other) == complete(engine)
    other.close()


def test_engine_satisfies_the_protocol(engine: ReferenceEngine) -> None:
    checked: Engine = engine
    assert checked.vocabulary == 261
    assert engine.cache_bytes_per_token == 2 * 2 * 2 * 16 * np.float32().nbytes
