"""The network and the resizing, against TF-Hub's own graph in TensorFlow."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.lazy import tensorflow as tf

from i3dzoo.fvd import Embedder, compute_fvd, frechet_distance, load_protocol, statistics_of

pytestmark = [pytest.mark.tensorflow, pytest.mark.real_data]

Floats = np.ndarray


@pytest.fixture(scope="module")
def module(
    test_data: Path, deepmind_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Floats], Floats]:
    """TF-Hub's deepmind/i3d-kinetics-400/1: clips [N, T, 224, 224, 3] of -1..1 to [N, 400]."""
    from tensorflow.core.protobuf import saved_model_pb2

    folder = tmp_path_factory.mktemp("tfhub")
    source = test_data / "tfhub"
    shutil.copy(source / "variables" / "variables.index", folder / "v.index")
    data = deepmind_bundle.with_name("model.ckpt.data-00000-of-00001")
    shutil.copy(data, folder / "v.data-00000-of-00001")
    saved = saved_model_pb2.SavedModel.FromString((source / "saved_model.pb").read_bytes())
    graph = next(meta for meta in saved.meta_graphs if not meta.meta_info_def.tags)
    with tf.Graph().as_default() as built:
        saver = tf.compat.v1.train.import_meta_graph(graph)
        session = tf.compat.v1.Session(graph=built)
        saver.restore(session, str(folder / "v"))

    def run(clips: Floats) -> Floats:
        feed = {"input_frames:0": clips}
        return np.asarray(session.run("RGB/inception_i3d/Mean:0", feed), "f8")

    return run


def test_fvd_is_tensorflows(embedder: Embedder, module: Callable[[Floats], Floats]) -> None:
    """FVD of videos of an odd size, resized and embedded by TensorFlow."""
    random = np.random.default_rng(0)
    sets = []
    for seed in range(2):
        coarse = random.integers(0, 256, (3, 10, 7 + seed, 9, 3), np.uint8)
        sets.append(coarse.repeat(9, axis=2).repeat(9, axis=3))
    features = []
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
def test_noise(embedder: Embedder, module: Callable[[Floats], Floats]) -> None:
    """FVD of the first clips of the published noise, in 0..1 and not rescaled."""
    from i3dzoo.fvd.selftest import noise

    rows = [module(np.random.RandomState(seed).rand(2, 16, 224, 224, 3)) for seed in (1, 2)]
    real, fake = (statistics_of(part) for part in rows)
    assert noise(embedder, 2) == pytest.approx(frechet_distance(real, fake), rel=1e-5)
