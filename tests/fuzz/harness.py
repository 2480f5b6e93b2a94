"""Runs a target on inputs drawn from a seed until time and number of cases are reached.

Case number i of a seed is the same on every run. When a check raises, the input stands in a file
and the command that tries it again is printed; the exception goes on up. A crash of native code
leaves no file: run the same seed again, with the number of the last case reported.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from time import monotonic

REPORT_EVERY_SECONDS = 5.0
CLOCK_EVERY_CASES = 16


@dataclass(frozen=True, slots=True)
class Target:
    """Something that takes any bytes, and what must hold for it."""

    name: str
    inputs: Callable[[Random], Iterator[bytes]]
    """Endless, and the same for the same source."""
    check: Callable[[bytes], None]
    """Raises when something is wrong; depends on the input alone."""
    full_cases: int = 0
    """A full run tries at least so many, however long it takes."""


def run(
    target: Target,
    seed: int,
    seconds: float,
    failures: Path,
    cases: int = 0,
    clock: Callable[[], float] = monotonic,
) -> int:
    """Try inputs for at least ``seconds`` and at least ``cases``; how many there were."""
    start = clock()
    reported = start
    done = 0
    for data in target.inputs(Random(seed)):
        if done % CLOCK_EVERY_CASES == 0:
            now = clock()
            if done >= cases and now - start >= seconds:
                break
            if now - reported >= REPORT_EVERY_SECONDS:
                reported = now
                _say(f"{target.name}: {done} cases, {now - start:.0f} s")
        check(target, data, failures)
        done += 1
    _say(f"{target.name}: {done} cases from seed {seed}, nothing found")
    return done


def check(target: Target, data: bytes, failures: Path) -> None:
    """Try one input; if that raises, keep it in ``failures`` and say how to try it again."""
    with ExitStack() as on_failure:
        on_failure.callback(_keep, target, data, failures)
        target.check(data)
        on_failure.pop_all()


def _keep(target: Target, data: bytes, failures: Path) -> None:
    failures.mkdir(parents=True, exist_ok=True)
    path = failures / f"{target.name}-{sha256(data).hexdigest()[:16]}.bin"
    path.write_bytes(data)
    _say(f"{target.name}: failed on {len(data)} bytes; try them again with")
    _say(f"  python -m tests.fuzz {target.name} --input {path}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def mutated(source: Random, data: bytes, fragments: tuple[bytes, ...] = (b"\x00",)) -> bytes:
    """``data`` after zero to three small edits."""
    edited = bytearray(data)
    for _ in range(source.randrange(4)):
        start = source.randrange(len(edited) + 1)
        end = min(len(edited), start + source.randrange(1, 9))
        kind = source.randrange(5)
        if kind == 0 and start < len(edited):
            edited[start] ^= 1 << source.randrange(8)
        elif kind == 1:
            edited[start:end] = source.randbytes(end - start)
        elif kind == 2:
            del edited[start:end]
        elif kind == 3:
            edited[start:start] = source.choice(fragments)
        else:
            edited[start:start] = edited[start:end]
    if source.randrange(8) == 0:
        del edited[source.randrange(len(edited) + 1) :]
    return bytes(edited)
