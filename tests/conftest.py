"""Fixtures every part of the tests may use, and how tests are shared out to workers."""

import fcntl
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import pytest
from hypothesis import HealthCheck, settings

from runtime.fetch import DEFAULT_DIRECTORY, fetch
from runtime.packages import ModelPackage
from tests import reaper

# Time says nothing about a property: a busy machine must not fail a test.
settings.register_profile("assay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assay")

REAPER = pytest.StashKey[Popen[bytes]]()
REPOSITORY = Path(__file__).resolve().parent.parent


# Devnets of five processes each: one worker runs them all, one after the other.
TOGETHER = Path("tests/e2e")
# These go first, so that no worker is left with a long one at the end while others have none.
# A worker is given two to begin with: the fourth waits until the first is done.
LONGEST = (
    TOGETHER,
    Path("tests/runtime/vllm/test_vllm_service.py"),
    Path("tests/runtime/calibration/test_vllm_side.py"),
    Path("tests/ext/test_hostile_input.py"),
    Path("tests/runtime/test_instruction_sets.py"),
    Path("tests/fuzz/test_fuzz.py"),
    Path("tests/runtime/benchmark/test_bench_vllm.py"),
    Path("tests/runtime/vllm/test_ray.py"),
    Path("tests/runtime/test_smollm2.py"),
    Path("tests/consensus/test_sim.py"),
    Path("tests/chain/test_store_crashes.py"),
)


# What compiles kernels when it is imported: most of a minute where nobody did so before.
KERNELS = ("runtime.reference.engine", "runtime.vllm_engine.replay")


def pytest_configure(config: pytest.Config) -> None:
    """What tests start ends with this process, even one killed for a timeout. Of several
    workers one compiles the kernels, and the others find them compiled."""
    config.stash[REAPER] = reaper.watch()
    if hasattr(config, "workerinput"):
        with _locked("kernels.lock"):
            for name in KERNELS:
                importlib.import_module(name)


@contextmanager
def _locked(name: str) -> Iterator[None]:
    """One worker at a time."""
    folder = (REPOSITORY / DEFAULT_DIRECTORY).parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.hookimpl(tryfirst=True)  # xdist's own, which reads the marks, is called after it
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers a file stays on one of them, and so does TOGETHER; LONGEST go first."""
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(str(group)))
    items.sort(
        key=lambda item: LONGEST.index(groups[item]) if groups[item] in LONGEST else len(LONGEST)
    )


def _group(item: pytest.Item) -> Path:
    place = item.path.relative_to(REPOSITORY)
    return TOGETHER if TOGETHER in place.parents else place


@pytest.fixture(scope="session")
def smollm2_package() -> ModelPackage:
    """The small real model, fetched and packed once and kept between runs.

    ASSAY_MODEL_DIRECTORY names another place for the package.
    """
    given = os.environ.get("ASSAY_MODEL_DIRECTORY")
    directory = Path(given) if given else REPOSITORY / DEFAULT_DIRECTORY
    with _locked("fetch.lock"):  # several workers ask at once, one fetches
        directory.parent.mkdir(parents=True, exist_ok=True)
        return fetch(directory)
