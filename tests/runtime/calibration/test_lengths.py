from runtime.calibration.lengths import STRUNG_DRAWS, at_every_length, joined, strung_together
from runtime.calibration.thresholds import Bound, Thresholds, fit_thresholds
from tests.runtime.calibration.builders import make_evidence, noisy_jobs

NOTHING = Bound(0, 0)


def test_scores_of_two_halves_are_those_of_the_whole() -> None:
    (job,) = noisy_jobs(0, 1, 0.3, 9_000, seed=1)
    first = job.prefix(20)
    rest = make_evidence(0, job.margins[20:].tolist(), job.distances[20:].tolist())
    assert joined([first, rest.prefix(44)]) == job.prefix(64)


def test_an_end_at_any_token_is_judged() -> None:
    # The early mismatch is more than the bound has by then, and little in the whole output.
    honest = [make_evidence(1, [9] + [0] * 31, [0] * 32), make_evidence(2, [0] * 32)]
    allowed = Thresholds(Bound(0, 1 << 18), 9, Bound(9, 0), 0, NOTHING, NOTHING)
    assert at_every_length(honest, allowed) == {
        "prefixes": 64,
        "prefixes_rejected": 7,
        "jobs": 2,
        "jobs_rejected": 1,
    }


def test_jobs_strung_together_keep_bounds_that_grow_and_break_those_that_do_not() -> None:
    honest = noisy_jobs(0, 60, 0.05, 9_000, seed=1, tokens=64)
    fitted = fit_thresholds(honest)
    found = strung_together(honest, fitted)
    assert (found["output_tokens"], found["rejected"]) == (1_024, 0)
    constant = Thresholds(
        Bound(12 << 20, 0),
        fitted.margin_max,
        fitted.margin_bound,
        fitted.distance_max,
        fitted.distance_bound,
        NOTHING,
    )
    assert at_every_length(honest, constant)["jobs_rejected"] == 0
    assert strung_together(honest, constant)["rejected"] == STRUNG_DRAWS


def test_without_jobs_there_is_nothing_to_string() -> None:
    nothing = Thresholds(NOTHING, 0, NOTHING, 0, NOTHING, NOTHING)
    assert strung_together([], nothing) == {"output_tokens": 0, "drawn": 0, "rejected": 0}
