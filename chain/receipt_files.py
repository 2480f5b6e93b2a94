"""Receipts as files: JSON that people can read, and protobuf.

JSON shows the request and the result twice: the signed bytes, and what they say. Only the bytes and
the wire values are read; then everything is rendered again and compared with what the file shows,
to the type of each number. So no line of a receipt can be changed, added or removed without being
noticed, whether or not it is hashed. Protobuf files must be byte for byte what this module would
write.
"""

import json
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError as ProtobufError

from assay.v1 import inference_pb2, receipts_pb2, transactions_pb2
from chain import readable
from chain.readable import ReadableError
from chain.receipts import (
    PathStep,
    Receipt,
    ReceiptFault,
    ReceiptInvalid,
    parse_request,
    parse_result,
)
from chain.records import ExecutionLink, JobReceipt
from consensus.values import Block, Certificate
from consensus.wire import DecodeError, decode, encode

FILE_BYTES_MAX: Final = 16 << 20


def to_json(receipt: Receipt) -> dict[str, Any]:
    """The JSON form, most interesting first."""
    request = parse_request(receipt.request)
    result = None if receipt.result is None else parse_result(receipt.result)
    return {
        "version": receipt.version,
        "chain_id": receipt.chain_id,
        "genesis": receipt.genesis.hex(),
        "job": readable.render(receipt.job_receipt),
        "request": {"bytes": receipt.request.hex(), **_show_request(request)},
        "result": None
        if receipt.result is None or result is None
        else {"bytes": receipt.result.hex(), **_show_result(result)},
        "origin": {"transaction": receipt.transaction.hex(), "operation": receipt.operation},
        "inclusion": {
            "path": readable.render(receipt.path),
            "previous_root": receipt.previous_root.hex(),
            "links": readable.render(receipt.links),
        },
        "finality": {
            "header": readable.render(receipt.header),
            "descendants": readable.render(receipt.descendants),
            "certificate": readable.render(receipt.certificate),
            "epoch_boundaries": readable.render(receipt.epoch_boundaries),
        },
    }


def _show_request(request: transactions_pb2.RequestInference) -> dict[str, Any]:
    return {
        "model": request.model.hex(),
        "input": _show_input(request.input),
        "sampling": {
            "temperature_milli": request.sampling.temperature_milli,
            "top_k": request.sampling.top_k,
            "top_p_milli": request.sampling.top_p_milli,
            "max_output_tokens": request.sampling.max_output_tokens,
            "stop": list(request.sampling.stop),
            "min_tokens": request.sampling.min_tokens,
            "logprob_ceiling_milli": request.sampling.logprob_ceiling_milli,
        },
        "max_price": request.max_price,
        "tier": _enum_name(transactions_pb2.Tier, request.tier),
        "provider": request.provider.hex(),
        "answer_within_ms": request.answer_within_ms,
        "seed": request.seed.hex(),
    }


def _show_input(asked: inference_pb2.InferenceInput) -> dict[str, Any]:
    kind = asked.WhichOneof("kind")
    if kind == "text":
        return {"text": asked.text}
    if kind == "chat":
        return {
            "chat": [
                {"role": _enum_name(inference_pb2.Role, turn.role), "content": turn.content}
                for turn in asked.chat.messages
            ]
        }
    return {"token_ids": list(asked.token_ids.ids)}


def _show_result(result: inference_pb2.InferenceResult) -> dict[str, Any]:
    return {
        "text": result.text,
        "token_ids": list(result.token_ids),
        "logprobs": list(result.logprobs),
        "finish_reason": _enum_name(inference_pb2.FinishReason, result.finish_reason),
        "input_tokens": result.input_tokens,
        "engine_profile": result.engine_profile,
    }


def _enum_name(kind: Any, number: int) -> str:
    """The schema's name, or the number of a value that is younger than this program."""
    descriptor = kind.DESCRIPTOR.values_by_number.get(number)
    return str(number) if descriptor is None else str(descriptor.name)


