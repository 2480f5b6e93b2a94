"""Configurations no engine here can run."""

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import PackageError
from tests.runtime.tiny_model import tiny_package


def test_end_tokens_are_few_and_never_the_whole_vocabulary(tmp_path: Path) -> None:
    """Otherwise min_tokens would leave no candidate."""
    config = tiny_package(tmp_path).config()
    assert replace(config, end_token_ids=tuple(range(16))).end_token_ids
    with pytest.raises(PackageError, match="17 end_token_ids, allowed are 16"):
        replace(config, end_token_ids=tuple(range(17)))
    with pytest.raises(PackageError, match="2 end_token_ids, allowed are 1"):
        replace(config, vocabulary=2, begin_token_ids=(), end_token_ids=(0, 1))
