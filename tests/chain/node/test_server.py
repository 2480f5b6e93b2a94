"""How a node's process begins."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chain.node.recovery import VOTES_FOLDER
from chain.node.server import _put_store_in_place
from chain.rollback import KEPT_NAME
from chain.snapshot_install import UNFINISHED_NAME
from chain.store import STORE_NAME
from consensus.wal import FileDirectory, WalLocked
from tests.builders import genesis


def test_a_second_process_leaves_alone_what_the_first_one_is_making(tmp_path: Path) -> None:
    config = cast(Any, SimpleNamespace(data=tmp_path, validator=0))
    (tmp_path / UNFINISHED_NAME).mkdir()
    first = FileDirectory(tmp_path / VOTES_FOLDER)
    with pytest.raises(WalLocked):
        _put_store_in_place(config, genesis())
    assert (tmp_path / UNFINISHED_NAME).exists()
    first.close()
    _put_store_in_place(config, genesis())
    assert not (tmp_path / UNFINISHED_NAME).exists()


def test_a_store_that_a_killed_rollback_took_away_is_put_back(tmp_path: Path) -> None:
    (tmp_path / KEPT_NAME).mkdir()
    _put_store_in_place(cast(Any, SimpleNamespace(data=tmp_path, validator=0)), genesis())
    assert (tmp_path / STORE_NAME).exists()
