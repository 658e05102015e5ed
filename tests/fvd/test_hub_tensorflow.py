"""The network and the resizing, against TF-Hub's own graph in TensorFlow."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.hub_module import features_of_noise, load_module
from helpers.lazy import tensorflow as tf
from helpers.processes import as_ranks

from i3dzoo.fvd import Embedder, compute_fvd, frechet_distance, load_protocol, statistics_of
from i3dzoo.fvd.selftest import noise

pytestmark = [pytest.mark.tensorflow, pytest.mark.real_data]


@pytest.fixture(scope="module")
def module_folder(
    test_data: Path, deepmind_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """TF-Hub's module with its weights."""
    folder = tmp_path_factory.mktemp("tfhub")
    source = test_data / "tfhub"
    shutil.copy(source / "saved_model.pb", folder)
    shutil.copy(source / "variables" / "variables.index", folder / "v.index")
    data = deepmind_bundle.with_name("model.ckpt.data-00000-of-00001")
    shutil.copy(data, folder / "v.data-00000-of-00001")
    return folder


def test_fvd_is_tensorflows(embedder: Embedder, module_folder: Path) -> None:
    """FVD of videos of an odd size, resized and embedded by TensorFlow."""
    random = np.random.default_rng(0)
    sets = []
    for seed in range(2):
        coarse = random.integers(0, 256, (3, 10, 7 + seed, 9, 3), np.uint8)
        sets.append(coarse.repeat(9, axis=2).repeat(9, axis=3))
    module, features = load_module(module_folder), []
    for videos in sets:
        frames = videos.reshape(-1, *videos.shape[2:]).astype("f4")
        resized = tf.raw_ops.ResizeBilinear(images=frames, size=(224, 224)).numpy()
        clips = resized.reshape(*videos.shape[:2], 224, 224, 3) * 2 / 255 - 1
        features.append(module(clips))
    real, fake = (statistics_of(rows) for rows in features)
    result = compute_fvd(*sets, load_protocol("tf").replace(frames=10), embedder=embedder)
    assert result.fvd == pytest.approx(frechet_distance(real, fake), rel=1e-5)
    np.testing.assert_allclose(result.real.sample, features[0], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_noise(embedder: Embedder, module_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FVD of the first clips of the published noise, in 0..1 and not rescaled."""
    # its convolutions are less exact: they make this number 1.2e-5 less than it is in float64
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    (features,) = as_ranks(features_of_noise, module_folder, 2, world=1)
    real, fake = map(statistics_of, features)
    assert noise(embedder, 2) == pytest.approx(frechet_distance(real, fake), rel=1e-5)
