"""Fixtures every part of the tests may use."""

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


@pytest.fixture(scope="session")
def smollm2_package() -> ModelPackage:
    """The small real model, fetched and packed once and kept between runs.

    ASSAY_MODEL_DIRECTORY names another place for the package.
    """
    given = os.environ.get("ASSAY_MODEL_DIRECTORY")
    return fetch(Path(given) if given else REPOSITORY / DEFAULT_DIRECTORY)
