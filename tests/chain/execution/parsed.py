"""What a transaction's body must be parsed into, by the protobuf library and Python's rules."""

from google.protobuf.message import DecodeError

from assay.v1 import transactions_pb2 as pb
from chain.execution import NewJob, jobs
from chain.rejections import Rejection
from chain.transactions import decode_transaction, job_id
from ext.bodies import OTHER, REQUEST, RESULT, Bodies, parse_bodies
from ext.transactions import parse_batch

CHAIN = "assay-test"
SENDER = bytes(range(32))


def parse(body: bytes) -> Bodies:
    signed = pb.SignedTx(body=body, public_key=SENDER, signature=bytes(64))
    payload = pb.BatchPayload(transactions=[signed]).SerializeToString()
    return parse_bodies(parse_batch(payload), CHAIN.encode(), jobs.LIMITS)


def is_canonical(body: bytes) -> bool:
    """Whether the library writes these very bytes, without what it does not know."""
    try:
        known = pb.TxBody.FromString(body)
    except DecodeError:
        return False
    known.DiscardUnknownFields()
    return known.SerializeToString(deterministic=True) == body


def expected(body: bytes) -> tuple[int, jobs.Request | jobs.Result | None]:
    """The class of a body without plain transfers, and what is read out of it."""
    if not is_canonical(body):
        return OTHER, None
    try:
        transaction = decode_transaction(CHAIN, body, SENDER)
        if len(transaction.op_bytes) != 1 or transaction.session_key is not None:
            return OTHER, None
        operation, signed = transaction.body.ops[0], transaction.op_bytes[0]
        if operation.WhichOneof("kind") == "request_inference":
            request = jobs.read_request(operation.request_inference, signed)
            return (REQUEST, request) if len(request.model) == 32 else (OTHER, None)
        if operation.WhichOneof("kind") == "submit_result":
            result = jobs.read_result(operation.submit_result, signed)
            return (RESULT, result) if len(result.job) == 32 else (OTHER, None)
    except Rejection:
        pass
    return OTHER, None


def assert_parsed_alike(body: bytes) -> int:
    """A body without plain transfers is parsed natively as `expected` says; its class."""
    kind, read = expected(body)
    parsed = parse(body)
    assert parsed.classes.tolist() == [kind], body.hex()
    if kind == OTHER:
        return kind
    message = pb.TxBody.FromString(body)
    assert parsed.sender(0) == SENDER
    assert int(parsed.valid_until_heights[0]) == message.valid_until_height
    assert int(parsed.max_fees[0]) == message.max_fee
    assert (int(parsed.operation_counts[0]), int(parsed.body_bytes[0])) == (1, len(body))
    if kind == REQUEST:
        assert parsed.request(0, jobs.Request) == read
        opened = parsed.job_opened(0, NewJob)
        assert opened == NewJob(job_id(opened.transaction, 0), parsed.transaction_id(0), 0)
    else:
        assert parsed.result(0, jobs.Result) == read
    return kind
