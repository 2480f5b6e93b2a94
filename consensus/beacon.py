"""The chain's public randomness: each block mixes its leader's VRF output into its parent's beacon.

A leader proves its VRF on its parent's beacon alone, so it has one output there whatever the
view. It cannot choose it, it can only withhold its block: one bit of influence a turn.
"""

from ext.hashing import tagged_hash


def genesis_beacon(genesis_digest: bytes) -> bytes:
    """The beacon of height 0: 32 bytes."""
    return tagged_hash(b"beacon-genesis", genesis_digest)


def next_beacon(parent_beacon: bytes, vrf_output: bytes) -> bytes:
    """A block's beacon, from its parent's and its own VRF output (64 bytes): 32 bytes."""
    return tagged_hash(b"beacon", parent_beacon, vrf_output)
