"""For each reason to refuse, something that is refused for it; docs/reasons.md shows them.

    python -m tests.chain.examples_of_reasons docs/reasons.md

provokes all of them and writes that page.
"""

import asyncio
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from google.protobuf.message import Message

from assay.v1 import transactions_pb2 as pb
from chain.client import NodeClient
from chain.execution.sessions import SESSIONS_MAX
from chain.node.intake import Intake
from chain.pruning import PruningPolicy
from chain.receipts import build_receipt
from chain.rejections import EXPLANATIONS, Rejection, RejectionReason, exception_name
from chain.store import Store
from chain.transactions import check_signed, decode_transaction, make_operation, sign_transaction
from consensus.values import AttestationKind, JobCommit
from consensus.wire import encode
from tests.builders import genesis, key
from tests.chain import epoch_world, examples_of_codes
from tests.chain.execution.test_suspicion import LOUD, a_world, audited
from tests.chain.finished_job import JOB, JOB_HEIGHT, Chain
from tests.chain.ledger_world import (
    ALICE,
    BOND,
    CHAIN,
    FAIL,
    FUNDS,
    OWNER,
    PROVIDERS,
    World,
    a_registration,
    a_report,
    a_request,
    a_result,
    account,
    an_offer,
    double_vote,
    serving,
)
from tests.chain.node.running_node import running_node, solitary_genesis

BOB = account("bob")
KEY = account("a session key")
Case = tuple[str, Callable[[], None]]
"""What is done, in words and in deeds; it raises."""
HEX = re.compile(r"[0-9a-f]{24,}")


def market() -> World:
    """A model, an offer of the first provider, everybody verifying."""
    world = World()
    world.open_market()
    return world


def asked(sender: bytes, *messages: Message, world: World | None = None) -> None:
    """Somebody asks for this in an open market."""
    world = world or market()
    world.ledger.admit(world.make(sender, *messages))


def changed(message: pb.RequestInference, **values: object) -> pb.RequestInference:
    copy = pb.RequestInference()
    copy.CopyFrom(message)
    for name, value in values.items():
        setattr(copy, name, value)
    return copy


def sent(valid_for: int = 100, max_fee: int = 10**9, twice: bool = False) -> None:
    """A payment with such an envelope."""
    world = World()
    body = pb.TxBody(
        chain_id=CHAIN,
        valid_until_height=world.ledger.height + valid_for,
        max_fee=max_fee,
        ops=[make_operation(pb.Transfer(to=BOB, amount=1))],
    )
    transaction = decode_transaction(CHAIN, body.SerializeToString(), ALICE)
    if twice:
        world.waiting.append(transaction)
        world.block()
    world.ledger.admit(transaction)


def signed(chain: str = CHAIN, forged: bool = False) -> None:
    """A payment with such a signature."""
    payment = make_operation(pb.Transfer(to=BOB, amount=1))
    message = sign_transaction(key("alice").signing_key, chain, [payment], 9, 10**9, salt=7)
    signature = bytes(64) if forged else message.signature
    check_signed(CHAIN, message.body, message.public_key, signature)


def decoded(body: bytes) -> None:
    decode_transaction(CHAIN, body, ALICE)


def result_by(sender: bytes | None, tokens: int = 8, late: bool = False) -> None:
    """An answer to a job of the first provider."""
    world = market()
    job = world.request()
    world.block()
    if late:
        world.answer(job)
    answer = pb.SubmitResult(job=job, result=a_result(tokens))
    asked(sender or PROVIDERS[0], answer, world=world)


def attested(round_: int = 0, twice: bool = False, outsider: bool = False) -> None:
    """A commitment to a verdict."""
    world = World(validators=8)
    job = world.answered_job()
    world.seat_committee(job)
    seats = world.seats(job)
    others = [index for index in range(8) if index not in seats]
    commitment = encode(JobCommit(AttestationKind.COMMIT, job, round_, bytes(32)))
    for _ in range(1 + twice):
        world.attest(others[0] if outsider else seats[0], commitment)
    (refused,) = world.block().refused_attestations
    raise Rejection(refused.reason, refused.detail)


def a_grant(**terms: object) -> pb.GrantSession:
    grant = pb.GrantSession(
        key=KEY,
        operation_cap=FUNDS,
        total_cap=2 * FUNDS,
        expires_at_height=100,
        kinds=[pb.OPERATION_KIND_TRANSFER],
    )
    for name, value in terms.items():
        setattr(grant, name, value)
    return grant


