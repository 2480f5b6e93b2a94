"""Which model a name or an id means."""

import asyncio
from typing import cast

import pytest

from assay.v1 import node_pb2
from chain.asking import pick_model
from chain.client import NodeClient
from chain.rejections import Rejection, RejectionReason

GENUINE = bytes([1]) * 32
OTHER = bytes([2]) * 32


class Node:
    """Says which models there are."""

    def __init__(self, *models: tuple[bytes, str]) -> None:
        self.views = [node_pb2.ModelView(model=model, name=name) for model, name in models]

    async def models(self) -> list[node_pb2.ModelView]:
        return self.views


def picked(wanted: str, *models: tuple[bytes, str]) -> bytes:
    node = cast(NodeClient, Node(*models))
    return asyncio.run(pick_model(node, wanted)).model


def test_a_name_that_two_models_have_is_refused_with_the_ids_of_both() -> None:
    with pytest.raises(Rejection) as caught:
        picked("smol", (GENUINE, "smol"), (OTHER, "smol"), (bytes(32), "third"))
    assert caught.value.reason is RejectionReason.UNKNOWN_MODEL
    assert "2 models match 'smol'" in caught.value.detail
    assert GENUINE.hex() in caught.value.detail
    assert OTHER.hex() in caught.value.detail
    assert bytes(32).hex() not in caught.value.detail


def test_a_whole_id_means_its_model_whatever_others_are_called() -> None:
    models = ((OTHER, GENUINE.hex()), (GENUINE, "smol"))
    assert picked(GENUINE.hex(), *models) == GENUINE
    assert picked(GENUINE.hex().upper(), *models) == GENUINE
    assert picked("smol", *models) == GENUINE


def test_nothing_wanted_means_the_only_model_there_is() -> None:
    assert picked("", (GENUINE, "smol")) == GENUINE
    with pytest.raises(Rejection, match="0 models match 'big'; registered are: smol"):
        picked("big", (GENUINE, "smol"))
