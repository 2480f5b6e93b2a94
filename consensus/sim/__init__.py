"""A world in a seed: replicas, disks, links and clocks, all driven by one Random and virtual time.

`play(Run("all", seed=7, validators=4))` draws a scenario and plays it. Links lose, delay, double
and reorder messages, and partitions cut them; clocks are off and jump; disks are slow or full,
and lose power at any write, with what was not synced gone, torn or flipped. Byzantine validators
run as twins or speak through a `Liar`. At `calm_at_ms` links and disks behave again, the
Byzantine do not, and everybody honest must go on within `live_within_ms`: new blocks, and
everything that was sealed before.

Way of the data: `scenario` (what a profile and a seed draw) -> `world` (queue, faults, time) ->
`machine` (the node in small: the node's own `Replica` and `Wal` on a `disk` in memory) -> `links`
-> the next machine. `invariants` is told every step and raises InvariantBroken; it counts votes
and stake by itself. `mutants` plants known mistakes, `play` names, plays and reduces runs.

The same run gives the same trace, byte for byte; a failing seed is its own bug report. Cheap
stand-ins for signatures and VRF (`crypto`) make many seeds affordable; `real_crypto` uses the
real ones.

Must never import `chain` or `runtime`, nor read a clock or the system's randomness.
"""