def in_session(grant: pb.GrantSession | None, *messages: Message) -> None:
    """A session key of alice's asks for this."""
    world = market()
    if grant is not None:
        world.do(ALICE, grant)
    body = pb.TxBody(
        chain_id=CHAIN,
        valid_until_height=50,
        max_fee=10**9,
        ops=[make_operation(message) for message in messages],
        account=ALICE,
    )
    world.ledger.admit(decode_transaction(CHAIN, body.SerializeToString(), KEY))


def granted_too_often() -> None:
    world = World()
    world.do(ALICE, *(a_grant(key=account(f"key {n}")) for n in range(SESSIONS_MAX)))
    asked(ALICE, a_grant(), world=world)


def ejected(message: Message) -> None:
    """The first provider does something when three jobs have ejected it."""
    world = a_world()
    for _ in range(3):
        audited(world, LOUD)
    asked(PROVIDERS[0], message, world=world)


def without_arbiters() -> None:
    """The provider of a rejected job appeals, where everybody verifies with another engine."""
    world = market()
    job = world.answered_job()
    for _ in range(2):
        world.seat_committee(job)
        world.vote(job, (FAIL,) * len(world.seats(job)))
    asked(PROVIDERS[0], pb.Appeal(job=job), world=world)


def convicted(sender: bytes, message: Message) -> None:
    """After validator 0 has signed two votes."""
    world = market()
    world.do(ALICE, a_report(double_vote(0)))
    asked(sender, message, world=world)


def too_many_validators() -> None:
    chain = epoch_world.Chain()
    with patch("chain.execution.validators.REGISTERED_MAX", 0):
        chain.admit("new 0", epoch_world.registration("new 0"))


def full_of_accounts() -> None:
    world = World()
    with patch("chain.execution.capacity.ACCOUNTS_MAX", 4):
        asked(ALICE, pb.Transfer(to=account("nobody yet"), amount=1), world=world)


def rotated_twice() -> None:
    chain = epoch_world.Chain()
    chain.epochs()
    keys = [epoch_world.keys_of(name, account="v0") for name in ("fresh", "fresher")]
    chain.do("v0", pb.RotateValidator(keys=keys[0]))
    chain.admit("v0", pb.RotateValidator(keys=keys[1]))


def convicted_and_back() -> None:
    chain = epoch_world.Chain()
    chain.do("somebody", epoch_world.double_vote(0, "v0", epoch=0))
    chain.admit("v0", pb.Unjail())


def at_a_node(call: Callable[[NodeClient], object]) -> None:
    """A real node, alone in its network, is asked."""

    async def run(folder: Path) -> None:
        async with running_node(folder / "node", solitary_genesis("alice")) as (_, client):
            await call(client)  # type: ignore[misc]

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


