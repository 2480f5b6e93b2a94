"""What a registration says of a model, beside what a package, a runtime and reports say."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from assay.v1 import node_pb2
from chain.calibrations import CalibrationError, read_pair
from chain.pairs import order_of, pair_record
from chain.readable import render
from chain.runtime_replies import ModelInfo

WEIGHT_ADVICE: Final = (
    "its compute units were registered too high or too low: compare prices by the package's"
)


@dataclass(frozen=True, slots=True)
class Package:
    """What a package on disk says of itself, once every file of it has been checked."""

    model: bytes
    """Digest of its manifest, which names every file: the model's id on chain."""
    name: str
    context_tokens: int
    parameters: int
    path: Path


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison."""

    name: str
    agrees: bool
    registered: str
    found: str
    advice: str
    """What to do if it does not agree."""


def check_package(view: node_pb2.ModelView, package: Package) -> list[Check]:
    """A package on disk, whose files agree with its manifest."""
    another = "this is another package: pack the registered source, or fetch it from the owner"
    return [
        _compare("package.model", view.model.hex(), package.model.hex(), another),
        Check(
            "package.context_tokens",
            view.context_tokens <= package.context_tokens,
            f"{view.context_tokens}",
            f"{package.context_tokens}",
            "jobs longer than the package's context can't be answered: don't offer this model",
        ),
        _compare(
            "package.parameters",
            f"{view.parameters}",
            f"{package.parameters}",
            WEIGHT_ADVICE,
        ),
    ]


def check_runtime(view: node_pb2.ModelView, served: Sequence[ModelInfo]) -> list[Check]:
    """A runtime that says it serves the model."""
    names = ", ".join(f"{model.name} ({model.model.hex()[:16]})" for model in served)
    found = [model for model in served if model.model == view.model]
    if not found:
        advice = "start it with the registered package: assay runtime serve --model PACKAGE"
        return [Check("runtime.model", False, view.model.hex(), names or "no model", advice)]
    (model,) = found
    offers = sorted({pair.provider_profile for pair in view.pairs})
    verifies = sorted({pair.verifier_profile for pair in view.pairs})
    profile = model.engine_profile
    checks = [
        _compare("runtime.model", view.model.hex(), model.model.hex(), ""),
        Check(
            "runtime.context_tokens",
            view.context_tokens <= model.context_tokens,
            f"{view.context_tokens}",
            f"{model.context_tokens}",
            "give the runtime memory for the whole context, or don't offer this model",
        ),
        Check(
            "runtime.engine_profile (to answer)",
            profile in offers,
            ", ".join(offers),
            profile,
            "calibrate this profile and register a package with the pair; it can't offer here",
        ),
        Check(
            "runtime.engine_profile (to verify)",
            profile in verifies,
            ", ".join(verifies),
            profile,
            "calibrate this profile and register a package with the pair; it can't verify here",
        ),
    ]
    said = f"{view.parameters}"
    checks.append(_compare("runtime.parameters", said, f"{model.parameters}", WEIGHT_ADVICE))
    return checks


def check_reports(view: node_pb2.ModelView, paths: Sequence[Path]) -> list[Check]:
    """Calibration reports: what they fit now, by what the chain rules by."""
    registered = {order_of(record): record for record in map(pair_record, view.pairs)}
    checks = []
    for path in paths:
        name = f"report {path.name}"
        try:
            pair = read_pair(path, view.model)
        except CalibrationError as error:
            advice = "give a report of this model"
            checks.append(Check(name, False, "a pair of this model", str(error), advice))
            continue
        held, place = registered.get(order_of(pair)), " and ".join(order_of(pair))
        if held is None:
            listed = "; ".join(" and ".join(order) for order in sorted(registered))
            advice = "this pair can't verify here: a registration never changes"
            checks.append(Check(f"{name}, pair", False, listed, place, advice))
            continue
        advice = "the chain rules by what is registered: an honest answer may fail, or a false pass"
        for part in ("thresholds", "bets"):
            said, fitted = (json.dumps(render(getattr(one, part))) for one in (held, pair))
            checks.append(_compare(f"{name}, {part} of {place}", said, fitted, advice))
    return checks


def _compare(name: str, registered: str, found: str, advice: str) -> Check:
    return Check(name, registered == found, registered, found, advice)