def from_json(data: Any) -> Receipt:
    """The receipt in parsed JSON. Raises ReceiptInvalid(UNREADABLE)."""
    try:
        receipt = _from_json(data)
        encode(receipt)  # sizes and counts within their bounds
    except (ReadableError, ValueError) as error:
        raise ReceiptInvalid(ReceiptFault.UNREADABLE, str(error)) from error
    difference = _first_difference(to_json(receipt), data, "receipt")
    if difference is not None:
        raise ReceiptInvalid(ReceiptFault.UNREADABLE, difference)
    return receipt


def _from_json(data: Any) -> Receipt:
    names = ("version", "chain_id", "genesis", "job", "request", "result", "origin", "inclusion")
    top = readable.take_fields(data, (*names, "finality"), "receipt")
    origin = readable.take_fields(top["origin"], ("transaction", "operation"), "origin")
    inclusion = readable.take_fields(
        top["inclusion"], ("path", "previous_root", "links"), "inclusion"
    )
    finality = readable.take_fields(
        top["finality"], ("header", "descendants", "certificate", "epoch_boundaries"), "finality"
    )
    result = top["result"]
    return Receipt(
        version=readable.take_integer(top["version"], "version", 0, 255),
        chain_id=readable.take_text(top["chain_id"], "chain_id"),
        genesis=readable.take_bytes(top["genesis"], "genesis", 32),
        transaction=readable.take_bytes(origin["transaction"], "origin.transaction", 32),
        operation=readable.take_integer(origin["operation"], "origin.operation", 0, 0xFFFFFFFF),
        request=_signed_bytes(top["request"], "request"),
        result=None if result is None else _signed_bytes(result, "result"),
        job_receipt=readable.parse(JobReceipt, top["job"], "job"),
        path=_list(PathStep, inclusion["path"], "inclusion.path"),
        previous_root=readable.take_bytes(
            inclusion["previous_root"], "inclusion.previous_root", 32
        ),
        links=_list(ExecutionLink, inclusion["links"], "inclusion.links"),
        header=readable.parse(Block, finality["header"], "finality.header"),
        descendants=_list(Block, finality["descendants"], "finality.descendants"),
        certificate=readable.parse(Certificate, finality["certificate"], "finality.certificate"),
        epoch_boundaries=tuple(
            readable.take_bytes(item, "finality.epoch_boundaries")
            for item in readable.take_list(
                finality["epoch_boundaries"], "finality.epoch_boundaries"
            )
        ),
    )


def _signed_bytes(data: Any, place: str) -> bytes:
    if not isinstance(data, dict) or "bytes" not in data:
        raise ReadableError(f"{place}.bytes: missing")
    return readable.take_bytes(data["bytes"], f"{place}.bytes")


def _list(kind: type[Any], data: Any, place: str) -> tuple[Any, ...]:
    items = readable.take_list(data, place)
    return tuple(
        readable.parse(kind, item, f"{place}[{index}]") for index, item in enumerate(items)
    )


def _first_difference(right: Any, shown: Any, place: str) -> str | None:
    """Where a file shows something else than its own evidence says, in words; None if nowhere."""
    if isinstance(right, dict) and isinstance(shown, dict):
        for name in shown:
            if name not in right:
                return f"{place}.{name}: unknown field"
        for name, value in right.items():
            if name not in shown:
                return f"{place}.{name}: missing"
            found = _first_difference(value, shown[name], f"{place}.{name}")
            if found is not None:
                return found
        return None
    if isinstance(right, list) and isinstance(shown, list):
        if len(right) != len(shown):
            return f"{place}: {len(shown)} elements, the evidence has {len(right)}"
        for index, (one, other) in enumerate(zip(right, shown, strict=True)):
            found = _first_difference(one, other, f"{place}[{index}]")
            if found is not None:
                return found
        return None
    if type(right) is not type(shown) or right != shown:
        return f"{place}: shows {shown!r:.80}, the evidence says {right!r:.80}"
    return None


