"""What the page's verifier must know of our formats, as one JSON value for its build.

The page checks receipts by itself, so it reads the same bytes as `chain.receipts` does. Layouts,
enumerations and bounds are written down once, in Python's annotations and in the schemas of
`proto/`; this module lists what is reachable from a receipt and a genesis. `make web` runs
`python -m chain.explorer.schema` and the page is built with what it prints.
"""

import enum
import json
import sys
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Union

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

from assay.v1 import inference_pb2, receipts_pb2, transactions_pb2
from chain import receipt_files, receipts
from chain.genesis import FILE_BYTES_MAX as GENESIS_BYTES_MAX
from chain.genesis import STAKE_MAX, Genesis
from chain.genesis import VERSION as GENESIS_VERSION
from chain.parameters import SUPPLY_MAX
from chain.receipts import Receipt, ReceiptFault
from consensus.epochs import EpochBoundary
from consensus.wire import Count, Exactly, Signed, Size, Unsigned

MESSAGES = (
    transactions_pb2.RequestInference.DESCRIPTOR,
    inference_pb2.InferenceResult.DESCRIPTOR,
    receipts_pb2.Receipt.DESCRIPTOR,
)
SCALARS = {
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
    FieldDescriptor.TYPE_SINT32: "sint32",
}


class _Wire:
    """Collects records and enumerations of `consensus.wire` as their layouts are walked."""

    def __init__(self) -> None:
        self.records: dict[str, dict[str, Any]] = {}
        self.enumerations: dict[str, dict[str, int]] = {}

    def layout(self, hint: Any) -> dict[str, Any]:
        """One layout; records and enumerations by name. Raises TypeError for what has none."""
        origin = typing.get_origin(hint)
        if origin is Annotated:
            base, rule = typing.get_args(hint)[:2]
            return self._annotated(base, rule)
        if origin in (Union, types.UnionType):
            (inner,) = (part for part in typing.get_args(hint) if part is not type(None))
            return {"kind": "optional", "of": self.layout(inner)}
        if hint is bool:
            return {"kind": "flag"}
        if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
            self.enumerations[hint.__name__] = {member.name: int(member) for member in hint}
            return {"kind": "enumeration", "name": hint.__name__}
        if isinstance(hint, type) and is_dataclass(hint):
            self.record(hint)
            return {"kind": "record", "name": hint.__name__}
        raise TypeError(f"{hint!r} has no layout")

    def _annotated(self, base: Any, rule: Any) -> dict[str, Any]:
        match rule:
            case Unsigned(width):
                return {"kind": "unsigned", "bytes": width}
            case Signed(width):
                return {"kind": "signed", "bytes": width}
            case Exactly(size):
                return {"kind": "exactly", "bytes": size}
            case Size(limit):
                return {"kind": "text" if base is str else "sized", "limit": limit}
            case Count(limit):
                element = self.layout(typing.get_args(base)[0])
                return {"kind": "list", "limit": limit, "of": element}
        raise TypeError(f"{rule!r} has no layout")

    def record(self, kind: type[Any]) -> None:
        """A dataclass and everything it holds."""
        if kind.__name__ in self.records:
            return
        self.records[kind.__name__] = layouts = {}
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in fields(kind):
            if field.init:
                layouts[field.name] = self.layout(hints[field.name])


class _Protobuf:
    """Collects messages and enumerations as their fields are walked."""

    def __init__(self) -> None:
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.enumerations: dict[str, dict[str, int]] = {}

    def message(self, message: Descriptor) -> None:
        """A message and everything it holds."""
        if message.name in self.messages:
            return
        self.messages[message.name] = []
        self.messages[message.name] += [self._field(field) for field in message.fields]

    def _field(self, field: FieldDescriptor) -> dict[str, Any]:
        oneof = field.containing_oneof
        return {
            "number": field.number,
            "name": field.name,
            "kind": self._kind(field),
            "repeated": field.is_repeated,
            "presence": field.has_presence,
            "oneof": None if oneof is None else oneof.name,
        }

    def _kind(self, field: FieldDescriptor) -> dict[str, str]:
        if field.message_type is not None:
            self.message(field.message_type)
            return {"message": field.message_type.name}
        if field.enum_type is not None:
            self._enumeration(field.enum_type)
            return {"enumeration": field.enum_type.name}
        return {"scalar": SCALARS[field.type]}

    def _enumeration(self, kind: EnumDescriptor) -> None:
        self.enumerations[kind.name] = {value.name: value.number for value in kind.values}


def schema() -> dict[str, Any]:
    """Layouts, messages and bounds, JSON-ready."""
    wire, protobuf = _Wire(), _Protobuf()
    for kind in (Receipt, Genesis, EpochBoundary):
        wire.record(kind)
    for message in MESSAGES:
        protobuf.message(message)
    return {
        "records": wire.records,
        "enumerations": wire.enumerations,
        "messages": protobuf.messages,
        "protobuf_enumerations": protobuf.enumerations,
        "faults": [fault.value for fault in ReceiptFault],
        # Numbers of 64 bits are texts: JavaScript's reader of JSON would round them.
        "bounds": {
            "receipt_version": receipts.VERSION,
            "receipt_bytes_max": receipt_files.FILE_BYTES_MAX,
            "genesis_version": GENESIS_VERSION,
            "genesis_bytes_max": GENESIS_BYTES_MAX,
            "supply_max": str(SUPPLY_MAX),
            "stake_max": str(STAKE_MAX),
        },
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=1) + "\n")
