from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.calibration.alterations import (
    Alteration,
    DroppedLayer,
    Noisy,
    OtherModel,
    Rounded,
    SmallerModel,
    alter_package,
    round_e4m3,
    round_integer,
)
from runtime.errors import PackageError
from runtime.packages import ModelPackage
from tests.runtime.tiny_model import TinyModel, tiny_package

QUERY = "model.layers.{}.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return tiny_package(tmp_path_factory.mktemp("true"), TinyModel(layers=4))


def e4m3_values() -> np.ndarray:
    """Every finite value of the format, by its definition: sign, 4 exponent bits, 3 of mantissa."""
    found = []
    for code in range(127):
        exponent, mantissa = code >> 3, code & 7
        found.append(
            mantissa * 2.0**-9 if not exponent else (8 + mantissa) * 2.0 ** (exponent - 10)
        )
    return np.array(found)


def test_e4m3_rounds_to_the_nearest_value_of_the_format() -> None:
    values = e4m3_values()
    assert values.max() == 448
    random = np.random.default_rng(3)
    row = np.concatenate([[448.0], random.uniform(-448, 448, 2_000), random.normal(0, 0.02, 2_000)])
    rounded = round_e4m3(row[None, :].astype(np.float32))[0]
    allowed = np.concatenate([-values, values])
    for given_value, got in zip(row.astype(np.float32), rounded, strict=True):
        assert abs(got - given_value) == pytest.approx(
            np.abs(allowed - given_value).min(), abs=1e-9
        )


def test_values_of_e4m3_are_left_as_they_are() -> None:
    values = np.concatenate([-e4m3_values(), e4m3_values()]).astype(np.float32)
    assert np.array_equal(round_e4m3(values[None, :])[0], values)


@given(largest=st.sampled_from([7, 127]), seed=st.integers(0, 1_000))
def test_integers_round_each_row_by_at_most_half_a_step(largest: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = np.array([[1], [10], [0.01], [0]], np.float32)
    matrix = random.normal(0, 1, (4, 33)).astype(np.float32) * sizes
    rounded = round_integer(matrix, largest)
    steps = np.abs(matrix).max(axis=1, keepdims=True) / largest
    assert np.all(np.abs(rounded - matrix) <= steps * 0.5001)
    for row, step in zip(rounded, steps[:, 0], strict=True):
        assert len(np.unique(row)) <= 2 * largest + 1
        if step:
            assert np.allclose(row / step, np.rint(row / step), atol=1e-4)


@pytest.mark.parametrize("alteration", [Rounded("int8"), Rounded("int4"), Rounded("fp8"), Noisy()])
def test_layer_matrices_change_a_little_and_nothing_else_does(
    alteration: Alteration, package: ModelPackage, tmp_path: Path
) -> None:
    altered = alter_package(package, alteration, tmp_path / "altered")
    true, other = package.tensors(), altered.tensors()
    assert altered.config() == package.config()
    assert altered.model_id != package.model_id
    for name in true.names():
        before, after = true.read(name), other.read(name)
        if name.startswith("model.layers.") and before.ndim == 2:
            relative = np.linalg.norm(after - before) / np.linalg.norm(before)
            assert 0.001 < relative < 0.25, name
        else:
            assert np.array_equal(before, after), name


def test_finer_rounding_is_closer_to_the_truth(package: ModelPackage) -> None:
    name = QUERY.format(0)
    values = package.tensors().read(name)
    errors = {
        kind: float(np.abs(Rounded(kind).tensor(name, values) - values).mean())
        for kind in ("int8", "fp8", "int4")
    }
    assert errors["int8"] < errors["fp8"] < errors["int4"]


def test_a_dropped_layer_is_gone_and_later_ones_move_up(
    package: ModelPackage, tmp_path: Path
) -> None:
    altered = alter_package(package, DroppedLayer(), tmp_path / "altered")
    assert altered.config().layers == 3
    true, other = package.tensors(), altered.tensors()
    for new, old in enumerate((0, 1, 3)):
        assert np.array_equal(other.read(QUERY.format(new)), true.read(QUERY.format(old)))


def test_the_smaller_model_has_every_other_layer(package: ModelPackage, tmp_path: Path) -> None:
    altered = alter_package(package, SmallerModel(), tmp_path / "altered")
    assert altered.config().layers == 2
    assert np.array_equal(
        altered.tensors().read(QUERY.format(1)), package.tensors().read(QUERY.format(2))
    )


def test_the_other_model_has_the_same_rows_in_another_order(package: ModelPackage) -> None:
    name = QUERY.format(0)
    values = package.tensors().read(name)
    shuffled = OtherModel().tensor(name, values)
    assert not np.array_equal(shuffled, values)
    assert sorted(map(tuple, shuffled.tolist())) == sorted(map(tuple, values.tolist()))


def test_an_altered_package_is_made_once_and_not_taken_for_another(
    package: ModelPackage, tmp_path: Path
) -> None:
    place = tmp_path / "altered"
    first = alter_package(package, Rounded("int8"), place)
    assert alter_package(package, Rounded("int8"), place).model_id == first.model_id
    with pytest.raises(PackageError, match=r"holds tiny\+int8\+.*, not what was asked for"):
        alter_package(package, Rounded("int4"), place)


def test_an_unknown_rounding_is_refused() -> None:
    with pytest.raises(ValueError, match="rounding 'int3'; known are int8, int4, fp8"):
        Rounded("int3")
