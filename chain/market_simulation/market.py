"""One market played out on a ledger: requests in waves, agents moving until every job is final."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from assay.v1 import inference_pb2 as inference
from assay.v1 import transactions_pb2 as pb
from chain.execution import BlockContext, BlockOutcome, LaneBatch, Ledger
from chain.execution.jobs import request_digest, result_digest
from chain.execution.traps import commitment
from chain.market_simulation.assumptions import MILLION, STEERING, Assumptions
from chain.market_simulation.chance import Chance
from chain.market_simulation.scenarios import Scenario
from chain.market_simulation.strategies import ProviderStrategy
from chain.market_simulation.verifiers import Fate, Seat, VerifierAgent
from chain.pairs import pair_message
from chain.records import CalibratedPair, Job, JobReceipt, JobStatus, TransactionReceipt
from chain.transactions import job_id, make_operation
from consensus.values import JobReveal, Validator, ValidatorSet, Verdict
from consensus.wire import decode, encode
from ext.hashing import tagged_hash
from ext.transactions import parse_batch, transaction_id

CHAIN: Final = "market-simulation"
MODEL: Final = tagged_hash(b"market-model")
PROFILE: Final = "simulated"
FUNDS: Final = 1 << 56
"""Grain of each account: enough for every run, and far from the supply's limit."""
VALIDATOR_STAKE: Final = 1_000
START_MS: Final = 1_000_000
BLOCK_MS: Final = 1_000
VALID_FOR_BLOCKS: Final = 64
MAX_FEE: Final = 1 << 40
WAVE_JOBS: Final = 12
"""Requested together. More at once would let a cheat be slashed from a stake that is lower with
each of them, before it can stake anew."""
WAVE_BLOCKS_MAX: Final = 1_000
CAPACITY: Final = 1_024
ROYALTY_BPS: Final = 500
GATEWAY: Final = 0
"""The validator that carries all transactions and operates all providers; it verifies nothing, so
that its fees are nobody's profit."""
ORDINAL_BYTES: Final = 4
RECEIPT_TAG: Final = b"T"


@dataclass(slots=True)
class ProviderAgent:
    """One provider and what it has spent on work."""

    account: bytes
    strategy: ProviderStrategy
    spent: int = 0
    gained: int = 0
    """What outputs of its choice were worth to it."""
    assigned: int = 0
    """Jobs of others."""


@dataclass(frozen=True, slots=True)
class Played:
    """What a run came to. Amounts in grain."""

    profit: int
    """Of the group: what its accounts and chosen outputs gained it, less its work."""
    spent: int
    """The group's work."""
    provider_parts: int
    """Jobs of others that the group's providers were assigned."""
    verifier_parts: int
    """Seats the group's verifiers were drawn for."""
    others_profit: int
    """Of the verifiers outside of the group."""
    others_parts: int
    """Seats they were drawn for."""
    statuses: tuple[int, int, int]
    """Jobs verified, rejected, refunded, traps included."""
    traps: int
    wrong_passes: int
    """Seats of the group that said PASS to a result which two thirds then failed."""
    wrong_fails: int
    """Seats of the group that said FAIL to a result that was then verified."""
    frauds_passed: int
    """Jobs whose evidence shows, and which were verified nevertheless."""
    execution_root: bytes
    """After the last block: the same seed gives the same."""


