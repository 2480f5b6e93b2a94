"""A store with a finished job in it: real trees, real signatures, as a node would leave it."""

from dataclasses import dataclass, replace

from assay.v1 import inference_pb2, transactions_pb2
from chain.genesis import Genesis
from chain.receipts import request_digest, result_digest
from chain.records import (
    Bound,
    ExecutionLink,
    JobReceipt,
    JobStatus,
    Payment,
    Thresholds,
    TransactionReceipt,
    VerdictRecord,
)
from chain.store import BlockCommit, JobOrigin, Store
from consensus.values import Block, Scores, Verdict
from ext import merkle
from ext.hashing import sha256, tagged_hash
from tests.builders import block, certify, genesis, key

TRANSACTION = sha256(b"transaction")
OPERATION = 2
JOB = tagged_hash(b"job", TRANSACTION, OPERATION.to_bytes(4, "little"))
JOB_HEIGHT = 3

REQUEST = transactions_pb2.RequestInference(
    model=sha256(b"model"),
    input=inference_pb2.InferenceInput(
        chat=inference_pb2.Chat(
            messages=[inference_pb2.ChatMessage(role=inference_pb2.ROLE_USER, content="Why?\n½")]
        )
    ),
    sampling=inference_pb2.Sampling(
        temperature_milli=800,
        max_output_tokens=4,
        stop=["."],
        min_tokens=2,
        logprob_ceiling_milli=1_500,
    ),
    max_price=1_000_000,
    tier=transactions_pb2.TIER_STANDARD,
)
RESULT = inference_pb2.InferenceResult(
    token_ids=[11, 7_000, 300, 2],
    logprobs=[-5, -1_048_576, 0, -77],
    finish_reason=inference_pb2.FINISH_REASON_STOP,
    input_tokens=12,
    text='Because "why" not',
    engine_profile="reference-f32",
)


NOTHING = Bound(0, 0)


def scores() -> Scores:
    return Scores(4, 0, 0, 0, 3, 9, 0, 2 << 20, 12, True, True)


def job_receipt(result: bytes | None) -> JobReceipt:
    verdicts = tuple(
        VerdictRecord(
            index,
            "reference-f32",
            Verdict.PASS,
            scores(),
            Thresholds(NOTHING, 0, NOTHING, 11, Bound(0, 11), NOTHING, 11),
            sha256(f"reveal-{index}".encode()),
        )
        for index in (1, 2, 3)
    )
    return JobReceipt(
        job=JOB,
        requester=key("alice").public_key,
        model=sha256(b"model"),
        provider=key("account-0").public_key,
        request_digest=request_digest(REQUEST.SerializeToString()),
        result_digest=None if result is None else result_digest(result),
        seed=sha256(b"seed"),
        status=JobStatus.REFUNDED if result is None else JobStatus.VERIFIED,
        height=JOB_HEIGHT,
        input_tokens=12,
        output_tokens=4,
        verdicts=() if result is None else verdicts,
        payments=(Payment(key("account-0").public_key, 520),),
    )


def transaction_leaf(height: int, index: int) -> bytes:
    identity = sha256(f"transaction-{height}-{index}".encode())
    return TransactionReceipt(identity, True, "", 10).leaf()


@dataclass
class Chain:
    """Writes consistent blocks into a store, one after another."""

    store: Store
    genesis: Genesis
    roots: list[bytes]
    blocks: list[Block]

    @classmethod
    def start(cls, store: Store, chain: Genesis | None = None, accounts: bytes = b"") -> "Chain":
        link = ExecutionLink(0, sha256(b"state-0"), merkle.root([]), merkle.root([]))
        root = link.extend(bytes(32))
        records = [(1, b"counter", bytes(8))]
        store.commit_genesis(link, root, sha256(b"beacon-0"), records, accounts)
        return cls(store, chain or genesis(), [root], [])

    @property
    def height(self) -> int:
        return len(self.blocks)

    def next_block(self) -> Block:
        height = self.height + 1
        executed = max(0, height - 2)
        parent = self.blocks[-1].digest() if self.blocks else self.genesis.digest()
        return block(height, parent, (executed, self.roots[executed]))

    def commit(
        self,
        leaves: tuple[bytes, ...] | None = None,
        certified: bool = True,
        payloads: tuple[tuple[bytes, bytes], ...] = (),
        origins: tuple[JobOrigin, ...] = (),
        accounts: bytes = b"",
        events: tuple[bytes, ...] | None = None,
        epoch: int = 0,
    ) -> BlockCommit:
        """Execute one more block; its tables count blocks."""
        fresh = replace(self.next_block(), epoch=epoch)
        height = fresh.height
        leaves = (transaction_leaf(height, 0),) if leaves is None else leaves
        link = ExecutionLink(
            height,
            sha256(f"state-{height}".encode()),
            merkle.root([merkle.leaf_hash(leaf) for leaf in leaves]),
            merkle.root([]),
        )
        root = link.extend(self.roots[-1])
        commit = BlockCommit(
            block=fresh,
            beacon=sha256(f"beacon-{height}".encode()),
            certificate=certify(self.genesis, fresh, (epoch, epoch + 1, epoch + 2))
            if certified
            else None,
            link=link,
            execution_root=root,
            receipt_leaves=leaves,
            events=(b"E" + height.to_bytes(8, "big"),) if events is None else events,
            journal=(
                (1, b"counter", height.to_bytes(8, "big")),
                (2, height.to_bytes(8, "big"), sha256(height.to_bytes(8, "big"))),
                (2, (height - 3).to_bytes(8, "big"), None) if height > 3 else (3, b"early", b"1"),
            ),
            payloads=payloads,
            oldest_open_height=None,
            accounts=accounts,
            job_origins=origins,
        )
        self.store.commit_block(commit)
        self.blocks.append(fresh)
        self.roots.append(root)
        return commit

    def run_job(self, result: bytes | None = RESULT.SerializeToString()) -> None:
        """Blocks up to JOB_HEIGHT, where the job is settled among four transactions."""
        request = REQUEST.SerializeToString()
        ruled = job_receipt(result)
        while self.height < JOB_HEIGHT - 1:
            self.commit(origins=(JobOrigin(JOB, TRANSACTION, OPERATION),))
        payloads = [(ruled.request_digest, request)]
        if result is not None and ruled.result_digest is not None:
            payloads.append((ruled.result_digest, result))
        transactions = [transaction_leaf(JOB_HEIGHT, index) for index in range(4)]
        self.commit((*transactions, ruled.leaf()), payloads=tuple(payloads))
