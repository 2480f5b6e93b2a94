"""Receipt files: any bytes are read or refused; what verifies says what the true receipt says."""

import dataclasses
from collections.abc import Iterator
from functools import cache
from random import Random

from chain import receipt_files
from chain.receipts import Receipt, ReceiptInvalid, verify_receipt
from chain.records import ExecutionLink
from ext import merkle
from ext.hashing import sha256
from tests.builders import block, certify, genesis
from tests.chain.finished_job import OPERATION, REQUEST, RESULT, TRANSACTION, job_receipt
from tests.fuzz.harness import Target, mutated

FRAGMENTS = (
    *(b"{", b"}", b"[", b"]", b'"', b"null", b"-1", b"1e9", b"0", b"\\u0000", b","),
    *(b"\x0a\x00", b"\x12\x00", b"\xff\xff\xff\xff\x0f", b"\x80\x00", bytes(32)),
)


@cache
def _receipt() -> Receipt:
    """A receipt that verifies, of a block whose only leaf is the job's."""
    result = RESULT.SerializeToString()
    job = job_receipt(result)
    previous = sha256(b"previous")
    leaf = merkle.leaf_hash(job.leaf())
    link = ExecutionLink(job.height, sha256(b"state"), merkle.root([leaf]), merkle.root([]))
    header = block(job.height + 2, sha256(b"parent"), (job.height, link.extend(previous)))
    receipt = Receipt(
        version=1,
        chain_id=genesis().chain_id,
        genesis=genesis().digest(),
        transaction=TRANSACTION,
        operation=OPERATION,
        request=REQUEST.SerializeToString(),
        result=result,
        job_receipt=job,
        path=(),
        previous_root=previous,
        links=(link,),
        header=header,
        descendants=(),
        certificate=certify(genesis(), header),
        epoch_boundaries=(),
    )
    verify_receipt(receipt, genesis())
    return receipt


def inputs(source: Random) -> Iterator[bytes]:
    """Both kinds of file with a few edits, and receipts with fields from elsewhere."""
    true = _receipt()
    values = [getattr(true, field.name) for field in dataclasses.fields(true)]
    names = [field.name for field in dataclasses.fields(true)]
    while True:
        receipt = true
        if source.randrange(4) == 0:
            name = source.choice(names)
            kind = type(getattr(true, name))
            alike = [value for value in values if type(value) is kind is not tuple] or [()]
            receipt = dataclasses.replace(true, **{name: source.choice(alike)})
        dump = source.choice((receipt_files.dump_json, receipt_files.dump_protobuf))
        try:
            encoded = dump(receipt)
        except (ValueError, ReceiptInvalid):
            encoded = receipt_files.dump_protobuf(true)
        yield mutated(source, encoded, FRAGMENTS)


def check(data: bytes) -> None:
    """Read, write again in both forms, verify."""
    try:
        receipt = receipt_files.load(data)
    except ReceiptInvalid:
        return
    assert receipt_files.load(receipt_files.dump_protobuf(receipt)) == receipt
    try:
        shown = receipt_files.dump_json(receipt)
    except ReceiptInvalid:  # a request that is no message can't be shown
        assert not data.lstrip().startswith(b"{")
        return
    assert receipt_files.load(shown) == receipt
    try:
        proven = verify_receipt(receipt, genesis())
    except ReceiptInvalid:
        return
    true = _receipt()
    assert proven.receipt.job_receipt == true.job_receipt
    assert (proven.receipt.request, proven.receipt.result) == (true.request, true.result)


TARGET = Target("receipts", inputs, check)
