"""What the steps of a job cost the ledger: blocks of nothing but one step, executed one by one.

From parsed batches to the roots, in CPU time; signatures, disk and network are not in it. Every
job goes the whole way, and one that is not verified in the end makes the figures void.
"""

import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import process_time
from typing import Final

from google.protobuf.message import Message

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from chain.benchmark.pipeline import BLOCK_INTERVAL_MS, BenchmarkError
from chain.benchmark.workload import CHAIN_ID, MAX_FEE, VALID_UNTIL_HEIGHT, VALIDATORS
from chain.execution import BlockContext, BlockOutcome, LaneBatch, Ledger
from chain.execution.market import CAPACITY_MAX
from chain.parameters import GRAIN_PER_ASY, Parameters
from chain.records import Job, JobStatus
from chain.transactions import make_operation
from consensus.values import (
    AttestationKind,
    JobCommit,
    JobReveal,
    Scores,
    Validator,
    ValidatorSet,
    Verdict,
)
from consensus.wire import encode
from ext.hashing import tagged_hash
from ext.transactions import parse_batch

STEPS: Final = ("request", "assign", "result", "draw", "commits", "reveals and settlement")
"""`commits` and `reveals` are those of a committee, three of each."""
PROVIDERS: Final = 3
JOBS_MAX: Final = PROVIDERS * CAPACITY_MAX // 2
OUTPUT_TOKENS: Final = 64
INPUT_TOKENS: Final = 12
PROMPT: Final = "Why is the sky blue, and the evening red?"
ANSWER: Final = "Air scatters short waves more than long ones. " * 4
LOGPROB: Final = -(1 << 18)
PROFILE: Final = "bench/float32"
FUNDS: Final = 1_000_000 * GRAIN_PER_ASY
MAX_PRICE: Final = GRAIN_PER_ASY // 100


def _key(what: str, number: int = 0) -> bytes:
    return tagged_hash(b"job bench", what.encode(), number.to_bytes(4, "little"))


MODEL: Final = _key("model")


@dataclass(slots=True)
class MeasuredJobs:
    """One pass of all jobs through their steps."""

    jobs: int
    cpu_us: dict[str, float] = field(default_factory=dict)
    """Of a step, for one job."""

    @property
    def pairs_a_second(self) -> float:
        """Requests with their results that one process executes in a second of CPU."""
        return 1e6 / (self.cpu_us["request"] + self.cpu_us["result"])


def measure_jobs(count: int) -> MeasuredJobs:
    """Take new jobs through their whole life. Raises ValueError for a number of jobs that the
    market of the benchmark cannot hold, BenchmarkError if one of them is not verified."""
    if not 1 <= count <= JOBS_MAX:
        raise ValueError(f"{count} jobs, allowed are 1 to {JOBS_MAX}")
    chain = JobChain()
    measured = MeasuredJobs(count)
    for name, status in chain.steps(count):
        block, lanes = chain.prepare()
        gc.collect()
        started_s = process_time()
        outcome = chain.execute(block, lanes)
        measured.cpu_us[name] = (process_time() - started_s) * 1e6 / count
        reached = sum(job.status is status for _, job in outcome.changed_jobs)
        if reached != count:
            raise BenchmarkError(f"{reached} of {count} jobs are {status.name} after: {name}")
    return measured