class Market:
    """The ledger, the agents, and whoever asks for jobs."""

    def __init__(self, scenario: Scenario, assumptions: Assumptions, seed: int) -> None:
        """Everybody staked, the model registered, verifiers old enough to be drawn."""
        self.scenario = scenario
        self.assumptions = assumptions
        self.chance = Chance(seed)
        members = tuple(_validator(index) for index in range(len(scenario.verifiers) + 1))
        self.verifiers = {
            index: VerifierAgent(index, members[index].account, strategy, assumptions, self.chance)
            for index, strategy in enumerate(scenario.verifiers, start=GATEWAY + 1)
        }
        self.providers = {
            account: ProviderAgent(account, strategy)
            for account, strategy in (
                (_account(f"provider {index}"), strategy)
                for index, strategy in enumerate(scenario.providers)
            )
        }
        # Traps are asked for by accounts that nobody can connect with the providers that set them.
        self.requester, self.owner, self.trapper = map(_account, ("requester", "owner", "trapper"))
        self._set: dict[bytes, tuple[bytes, bytes]] = {}
        """By job meant as a trap: the provider that set it, its salt."""
        people = [self.requester, self.owner, self.trapper, *self.providers]
        people += [member.account for member in members]
        self.ledger = Ledger.from_genesis(
            CHAIN,
            scenario.parameters,
            ValidatorSet(epoch=0, members=members),
            dict.fromkeys(people, FUNDS),
            _account("treasury"),
            START_MS,
        )
        self.fates: dict[bytes, Fate] = {}
        self._reveals: dict[tuple[bytes, int], dict[int, JobReveal]] = {}
        self._answered: set[tuple[bytes, int]] = set()
        self._transactions: list[pb.SignedTx] = []
        self._attestations: dict[int, list[bytes]] = {}
        self._salt = 0
        self._ordinal = 0
        self._ends = dict.fromkeys((JobStatus.VERIFIED, JobStatus.REJECTED, JobStatus.REFUNDED), 0)
        self._frauds_passed = self._wrong_passes = self._wrong_fails = self._traps = 0
        self._open_market()

    def play(self) -> Played:
        """All jobs, to their ends."""
        before = self._wealth()
        left = self.scenario.jobs
        while left:
            count = min(left, WAVE_JOBS)
            self._wave(count)
            left -= count
        providers, verifiers = self._group()
        others = list(self.verifiers.values())[len(verifiers) :]
        after = self._wealth()
        income = {key: amount - before[key] for key, amount in after.items()}
        spent = sum(agent.spent for agent in providers) + sum(agent.spent for agent in verifiers)
        accounts = [agent.account for agent in providers] + [agent.account for agent in verifiers]
        gained = sum(agent.gained for agent in providers)
        return Played(
            profit=sum(income[account] for account in accounts) - spent + gained,
            spent=spent,
            provider_parts=sum(agent.assigned for agent in providers),
            verifier_parts=sum(agent.seats for agent in verifiers),
            others_profit=sum(income[agent.account] - agent.spent for agent in others),
            others_parts=sum(agent.seats for agent in others),
            statuses=(
                self._ends[JobStatus.VERIFIED],
                self._ends[JobStatus.REJECTED],
                self._ends[JobStatus.REFUNDED],
            ),
            traps=self._traps,
            wrong_passes=self._wrong_passes,
            wrong_fails=self._wrong_fails,
            frauds_passed=self._frauds_passed,
            execution_root=self.ledger.execution_root,
        )

    def _group(self) -> tuple[list[ProviderAgent], list[VerifierAgent]]:
        providers = list(self.providers.values())[: self.scenario.group_providers]
        verifiers = list(self.verifiers.values())[: self.scenario.group_verifiers]
        return providers, verifiers

    def _wealth(self) -> dict[bytes, int]:
        """What each agent's account holds."""
        accounts = [*self.providers, *(agent.account for agent in self.verifiers.values())]
        return {key: sum(self.ledger.account(key)[:3]) for key in accounts}

    def _open_market(self) -> None:
        pair = pair_message(CalibratedPair(PROFILE, PROFILE, self.assumptions.thresholds))
        work = self.scenario.work
        model = pb.RegisterModel(
            model=MODEL,
            name="simulated",
            context_tokens=work.input_tokens + work.output_tokens + 1,
            royalty_bps=min(ROYALTY_BPS, self.ledger.parameters.royalty_bps_max),
            pairs=[pair],
            parameters=1,
        )
        self._send(self.owner, model)
        self._stake_up()
        serving = pb.SetVerifier(model=MODEL, serving=True, engine_profile=PROFILE)
        for agent in self.verifiers.values():
            self._send(agent.account, serving)
        offer = pb.SetOffer(
            model=MODEL,
            input_price=work.input_price,
            output_price=work.output_price,
            capacity=CAPACITY,
            operator=GATEWAY,
            engine_profile=PROFILE,
        )
        for account in self.providers:
            self._send(account, offer)
        self._block()
        for _ in range(self.ledger.parameters.audit_delay_blocks):
            self._block()

    def _stake_up(self) -> None:
        """Everybody holds what it needs and no more: the least there is to slash."""
        parameters = self.ledger.parameters
        needs = dict.fromkeys(self.providers, parameters.stake_min_per_offer)
        verifiers = [agent.account for agent in self.verifiers.values()]
        needs |= dict.fromkeys(verifiers, parameters.verifier_stake_min)
        for account, needed in needs.items():
            missing = needed - self.ledger.account(account).stake
            if missing > 0:
                self._send(account, pb.Stake(amount=missing))

    def _wave(self, count: int) -> None:
        """Some requests, and blocks until their jobs are final."""
        self._stake_up()
        self._request_traps(count)
        self._request(self.requester, count)
        for account, agent in self.providers.items():
            self._request(account, self._drawn(agent.strategy.own_requests_ppm, count), account)
        self._block()
        for _ in range(WAVE_BLOCKS_MAX):
            jobs = list(self.ledger.open_jobs())
            if not jobs:
                return
            for key, job in jobs:
                self._move(key, job)
            self._next_block()
        raise RuntimeError(f"jobs are still open after {WAVE_BLOCKS_MAX} blocks")

    def _drawn(self, share_ppm: int, count: int) -> int:
        """How many of so many chances happen. Fixed for a seed and a share."""
        ordinals = range(self._ordinal, self._ordinal + count)
        return sum(self.chance.happens(share_ppm, b"more", _ordinal(n)) for n in ordinals)

    def _request_traps(self, count: int) -> None:
        """Honest providers set traps, and somebody asks for them without saying of whom.

        So that nobody can tell them by that, each is asked for as often as there are providers.
        """
        share_ppm = min(MILLION, self.scenario.traps_ppm * len(self.providers))
        setters = list(self.providers)[self.scenario.group_providers :]
        result = _result(self.scenario).SerializeToString(deterministic=True)
        for number in range(self._drawn(share_ppm, count)):
            word = _ordinal(self._ordinal) + _ordinal(number)
            setter = setters[self.chance.below(len(setters), b"setter", word)]
            salt = self.chance.digest(b"trap", word)
            request = self._a_request()
            asked = request_digest(request.SerializeToString(deterministic=True))
            said = commitment(asked, result_digest(result), salt)
            self._send(setter, pb.SetTrap(commitment=said))
            self._block()
            (job,) = self._request(self.trapper, 1)
            self._set[job] = setter, salt

    def _request(self, sender: bytes, count: int, pinned: bytes = b"") -> list[bytes]:
        """Ask so often; the jobs."""
        if not count:
            return []
        transaction = self._send(sender, *[self._a_request(pinned)] * count)
        jobs = [job_id(transaction, index) for index in range(count)]
        for job in jobs:
            self._ordinal += 1
            self.fates[job] = Fate(_ordinal(self._ordinal), shows=False)
        return jobs

    def _a_request(self, pinned: bytes = b"") -> pb.RequestInference:
        work, parameters = self.scenario.work, self.ledger.parameters
        longest = work.input_tokens + work.output_tokens  # the context bounds the prompt so
        seat = parameters.seat_price(longest, work.output_tokens)
        tokens_price = longest * work.input_price + work.output_tokens * work.output_price
        return pb.RequestInference(
            model=MODEL,
            input=inference.InferenceInput(text="Why is the sky blue?"),
            sampling=inference.Sampling(max_output_tokens=work.output_tokens),
            max_price=tokens_price + seat * parameters.committee_size,
            provider=pinned,
        )

    def _move(self, key: bytes, job: Job) -> None:
        """Let the agents of an open job do what they will in the next block."""
        if job.escalated and key in self._set:
            setter, salt = self._set.pop(key)
            if setter == job.provider:
                self._send(self.trapper, pb.OpenTrap(job=key, salt=salt))
        if job.status is JobStatus.ASSIGNED:
            self._answer(key, job)
        elif job.status in (JobStatus.COMMITTING, JobStatus.REVEALING):
            positions = self.ledger.fingerprint_positions(key)
            reveals = self._reveals.setdefault((key, job.round), {})
            groups = job.provider in [agent.account for agent in self._group()[0]]
            seat = Seat(key, job, self.fates[key], positions, groups, dict(reveals))
            for member in job.committee:
                if member.round != job.round:
                    continue
                agent = self.verifiers[member.validator]
                if job.status is JobStatus.COMMITTING and member.commitment is None:
                    commit = agent.commit(seat)
                    if commit is not None:
                        self._attest(member.validator, commit)
                elif job.status is JobStatus.REVEALING and member.verdict is None:
                    reveal = agent.reveal(seat) if member.commitment else None
                    if reveal is not None and member.validator not in reveals:
                        reveals[member.validator] = reveal
                        self._attest(member.validator, encode(reveal))

    def _answer(self, key: bytes, job: Job) -> None:
        if (key, job.attempts) in self._answered or job.provider is None:
            return
        self._answered.add((key, job.attempts))
        result = pb.SubmitResult(job=key, result=_result(self.scenario))
        if self._set.get(key, (b"",))[0] == job.provider:
            self.fates[key] = self.fates[key]._replace(shows=True, blatant=True)
            self._traps += 1
            self._send(job.provider, result)
            return
        agent = self.providers[job.provider]
        strategy, work = agent.strategy, self.scenario.work
        agent.assigned += job.requester != agent.account
        if not strategy.answers:
            return
        cost = self.assumptions.generation_cost * work.output_tokens
        # Nobody cheats on a job of its own.
        if strategy.fraud is not None and job.requester != agent.account:
            fate = self.fates[key]
            detection = self.assumptions.detection_ppm[strategy.fraud]
            shows = self.chance.happens(detection, b"shows", fate.ordinal, strategy.fraud.encode())
            self.fates[key] = fate._replace(shows=shows)
            cost = cost * self.assumptions.cost_of_fraud_ppm[strategy.fraud] // MILLION
        agent.spent += cost
        self._send(agent.account, result)

    def _send(self, sender: bytes, *messages: Message) -> bytes:
        """Queue a transaction; its id. Signatures are checked before execution, so it has none."""
        self._salt += 1
        body = pb.TxBody(
            chain_id=CHAIN,
            valid_until_height=self.ledger.height + VALID_FOR_BLOCKS,
            salt=self._salt,
            max_fee=MAX_FEE,
            ops=[make_operation(message) for message in messages],
        ).SerializeToString(deterministic=True)
        self._transactions.append(pb.SignedTx(body=body, public_key=sender, signature=bytes(64)))
        return transaction_id(body, sender)

    def _attest(self, validator: int, data: bytes) -> None:
        self._attestations.setdefault(validator, []).append(data)

    def _next_block(self) -> None:
        """A block as soon as there is something for it, else at the next deadline."""
        deadline = self.ledger.next_deadline_ms()
        if self._transactions or self._attestations or self.ledger.wants_blocks():
            self._block()
        elif deadline is not None:
            self._block(max(deadline + 1 - self.ledger.timestamp_ms, BLOCK_MS))
        else:
            raise RuntimeError("an open job has no deadline")

    def _block(self, after_ms: int = BLOCK_MS) -> BlockOutcome:
        height = self.ledger.height + 1
        context = BlockContext(
            height=height,
            timestamp_ms=self.ledger.timestamp_ms + after_ms,
            beacon=self.chance.digest(b"beacon", height.to_bytes(8, "little")),
            proposer=GATEWAY,
        )
        lanes = [
            _batch(index, self._transactions if index == GATEWAY else [], attestations)
            for index in range(len(self.verifiers) + 1)
            if (attestations := self._attestations.get(index, [])) or index == GATEWAY
        ]
        self._transactions, self._attestations = [], {}
        outcome = self.ledger.execute(context, lanes)
        for leaf in outcome.receipts:
            if leaf[:1] == RECEIPT_TAG:
                receipt = decode(TransactionReceipt, leaf[1:])
                if not receipt.accepted:
                    raise RuntimeError(f"an agent's transaction was refused: {receipt.reason}")
        for _, key, final in outcome.job_receipts:
            self._follow(key, final)
        return outcome

    def _follow(self, key: bytes, final: JobReceipt) -> None:
        """Note what a job came to."""
        self._ends[final.status] += 1
        job = self.ledger.job(key)
        if job is None or job.provider is None:
            return
        words = Counter(seat.verdict for seat in job.committee)
        group = range(GATEWAY + 1, GATEWAY + 1 + self.scenario.group_verifiers)
        own = Counter(seat.verdict for seat in job.committee if seat.validator in group)
        if final.status is JobStatus.REJECTED:
            fails, passes = words[Verdict.FAIL], words[Verdict.PASS]
            self._wrong_passes += own[Verdict.PASS] if fails >= 2 * passes else 0
        elif final.status is JobStatus.VERIFIED:
            self._wrong_fails += own[Verdict.FAIL]
            self._frauds_passed += self.fates[key].shows
            agent = self.providers.get(job.provider)
            if agent is not None and agent.strategy.fraud in STEERING:
                agent.gained += self.assumptions.steering_gain * (job.requester != agent.account)


def _batch(lane: int, transactions: list[pb.SignedTx], attestations: list[bytes]) -> LaneBatch:
    payload = pb.BatchPayload(transactions=transactions, attestations=attestations)
    return LaneBatch(lane, parse_batch(payload.SerializeToString()))


def _result(scenario: Scenario) -> inference.InferenceResult:
    """An answer of true length; whether it is true is its job's fate."""
    count = scenario.work.output_tokens
    return inference.InferenceResult(
        token_ids=[20_000 + index for index in range(count)],
        logprobs=[-500_000] * count,
        finish_reason=inference.FINISH_REASON_LENGTH,
        input_tokens=scenario.work.input_tokens,
        text="word " * count,
        engine_profile=PROFILE,
    )


def _validator(index: int) -> Validator:
    return Validator(
        index=index,
        signing_key=_account(f"signing {index}"),
        vrf_key=_account(f"vrf {index}"),
        account=_account(f"validator {index}"),
        stake=VALIDATOR_STAKE,
    )


def _account(name: str) -> bytes:
    return tagged_hash(b"market-account", name.encode())


def _ordinal(number: int) -> bytes:
    return number.to_bytes(ORDINAL_BYTES, "little")
