"""Blocks with tables in them, and a plain model of what the tables must hold.

Everything of a block follows from a seed and its height, so a process that was killed can be
compared with a model that was not.
"""

from dataclasses import dataclass, field, replace
from random import Random

from rocksdict import WriteBatch

from chain.genesis import Genesis
from chain.records import ExecutionLink
from chain.rocks import Rocks
from chain.store import BlockCommit, JobOrigin, Store
from consensus.values import Batch, BatchHeader, Block, Tip
from ext import merkle
from ext.hashing import sha256, tagged_hash
from tests.builders import block, genesis
from tests.chain.finished_job import transaction_leaf

ACCOUNT = b"account"


class UnsyncedRocks(Rocks):
    """For tests with many blocks that are not about a dying machine."""

    def write(self, changes: WriteBatch, sync: bool) -> None:
        """Leaves it to the system when the disk gets it."""
        super().write(changes, sync=False)


def account_row(number: int, content: int) -> bytes:
    """A packed row, its key made of its number."""
    values = content.to_bytes(8, "little") + bytes(24)
    return number.to_bytes(4, "little") + tagged_hash(ACCOUNT, bytes([number % 251])) + values


@dataclass
class Tables:
    """What a block changes, and all tables after it."""

    seed: int = 0
    records: dict[tuple[int, bytes], bytes] = field(default_factory=dict)
    accounts: list[bytes] = field(default_factory=list)

    def turn(self, height: int) -> tuple[list[tuple[int, bytes, bytes | None]], bytes]:
        """The journal of a block."""
        random = Random(f"{self.seed}-{height}")
        changes: dict[tuple[int, bytes], bytes | None] = {}
        for _ in range(random.randrange(4)):
            key = (random.randrange(3), bytes([random.randrange(12)]))
            changes[key] = None if random.random() < 0.3 else random.randbytes(20)
        for key, value in changes.items():
            if value is None:
                self.records.pop(key, None)
            else:
                self.records[key] = value
        new = random.randrange(3)
        touched = {random.randrange(len(self.accounts)) for _ in range(3) if self.accounts}
        numbers = sorted(touched) + list(range(len(self.accounts), len(self.accounts) + new))
        rows = [account_row(number, height) for number in numbers]
        for number, row in zip(numbers, rows, strict=True):
            self.accounts[number : number + 1] = [row]
        journal = [(table, key, value) for (table, key), value in sorted(changes.items())]
        return journal, b"".join(rows)

    def rows(self) -> tuple[list[tuple[int, bytes, bytes]], bytes]:
        """All tables, as a store gives them."""
        records = [(table, key, value) for (table, key), value in sorted(self.records.items())]
        return records, b"".join(self.accounts)


def rows_of(store: Store) -> tuple[list[tuple[int, bytes, bytes]], bytes]:
    """All tables of a store."""
    return list(store.load_records()), b"".join(store.load_accounts())


@dataclass
class TableChain:
    """Writes blocks into a store, and keeps the model."""

    store: Store
    seed: int = 0
    blocks: list[Block] = field(default_factory=list)
    oldest_open_height: int | None = None
    genesis: Genesis = field(default_factory=genesis)
    epoch_blocks: int = 0
    """0 for one epoch for ever."""

    def __post_init__(self) -> None:
        self.tables = Tables(self.seed)
        self.roots = [self._link(0, ()).extend(bytes(32))]
        if self.store.height is None:
            self.store.commit_genesis(self._link(0, ()), self.roots[0], bytes(32), ())
        for height in range(1, (self.store.height or 0) + 1):
            self._append(self._commit_of(height))

    @property
    def height(self) -> int:
        return len(self.blocks)

    def commit(self, count: int = 1) -> None:
        """Put a batch and commit a block, so many times."""
        for _ in range(count):
            commit = self._commit_of(self.height + 1)
            self.store.put_batch(batch(*self.place(self.height + 1)), sync=False)
            self.store.commit_block(commit)
            self._append(commit)

    def place(self, height: int) -> tuple[int, int]:
        """Sequence and epoch of the batch that a block makes final."""
        epoch = (height - 1) // self.epoch_blocks if self.epoch_blocks else 0
        return height - epoch * self.epoch_blocks, epoch

    def _append(self, commit: BlockCommit) -> None:
        self.blocks.append(commit.block)
        self.roots.append(commit.execution_root)

    def _commit_of(self, height: int) -> BlockCommit:
        parent = self.blocks[-1].digest() if self.blocks else self.genesis.digest()
        executed = max(0, height - 2)
        header = batch(*self.place(height)).header
        cut = (Tip(0, header.sequence, header.digest()),)
        fresh = block(height, parent, (executed, self.roots[executed]), cut)
        fresh = replace(fresh, epoch=header.epoch)
        leaves = tuple(transaction_leaf(height, index) for index in range(3))
        link = self._link(height, leaves)
        journal, accounts = self.tables.turn(height)
        return BlockCommit(
            block=fresh,
            beacon=sha256(f"beacon-{height}".encode()),
            certificate=None,
            link=link,
            execution_root=link.extend(self.roots[-1]),
            receipt_leaves=leaves,
            events=(b"E" + height.to_bytes(8, "big"),),
            journal=journal,
            accounts=accounts,
            oldest_open_height=self.oldest_open_height,
            payloads=((payload_digest(height), payload(height)),),
            job_origins=(JobOrigin(job(height), transaction(height), 0),),
        )

    @staticmethod
    def _link(height: int, leaves: tuple[bytes, ...]) -> ExecutionLink:
        root = merkle.root([merkle.leaf_hash(leaf) for leaf in leaves])
        return ExecutionLink(height, sha256(f"state-{height}".encode()), root, merkle.root([]))


def batch(sequence: int, epoch: int = 0) -> Batch:
    """The batch that the block makes final which is the `sequence`th of its epoch."""
    data = f"batch {sequence}".encode() * 100
    header = BatchHeader(epoch, 0, sequence, sha256(f"parent {sequence}".encode()), sha256(data))
    return Batch(header, bytes(64), data)


def transaction(height: int, index: int = 0) -> bytes:
    """An id that is among a block's receipts."""
    return transaction_leaf(height, index)[1:33]


def job(height: int) -> bytes:
    """An id that a block's origins name."""
    return sha256(f"job-{height}".encode())


def payload(height: int) -> bytes:
    """What a block stores for a job."""
    return f"payload of {height}".encode()


def payload_digest(height: int) -> bytes:
    """Its digest."""
    return sha256(payload(height))
