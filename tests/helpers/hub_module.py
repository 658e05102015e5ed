"""TF-Hub's deepmind/i3d-kinetics-400/1 in TensorFlow."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from helpers.lazy import tensorflow as tf

Floats = np.ndarray


def load_module(folder: Path) -> Callable[[Floats], Floats]:
    """Return the function from clips [N, T, 224, 224, 3] of -1..1 to features [N, 400].

    The folder holds saved_model.pb, v.index and v.data-00000-of-00001.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = next(meta for meta in saved.meta_graphs if not meta.meta_info_def.tags)
    with tf.Graph().as_default() as built:
        saver = tf.compat.v1.train.import_meta_graph(graph)
        session = tf.compat.v1.Session(graph=built)
        saver.restore(session, str(folder / "v"))

    def run(clips: Floats) -> Floats:
        feed = {"input_frames:0": clips}
        return np.asarray(session.run("RGB/inception_i3d/Mean:0", feed), "f8")

    return run


def features_of_noise(folder: Path, count: int) -> list[Floats]:
    """Return the module's features of the first clips of both sets of the published noise."""
    module = load_module(folder)
    return [module(np.random.RandomState(seed).rand(count, 16, 224, 224, 3)) for seed in (1, 2)]