def from_a_store(read: Callable[[Store], object]) -> None:
    """Something is read from a store with a fresh job in block 3."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(Path(folder) / "store", genesis().chain_id, genesis().digest()) as store,
    ):
        chain = Chain.start(store)
        chain.run_job()
        read(store)
        for _ in range(5):
            chain.commit()
        with patch("chain.pruning.KEEP_BLOCKS_MIN", 2):
            store.prune(PruningPolicy(keep_blocks=2))
        store.check_kept(JOB_HEIGHT)


def full_intake() -> None:
    """A node whose queue has room for nothing."""

    async def run() -> None:
        intake = Intake(CHAIN, None, lambda _: None, lambda: 1, 1, 1, 0, lambda: 0.0)  # type: ignore[arg-type]
        payment = make_operation(pb.Transfer(to=BOB, amount=1))
        message = sign_transaction(key("alice").signing_key, CHAIN, [payment], 9, 10**9, salt=7)
        await intake.admit(intake.check(message), message)

    asyncio.run(run())


PAYMENT = pb.Transfer(to=BOB, amount=1)
CASES: dict[RejectionReason, Case] = {
    RejectionReason.MALFORMED: ("a body that is no protobuf", lambda: decoded(b"junk")),
    RejectionReason.TOO_LARGE: ("a body of 200,000 bytes", lambda: decoded(bytes(200_000))),
    RejectionReason.TOO_MANY_OPERATIONS: (
        "a body of 257 operations",
        lambda: decoded(
            pb.TxBody(ops=[make_operation(PAYMENT)] * 257).SerializeToString(),
        ),
    ),
    RejectionReason.NO_OPERATIONS: (
        "a body without any",
        lambda: decoded(pb.TxBody(chain_id=CHAIN).SerializeToString()),
    ),
    RejectionReason.WRONG_CHAIN: ("signed for `elsewhere`", lambda: signed("elsewhere")),
    RejectionReason.BAD_SIGNATURE: ("64 zero bytes as signature", lambda: signed(forged=True)),
    RejectionReason.EXPIRED: ("`valid_until_height` 0", lambda: sent(valid_for=0)),
    RejectionReason.TOO_FAR_AHEAD: ("valid for 300 blocks", lambda: sent(valid_for=300)),
    RejectionReason.REPLAYED: ("the same transaction twice", lambda: sent(twice=True)),
    RejectionReason.FEE_TOO_LOW: ("`max_fee` 1", lambda: sent(max_fee=1)),
    RejectionReason.INSUFFICIENT_BALANCE: (
        "a payment of more than there is",
        lambda: asked(ALICE, pb.Transfer(to=BOB, amount=2 * FUNDS)),
    ),
    RejectionReason.INSUFFICIENT_STAKE: (
        "unstaking without stake",
        lambda: asked(ALICE, pb.Unstake(amount=1)),
    ),
    RejectionReason.AMOUNT_ZERO: ("a payment of 0", lambda: asked(ALICE, pb.Transfer(to=BOB))),
    RejectionReason.BAD_ADDRESS: (
        "a receiver of 5 bytes",
        lambda: asked(ALICE, pb.Transfer(to=b"short", amount=1)),
    ),
    RejectionReason.UNKNOWN_MODEL: (
        "a question to a model that nobody registered",
        lambda: asked(ALICE, changed(a_request(), model=bytes(32))),
    ),
    RejectionReason.MODEL_EXISTS: (
        "a second registration",
        lambda: asked(OWNER, a_registration()),
    ),
    RejectionReason.BAD_MODEL: (
        "a registration without pairs",
        lambda: asked(
            OWNER, pb.RegisterModel(model=bytes(32), name="x", context_tokens=9, parameters=1)
        ),
    ),
    RejectionReason.BAD_OFFER: (
        "withdrawing an offer that was never made",
        lambda: asked(ALICE, an_offer(capacity=0)),
    ),
    RejectionReason.NO_CALIBRATED_PAIR: (
        "an offer with an engine that has no thresholds",
        lambda: asked(PROVIDERS[0], an_offer(profile="another engine")),
    ),
    RejectionReason.UNKNOWN_OPERATOR: (
        "an offer at validator 9 of 5",
        lambda: asked(PROVIDERS[0], an_offer(operator=9)),
    ),
    RejectionReason.NOT_A_VALIDATOR: (
        "an announcement by somebody else",
        lambda: asked(ALICE, BOND, serving()),
    ),
    RejectionReason.NO_OFFER: (
        "a question to somebody who offers nothing",
        lambda: asked(ALICE, a_request(provider=BOB)),
    ),
    RejectionReason.PRICE_TOO_LOW: (
        "a question for 1 grain",
        lambda: asked(ALICE, a_request(max_price=1)),
    ),
    RejectionReason.BAD_INPUT: ("an empty prompt", lambda: asked(ALICE, a_request(text=""))),
    RejectionReason.BAD_SAMPLING: (
        "a seed of 5 bytes",
        lambda: asked(ALICE, a_request(seed=b"short")),
    ),
    RejectionReason.PROMPT_TOO_LONG: (
        "20,000 characters for a context of 512 tokens",
        lambda: asked(ALICE, a_request(text="x" * 20_000)),
    ),
    RejectionReason.MAX_TOKENS_OUT_OF_RANGE: (
        "a question for 0 tokens",
        lambda: asked(ALICE, a_request(max_output_tokens=0)),
    ),
    RejectionReason.BAD_DEADLINE: (
        "an answer within 1 ms",
        lambda: asked(ALICE, changed(a_request(), answer_within_ms=1)),
    ),
    RejectionReason.UNKNOWN_JOB: (
        "an answer to a job that nobody asked for",
        lambda: asked(PROVIDERS[0], pb.SubmitResult(job=bytes(32), result=a_result())),
    ),
    RejectionReason.NOT_ASSIGNED_TO_YOU: (
        "an answer by another account",
        lambda: result_by(ALICE),
    ),
    RejectionReason.JOB_NOT_OPEN: ("a second answer", lambda: result_by(None, late=True)),
    RejectionReason.BAD_RESULT: (
        "an answer of more tokens than were asked for",
        lambda: result_by(None, tokens=17),
    ),
    RejectionReason.BAD_ATTESTATION: ("a second commitment", lambda: attested(twice=True)),
    RejectionReason.NOT_ON_COMMITTEE: (
        "a commitment by a validator without a seat",
        lambda: attested(outsider=True),
    ),
    RejectionReason.BAD_SESSION: (
        "a grant for nothing",
        lambda: asked(ALICE, a_grant(total_cap=0)),
    ),
    RejectionReason.SESSION_EXISTS: (
        "a key granted twice",
        lambda: asked(ALICE, a_grant(), a_grant()),
    ),
    RejectionReason.TOO_MANY_SESSIONS: ("a 65th session key", granted_too_often),
    RejectionReason.UNKNOWN_SESSION: (
        "a payment by a key that was not granted",
        lambda: in_session(None, PAYMENT),
    ),
    RejectionReason.SESSION_FORBIDS: (
        "a question by a key that may only pay",
        lambda: in_session(a_grant(), a_request()),
    ),
    RejectionReason.SESSION_OPERATION_CAP: (
        "a payment above the operation's cap",
        lambda: in_session(a_grant(operation_cap=10**8), pb.Transfer(to=BOB, amount=10**8)),
    ),
    RejectionReason.SESSION_TOTAL_CAP: (
        "a second payment, above what is left",
        lambda: in_session(
            a_grant(operation_cap=10**8, total_cap=10**8),
            *[pb.Transfer(to=BOB, amount=6 * 10**7)] * 2,
        ),
    ),
    RejectionReason.BAD_EVIDENCE: (
        "a report of nothing",
        lambda: asked(ALICE, pb.ReportFault()),
    ),
    RejectionReason.BAD_TRAP: (
        "a trap without its commitment",
        lambda: asked(ALICE, pb.SetTrap()),
    ),
    RejectionReason.BAD_VALIDATOR: (
        "a registration without keys",
        lambda: epoch_world.Chain().admit("new 0", pb.RegisterValidator()),
    ),
    RejectionReason.TOO_MANY_VALIDATORS: (
        "a registration where there is room for none",
        too_many_validators,
    ),
    RejectionReason.TOO_SOON: ("other keys twice in an epoch", rotated_twice),
    RejectionReason.JAILED: (
        "a convicted validator that asks for its seat",
        convicted_and_back,
    ),
    RejectionReason.ALREADY_CONVICTED: (
        "a second report",
        lambda: convicted(ALICE, a_report(double_vote(0))),
    ),
    RejectionReason.CONVICTED: (
        "an offer at a validator that signed two votes",
        lambda: convicted(PROVIDERS[0], an_offer()),
    ),
    RejectionReason.EJECTED: (
        "an offer of a provider that was ejected",
        lambda: ejected(an_offer()),
    ),
    RejectionReason.NO_ARBITER: (
        "an appeal where nobody runs the exact engine",
        without_arbiters,
    ),
    RejectionReason.STATE_FULL: (
        "a payment to a new account where there may be none",
        full_of_accounts,
    ),
    RejectionReason.BUSY: ("a payment to a node whose queue is full", full_intake),
    RejectionReason.NOT_FOUND: (
        "the outcome of a transaction that nobody sent",
        lambda: at_a_node(lambda client: client.transaction(bytes(32))),
    ),
    RejectionReason.NOT_READY: (
        "the receipt of a job that no final block vouches for yet",
        lambda: from_a_store(lambda store: build_receipt(store, genesis(), JOB)),
    ),
    RejectionReason.PRUNED: (
        "a block that the node has forgotten",
        lambda: from_a_store(lambda store: store.height),
    ),
}


def provoked(reason: RejectionReason) -> Rejection:
    """What the reason's example is refused with. Raises RuntimeError if it is not refused."""
    try:
        CASES[reason][1]()
    except Rejection as rejection:
        return rejection
    raise RuntimeError(f"the example of {reason} is accepted")


def page() -> str:
    """docs/reasons.md."""
    lines = [
        "# Reasons to refuse",
        "",
        "Whatever the chain refuses it refuses for one of these reasons: in gRPC as",
        "`ErrorInfo.reason` with a detail as the status's message, on the command line as `reason`",
        "and `detail`, in Python as the exception named here (of `assay.errors`, with `detail` and",
        "`remedy`), in OpenAI's API as `code`. Codes are stable, details are for people.",
        "",
        "Made from `chain/rejections.py` by `python -m tests.chain.examples_of_reasons",
        "docs/reasons.md`, which provokes each example; a test does so, too.",
    ]
    for reason, told in EXPLANATIONS.items():
        detail = HEX.sub(lambda found: found[0][:8] + "…", provoked(reason).detail)
        lines += [
            "",
            f"## {reason}",
            "",
            f"`{exception_name(reason)}`. {told.meaning} **{told.remedy}**",
            "",
            f"For example {CASES[reason][0]}: “{detail}”",
        ]
    return "\n".join([*lines, *examples_of_codes.section()]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
