import hashlib

import pytest

from runtime.calibration.corpus import MAX_JOBS, TEMPERATURES_MILLI, build_corpus, corpus_digest
from runtime.calibration.prompts import QUESTIONS
from runtime.engine import ChatInput, TextInput


def test_one_seed_gives_one_corpus_and_another_seed_another() -> None:
    assert build_corpus(5, 200, 64) == build_corpus(5, 200, 64)
    assert corpus_digest(build_corpus(5, 20, 64)) != corpus_digest(build_corpus(6, 20, 64))


def test_the_corpus_of_the_reports_stays_what_it_was() -> None:
    digest = hashlib.sha256(corpus_digest(build_corpus(1, 64, 256)).encode()).hexdigest()
    assert digest == "5ef6b622234be7788ddbd630bbc2510b8f9046699e021606a38b54686950f239"


def test_a_longer_corpus_begins_with_the_shorter_one() -> None:
    assert build_corpus(1, 90, 64)[:30] == build_corpus(1, 30, 64)


def test_thousands_of_requests_are_distinct_and_so_are_their_seeds() -> None:
    jobs = build_corpus(1, 3_000, 64)
    assert len({job.input for job in jobs}) == len({job.seed for job in jobs}) == 3_000


def test_the_corpus_varies() -> None:
    jobs = build_corpus(1, 600, 64)
    assert len(set(QUESTIONS)) >= 64
    assert {job.sampling.temperature_milli for job in jobs} == set(TEMPERATURES_MILLI)
    chats = [job.input for job in jobs if isinstance(job.input, ChatInput)]
    assert sum(isinstance(job.input, TextInput) for job in jobs) > 30
    assert 100 < sum(job.has_system for job in jobs) < 500
    assert any(len(chat.messages) > 2 for chat in chats)
    lengths = [sum(len(message.content) for message in chat.messages) for chat in chats]
    assert min(lengths) < 60
    assert max(lengths) > 400


def test_about_a_quarter_of_the_jobs_is_for_fitting() -> None:
    assert 210 < sum(job.fits for job in build_corpus(1, 1_000, 64)) < 290


def test_a_quarter_of_the_jobs_of_each_temperature_is_long() -> None:
    jobs = build_corpus(1, 1_200, 64)
    for temperature_milli in TEMPERATURES_MILLI:
        limits = [
            job.sampling.max_output_tokens
            for job in jobs
            if job.sampling.temperature_milli == temperature_milli
        ]
        assert sorted(limits) == [16] * 300 + [64] * 100
    assert {job.sampling.max_output_tokens for job in jobs if job.is_long} == {64}


@pytest.mark.parametrize("jobs", [0, MAX_JOBS + 1])
def test_a_corpus_out_of_bounds_is_refused(jobs: int) -> None:
    with pytest.raises(ValueError, match=f"a corpus of {jobs} jobs was asked for"):
        build_corpus(1, jobs, 64)
