"""The work of a calibration: generating transcripts and replaying them, whatever is not done yet.

Each stage goes over what is asked for, leaves out what has a record, and adds records as results
come, so it may be stopped at any moment and run again.
"""

from collections.abc import Callable, Iterable, Sequence

from runtime.calibration.corpus import CalibrationJob
from runtime.calibration.frauds import STEERER, Forger, Fraud
from runtime.calibration.records import RecordFile, ReplayRow, Transcript, replay_key, replay_row
from runtime.calibration.sides import Generation, ReferenceSide, Replay, Side
from runtime.calibration.steering import Allowance, steer
from runtime.engine import Completion

Tell = Callable[[str, int, int], None]
"""Called with (what is being done, how many of it are done, how many there are)."""

Transcripts = RecordFile[Transcript]
Replays = RecordFile[ReplayRow]


def generate(
    side: Side,
    fraud: Fraud,
    jobs: Sequence[CalibrationJob],
    in_flights: Sequence[int],
    into: Transcripts,
    tell: Tell,
) -> None:
    """Transcripts of these jobs under one fraud; `side` has the weights the fraud uses.

    Jobs are shared out among the numbers of generations that run together, by their hashes.
    """
    for turn, in_flight in enumerate(in_flights):
        ours = [job for job in jobs if int(job.job_id[4:12], 16) % len(in_flights) == turn]
        _generate_group(side, fraud, ours, in_flight, into, tell)


def _generate_group(
    side: Side,
    fraud: Fraud,
    jobs: Sequence[CalibrationJob],
    in_flight: int,
    into: Transcripts,
    tell: Tell,
) -> None:
    items: list[Generation] = []
    owners: list[CalibrationJob] = []
    waiting: dict[str, int] = {}
    for job in jobs:
        asked = fraud.asks(job)
        if not asked or f"{job.job_id}/{fraud.name}" in into:
            continue
        waiting[job.job_id] = len(asked)
        for ask in asked:
            items.append(Generation(tuple(side.tokenize(ask.input)), ask.sampling, ask.seed))
            owners.append(job)
    answers: dict[str, dict[int, Completion]] = {}
    done = 0
    for index, completion in side.generate(items, in_flight):
        job = owners[index]
        got = answers.setdefault(job.job_id, {})
        got[index] = completion
        if len(got) < waiting[job.job_id]:
            continue
        claimed = fraud.claims(job, [got[place] for place in sorted(got)])
        into.add(_transcript(job, fraud.name, side.profile, in_flight, claimed))
        del answers[job.job_id]
        done += 1
        tell(f"generating {fraud.name}, {in_flight} in flight", done, len(waiting))


def _transcript(
    job: CalibrationJob, fraud: str, profile: str, in_flight: int, claimed: Completion
) -> Transcript:
    return Transcript(
        job=job.job_id,
        fraud=fraud,
        provider=profile,
        in_flight=in_flight,
        token_ids=claimed.token_ids,
        logprobs=claimed.logprobs,
        finish_reason=int(claimed.finish_reason),
    )


def replay(
    side: Side,
    jobs: Sequence[CalibrationJob],
    transcripts: Iterable[Transcript],
    in_flight: int,
    into: Replays,
    tell: Tell,
    what: str,
) -> None:
    """Replay transcripts of these jobs; tokens that several of them share are replayed once."""
    by_id = {job.job_id: job for job in jobs}
    prompts: dict[str, tuple[int, ...]] = {}
    items: dict[str, Replay] = {}
    for transcript in transcripts:
        job = by_id.get(transcript.job)
        if job is None:
            continue
        if job.job_id not in prompts:
            prompts[job.job_id] = tuple(side.tokenize(job.input))
        item = replay_item(job, prompts[job.job_id], transcript)
        items.setdefault(replay_key(item), item)
    todo = [item for key, item in items.items() if key not in into]
    for done, (index, columns) in enumerate(side.replay(todo, in_flight), start=1):
        into.add(replay_row(todo[index], columns))
        tell(f"replaying {what}", done, len(todo))


def replay_item(job: CalibrationJob, prompt_ids: tuple[int, ...], transcript: Transcript) -> Replay:
    """What a verifier replays of a transcript: the true request, the claimed tokens."""
    return Replay(prompt_ids, job.sampling, job.seed, transcript.token_ids)


def forge(
    side: Side,
    forger: Forger,
    jobs: Sequence[CalibrationJob],
    prefills: Replays,
    in_flight: int,
    into: Transcripts,
    tell: Tell,
) -> None:
    """The forger's transcripts: tokens of cheap weights, log-probabilities of the true ones.

    `side` has the true weights; what it prefills is kept in `prefills`.
    """
    sources = [
        into.rows[f"{job.job_id}/{forger.source}"]
        for job in jobs
        if f"{job.job_id}/{forger.source}" in into
    ]
    replay(side, jobs, sources, in_flight, prefills, tell, f"for {forger.name}")
    by_id = {job.job_id: job for job in jobs}
    for source in sources:
        job = by_id[source.job]
        if f"{job.job_id}/{forger.name}" in into:
            continue
        item = replay_item(job, tuple(side.tokenize(job.input)), source)
        into.add(
            Transcript(
                job=source.job,
                fraud=forger.name,
                provider=source.provider,
                in_flight=source.in_flight,
                token_ids=source.token_ids,
                logprobs=prefills.rows[replay_key(item)].own,
                finish_reason=source.finish_reason,
            )
        )


def steer_all(
    side: ReferenceSide,
    jobs: Sequence[CalibrationJob],
    allowance: Allowance,
    profile: str,
    into: Transcripts,
    tell: Tell,
) -> None:
    """The steerer's transcripts. It knows the logits from the reference engine, which has the
    least noise, and claims `profile`."""
    todo = [job for job in jobs if f"{job.job_id}/{STEERER}" not in into]
    for done, job in enumerate(todo, start=1):
        prompt_ids = side.tokenize(job.input)
        claimed = steer(side.engine, prompt_ids, job.sampling, job.seed, allowance)
        into.add(_transcript(job, STEERER, profile, 1, claimed))
        tell(f"generating {STEERER}", done, len(todo))
