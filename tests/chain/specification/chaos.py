"""Random blocks of everything at once, from one seed.

Transfers good and bad, replays across lanes, expired and malformed bodies, operations that fail
half-way, jobs through their whole life.

    python -m tests.chain.specification.chaos SEED OPERATIONS

executes such blocks and prints the execution root.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.message import Message

from assay.v1 import transactions_pb2 as pb
from chain.execution import BlockContext, LaneBatch
from chain.parameters import Parameters
from chain.records import Job, JobStatus
from chain.transactions import make_operation
from consensus.values import JobReveal, Verdict
from consensus.wire import encode
from ext.hashing import tagged_hash
from tests.chain.ledger_world import (
    ALICE,
    BOND,
    CHAIN,
    FUNDS,
    MODEL,
    OWNER,
    PROVIDERS,
    START_MS,
    TREASURY,
    World,
    a_registration,
    a_request,
    a_result,
    account,
    an_offer,
    double_vote,
    lane_batch,
    serving,
)
from tests.chain.specification.operations import a_job_operation

VALIDATORS = 5
PARAMETERS = Parameters(
    unbonding_ms=2_000,
    job_rows_kept_blocks=12,
    answer_within_ms_min=1,
    answer_within_ms_default=3_000,
    commit_grace_ms=100,
)
CROWD = tuple(account(f"crowd {index}") for index in range(60))
PEOPLE = (ALICE, OWNER, TREASURY, *PROVIDERS, *CROWD[:30])
"""Half of the crowd begins without an account."""
SESSION_KEYS = tuple(account(f"session key {index}") for index in range(2))
GRANTERS = (ALICE, CROWD[0])
U64_MAX = (1 << 64) - 1
EVIDENCE = (encode(double_vote(0, "another")), encode(double_vote(VALIDATORS - 1)))
"""The second convicts."""


@dataclass
class Chaos:
    """Makes blocks from one seed; looks at the ledger only to know which jobs are open."""

    world: World
    source: random.Random
    sent: list[pb.SignedTx] = field(default_factory=list)
    operations: int = 0

    def block(self) -> tuple[BlockContext, list[LaneBatch]]:
        ledger = self.world.ledger
        context = BlockContext(
            height=ledger.height + 1,
            timestamp_ms=ledger.timestamp_ms + self.source.choice([0, 1, 100, 100, 100, 1_000]),
            beacon=self.source.randbytes(32),
            proposer=0,
        )
        attestations: dict[int, list[bytes]] = {}
        steps = [*self.job_steps(attestations), *self.noise()]
        self.source.shuffle(steps)
        lanes = []
        for lane in range(VALIDATORS):
            for _ in range(self.source.choice([1, 1, 2])):
                mine = [step for step in steps if self.source.random() < 0.3]
                steps = [step for step in steps if step not in mine]
                lanes.append(lane_batch(lane, mine, attestations.pop(lane, [])))
        lanes.append(lane_batch(VALIDATORS - 1, steps))
        return context, lanes

    def noise(self) -> Iterator[pb.SignedTx]:
        for _ in range(self.source.randint(0, 40)):
            roll = self.source.random()
            if roll < 0.1 and self.sent:
                self.operations += 1
                yield self.source.choice(self.sent[-200:])  # once more, perhaps in another lane
            elif roll < 0.2:
                yield self.damaged()
            elif roll < 0.3:
                yield self.about_a_job()
            elif roll < 0.36:
                yield self.sign(self.source.choice(GRANTERS), [self.about_a_session()])
            elif roll < 0.5:
                count = self.source.choice([1, 1, 1, 2])
                yield self.in_session([self.anything() for _ in range(count)])
            elif roll < 0.75:
                count = self.source.choice([0, 2, 3, 5, *[1] * 16])
                yield self.sign(self.source.choice(CROWD), [self.transfer() for _ in range(count)])
            else:
                count = self.source.choice([1, 1, 2, 3])
                yield self.sign(self.source.choice(PEOPLE), [self.anything() for _ in range(count)])

    def sign(
        self,
        sender: bytes,
        messages: list[pb.Op],
        valid_for: int | None = None,
        account: bytes = b"",
    ) -> pb.SignedTx:
        self.operations += len(messages)
        chosen = self.source.choice([0, 1, 2, 258, *[50] * 16])
        body = pb.TxBody(
            chain_id=CHAIN if self.source.random() < 0.99 else "another",
            valid_until_height=self.world.ledger.height + (valid_for or chosen),
            salt=self.source.getrandbits(64),
            max_fee=self.source.choice([0, 12_000, U64_MAX, *[10**6] * 12]),
            ops=messages,
            account=account,
        )
        signed = pb.SignedTx(body=body.SerializeToString(), public_key=sender, signature=bytes(64))
        self.sent.append(signed)
        return signed

    def in_session(self, messages: list[pb.Op]) -> pb.SignedTx:
        """Signed by a session key of somebody, or by what is none of theirs."""
        key = self.source.choice(SESSION_KEYS)
        return self.sign(key, messages, account=self.source.choice([*GRANTERS, *GRANTERS, b"no"]))

    def about_a_session(self) -> pb.Op:
        """A grant, most of them good, or the end of one."""
        key = self.source.choice(SESSION_KEYS)
        if self.source.random() < 0.1:
            return make_operation(pb.RevokeSession(key=key))
        caps = [
            (30_000, 30_000),
            (30_000, 60_000),
            (10**6, 2 * 10**6),
            (10**7, 10**8),
            (10**8, U64_MAX),
            (2, 1),
        ]
        operation_cap, total_cap = self.source.choice(caps)
        kinds = self.source.choice([*[range(1, 9)] * 6, [1], [7], [2, 1], [9], []])
        return make_operation(
            pb.GrantSession(
                key=self.source.choice([key, key, key, b"short"]),
                operation_cap=operation_cap,
                total_cap=total_cap,
                expires_at_height=self.world.ledger.height + self.source.choice([1, 9, 30, 30, 0]),
                kinds=[*kinds],  # type: ignore[list-item]
                models=self.source.choice([[], [], [], [MODEL], [bytes(32)]]),
                recipients=self.source.choice([[], [], sorted(CROWD[:9])]),
            )
        )

    def damaged(self) -> pb.SignedTx:
        """A body with a byte changed, cut, or added, or operations that say nothing."""
        good = bytearray(self.sign(self.source.choice(CROWD), [self.transfer()]).body)
        place = self.source.randrange(len(good))
        match self.source.randrange(4):
            case 0:
                good[place] ^= 1 << self.source.randrange(8)
            case 1:
                del good[place]
            case 2:
                good += self.source.randbytes(self.source.randint(1, 4))
            case _:
                good += pb.TxBody(ops=[pb.Op()]).SerializeToString()
        if not good:
            good = bytearray(b"\0")
        return pb.SignedTx(
            body=bytes(good), public_key=self.source.choice(CROWD), signature=bytes(64)
        )

    def transfer(self) -> pb.Op:
        receiver = self.source.choice([*CROWD, *self.owners(), b"short"])
        amount = self.source.choice([0, 1, 1_000, 10**6, 10**6, 10**7, 10**8, FUNDS, U64_MAX])
        return make_operation(pb.Transfer(to=receiver, amount=amount))

    def owners(self) -> list[bytes]:
        return [member.account for member in self.world.set.members]

    def anything(self) -> pb.Op:
        amount = self.source.choice([0, 1, 10**6, 100 * 10**9])
        choices = (
            pb.Transfer(to=self.source.choice(CROWD), amount=amount),
            pb.Stake(amount=amount),
            pb.Unstake(amount=amount),
            an_offer(capacity=self.source.choice([0, 1, 5, 9]), price=self.source.choice([0, 9])),
            a_request(
                max_price=self.source.choice([0, 5_000_000, 10**7]),
                seed=self.source.choice([b"", bytes(32), b"bad"]),
                tier=self.source.choice([pb.TIER_STANDARD, pb.TIER_CRITICAL]),
            ),
            pb.SubmitResult(job=bytes(32), result=a_result()),
            a_registration(),
            pb.GrantSession(key=SESSION_KEYS[0], kinds=[pb.OPERATION_KIND_TRANSFER]),
            pb.ReportFault(evidence=self.source.choice([b"", *EVIDENCE])),
            pb.SetTrap(commitment=self.source.choice([b"", b"t" * 32, self.source.randbytes(32)])),
        )
        return make_operation(self.source.choice(choices))

    def about_a_job(self) -> pb.SignedTx:
        """A request or a result of some kind, about a job or none, by anybody or its provider."""
        opened = [*self.world.ledger.open_jobs()]
        key, job = self.source.choice(opened) if opened else (bytes(32), None)
        sender = self.source.choice(PEOPLE)
        if job is not None and job.provider is not None and self.source.random() < 0.5:
            sender = job.provider
        operation = a_job_operation(self.source, MODEL, key, providers=PROVIDERS)
        return self.sign(sender, [operation])

    def job_steps(self, attestations: dict[int, list[bytes]]) -> Iterator[pb.SignedTx]:
        """New requests, and what is due on open jobs, most of it done."""
        for _ in range(self.source.randint(0, 3)):
            yield self.sign(ALICE, [make_operation(a_request(max_price=10**7))], valid_for=9)
        for key, job in self.world.ledger.open_jobs():
            if self.source.random() < 0.15:
                continue
            if job.status is JobStatus.ASSIGNED and job.provider is not None:
                result = pb.SubmitResult(job=key, result=a_result())
                yield self.sign(job.provider, [make_operation(result)], valid_for=9)
            elif job.status in (JobStatus.COMMITTING, JobStatus.REVEALING):
                self.speak(key, job, attestations)

    def speak(self, key: bytes, job: Job, attestations: dict[int, list[bytes]]) -> None:
        world = self.world
        honest = tagged_hash(key)[0] < 200
        for seat in world.seats(key):
            if self.source.random() < 0.1:
                continue
            if job.status is JobStatus.COMMITTING:
                usual = Verdict.PASS if honest else Verdict.FAIL
                verdict = self.source.choice([usual] * 8 + [Verdict.FAIL, Verdict.ABSTAIN])
                world.commit(key, seat, verdict, self.source.choice([0] * 9 + [10**6]))
            elif (key, job.round, seat) in world.reveals:
                reveal: JobReveal = world.reveals[key, job.round, seat]
                world.attest(seat, encode(reveal))
                if self.source.random() < 0.1:
                    world.attest((seat + 1) % VALIDATORS, encode(reveal))
        for lane, said in world.attestations.items():
            attestations.setdefault(lane, []).extend(said)
        world.attestations = {}


def a_market() -> tuple[World, BlockContext, list[LaneBatch]]:
    """A world with money, offers and verifiers, and the block that made it so."""
    world = World(validators=VALIDATORS, parameters=PARAMETERS)
    opening: list[tuple[bytes, list[Message]]] = [(OWNER, [a_registration()])]
    for provider in PROVIDERS:
        stake = pb.Stake(amount=PARAMETERS.stake_min_per_offer)
        opening.append((provider, [stake, an_offer(capacity=50)]))
    for member in world.set.members:
        opening.append((member.account, [BOND, serving()]))
    opening.append((ALICE, [pb.Transfer(to=key, amount=10**9) for key in CROWD[:30]]))
    transactions = [world.make(sender, *messages) for sender, messages in opening]
    context, lanes = BlockContext(1, START_MS + 1, bytes(32), 0), [lane_batch(0, transactions)]
    world.ledger.execute(context, lanes)
    return world, context, lanes


def native_root(seed: int, operations: int) -> bytes:
    """The execution root after blocks of so many operations."""
    world, _, _ = a_market()
    chaos = Chaos(world, random.Random(seed))
    while chaos.operations < operations:
        world.ledger.execute(*chaos.block())
    return world.ledger.execution_root


if __name__ == "__main__":
    print(native_root(int(sys.argv[1]), int(sys.argv[2])).hex())
