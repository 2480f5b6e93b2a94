"""The native ledger against the plain-Python specification, on a few random blocks.

An input seeds the blocks: transfers, jobs, verdicts, malformed and conflicting operations.
`make soak` compares one long chain instead.
"""

from collections.abc import Iterator
from random import Random

from tests.chain.ledger_world import total_value
from tests.chain.specification.chaos import Chaos, a_market
from tests.chain.test_specification import specification
from tests.fuzz.harness import Target

SEED_BYTES = 8
OPERATIONS = 150


def inputs(source: Random) -> Iterator[bytes]:
    """Seeds."""
    while True:
        yield source.randbytes(SEED_BYTES)


def check(data: bytes) -> None:
    """Receipts, events and root of every block."""
    world, context, lanes = a_market()
    plain = specification()
    plain.execute(context, lanes)
    assert plain.execution_root == world.ledger.execution_root
    chaos = Chaos(world, Random(data))
    while chaos.operations < OPERATIONS:
        context, lanes = chaos.block()
        outcome = world.ledger.execute(context, lanes)
        output = plain.execute(context, lanes)
        assert list(outcome.receipts) == output.receipts
        assert list(outcome.events) == output.event_leaves
        assert outcome.execution_root == plain.execution_root
        assert total_value(world.ledger) == world.ledger.supply().issued


TARGET = Target("blocks", inputs, check)
