"""Signed transfers in batches, the same for everybody from one seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from nacl.signing import SigningKey

from assay.v1 import transactions_pb2 as pb
from chain.transactions import sign_transaction
from consensus.values import Validator, ValidatorSet
from ext.hashing import tagged_hash

CHAIN_ID = "assay-bench"
SEED_TAG = b"ledger bench"
VALIDATORS = 4
BALANCE = 10**12
"""Grain of each account, enough for thousands of fees; a million of them are below the supply."""
VALID_UNTIL_HEIGHT = 200
MAX_FEE = 10**9
AMOUNT_MAX = 1_000


@dataclass(frozen=True)
class Workload:
    """How much is measured. Senders are the first accounts; receivers are any of them."""

    transactions: int
    accounts: int
    senders: int
    batch_transactions: int
    block_batches: int
    seed: int
    waiting_batches: int = 1
    """Batches that have come when their signatures are checked: the node checks them together."""

    def __post_init__(self) -> None:
        if not 1 <= self.senders <= self.accounts:
            raise ValueError(
                f"{self.senders} senders of {self.accounts} accounts: allowed are 1 to all of them"
            )
        counts = (self.batch_transactions, self.block_batches, self.waiting_batches)
        if min(self.transactions, *counts) < 1:
            raise ValueError("at least one transaction, one in a batch and one batch are needed")
        blocks = -(-self.transactions // (self.batch_transactions * self.block_batches))
        if blocks > VALID_UNTIL_HEIGHT:
            raise ValueError(
                f"{blocks} blocks, at most {VALID_UNTIL_HEIGHT} fit the time that transactions are "
                "valid; take larger batches, or more of them a block"
            )

    @cached_property
    def keys(self) -> tuple[SigningKey, ...]:
        """Of the senders."""
        return tuple(SigningKey(self._digest(b"sender", number)) for number in range(self.senders))

    @cached_property
    def account_keys(self) -> tuple[bytes, ...]:
        """32 bytes each. Those that never sign are no points of the curve: nobody looks."""
        others = range(self.senders, self.accounts)
        return (
            *(bytes(key.verify_key) for key in self.keys),
            *(self._digest(b"account", number) for number in others),
        )

    def balances(self) -> dict[bytes, int]:
        """The accounts at genesis, in grain."""
        return dict.fromkeys(self.account_keys, BALANCE)

    def validators(self) -> ValidatorSet:
        """Owners of the lanes. They sign nothing here."""
        members = tuple(
            Validator(
                index=index,
                signing_key=self._digest(b"signing key", index),
                vrf_key=self._digest(b"vrf key", index),
                account=self._digest(b"lane owner", index),
                stake=1,
            )
            for index in range(VALIDATORS)
        )
        return ValidatorSet(epoch=0, members=members)

    def treasury(self) -> bytes:
        """The treasury's account."""
        return self._digest(b"treasury", 0)

    def payloads(self) -> Iterator[bytes]:
        """Batches, serialised, of one transfer a transaction; senders take turns at random."""
        source = random.Random(self.seed)
        left = self.transactions
        while left:
            count = min(left, self.batch_transactions)
            signed = [self._transfer(source) for _ in range(count)]
            yield pb.BatchPayload(transactions=signed).SerializeToString()
            left -= count

    def _transfer(self, source: random.Random) -> pb.SignedTx:
        transfer = pb.Transfer(
            to=self.account_keys[source.randrange(self.accounts)],
            amount=source.randint(1, AMOUNT_MAX),
        )
        key = self.keys[source.randrange(self.senders)]
        return sign_transaction(
            key,
            CHAIN_ID,
            [pb.Op(transfer=transfer)],
            VALID_UNTIL_HEIGHT,
            MAX_FEE,
            source.getrandbits(64),
        )

    def _digest(self, what: bytes, number: int) -> bytes:
        return tagged_hash(
            SEED_TAG, what, self.seed.to_bytes(8, "little"), number.to_bytes(8, "little")
        )
