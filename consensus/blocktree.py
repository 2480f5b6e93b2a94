"""The newest final block and the certified or proposed blocks above it."""

from dataclasses import dataclass

from consensus.beacon import genesis_beacon
from consensus.epochs import begins_on
from consensus.events import ReplicaConfig
from consensus.values import ZERO_HASH, Block


@dataclass(frozen=True, slots=True)
class Node:
    """A block whose ancestors down to the final one are known, and whose VRF proof holds."""

    block: Block
    digest: bytes
    beacon: bytes


def root_node(config: ReplicaConfig) -> Node:
    """What the epoch's first block stands on: the last one of the epoch before; or height 0, where
    no block was proposed and the digest is that of genesis."""
    if config.root is not None:
        boundary = config.root.block
        return Node(begins_on(boundary), boundary.digest(), config.root.beacon)
    block = Block(
        epoch=config.validators.epoch,
        view=0,
        height=0,
        parent_view=0,
        parent=ZERO_HASH,
        proposer=0,
        timestamp_ms=config.genesis_timestamp_ms,
        cut=(),
        vrf_proof=bytes(80),
        executed_height=0,
        executed_root=config.genesis_execution_root,
    )
    return Node(block, config.genesis_digest, genesis_beacon(config.genesis_digest))


class BlockTree:
    """Blocks by digest, rooted in the newest final one."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self._nodes = {root.digest: root}

    def get(self, digest: bytes) -> Node | None:
        """The node, if its whole ancestry is known."""
        return self._nodes.get(digest)

    def insert(self, node: Node) -> None:
        """Add a child of a known node."""
        if node.block.parent not in self._nodes:
            raise ValueError(f"parent of block {node.digest.hex()} is unknown: this is a bug")
        self._nodes[node.digest] = node

    def path(self, digest: bytes) -> list[Node] | None:
        """Nodes above the root up to this one, lowest first; None if it does not descend."""
        nodes: list[Node] = []
        node = self._nodes.get(digest)
        while node is not None and node.digest != self.root.digest:
            nodes.append(node)
            node = self._nodes.get(node.block.parent)
        return None if node is None else nodes[::-1]

    def set_root(self, root: Node) -> None:
        """Make a node final: only its descendants stay."""
        kept = {root.digest: root}
        rising = sorted(self._nodes.values(), key=lambda node: node.block.height)
        for node in rising:
            if node.block.parent in kept:
                kept[node.digest] = node
        self.root = root
        self._nodes = kept
