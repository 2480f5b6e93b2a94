"""The native ledger and the plain-Python specification agree on every root, whatever happens.

The same random blocks are executed by a ledger that is restarted on the way and gets them in other
batches, and by one that hashes with portable C. `make soak` runs a hundred thousand operations;
here it is a few thousand.
"""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from assay.v1 import transactions_pb2 as pb
from chain.execution import LaneBatch, capacity
from tests.chain.ledger_world import (
    ALICE,
    CHAIN,
    FUNDS,
    OWNER,
    PROVIDERS,
    TREASURY,
    World,
    lane_batch,
    receipts_in,
    restarted,
    total_value,
)
from tests.chain.specification.chaos import PARAMETERS, VALIDATORS, Chaos, a_market, native_root
from tests.chain.specification.ledger import SpecificationLedger

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("ASSAY_SOAK_SEED", "2"))
OPERATIONS = int(os.environ.get("ASSAY_SOAK_OPERATIONS", "3000"))


def specification() -> SpecificationLedger:
    world = World(validators=VALIDATORS, parameters=PARAMETERS)
    people = (ALICE, OWNER, *PROVIDERS, *(member.account for member in world.set.members))
    return SpecificationLedger(CHAIN, PARAMETERS, world.set, dict.fromkeys(people, FUNDS), TREASURY)


def in_smaller_batches(source: random.Random, lanes: list[LaneBatch]) -> list[LaneBatch]:
    """The same transactions and attestations in the same order, cut elsewhere."""
    cut = []
    for lane in lanes:
        batch = lane.batch
        signed = [
            pb.SignedTx(body=item.body, public_key=item.public_key, signature=item.signature)
            for item in (batch.transaction(index) for index in range(len(batch)))
        ]
        said = [batch.attestation(index) for index in range(len(batch.attestations))]
        place = source.randint(0, len(signed))
        cut += [lane_batch(lane.lane, signed[:place]), lane_batch(lane.lane, signed[place:], said)]
    return cut


@pytest.mark.timeout(0 if OPERATIONS > 10_000 else 300)
def test_the_native_ledger_is_the_specification_on_random_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = random.Random(SEED)
    world, context, lanes = a_market()
    plain = specification()
    plain.execute(context, lanes)
    assert plain.execution_root == world.ledger.execution_root
    twin = restarted(world.ledger)
    chaos = Chaos(world, source)
    seen: Counter[str] = Counter()
    while chaos.operations < OPERATIONS:
        if chaos.operations > OPERATIONS * 0.6:  # at the end with full tables
            monkeypatch.setattr(capacity, "ACCOUNTS_MAX", 0)
            monkeypatch.setattr(capacity, "RECORDS_MAX", 0)
        context, lanes = chaos.block()
        where = f"block {context.height} of seed {SEED}"
        outcome = world.ledger.execute(context, lanes)
        output = plain.execute(context, lanes)
        assert list(outcome.receipts) == output.receipts, where
        assert list(outcome.events) == output.event_leaves, where
        assert outcome.execution_root == plain.execution_root, where
        if source.random() < 0.05:
            twin = restarted(twin)
        assert twin.execute(context, in_smaller_batches(source, lanes)) == outcome, where
        assert total_value(world.ledger) == world.ledger.supply().issued, where
        seen.update(receipt.reason or "ACCEPTED" for receipt in receipts_in(outcome))
        seen.update(receipt.status.name for _, _, receipt in outcome.job_receipts)
    assert {
        "ACCEPTED",
        "AMOUNT_ZERO",
        "BAD_ADDRESS",
        "EXPIRED",
        "FEE_TOO_LOW",
        "INSUFFICIENT_BALANCE",
        "INSUFFICIENT_STAKE",
        "MALFORMED",
        "NO_OPERATIONS",
        "ALREADY_CONVICTED",
        "BAD_EVIDENCE",
        "BAD_SESSION",
        "SESSION_EXISTS",
        "SESSION_FORBIDS",
        "SESSION_OPERATION_CAP",
        "SESSION_TOTAL_CAP",
        "UNKNOWN_SESSION",
        "TOO_FAR_AHEAD",
        "STATE_FULL",
        "WRONG_CHAIN",
        "VERIFIED",
        "REFUNDED",
    } <= set(seen), seen


def test_both_ways_of_hashing_give_the_same_root() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.chain.specification.chaos", str(SEED), "300"],
        env={**os.environ, "ASSAY_SHA256": "portable"},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == native_root(SEED, 300).hex()
