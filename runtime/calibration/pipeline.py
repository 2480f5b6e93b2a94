"""The whole calibration in order, on files in one working directory.

    WORK/packages/NAME/                altered packages
    WORK/transcripts/PROVIDER.jsonl    answers, honest and not
    WORK/replays/VERIFIER.jsonl        what the verifier found
    WORK/replays/forging-PROVIDER.jsonl  what forgers prefilled with the provider's engine
    WORK/PROVIDER--VERIFIER.json       the report

A slash of a profile's name is a plus in a file's. A working directory belongs to one model and one
corpus; `corpus.json` in it says which, and another one is refused.
"""

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from runtime.calibration.alterations import alter_package
from runtime.calibration.corpus import (
    TEMPERATURES_MILLI,
    CalibrationJob,
    build_corpus,
    corpus_digest,
)
from runtime.calibration.evidence import Evidence, evidence_of
from runtime.calibration.frauds import (
    HONEST,
    STEERER,
    Fraud,
    Honest,
    forgers,
    simple_frauds,
)
from runtime.calibration.published import read_thresholds
from runtime.calibration.records import RecordFile, ReplayRow, Transcript, replay_key
from runtime.calibration.report import Parts, Subject, all_held_out, build_report, split
from runtime.calibration.sides import ReferenceSide, Side
from runtime.calibration.stages import (
    Replays,
    Tell,
    Transcripts,
    forge,
    generate,
    replay,
    replay_item,
    steer_all,
)
from runtime.calibration.steering import Allowance
from runtime.calibration.thresholds import FITTING_JOBS_MIN, fit_thresholds, tail_bound
from runtime.packages import REFERENCE_PROFILE, ModelPackage
from runtime.sources import TEMPLATE_NAME, TOKENIZER_NAME
from runtime.tokenizer import PackageTokenizer

FINGERPRINT_BUDGET = 0.001
"""Of comparisons of two honest verifiers' fingerprints of a whole output."""
Opener = Callable[[ModelPackage], Side]
"""Loads a package into the engine of one side."""


class CalibrationError(ValueError):
    """The calibration cannot go on like this."""


class Stage(StrEnum):
    """A part of the work that can be asked for alone."""

    GENERATE = "generate"
    REPLAY = "replay"
    STEER = "steer"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is calibrated, and with how much."""

    package: ModelPackage
    work: Path
    corpus_seed: int = 1
    jobs: int = 1_200
    """Honest ones, in both parts together."""
    fraud_jobs: int = 120
    """Of each fraud: the first long jobs of the corpus."""
    steered_jobs: int = 60
    max_output_tokens: int = 256
    temperatures_milli: tuple[int, ...] = TEMPERATURES_MILLI
    in_flights: tuple[int, ...] = (1, 8, 32)
    """Numbers of generations that run together; jobs are shared out evenly among them."""
    verify_in_flight: int = 8
    frauds: tuple[str, ...] | None = None
    """None for all."""
    provider_compiled: bool = False
    verifier_compiled: bool = False
    """Which side's graph was compiled: part of no profile, so the directory notes it."""
    judged_by: Path | None = None
    """A report whose thresholds judge these jobs; nothing is fitted then."""

    def wants(self, fraud: str) -> bool:
        """Whether this fraud is part of the run."""
        return self.frauds is None or fraud in self.frauds

    def corpus(self) -> list[CalibrationJob]:
        """The jobs. Raises ValueError."""
        return build_corpus(
            self.corpus_seed, self.jobs, self.max_output_tokens, self.temperatures_milli
        )

    def described(self, jobs: Sequence[CalibrationJob]) -> dict[str, Any]:
        """What the report says of the corpus."""
        return {
            "seed": self.corpus_seed,
            "jobs": len(jobs),
            "sha256": corpus_digest(list(jobs)),
            "max_output_tokens": self.max_output_tokens,
            "temperatures_milli": list(self.temperatures_milli),
            "in_flight": list(self.in_flights),
            **self.compiled_sides(),
            **({"judged_by": self.judged_by.name} if self.judged_by else {}),
        }

    def compiled_sides(self) -> dict[str, bool]:
        """What is said of compilation, where there is any."""
        sides = {
            "provider_compiled": self.provider_compiled,
            "verifier_compiled": self.verifier_compiled,
        }
        return sides if any(sides.values()) else {}

    def transcripts(self, provider: str) -> Transcripts:
        """The provider's answers. Raises RecordError."""
        return RecordFile(self.work / "transcripts" / f"{file_name(provider)}.jsonl", Transcript)

    def replays(self, verifier: str) -> Replays:
        """What the verifier found. Raises RecordError."""
        return RecordFile(self.work / "replays" / f"{file_name(verifier)}.jsonl", ReplayRow)

    def prefills(self, provider: str) -> Replays:
        """What forgers prefilled. The reference engine gives the same bits to everybody."""
        if provider == REFERENCE_PROFILE:
            return self.replays(provider)
        return self.replays(f"forging-{provider}")

    def report_path(self, provider: str, verifier: str) -> Path:
        """Where the report of a pair goes."""
        return self.work / f"{file_name(provider)}--{file_name(verifier)}.json"