class JobChain:
    """A ledger with a market, and what waits for its next block."""

    def __init__(self) -> None:
        self.parameters = Parameters()
        self.requester = _key("requester")
        members = tuple(
            Validator(
                index=index,
                signing_key=_key("signing", index),
                vrf_key=_key("vrf", index),
                account=_key("validator", index),
                stake=1,
            )
            for index in range(VALIDATORS)
        )
        self.validators = ValidatorSet(epoch=0, members=members)
        self._providers = [_key("provider", number) for number in range(PROVIDERS)]
        self._owner = _key("owner")
        owners = [member.account for member in members]
        people = (self.requester, self._owner, *self._providers, *owners)
        self._ledger = Ledger.from_genesis(
            CHAIN_ID,
            self.parameters,
            self.validators,
            dict.fromkeys(people, FUNDS),
            _key("treasury"),
        )
        self._salt = 0
        self._waiting: list[pb.SignedTx] = []
        self._said: list[list[bytes]] = [[] for _ in members]
        self._open_market()

    def _open_market(self) -> None:
        """A model, three providers, and every validator verifying for long enough."""
        self.send(self._owner, _registration())
        for member in self.validators.members:
            self.send(
                member.account,
                pb.Stake(amount=self.parameters.verifier_stake_min),
                pb.SetVerifier(model=MODEL, serving=True, engine_profile=PROFILE),
            )
        for provider in self._providers:
            self.send(provider, pb.Stake(amount=self.parameters.stake_min_per_offer), _offer())
        for _ in range(1 + self.parameters.audit_delay_blocks):
            self.execute(*self.prepare())

    def steps(self, count: int) -> Iterator[tuple[str, JobStatus]]:
        """Each step of so many jobs, and the status it ends with. The caller executes what
        `prepare` gives before it asks for the next one."""
        for _ in range(count):
            self.send(self.requester, _request())
        yield "request", JobStatus.REQUESTED
        yield "assign", JobStatus.ASSIGNED
        for key, job in self.jobs():
            self.send(job.provider or b"", pb.SubmitResult(job=key, result=_result()))
        yield "result", JobStatus.ANSWERED
        for _ in range(self.parameters.audit_delay_blocks - 1):
            self.execute(*self.prepare())
        yield "draw", JobStatus.COMMITTING
        reveals = [reveal for key, job in self.jobs() for reveal in self.reveals(key, job)]
        for validator, reveal in reveals:
            account = self.validators.by_index[validator].account
            commitment = reveal.commitment(account)
            commit = JobCommit(AttestationKind.COMMIT, reveal.job, reveal.round, commitment)
            self.attest(validator, encode(commit))
        yield "commits", JobStatus.REVEALING
        for validator, reveal in reveals:
            self.attest(validator, encode(reveal))
        yield "reveals and settlement", JobStatus.VERIFIED

    def send(self, sender: bytes, *messages: Message) -> None:
        """Queue a transaction of these operations. Nobody signs it: nobody looks."""
        self._salt += 1
        body = pb.TxBody(
            chain_id=CHAIN_ID,
            valid_until_height=VALID_UNTIL_HEIGHT,
            salt=self._salt,
            max_fee=MAX_FEE,
            ops=[make_operation(message) for message in messages],
        ).SerializeToString(deterministic=True)
        self._waiting.append(pb.SignedTx(body=body, public_key=sender, signature=bytes(64)))

    def attest(self, validator: int, data: bytes) -> None:
        """Queue an attestation in the validator's lane."""
        self._said[validator].append(data)

    def jobs(self) -> Iterator[tuple[bytes, Job]]:
        """The open jobs."""
        return self._ledger.open_jobs()

    def reveals(self, key: bytes, job: Job) -> Iterator[tuple[int, JobReveal]]:
        """(validator, what it will reveal) of the job's committee; all agree."""
        fingerprint = tuple(
            LOGPROB - n for n in range(len(self._ledger.fingerprint_positions(key)))
        )
        for seat in job.committee:
            reveal = JobReveal(
                kind=AttestationKind.REVEAL,
                job=key,
                round=job.round,
                verdict=Verdict.PASS,
                scores=_scores(job),
                fingerprint=fingerprint,
                salt=_key("salt", seat.validator),
            )
            yield seat.validator, reveal

    def prepare(self) -> tuple[BlockContext, list[LaneBatch]]:
        """The next block with all that waits: transactions in lane 0, attestations in theirs."""
        height = self._ledger.height + 1
        block = BlockContext(
            height=height,
            timestamp_ms=height * BLOCK_INTERVAL_MS,
            beacon=_key("beacon", height),
            proposer=0,
        )
        lanes = []
        for lane, said in enumerate(self._said):
            payload = pb.BatchPayload(
                transactions=self._waiting if lane == 0 else (), attestations=said
            )
            lanes.append(LaneBatch(lane, parse_batch(payload.SerializeToString())))
        self._waiting, self._said = [], [[] for _ in self._said]
        return block, lanes

    def execute(self, block: BlockContext, lanes: list[LaneBatch]) -> BlockOutcome:
        """The block's outcome."""
        return self._ledger.execute(block, lanes)


def _registration() -> pb.RegisterModel:
    thresholds = pb.Thresholds(
        distance_max=100, distance_bound=pb.Bound(base=1_000, rate=50), fingerprint_tolerance=1_000
    )
    pair = pb.CalibratedPair(
        provider_profile=PROFILE, verifier_profile=PROFILE, thresholds=thresholds
    )
    return pb.RegisterModel(
        model=MODEL,
        name="bench",
        context_tokens=512,
        royalty_bps=500,
        pairs=[pair],
        parameters=1,
    )


def _offer() -> pb.SetOffer:
    return pb.SetOffer(
        model=MODEL,
        input_price=1_000,
        output_price=2_000,
        capacity=CAPACITY_MAX,
        operator=0,
        engine_profile=PROFILE,
    )


def _request() -> pb.RequestInference:
    return pb.RequestInference(
        model=MODEL,
        input=inference.InferenceInput(text=PROMPT),
        sampling=inference.Sampling(temperature_milli=800, max_output_tokens=OUTPUT_TOKENS),
        max_price=MAX_PRICE,
    )


def _result() -> inference.InferenceResult:
    return inference.InferenceResult(
        token_ids=range(1_000, 1_000 + OUTPUT_TOKENS),
        logprobs=[LOGPROB] * OUTPUT_TOKENS,
        finish_reason=inference.FINISH_REASON_LENGTH,
        input_tokens=INPUT_TOKENS,
        text=ANSWER,
        engine_profile=PROFILE,
    )


def _scores(job: Job) -> Scores:
    return Scores(
        positions=job.output_tokens,
        replay_mismatches=0,
        margin_max=0,
        margin_sum=0,
        distance_max=3,
        distance_sum=job.output_tokens,
        outside_candidates=0,
        doubt_sum=job.output_tokens << 19,
        input_tokens=job.input_tokens,
        finish_plausible=True,
        text_matches=True,
    )
