"""Own execution roots, to be put into blocks, and compared with those of others."""

from consensus.context import Context
from consensus.events import Diverged
from consensus.values import Block

EXECUTION_LAG_BLOCKS = 2
"""A block vouches for an execution at least this far below itself."""


def executed_height_max(height: int) -> int:
    """The newest height that a block at `height` may vouch for; genesis counts as executed."""
    return max(0, height - EXECUTION_LAG_BLOCKS)


class Executions:
    """Roots by height, from the one that the final block names up to the newest executed."""

    def __init__(self, context: Context, roots: dict[int, bytes]) -> None:
        """`roots` rise without gaps up to the newest executed height."""
        self._context = context
        self._roots = roots
        self._claims: dict[int, bytes] = {}
        self.newest = max(roots)

    def root(self, height: int) -> bytes | None:
        """Own root of a height, None if it is not executed yet (or long past)."""
        return self._roots.get(height)

    def add(self, height: int, root: bytes) -> None:
        """A delivered block was executed."""
        if height != self.newest + 1:
            raise ValueError(f"executed height {height}, expected {self.newest + 1}")
        self.newest = height
        self._roots[height] = root
        self._compare(height)

    def finalize(self, block: Block) -> None:
        """A final block vouches for a root: ours must be the same."""
        self._claims[block.executed_height] = block.executed_root
        self._compare(block.executed_height)
        for height in [height for height in self._roots if height < block.executed_height]:
            if height != self.newest:
                del self._roots[height]

    def _compare(self, height: int) -> None:
        own = self._roots.get(height)
        if own is None:
            return
        claimed = self._claims.pop(height, own)
        if claimed != own:
            self._context.emit(Diverged(height, own, claimed))