def file_name(profile: str) -> str:
    """A profile as part of a file's name."""
    return profile.replace("/", "+")


def claim_directory(plan: Plan, jobs: Sequence[CalibrationJob]) -> None:
    """Note model and corpus in the working directory. Raises CalibrationError if it has others."""
    plan.work.mkdir(parents=True, exist_ok=True)
    path = plan.work / "corpus.json"
    # A longer corpus begins with the shorter one, so the number of jobs may differ between runs.
    ours = {
        "model": plan.package.model_id.hex(),
        "seed": plan.corpus_seed,
        "max_output_tokens": plan.max_output_tokens,
        "temperatures_milli": list(plan.temperatures_milli),
        "first_job_sha256": corpus_digest(list(jobs[:1])),
        **plan.compiled_sides(),
    }
    if not path.exists():
        path.write_text(json.dumps(ours, indent=1) + "\n")
    elif json.loads(path.read_text()) != ours:
        raise CalibrationError(
            f"{path} is of another model or corpus, or of a side compiled otherwise; "
            "give another working directory"
        )


def run_generate(plan: Plan, profile: str, open_provider: Opener, tell: Tell) -> None:
    """All transcripts but the steerer's, by a provider of this profile.

    Altered weights come first, so that the engine with the true ones is opened once for the rest.
    Nothing is opened for what has its records.
    """
    jobs = plan.corpus()
    claim_directory(plan, jobs)
    chosen: list[Fraud] = [fraud for fraud in simple_frauds() if plan.wants(fraud.name)]
    some = long_jobs(jobs)[: plan.fraud_jobs]
    with plan.transcripts(profile) as into:
        for fraud in chosen:
            if fraud.weights is not None and missing(fraud, some, into):
                place = plan.work / "packages" / fraud.weights.name
                altered = alter_package(plan.package, fraud.weights, place)
                with closing(open_provider(altered)) as side:
                    generate(side, fraud, some, plan.in_flights, into, tell)
        with_true_weights: list[tuple[Fraud, list[CalibrationJob]]] = [
            (fraud, some) for fraud in chosen if fraud.weights is None
        ]
        if plan.wants(HONEST):
            with_true_weights.insert(0, (Honest(), jobs))
        todo = [(fraud, asked) for fraud, asked in with_true_weights if missing(fraud, asked, into)]
        to_forge = [
            forger
            for forger in forgers()
            if plan.wants(forger.name)
            and any(f"{job.job_id}/{forger.name}" not in into for job in some)
        ]
        if not todo and not to_forge:
            return
        with closing(open_provider(plan.package)) as side, plan.prefills(profile) as prefills:
            for fraud, asked in todo:
                generate(side, fraud, asked, plan.in_flights, into, tell)
            for forger in to_forge:
                forge(side, forger, some, prefills, plan.verify_in_flight, into, tell)


def long_jobs(jobs: Sequence[CalibrationJob]) -> list[CalibrationJob]:
    """What frauds are committed on: outputs long enough to be scored at every length."""
    return [job for job in jobs if job.is_long]


def missing(fraud: Fraud, jobs: Sequence[CalibrationJob], into: Transcripts) -> bool:
    """Whether the fraud has no transcript yet of some job it applies to."""
    return any(f"{job.job_id}/{fraud.name}" not in into and fraud.asks(job) for job in jobs)


def run_replay(plan: Plan, provider: str, verifier: Side, tell: Tell) -> None:
    """What the verifier finds of every transcript there is of these jobs and frauds."""
    jobs = plan.corpus()
    claim_directory(plan, jobs)
    with plan.transcripts(provider) as transcripts, plan.replays(verifier.profile) as into:
        names = sorted({transcript.fraud for transcript in transcripts}, key=_honest_first)
        for name in names:
            if plan.wants(name):
                ours = [transcript for transcript in transcripts if transcript.fraud == name]
                replay(verifier, jobs, ours, plan.verify_in_flight, into, tell, name)


def _honest_first(fraud: str) -> tuple[bool, str]:
    return fraud != HONEST, fraud


def run_steer(plan: Plan, provider: str, verifier: str, side: ReferenceSide, tell: Tell) -> None:
    """The steerer's transcripts, once honest ones are replayed and tell it what is allowed."""
    jobs = plan.corpus()
    honest = [e for e in collect(plan, provider, verifier).get(HONEST, []) if e.fits]
    fitted = fit_thresholds(honest, temperatures_milli=plan.temperatures_milli)
    allowance = Allowance(fitted.margin_max, fitted.mismatch_bound, fitted.margin_bound)
    with plan.transcripts(provider) as into:
        steer_all(side, long_jobs(jobs)[: plan.steered_jobs], allowance, provider, into, tell)


