"""Values of `consensus.wire` as JSON people can read, and back: no more and no less than the value.

Byte strings are lower-case hexadecimal, enumerations their names, integers plain JSON numbers (a
reader in JavaScript needs big integers), tuples lists, absent values null. Reading is strict: a
missing field, a field nobody knows, a name twice, a boolean where a number belongs are all refused
with the place where they stand.
"""

import enum
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, TypeVar, Union

from consensus.wire import Exactly, Signed, Size, Unsigned

T = TypeVar("T")


class ReadableError(ValueError):
    """The JSON is not what was asked for. The message begins with the place."""


def render(value: Any) -> Any:
    """JSON-ready form of a wire dataclass, or of any value that may stand in one."""
    if isinstance(value, enum.IntEnum):
        return value.name
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [render(item) for item in value]
    if is_dataclass(value):
        return {field.name: render(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} has no readable form")


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object. Raises ReadableError for anything else, for repeated names and for NaN."""
    try:
        data = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ReadableError("the file: nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ReadableError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except ReadableError:
        raise
    except ValueError as error:
        raise ReadableError(f"the file: {error}") from error
    if not isinstance(data, dict):
        raise ReadableError("the file: expected one JSON object")
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ReadableError(f"{twice}: named twice in one object")
    return result


def _refuse_constant(name: str) -> Any:
    raise ReadableError(f"{name} is no JSON number")


def take_fields(data: Any, names: tuple[str, ...], place: str) -> Mapping[str, Any]:
    """The object at `place`, which must have exactly these names. Raises ReadableError."""
    if not isinstance(data, dict):
        raise ReadableError(f"{place}: expected an object")
    for name in data:
        if name not in names:
            raise ReadableError(f"{place}.{name}: unknown field; known are {', '.join(names)}")
    for name in names:
        if name not in data:
            raise ReadableError(f"{place}.{name}: missing")
    return data


def take_text(data: Any, place: str) -> str:
    """The text at `place`. Raises ReadableError."""
    if not isinstance(data, str):
        raise ReadableError(f"{place}: expected text")
    return data


def take_integer(data: Any, place: str, low: int, high: int) -> int:
    """The integer at `place`, from `low` to `high`. Raises ReadableError, also for 1.0 and true."""
    if not isinstance(data, int) or isinstance(data, bool):
        raise ReadableError(f"{place}: expected an integer")
    if not low <= data <= high:
        raise ReadableError(f"{place}: {data} is not in {low} to {high}")
    return data


def take_bytes(data: Any, place: str, size: int | None = None) -> bytes:
    """Bytes written as lower-case hexadecimal digits. Raises ReadableError."""
    digits = take_text(data, place)
    if len(digits) % 2 or any(digit not in "0123456789abcdef" for digit in digits):
        raise ReadableError(f"{place}: expected lower-case hexadecimal digits, two for a byte")
    if size is not None and len(digits) != 2 * size:
        raise ReadableError(f"{place}: {len(digits) // 2} bytes, expected {size}")
    return bytes.fromhex(digits)


def take_list(data: Any, place: str) -> list[Any]:
    """The list at `place`. Raises ReadableError."""
    if not isinstance(data, list):
        raise ReadableError(f"{place}: expected a list")
    return data


def _annotated(base: Any, rule: Any, data: Any, place: str) -> Any:
    if isinstance(rule, Unsigned):
        return take_integer(data, place, 0, (1 << 8 * rule.width) - 1)
    if isinstance(rule, Signed):
        return take_integer(data, place, -1 << 8 * rule.width - 1, (1 << 8 * rule.width - 1) - 1)
    if isinstance(rule, Exactly):
        return take_bytes(data, place, rule.size)
    if isinstance(rule, Size):
        return take_text(data, place) if base is str else take_bytes(data, place)
    element = typing.get_args(base)[0]
    items = take_list(data, place)
    return tuple(parse(element, item, f"{place}[{index}]") for index, item in enumerate(items))


def _named(kind: type[enum.IntEnum], data: Any, place: str) -> enum.IntEnum:
    name = take_text(data, place)
    if name not in kind.__members__:
        raise ReadableError(f"{place}: {name!r} is none of {', '.join(kind.__members__)}")
    return kind[name]


def parse(kind: type[T] | Any, data: Any, place: str) -> T:
    """The value of wire type `kind` that `render` shows as `data`. Raises ReadableError.

    Bounds of sizes and counts are left to `consensus.wire.encode`.
    """
    origin = typing.get_origin(kind)
    result: Any
    if origin is Annotated:
        base, rule = typing.get_args(kind)[:2]
        result = _annotated(base, rule, data, place)
    elif origin in (Union, types.UnionType):
        inner = next(part for part in typing.get_args(kind) if part is not type(None))
        result = None if data is None else parse(inner, data, place)
    elif kind is bool:
        if not isinstance(data, bool):
            raise ReadableError(f"{place}: expected true or false")
        result = data
    elif isinstance(kind, type) and issubclass(kind, enum.IntEnum):
        result = _named(kind, data, place)
    elif is_dataclass(kind):
        result = _record(typing.cast(type[Any], kind), data, place)
    else:
        raise TypeError(f"{kind!r} has no readable form")
    return typing.cast(T, result)


def _record(kind: type[Any], data: Any, place: str) -> Any:
    hints = typing.get_type_hints(kind, include_extras=True)
    names = tuple(field.name for field in fields(kind))
    values = take_fields(data, names, place)
    parts = {name: parse(hints[name], values[name], f"{place}.{name}") for name in names}
    try:
        return kind(**parts)
    except ReadableError:
        raise
    except ValueError as error:
        raise ReadableError(f"{place}: {error}") from error