def to_protobuf(receipt: Receipt) -> receipts_pb2.Receipt:
    """The protobuf form."""
    return receipts_pb2.Receipt(
        version=receipt.version,
        chain_id=receipt.chain_id,
        genesis=receipt.genesis,
        transaction=receipt.transaction,
        operation=receipt.operation,
        request=receipt.request,
        result=receipt.result,
        job_receipt=encode(receipt.job_receipt),
        path=[
            receipts_pb2.PathStep(sibling=step.sibling, sibling_is_left=step.sibling_is_left)
            for step in receipt.path
        ],
        previous_root=receipt.previous_root,
        links=[encode(link) for link in receipt.links],
        header=encode(receipt.header),
        descendants=[encode(block) for block in receipt.descendants],
        certificate=encode(receipt.certificate),
        epoch_boundaries=receipt.epoch_boundaries,
    )


def from_protobuf(message: receipts_pb2.Receipt) -> Receipt:
    """The receipt in a message, which must hold nothing else. Raises ReceiptInvalid(UNREADABLE)."""
    try:
        receipt = Receipt(
            version=message.version,
            chain_id=message.chain_id,
            genesis=message.genesis,
            transaction=message.transaction,
            operation=message.operation,
            request=message.request,
            result=message.result if message.HasField("result") else None,
            job_receipt=decode(JobReceipt, message.job_receipt),
            path=tuple(PathStep(step.sibling, step.sibling_is_left) for step in message.path),
            previous_root=message.previous_root,
            links=tuple(decode(ExecutionLink, link) for link in message.links),
            header=decode(Block, message.header),
            descendants=tuple(decode(Block, block) for block in message.descendants),
            certificate=decode(Certificate, message.certificate),
            epoch_boundaries=tuple(message.epoch_boundaries),
        )
        encode(receipt)  # sizes and counts within their bounds
    except (DecodeError, ValueError) as error:
        raise ReceiptInvalid(ReceiptFault.UNREADABLE, str(error)) from error
    if _serialise(to_protobuf(receipt)) != _serialise(message):
        raise ReceiptInvalid(ReceiptFault.UNREADABLE, "the message has unknown fields")
    return receipt


def _serialise(message: receipts_pb2.Receipt) -> bytes:
    return message.SerializeToString(deterministic=True)


def dump_json(receipt: Receipt) -> bytes:
    """A JSON file's content."""
    return (json.dumps(to_json(receipt), indent=2, ensure_ascii=False) + "\n").encode()


def dump_protobuf(receipt: Receipt) -> bytes:
    """A protobuf file's content."""
    return _serialise(to_protobuf(receipt))


def load(data: bytes) -> Receipt:
    """The receipt in a file of either form. Raises ReceiptInvalid(UNREADABLE)."""
    if len(data) > FILE_BYTES_MAX:
        raise ReceiptInvalid(
            ReceiptFault.UNREADABLE, f"{len(data)} bytes, allowed are {FILE_BYTES_MAX}"
        )
    # A protobuf receipt begins with the tag of its first field, never with a brace.
    if data.lstrip(b" \t\r\n").startswith(b"{"):
        try:
            return from_json(readable.parse_object(data.decode()))
        except UnicodeDecodeError as error:
            raise ReceiptInvalid(ReceiptFault.UNREADABLE, "the text is not UTF-8") from error
        except ReadableError as error:
            raise ReceiptInvalid(ReceiptFault.UNREADABLE, str(error)) from error
    try:
        message = receipts_pb2.Receipt.FromString(data)
    except ProtobufError as error:
        raise ReceiptInvalid(
            ReceiptFault.UNREADABLE, f"neither JSON nor a protobuf receipt: {error}"
        ) from error
    receipt = from_protobuf(message)
    if dump_protobuf(receipt) != data:
        raise ReceiptInvalid(ReceiptFault.UNREADABLE, "not the canonical protobuf encoding")
    return receipt


def read(path: Path) -> Receipt:
    """The receipt in a file. Raises ReceiptInvalid(UNREADABLE) or OSError."""
    with path.open("rb") as file:
        return load(file.read(FILE_BYTES_MAX + 1))
