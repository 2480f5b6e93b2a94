"""A world in a seed: replicas, disks, links and clocks, all driven by one Random and virtual time.

`World(Scenario(seed=7)).run()` plays a scenario: links drop, delay, duplicate and reorder
messages, partitions come and go, validators crash at any write to their disk (what was not
synced is gone or torn) and restart from what survived. At `calm_at_ms` the faults end, and the
world must finalize again.

The replicas are the node's own `consensus.replica.Replica`, the log is the node's own `Wal` on a
disk in memory. `invariants` watches every step and raises InvariantBroken. A Byzantine validator
is a pair of twins: two honest programs with one key, which contradict each other as soon as a
link lets them.

The same scenario gives the same trace digest, byte for byte; a failing seed is its own bug
report. Cheap stand-ins for signatures and VRF (`crypto`) make many seeds affordable;
`real_crypto` uses the real ones.

Must never import `chain` or `runtime`, nor read a clock or the system's randomness.
"""
