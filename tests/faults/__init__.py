"""Faults on real processes under load: `links` between validators that can be cut, a `load` that
nobody slows down, the faults themselves in `campaign`, and what must hold after them in `ledgers`.

`python -m tests.faults` runs the campaign (docs/faults.md).
"""
