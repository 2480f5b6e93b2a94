"""Every fuzz target, by name. A new one is a module beside this and a line here."""

from tests.fuzz import blocks, codec, hashing, ledger, payloads, receipts, signatures
from tests.fuzz.harness import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        signatures.TARGET,
        hashing.TARGET,
        payloads.TARGET,
        ledger.BODIES,
        ledger.JOB_BODIES,
        ledger.RUNS,
        blocks.TARGET,
        codec.TARGET,
        receipts.TARGET,
    )
}
