"""The leaves of one of a block's trees, packed: two byte strings, whatever their number.

`data` holds all leaves one after another, `ends` where each of them ends, as u32-LE. A leaf
becomes a Python object only when somebody asks for it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from ext import merkle

END_BYTES = 4
DATA_BYTES_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class PackedLeaves(Sequence[bytes]):
    """Leaf data in order. Raises ValueError for ends that fall, or do not end with the data."""

    data: bytes = b""
    ends: bytes = b""
    """u32-LE each: the place in `data` after each leaf."""

    def __post_init__(self) -> None:
        if len(self.ends) % END_BYTES or len(self.data) > DATA_BYTES_MAX:
            raise ValueError(
                f"{len(self.ends)} bytes of ends, a multiple of {END_BYTES} is needed; "
                f"{len(self.data)} bytes of data, allowed are {DATA_BYTES_MAX}"
            )
        last = self._end(len(self) - 1)
        if last != len(self.data):
            raise ValueError(f"the last leaf ends at {last}, the data at {len(self.data)}")

    @classmethod
    def from_list(cls, leaves: Iterable[bytes]) -> "PackedLeaves":
        """Pack leaves in order."""
        data, ends = bytearray(), bytearray()
        for leaf in leaves:
            data += leaf
            ends += len(data).to_bytes(END_BYTES, "little")
        return cls(bytes(data), bytes(ends))

    def __len__(self) -> int:
        return len(self.ends) // END_BYTES

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[bytes, ...]: ...

    def __getitem__(self, index: int | slice) -> bytes | tuple[bytes, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"leaf {index} is not among {len(self)}")
        start, end = self._end(place - 1), self._end(place)
        if start > end:
            raise ValueError(f"leaf {place} starts at {start} and ends at {end}")
        return self.data[start:end]

    def starting_with(self, kind: bytes) -> int:
        """How many leaves begin with this byte; none of them becomes an object."""
        ends = np.frombuffer(self.ends, "<u4")
        starts = np.concatenate((ends[:0], [0], ends))[:-1].astype(np.int64)
        first = np.frombuffer(self.data, np.uint8)[starts[starts < ends]]
        return int(np.count_nonzero(first == kind[0]))

    def root(self) -> bytes:
        """RFC 6962 root over the leaves."""
        return merkle.root([merkle.leaf_hash(leaf) for leaf in self])

    def _end(self, place: int) -> int:
        if place < 0:
            return 0
        return int.from_bytes(self.ends[END_BYTES * place : END_BYTES * (place + 1)], "little")