def collect(plan: Plan, provider: str, verifier: str) -> dict[str, list[Evidence]]:
    """Evidence by fraud of all transcripts that were replayed."""
    jobs = {job.job_id: job for job in plan.corpus()}
    package = plan.package
    tokenizer = PackageTokenizer(
        package.file_bytes(TOKENIZER_NAME),
        package.file_bytes(TEMPLATE_NAME).decode(),
        package.config(),
    )
    prompts = {name: tuple(tokenizer.encode(job.input)) for name, job in jobs.items()}
    found: dict[str, list[Evidence]] = {}
    with plan.transcripts(provider) as transcripts, plan.replays(verifier) as replays:
        for transcript in transcripts:
            job = jobs.get(transcript.job)
            if job is None or not (plan.wants(transcript.fraud) or transcript.fraud == HONEST):
                continue
            row = replays.rows.get(replay_key(replay_item(job, prompts[job.job_id], transcript)))
            if row is not None:
                found.setdefault(transcript.fraud, []).append(evidence_of(transcript, row))
    return found


def fingerprint_tolerance(
    plan: Plan, provider: str, verifier: str, distance_max: int
) -> tuple[int, str]:
    """(tolerance in 2^-20 nats, where it comes from).

    Forgers' prefills by the provider's engine and the verifier's replays of the same tokens are two
    verifiers at work; the tolerance bounds the greatest difference of their runner-up values in an
    output. It is never less than the greatest distance: those prefills ran in like batches, and two
    verifiers' batches may differ as much as a verifier's and a provider's.
    """
    if provider == verifier == REFERENCE_PROFILE:
        return 0, "both sides give the same bits"
    with plan.prefills(provider) as ones, plan.replays(verifier) as others:
        worst = [
            max(abs(one - other) for one, other in zip(row.runners_up, theirs, strict=True))
            for key, row in ones.rows.items()
            if key in others and (theirs := others.rows[key].runners_up)
        ]
    if len(worst) < FITTING_JOBS_MIN:
        return distance_max, "distance_max, for want of two prefills of the same tokens"
    bound = max(tail_bound(worst, FINGERPRINT_BUDGET), distance_max)
    return bound, f"distance_max, and {len(worst)} outputs prefilled by both engines"


def run_report(plan: Plan, provider: str, verifier: str) -> tuple[dict[str, Any], Parts]:
    """The report and what it is made from; it is also written to the working directory.

    Raises ValueError if there is too little to fit.
    """
    jobs = plan.corpus()
    evidence = collect(plan, provider, verifier)
    honest = evidence.pop(HONEST, [])
    subject = Subject(
        model=plan.package.model_id.hex(),
        model_name=plan.package.manifest.name,
        provider_profile=provider,
        verifier_profile=verifier,
        corpus=plan.described(jobs),
    )
    if plan.judged_by is None:
        parts = split(honest, evidence)
        fitting = parts.fitting_honest
        thresholds = fit_thresholds(fitting, temperatures_milli=plan.temperatures_milli)
        tolerance, source = fingerprint_tolerance(plan, provider, verifier, thresholds.distance_max)
    else:
        parts = all_held_out(honest, evidence)
        thresholds, tolerance = read_thresholds(plan.judged_by, provider, verifier)
        source = plan.judged_by.name
    report = build_report(subject, parts, thresholds, tolerance, source)
    path = plan.report_path(provider, verifier)
    path.write_text(json.dumps(report, indent=1) + "\n")
    return report, parts


@dataclass(frozen=True, slots=True)
class Parties:
    """Engines of both sides, opened when a stage needs them, and what they are called."""

    open_provider: Opener
    open_verifier: Opener
    open_reference: Callable[[ModelPackage], ReferenceSide]
    """What the steerer runs on."""
    provider_profile: Callable[[], str]
    verifier_profile: Callable[[], str]


def run_stages(
    plan: Plan, parties: Parties, stages: Collection[Stage], tell: Tell
) -> tuple[dict[str, Any], Parts] | None:
    """The stages asked for, in order; what was done before is not done again.

    Returns what `run_report` does, if there is to be a report.
    """
    provider, verifier = parties.provider_profile(), parties.verifier_profile()
    if Stage.GENERATE in stages:
        run_generate(plan, provider, parties.open_provider, tell)
    if Stage.REPLAY in stages:
        _replay_all(plan, provider, parties, tell)
    if Stage.STEER in stages and plan.wants(STEERER):
        with closing(parties.open_reference(plan.package)) as reference:
            run_steer(plan, provider, verifier, reference, tell)
        if Stage.REPLAY in stages:
            _replay_all(plan, provider, parties, tell)
    return run_report(plan, provider, verifier) if Stage.REPORT in stages else None


def _replay_all(plan: Plan, provider: str, parties: Parties, tell: Tell) -> None:
    with closing(parties.open_verifier(plan.package)) as side:
        run_replay(plan, provider, side, tell)
