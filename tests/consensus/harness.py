"""One replica under a microscope: real keys of a small set, events in, effects out."""

from dataclasses import replace
from typing import TypeVar

from consensus.certificates import assemble_certificate, sign_vote
from consensus.events import (
    Broadcast,
    Effect,
    Event,
    Recovered,
    ReplicaConfig,
    Send,
    Start,
    Tick,
    Timing,
    WakeAt,
)
from consensus.messages import Message, Proposal, proposal_message
from consensus.replica import Replica
from consensus.sim.crypto import make_validators
from consensus.values import Block, Certificate, ValidatorSet, Vote, VoteBody, VoteKind
from ext.hashing import tagged_hash

NOW_MS = 1_700_000_000_000
CHAIN_ID = "test"
TIMING = Timing(
    leader_timeout_ms=1_000, certificate_timeout_ms=1_500, block_interval_ms=100, heartbeat_ms=5_000
)
GENESIS_DIGEST = tagged_hash(b"test-genesis")
GENESIS_ROOT = tagged_hash(b"test-genesis-root")
VALIDATORS, SIGNERS, _ = make_validators((1, 1, 1, 1), real=True)
T = TypeVar("T")


def config(own_index: int | None, validators: ValidatorSet = VALIDATORS) -> ReplicaConfig:
    return ReplicaConfig(
        chain_id=CHAIN_ID,
        genesis_digest=GENESIS_DIGEST,
        genesis_timestamp_ms=NOW_MS - 10_000,
        genesis_execution_root=GENESIS_ROOT,
        validators=validators,
        own_index=own_index,
        timing=TIMING,
    )


class Bench:
    """A replica that was started, its clock, and everything it asked for."""

    def __init__(
        self,
        index: int,
        recovered: Recovered | None = None,
        settings: ReplicaConfig | None = None,
    ) -> None:
        self.index = index
        self.now_ms = NOW_MS
        self.effects: list[Effect] = []
        self.replica = Replica.recover(
            settings or config(index), SIGNERS[index], recovered or Recovered(), self.now_ms
        )
        self.step(Start())

    def step(self, event: Event, after_ms: int = 0) -> list[Effect]:
        self.now_ms += after_ms
        effects = self.replica.step(event, self.now_ms)
        self.effects += effects
        return effects

    def all(self, kind: type[T]) -> list[T]:
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def said(self, kind: type[T]) -> list[T]:
        """Messages of a kind that were broadcast or sent."""
        messages: list[Message] = [
            effect.message for effect in self.effects if isinstance(effect, Broadcast | Send)
        ]
        return [message for message in messages if isinstance(message, kind)]

    def votes(self, view: int) -> list[VoteKind]:
        kinds = [vote.body.kind for vote in self.said(Vote) if vote.body.view == view]
        return list(dict.fromkeys(kinds))

    def wake_at_ms(self) -> int:
        return self.all(WakeAt)[-1].at_ms


def leader_of(view: int) -> int:
    replica = Replica.recover(config(None), None, Recovered(), NOW_MS)
    return replica._simplex.leader(view)


def sign_proposal(block: Block, signer: int | None = None) -> Proposal:
    """The proposer's word, or another's."""
    index = block.proposer if signer is None else signer
    return Proposal(block, SIGNERS[index].sign(proposal_message(CHAIN_ID, block.digest())))


def first_proposal(**changes: object) -> Proposal:
    """What the leader of view 1 proposes, with changes."""
    bench = Bench(leader_of(1))
    bench.step(Tick(), after_ms=TIMING.heartbeat_ms)
    (proposal,) = bench.said(Proposal)
    return sign_proposal(replace(proposal.block, **changes))  # type: ignore[arg-type]


def vote(kind: VoteKind, block: Block | None, signer: int, view: int = 1) -> Vote:
    body = VoteBody(kind, 0, view, 0, bytes(32))
    if block is not None and kind is not VoteKind.NULLIFY:
        body = VoteBody(kind, 0, block.view, block.parent_view, block.digest())
    return sign_vote(SIGNERS[signer], CHAIN_ID, signer, body)


def certificate(
    kind: VoteKind, block: Block | None, signers: tuple[int, ...] = (0, 1, 2), view: int = 1
) -> Certificate:
    votes = {signer: vote(kind, block, signer, view) for signer in signers}
    return assemble_certificate(votes, votes[signers[0]].body)
