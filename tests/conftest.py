"""Fixtures every part of the tests may use, and how tests are shared out to workers."""

import fcntl
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from runtime.fetch import DEFAULT_DIRECTORY, fetch
from runtime.packages import ModelPackage

# Time says nothing about a property: a busy machine must not fail a test.
settings.register_profile("assay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assay")

REPOSITORY = Path(__file__).resolve().parent.parent


# Their tests share one set of processes, so one worker runs them all, one after the other.
TOGETHER = (Path("tests/e2e"), Path("tests/runtime/vllm"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers a file stays on one of them, and so does a folder of TOGETHER."""
    for item in items:
        place = item.path.relative_to(REPOSITORY)
        group = next((folder for folder in TOGETHER if folder in place.parents), place)
        item.add_marker(pytest.mark.xdist_group(str(group)))


@pytest.fixture(scope="session")
def smollm2_package() -> ModelPackage:
    """The small real model, fetched and packed once and kept between runs.

    ASSAY_MODEL_DIRECTORY names another place for the package.
    """
    given = os.environ.get("ASSAY_MODEL_DIRECTORY")
    directory = Path(given) if given else REPOSITORY / DEFAULT_DIRECTORY
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several workers ask at once, one fetches
        return fetch(directory)
