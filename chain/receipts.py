"""Receipts: one job, proven from its request to the quorum that made it final, without a network.

What is checked, in this order; each step hashes to the next, so nothing in between can be changed:

    request, result bytes --digest--> job receipt --leaf, path--> receipts root of the job's block
    --links--> execution root --named by--> header --parents--> certified block
    --signed by--> more than two thirds of the stake of its epoch's validators
    --named by--> the boundary of the epoch before, and so back to genesis' validators

The job's id follows from the transaction that asked for it. A verifier needs the receipt and the
genesis file it trusts, nothing else; a set that it has followed to (`chain.light`) saves it the
boundaries before. `receipt_files` writes receipts as JSON and protobuf.
"""

import enum
from dataclasses import dataclass
from typing import Annotated, Final

from google.protobuf.message import DecodeError as ProtobufError

from assay.v1 import inference_pb2, transactions_pb2
from chain.genesis import Genesis
from chain.light import BOUNDARY_BYTES_MAX, decode_boundary
from chain.records import ExecutionLink, JobReceipt, JobStatus
from chain.rejections import Rejection, RejectionReason
from chain.store import Store
from consensus.epochs import BoundaryInvalid
from consensus.values import Block, Certificate, ValidatorSet, VoteKind
from consensus.wire import U8, U32, Count, DecodeError, Hash, Size, decode, encode
from ext import merkle
from ext.hashing import tagged_hash
from ext.signatures import verify_many

VERSION: Final = 1
CHAIN_ID_BYTES_MAX: Final = 64
MESSAGE_BYTES_MAX: Final = 1 << 20
PATH_STEPS_MAX: Final = 64
LINKS_MAX: Final = 4096
DESCENDANTS_MAX: Final = 1024
BOUNDARIES_MAX: Final = 1024
BOUNDARIES_BYTES_MAX: Final = 2 << 20
"""That a node puts into a receipt: some 120 epochs of 100 validators, some thousand of four."""
JOB_LEAF: Final = b"J"


class ReceiptFault(enum.StrEnum):
    """Why a receipt proves nothing."""

    UNREADABLE = "UNREADABLE"
    """Not the one way to write a receipt, or two places in it contradict each other."""
    WRONG_CHAIN = "WRONG_CHAIN"
    WRONG_JOB = "WRONG_JOB"
    REQUEST_ALTERED = "REQUEST_ALTERED"
    RESULT_ALTERED = "RESULT_ALTERED"
    NOT_IN_BLOCK = "NOT_IN_BLOCK"
    EXECUTION_MISMATCH = "EXECUTION_MISMATCH"
    HEADER_MISMATCH = "HEADER_MISMATCH"
    UNKNOWN_EPOCH = "UNKNOWN_EPOCH"
    BAD_BOUNDARY = "BAD_BOUNDARY"
    NOT_FINAL = "NOT_FINAL"
    NO_QUORUM = "NO_QUORUM"
    BAD_SIGNATURE = "BAD_SIGNATURE"


