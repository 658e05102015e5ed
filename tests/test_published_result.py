"""DeepMind's cricket sample gives the published result."""

from pathlib import Path

import numpy as np
import pytest
import torch

from i3dzoo.predict import predict_video
from i3dzoo.pretrained import load
from i3dzoo.video import preprocess, read

pytestmark = pytest.mark.real_data


def test_cricket(test_data: Path, rgb_scratch: Path, tmp_path: Path) -> None:
    """All 79 frames of the sample give `playing cricket`, p = 0.9886, logit norm 83.2416.

    The sample is stored as DeepMind stores it: float32 [1, T, 224, 224, 3] from -1 to 1.
    """
    model = load(rgb_scratch)
    frames = read(test_data / "clips" / "v_CricketShot_g04_c01_rgb.gif").frames
    assert frames.shape == (79, 224, 224, 3)
    x = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1
    np.save(tmp_path / "sample.npy", x.permute(0, 2, 3, 4, 1).numpy())
    prediction = predict_video(model, tmp_path / "sample.npy", clips="whole")
    assert prediction.top[0].label == "playing cricket"
    assert prediction.top[0].probability == pytest.approx(0.9886, abs=5e-5)
    assert float(np.linalg.norm(prediction.logits)) == pytest.approx(83.2416, abs=1e-3)
    assert model.metadata is not None
    as_it_is = model.metadata.input.replace(resize=None)
    torch.testing.assert_close(preprocess(torch.from_numpy(frames), as_it_is), x[0])
