"""Replace the head of a checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import described

from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.checkpoint import Checkpoint
from i3dzoo.checkpoints.convert import num_classes
from i3dzoo.checkpoints.head import change_head, fresh_weight, match_head_labels, replace_head
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.labels import labels
from i3dzoo.checkpoints.streams import change_dtype
from i3dzoo.errors import MappingError, MetadataError, ShapeError
from i3dzoo.predict import predict_video
from i3dzoo.pretrained import build

HEAD = "Logits.Conv3d_0c_1x1.conv.weight"


def test_fresh_head_is_seeded_and_bounded() -> None:
    """A fresh head depends only on its seed, and is within two deviations of 1/32."""
    weight = fresh_weight(51, seed=3)
    assert weight.shape == (51, 1024, 1, 1, 1)
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight, fresh_weight(51, seed=3))
    assert not np.array_equal(weight, fresh_weight(51, seed=4))
    assert np.abs(weight).max() <= 2 / 32 + 1e-6
    # a normal distribution cut at two deviations has a deviation of 0.8796
    assert weight.std() == pytest.approx(0.8796 / 32, rel=0.01)


def test_trunk_is_untouched(random_tensors: Tensors) -> None:
    """Only the head changes; other arrays are the same objects."""
    changed = replace_head(random_tensors, 51)
    assert num_classes(changed) == 51
    for name, array in random_tensors.items():
        if not name.startswith("Logits"):
            assert changed[name] is array


def test_zeros_keep_and_drop(random_checkpoint: Checkpoint) -> None:
    """`zeros`, `keep` and `drop` do what their names say."""
    tensors = random_checkpoint.tensors
    assert not replace_head(tensors, 7, "zeros")[HEAD].any()
    assert change_head(random_checkpoint, 12, head="keep").tensors is tensors
    with pytest.raises(ShapeError, match="expected a head of 7 classes, found 12"):
        change_head(random_checkpoint, 7, head="keep")
    assert num_classes(replace_head(tensors, 7, "drop")) == 0


def test_change_is_recorded(random_checkpoint: Checkpoint) -> None:
    """The metadata has the step and the labels of the new head."""
    changed = change_head(random_checkpoint, 3, labels=("a", "b", "c"), seed=5)
    assert changed.metadata.labels == ("a", "b", "c")
    assert changed.metadata.history == (
        HistoryStep(operation="head", head="fresh", classes=3, seed=5),
    )
    assert change_head(random_checkpoint, 3).metadata.labels is None
    kept = change_head(random_checkpoint, 12)
    assert kept.metadata.labels == random_checkpoint.metadata.labels
    assert kept.metadata.history == ()


def test_other_names_are_no_accident(genuine: Checkpoint) -> None:
    """Renaming classes needs `keep`, and the result is not the published checkpoint."""
    known = genuine.metadata.labels or ()
    assert change_head(genuine, None, known) == genuine
    with pytest.raises(MetadataError, match=r"have other names \(abseiling, …\); pass --head keep"):
        change_head(genuine, None, known[::-1])
    renamed = change_head(genuine, None, known[::-1], "keep")
    assert renamed.tensors is genuine.tensors
    assert renamed.metadata.labels == known[::-1]
    assert (renamed.metadata.zoo, renamed.metadata.base) == (None, "rgb_scratch")
    assert renamed.metadata.history[-1].operation == "rename"
    assert change_head(genuine, None, list(known)) == genuine  # type: ignore[arg-type] # a list does
    with pytest.raises(ShapeError, match="at least one class, found 0"):
        change_head(genuine, 0)


def test_matched_rows_are_the_originals(genuine: Checkpoint) -> None:
    """Rows of shared classes are exact copies or means; the rest are fresh."""
    hmdb51 = labels("hmdb51")
    changed = change_head(genuine, None, hmdb51, "match", seed=4)
    old, new = genuine.tensors[HEAD], changed.tensors[HEAD]
    kinetics = labels("kinetics-400")
    np.testing.assert_array_equal(
        new[hmdb51.index("cartwheel")], old[kinetics.index("cartwheeling")]
    )
    kinds = [kinetics.index(f"golf {kind}") for kind in ("chipping", "driving", "putting")]
    np.testing.assert_allclose(new[hmdb51.index("golf")], old[kinds].mean(0), rtol=1e-5, atol=1e-7)
    wave = hmdb51.index("wave")
    np.testing.assert_array_equal(new[wave], fresh_weight(51, seed=4)[wave])
    metadata = changed.metadata
    assert (metadata.labels, metadata.zoo, metadata.base) == (hmdb51, None, "rgb_scratch")
    (step,) = metadata.history
    assert str(step) == (
        "Replaced the head of rgb_scratch by one for 51 classes: 32 rows carried over by "
        "kinetics-400_to_hmdb51, 19 fresh (seed 4)"
    )


def test_matched_logits_are_the_originals(genuine: Checkpoint) -> None:
    """The logit of a matched class is that of its counterpart, or the mean of several."""
    matching = match_head_labels(genuine, labels("hmdb51"))
    clip = torch.rand((1, 3, 9, 64, 64), generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        before = build(genuine)(clip)[0]
        after = build(change_head(genuine, None, labels("hmdb51"), "match"))(clip)[0]
    for row, sources in enumerate(matching.rows):
        if sources:
            expected = before[list(sources)].mean()
            torch.testing.assert_close(after[row], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.real_data
def test_a_matched_head_names_the_action(genuine: Checkpoint, test_data: Path) -> None:
    """Without training, a matched head recognises the cartwheel in an HMDB51 clip."""
    model = build(change_head(genuine, None, labels("hmdb51"), "match"))
    assert model.metadata is not None
    spec = model.metadata.input.replace(frames=32)
    name = "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi"
    top = predict_video(model, test_data / "clips" / name, spec=spec, top_k=3).top
    assert "cartwheel" in {score.label for score in top}


def test_matching_needs_names_in_common(genuine: Checkpoint, random_checkpoint: Checkpoint) -> None:
    """Matching needs names on both sides, and at least one in common."""
    names = ("a", "b")
    with pytest.raises(MappingError, match=r"none of the 2 new classes \(a, …\) matches"):
        change_head(random_checkpoint, None, names, "match")
    with pytest.raises(MetadataError, match="the new classes have no names to match"):
        change_head(random_checkpoint, 2, None, "match")
    with pytest.raises(MetadataError, match="the 12 classes of the old head have no names"):
        change_head(described(random_checkpoint, labels=None), None, names, "match")
    headless = change_head(genuine, None, head="drop")
    with pytest.raises(MetadataError, match="the 0 classes of the old head have no names"):
        change_head(headless, None, labels("hmdb51"), "match")


def test_head_of_no_known_width(random_checkpoint: Checkpoint) -> None:
    """Labels must fit the number of classes, which a file without a head lacks."""
    with pytest.raises(ShapeError, match="expected 3 labels, one a class, found 2"):
        change_head(random_checkpoint, 3, ("a", "b"))
    headless = change_head(random_checkpoint, None, head="drop")
    assert headless.metadata.history == (HistoryStep(operation="head", head="drop"),)
    with pytest.raises(ShapeError, match="the checkpoint has no head; pass --num-classes"):
        change_head(headless, None, head="fresh")
    assert change_head(headless, 4).metadata.num_classes == 4


def test_half_precision_heads(genuine: Checkpoint) -> None:
    """A new head has the dtype of the trunk, and matched rows are exact."""
    half = change_dtype(genuine, "bfloat16")
    new = change_head(half, None, labels("hmdb51"), "match").tensors[HEAD]
    assert new.dtype.name == "bfloat16"
    row = labels("hmdb51").index("cartwheel")
    old = half.tensors[HEAD][labels("kinetics-400").index("cartwheeling")]
    assert new[row].tobytes() == old.tobytes()
