"""The published sample gives the known answer: DeepMind's cricket clip, as it is."""

import dataclasses
from pathlib import Path

import pytest
import torch

from i3dzoo.loading import load
from i3dzoo.video import preprocess, read

pytestmark = pytest.mark.real_data


def test_cricket(test_data: Path, rgb_scratch: Path) -> None:
    """All 79 frames of the sample give `playing cricket`, p = 0.9886, logit norm 83.2416."""
    model = load(rgb_scratch)
    frames = read(test_data / "clips" / "v_CricketShot_g04_c01_rgb.gif").frames
    assert frames.shape == (79, 224, 224, 3)
    x = torch.from_numpy(frames).permute(3, 0, 1, 2)[None].float() / 255 * 2 - 1
    with torch.inference_mode():
        logits = model(x)[0]
    probabilities = logits.softmax(0)
    assert model.labels is not None
    assert model.labels[int(probabilities.argmax())] == "playing cricket"
    assert float(probabilities.max()) == pytest.approx(0.9886, abs=5e-5)
    assert float(logits.norm()) == pytest.approx(83.2416, abs=1e-3)
    assert model.metadata is not None
    as_it_is = dataclasses.replace(model.metadata.input, resize=None)
    torch.testing.assert_close(preprocess(torch.from_numpy(frames), as_it_is), x[0])
