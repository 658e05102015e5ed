"""Head surgery."""

import numpy as np
import pytest

from i3dzoo.arrays import Tensors
from i3dzoo.checkpoint import Checkpoint
from i3dzoo.convert import num_classes
from i3dzoo.errors import ShapeError
from i3dzoo.head import change_head, fresh_weight, replace_head

HEAD = "Logits.Conv3d_0c_1x1.conv.weight"


def test_fresh_head_is_seeded_and_bounded() -> None:
    """A fresh head repeats with its seed, and lies within two deviations of 1/32."""
    weight = fresh_weight(51, seed=3)
    assert weight.shape == (51, 1024, 1, 1, 1)
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, fresh_weight(51, seed=3))
    assert not np.array_equal(weight, fresh_weight(51, seed=4))
    assert np.abs(weight).max() <= 2 / 32 + 1e-6
    # a normal distribution cut at two deviations has a deviation of 0.8796
    assert weight.std() == pytest.approx(0.8796 / 32, rel=0.01)


def test_trunk_is_untouched(random_tensors: Tensors) -> None:
    """Only the head changes, and the trunk is the same arrays."""
    changed = replace_head(random_tensors, 51)
    assert num_classes(changed) == 51
    for name, array in random_tensors.items():
        if not name.startswith("Logits"):
            assert changed[name] is array


def test_zeros_keep_and_drop(random_checkpoint: Checkpoint) -> None:
    """Zeros are zeros, a kept head must fit, a dropped head is gone."""
    tensors = random_checkpoint.tensors
    assert not replace_head(tensors, 7, "zeros")[HEAD].any()
    assert change_head(random_checkpoint, 12, head="keep").tensors is tensors
    with pytest.raises(ShapeError, match="the head has 12 classes; expected 7"):
        change_head(random_checkpoint, 7, head="keep")
    assert num_classes(replace_head(tensors, 7, "drop")) == 0


def test_change_is_recorded(random_checkpoint: Checkpoint) -> None:
    """The metadata tells of the new head, and forgets labels that are not its."""
    changed = change_head(random_checkpoint, 3, labels=("a", "b", "c"), seed=5)
    assert changed.metadata.labels == ("a", "b", "c")
    assert changed.metadata.history == ("head fresh for 3 classes, seed 5",)
    assert change_head(random_checkpoint, 3).metadata.labels is None
    kept = change_head(random_checkpoint, 12)
    assert kept.metadata.labels == random_checkpoint.metadata.labels
    assert kept.metadata.history == ()