class ReceiptInvalid(Exception):
    """The receipt proves nothing; `detail` says what was seen and what would be right."""

    def __init__(self, reason: ReceiptFault, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class PathStep:
    """One sibling on the way from a leaf to the root, and its side."""

    sibling: Hash
    sibling_is_left: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """Evidence about one job; nothing in it is believed before `verify_receipt`."""

    version: U8
    chain_id: Annotated[str, Size(CHAIN_ID_BYTES_MAX)]
    genesis: Hash
    transaction: Hash
    operation: U32
    request: Annotated[bytes, Size(MESSAGE_BYTES_MAX)]
    """The RequestInference message as it was signed."""
    result: Annotated[bytes, Size(MESSAGE_BYTES_MAX)] | None
    """The InferenceResult message as it was signed; None if nobody answered."""
    job_receipt: JobReceipt
    path: Annotated[tuple[PathStep, ...], Count(PATH_STEPS_MAX)]
    """From the job receipt's leaf to the receipts root of its block, lowest first."""
    previous_root: Hash
    """Execution root before the job's block."""
    links: Annotated[tuple[ExecutionLink, ...], Count(LINKS_MAX)]
    """From the job's block to the header's `executed_height`."""
    header: Block
    descendants: Annotated[tuple[Block, ...], Count(DESCENDANTS_MAX)]
    """From the header's child to the certified block; none if the header is certified itself."""
    certificate: Certificate
    epoch_boundaries: Annotated[
        tuple[Annotated[bytes, Size(BOUNDARY_BYTES_MAX)], ...], Count(BOUNDARIES_MAX)
    ]
    """The ends of the epochs before the certificate's, rising: from genesis on, or as many as fit.
    `consensus.epochs` has their layout."""


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt proves, once verified against a genesis."""

    receipt: Receipt
    result: inference_pb2.InferenceResult | None
    signers: tuple[int, ...]
    signed_stake: int
    total_stake: int

    @property
    def job(self) -> bytes:
        """The job's id."""
        return self.receipt.job_receipt.job

    @property
    def status(self) -> JobStatus:
        """How the chain ruled."""
        return self.receipt.job_receipt.status


def verify_receipt(
    receipt: Receipt, genesis: Genesis, trusted: ValidatorSet | None = None
) -> VerifiedReceipt:
    """What the receipt proves to somebody who trusts `genesis`, and of its chain perhaps a later
    set of validators. Raises ReceiptInvalid."""
    _check_origin(receipt, genesis)
    result = _check_messages(receipt)
    _check_execution(receipt)
    certified = _check_headers(receipt)
    validators = _follow_boundaries(receipt, genesis, trusted)
    signed_stake = _check_certificate(receipt.certificate, certified, validators, genesis.chain_id)
    return VerifiedReceipt(
        receipt=receipt,
        result=result,
        signers=receipt.certificate.signers,
        signed_stake=signed_stake,
        total_stake=validators.stake_total,
    )


def request_digest(request: bytes) -> bytes:
    """What a job keeps of its RequestInference message."""
    return tagged_hash(b"request", request)


def result_digest(result: bytes) -> bytes:
    """What a job keeps of its InferenceResult message."""
    return tagged_hash(b"result", result)


def _check_origin(receipt: Receipt, genesis: Genesis) -> None:
    if receipt.version != VERSION:
        raise ReceiptInvalid(
            ReceiptFault.UNREADABLE, f"version {receipt.version}, this program reads {VERSION}"
        )
    if (receipt.chain_id, receipt.genesis) != (genesis.chain_id, genesis.digest()):
        raise ReceiptInvalid(
            ReceiptFault.WRONG_CHAIN,
            f"the receipt is of chain {receipt.chain_id} (genesis {receipt.genesis.hex()}), the "
            f"genesis file of {genesis.chain_id} ({genesis.digest().hex()})",
        )
    operation = receipt.operation.to_bytes(4, "little")
    job = tagged_hash(b"job", receipt.transaction, operation)
    if job != receipt.job_receipt.job:
        raise ReceiptInvalid(
            ReceiptFault.WRONG_JOB,
            f"operation {receipt.operation} of transaction {receipt.transaction.hex()} makes job "
            f"{job.hex()}, the job receipt is of {receipt.job_receipt.job.hex()}",
        )


def _check_messages(receipt: Receipt) -> inference_pb2.InferenceResult | None:
    ruled = receipt.job_receipt
    digest = request_digest(receipt.request)
    if digest != ruled.request_digest:
        raise ReceiptInvalid(
            ReceiptFault.REQUEST_ALTERED,
            f"the request hashes to {digest.hex()}, the chain has {ruled.request_digest.hex()}",
        )
    found = None if receipt.result is None else result_digest(receipt.result)
    if found != ruled.result_digest:
        raise ReceiptInvalid(
            ReceiptFault.RESULT_ALTERED,
            f"the result hashes to {_shown(found)}, the chain has {_shown(ruled.result_digest)}",
        )
    parse_request(receipt.request)
    return None if receipt.result is None else parse_result(receipt.result)


def _shown(digest: bytes | None) -> str:
    return "none" if digest is None else digest.hex()


def parse_request(data: bytes) -> transactions_pb2.RequestInference:
    """The request message. Raises ReceiptInvalid."""
    try:
        return transactions_pb2.RequestInference.FromString(data)
    except ProtobufError as error:
        raise ReceiptInvalid(ReceiptFault.UNREADABLE, f"the request: {error}") from error


def parse_result(data: bytes) -> inference_pb2.InferenceResult:
    """The result message. Raises ReceiptInvalid."""
    try:
        return inference_pb2.InferenceResult.FromString(data)
    except ProtobufError as error:
        raise ReceiptInvalid(ReceiptFault.UNREADABLE, f"the result: {error}") from error


def _check_execution(receipt: Receipt) -> None:
    links = receipt.links
    if not links or links[0].height != receipt.job_receipt.height:
        raise ReceiptInvalid(
            ReceiptFault.EXECUTION_MISMATCH,
            f"the links must begin at the job's height, {receipt.job_receipt.height}",
        )
    root = merkle.leaf_hash(receipt.job_receipt.leaf())
    for step in receipt.path:
        pair = [step.sibling, root] if step.sibling_is_left else [root, step.sibling]
        root = merkle.root(pair)
    if root != links[0].receipts_root:
        raise ReceiptInvalid(
            ReceiptFault.NOT_IN_BLOCK,
            f"job receipt and path lead to {root.hex()}, the receipts root of block "
            f"{links[0].height} is {links[0].receipts_root.hex()}",
        )
    execution_root = receipt.previous_root
    for offset, link in enumerate(links):
        if link.height != links[0].height + offset:
            raise ReceiptInvalid(
                ReceiptFault.EXECUTION_MISMATCH,
                f"link {offset} is of height {link.height}, not {links[0].height + offset}",
            )
        execution_root = link.extend(execution_root)
    header = receipt.header
    if (links[-1].height, execution_root) != (header.executed_height, header.executed_root):
        raise ReceiptInvalid(
            ReceiptFault.EXECUTION_MISMATCH,
            f"the links lead to {execution_root.hex()} at height {links[-1].height}, the header "
            f"names {header.executed_root.hex()} at {header.executed_height}",
        )


def _check_headers(receipt: Receipt) -> Block:
    """The certified block, once every header leads to it."""
    block = receipt.header
    for child in receipt.descendants:
        if (child.parent, child.height) != (block.digest(), block.height + 1):
            raise ReceiptInvalid(
                ReceiptFault.HEADER_MISMATCH,
                f"block {child.height} is no child of block {block.height}, {block.digest().hex()}",
            )
        block = child
    return block


def _follow_boundaries(
    receipt: Receipt, genesis: Genesis, trusted: ValidatorSet | None
) -> ValidatorSet:
    """The validators of the certificate's epoch, on the word of those before them."""
    epoch = receipt.certificate.body.epoch
    validators = genesis.validator_set()
    if trusted is not None and trusted.epoch <= epoch:
        validators = trusted
    first = epoch - len(receipt.epoch_boundaries)
    if first > validators.epoch or first < 0:
        raise ReceiptInvalid(
            ReceiptFault.UNKNOWN_EPOCH,
            f"the certificate is of epoch {epoch} and comes with {len(receipt.epoch_boundaries)} "
            f"boundaries, trusted are the validators of epoch {validators.epoch}: follow the chain "
            "to a later set, and trust that",
        )
    try:
        for offset, data in enumerate(receipt.epoch_boundaries):
            boundary = decode_boundary(data)
            if boundary.block.epoch != first + offset:
                raise BoundaryInvalid(
                    f"boundary {offset} ends epoch {boundary.block.epoch}, not {first + offset}"
                )
            if boundary.block.epoch >= validators.epoch:
                validators = boundary.follow(validators, genesis.chain_id)
    except BoundaryInvalid as error:
        raise ReceiptInvalid(ReceiptFault.BAD_BOUNDARY, str(error)) from error
    return validators


def _check_certificate(
    certificate: Certificate, block: Block, validators: ValidatorSet, chain_id: str
) -> int:
    """Stake behind the certificate, once it makes `block` final."""
    body = certificate.body
    if body.kind is not VoteKind.FINALIZE:
        raise ReceiptInvalid(
            ReceiptFault.NOT_FINAL, f"the certificate's kind is {body.kind.name}, not FINALIZE"
        )
    if (body.epoch, block.epoch) != (validators.epoch, validators.epoch):
        raise ReceiptInvalid(
            ReceiptFault.UNKNOWN_EPOCH,
            f"certificate of epoch {body.epoch}, block of {block.epoch}, the validators are of "
            f"epoch {validators.epoch}",
        )
    named = (body.digest, body.view, body.parent_view)
    if named != (block.digest(), block.view, block.parent_view):
        raise ReceiptInvalid(
            ReceiptFault.HEADER_MISMATCH,
            f"the certificate is for block {body.digest.hex()} of view {body.view}, the headers "
            f"lead to {block.digest().hex()} of view {block.view}",
        )
    stake = _check_quorum(certificate, validators)
    message = body.signed_message(chain_id)
    checked = verify_many(
        [
            (validators.by_index[signer].signing_key, message, signature)
            for signer, signature in zip(certificate.signers, certificate.signatures, strict=True)
        ]
    )
    if not all(checked):
        signer = certificate.signers[checked.index(False)]
        raise ReceiptInvalid(
            ReceiptFault.BAD_SIGNATURE, f"validator {signer}'s signature does not cover this vote"
        )
    return stake


def _check_quorum(certificate: Certificate, validators: ValidatorSet) -> int:
    signers = certificate.signers
    if len(signers) != len(certificate.signatures):
        raise ReceiptInvalid(
            ReceiptFault.NO_QUORUM,
            f"{len(signers)} signers and {len(certificate.signatures)} signatures",
        )
    if list(signers) != sorted(set(signers)) or not set(signers) <= validators.by_index.keys():
        raise ReceiptInvalid(
            ReceiptFault.NO_QUORUM,
            f"signers {list(signers)} must rise and be of {list(validators.ids)}",
        )
    stake = validators.weight(frozenset(signers))
    if stake < validators.quorum_stake:
        raise ReceiptInvalid(
            ReceiptFault.NO_QUORUM,
            f"signed by {stake} of {validators.stake_total} stake, "
            f"needed {validators.quorum_stake}",
        )
    return stake


def path_steps(leaf_hashes: list[bytes], index: int) -> tuple[PathStep, ...]:
    """The way from leaf `index` to the root, lowest first, each sibling with its side."""
    steps: list[PathStep] = []
    siblings = merkle.proof(leaf_hashes, index)
    node, last = index, len(leaf_hashes) - 1
    for sibling in siblings:
        # A last node without a partner rises unchanged until it is a right child.
        while node % 2 == 0 and node == last:
            node, last = node >> 1, last >> 1
        steps.append(PathStep(sibling, sibling_is_left=node % 2 == 1))
        node, last = node >> 1, last >> 1
    return tuple(steps)


def build_receipt(store: Store, genesis: Genesis, job: bytes) -> Receipt:
    """The receipt of a finished job from a validator's store.

    Raises Rejection: UNKNOWN_JOB; NOT_READY while the job is open or no certified block vouches
    for its outcome yet; PRUNED if something of it was.
    """
    location = store.job_location(job)
    origin = store.job_origin(job)
    if origin is None and location is not None:
        raise _pruned(store, job)
    if origin is None:
        detail = f"no job {job.hex()}; check the id{store.kept_note()}"
        raise Rejection(RejectionReason.UNKNOWN_JOB, detail)
    if location is None:
        raise Rejection(RejectionReason.NOT_READY, f"job {job.hex()} is open; ask again later")
    leaves = store.receipts_at(location.height)
    previous_root = store.execution_root_at(location.height - 1)
    ruled = _job_receipt(leaves[location.index]) if location.index < len(leaves) else None
    request = None if ruled is None else store.payload(ruled.request_digest)
    if ruled is None or request is None or previous_root is None:
        raise _pruned(store, job)
    result = None if ruled.result_digest is None else store.payload(ruled.result_digest)
    if result is None and ruled.result_digest is not None:
        raise _pruned(store, job)
    header, links = attestation(store, location.height)
    certified = store.certificate_at(header.height)
    if certified is None:
        raise _not_attested(location.height)
    descendants = store.final_blocks_from(header.height + 1, certified[0] - header.height)
    return Receipt(
        version=VERSION,
        chain_id=genesis.chain_id,
        genesis=genesis.digest(),
        transaction=origin.transaction,
        operation=origin.operation,
        request=request,
        result=result,
        job_receipt=ruled,
        path=path_steps([merkle.leaf_hash(leaf) for leaf in leaves], location.index),
        previous_root=previous_root,
        links=links,
        header=header,
        descendants=tuple(descendants),
        certificate=certified[1],
        epoch_boundaries=_boundaries(store, certified[1].body.epoch),
    )


def _boundaries(store: Store, epoch: int) -> tuple[bytes, ...]:
    """The ends of the epochs before this one, the newest that a receipt has room for."""
    found: list[bytes] = []
    room = BOUNDARIES_BYTES_MAX
    for ended in range(epoch - 1, max(0, epoch - BOUNDARIES_MAX) - 1, -1):
        boundary = store.boundary(ended)
        if boundary is None:
            raise Rejection(
                RejectionReason.NOT_READY,
                f"this node has no boundary of epoch {ended} yet; ask another one, or again later",
            )
        data = encode(boundary)
        room -= len(data)
        if room < 0:
            break
        found.append(data)
    return tuple(reversed(found))


def _job_receipt(leaf: bytes) -> JobReceipt | None:
    if not leaf.startswith(JOB_LEAF):
        return None
    try:
        return decode(JobReceipt, leaf[len(JOB_LEAF) :])
    except DecodeError:
        return None


def attestation(store: Store, height: int) -> tuple[Block, tuple[ExecutionLink, ...]]:
    """The first final block that vouches for `height`, and the links up to its claim.

    Raises Rejection (NOT_READY) while there is none.
    """
    low, high = height + 1, store.final_height + 1
    while low < high:  # executed_height never falls from parent to child
        middle = (low + high) // 2
        found = store.final_block(middle)
        if found is not None and found[0].executed_height >= height:
            high = middle
        else:
            low = middle + 1
    attesting = store.final_block(low)
    if attesting is None or attesting[0].executed_height < height:  # final since the search began
        raise _not_attested(height)
    last = attesting[0].executed_height
    blocks = store.blocks_from(height, last - height + 1)
    if len(blocks) != last - height + 1 or len(blocks) > LINKS_MAX:
        raise _not_attested(height)
    return attesting[0], tuple(block.link for block in blocks)


def _pruned(store: Store, job: bytes) -> Rejection:
    return Rejection(
        RejectionReason.PRUNED,
        f"job {job.hex()} is pruned: this node keeps blocks from height "
        f"{store.pruned_through + 1}; ask a node that keeps the archive",
    )


def _not_attested(height: int) -> Rejection:
    return Rejection(
        RejectionReason.NOT_READY,
        f"no certified block vouches for block {height}'s execution yet; ask again in a moment",
    )
