"""Checkpoints of every layout and container, and what goes with them."""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from helpers.checkpoints import to_layout, torch_state
from helpers.foreign import write_graph, write_params
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

import i3dzoo
from fuzz import mutators as damage
from fuzz.kind import Kind
from fuzz.shared import Shared
from i3dzoo.checkpoints.checkpoint import write_checkpoint
from i3dzoo.checkpoints.inflation import write_deflated
from i3dzoo.checkpoints.joint import write_joint
from i3dzoo.formats import tensorflow_write
from i3dzoo.formats._protobuf import encode_bytes, encode_varint
from i3dzoo.pretrained import build
from i3dzoo.resources import data

_LARGE = 0.15  # share of the mutants of files of 25 MB


def _convert(file: str, *options: str) -> tuple[str, ...]:
    return ("convert", file, "out/y.safetensors", "--quiet", *options)


def _relabel(file: str) -> tuple[str, ...]:
    return _convert("{shared}/rgb.safetensors", "--labels", file, "--head", "keep")


def _layout(name: str, file: str) -> Callable[[Path, Shared], None]:
    def build_seed(folder: Path, shared: Shared) -> None:
        write_checkpoint(folder / file, shared.checkpoint, name)

    return build_seed


def _without_checksums(folder: Path, shared: Shared) -> None:
    """Write a canonical file as other programs would, so that damage is not found at once."""
    tensors = {name: torch.from_numpy(array) for name, array in shared.checkpoint.tensors.items()}
    texts = {"i3dzoo": shared.checkpoint.metadata.to_json()}
    save_file(tensors, folder / "x.safetensors", texts)


def _torch(zipped: bool, whole: bool = False) -> Callable[[Path, Shared], None]:
    def build_seed(folder: Path, shared: Shared) -> None:
        state = torch_state(shared.checkpoint.tensors, "piergiaj")
        content = {"state_dict": state, "epoch": 3, "args": {"lr": 0.1}} if whole else state
        torch.save(content, folder / "x.pt", _use_new_zipfile_serialization=zipped)

    return build_seed


def _torchscript(folder: Path, shared: Shared) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = build(shared.checkpoint).eval().float()
        with torch.inference_mode():
            traced = torch.jit.trace(network, torch.zeros(1, 3, 9, 32, 32), check_trace=False)
        torch.jit.save(traced.half(), folder / "x.pt")


def _saved_model(folder: Path, shared: Shared) -> None:
    (folder / "model" / "variables").mkdir(parents=True)
    write_checkpoint(folder / "model" / "variables" / "variables.index", shared.checkpoint,
                     "deepmind")  # fmt: skip
    (folder / "model" / "saved_model.pb").write_bytes(b"\x08\x01")


def _joint(folder: Path, shared: Shared) -> None:
    from helpers.exported import noisy

    from i3dzoo.checkpoints.streams import change_dtype

    flow = change_dtype(noisy("flow", 5), "float16")
    write_joint(folder / "x.ckpt", shared.checkpoint, flow, "tao")


def _keras_archive(folder: Path, shared: Shared) -> None:
    weights = write_checkpoint(folder / "w.weights.h5", shared.checkpoint, "keras3")
    with zipfile.ZipFile(folder / "x.keras", "w") as archive:
        for name, text in (("metadata.json", "{}"), ("config.json", "{}")):
            archive.writestr(zipfile.ZipInfo(name), text)
        archive.writestr(zipfile.ZipInfo("model.weights.h5"), weights.read_bytes())
    weights.unlink()


def _onnx(folder: Path, shared: Shared) -> None:
    i3dzoo.export(shared.checkpoint, folder / "x.onnx", "onnx", keep_bn=True)


def _onnx_in_two(folder: Path, shared: Shared) -> None:
    import onnx

    _onnx(folder, shared)
    onnx.save_model(
        onnx.load(folder / "x.onnx"),
        folder / "x.onnx",
        save_as_external_data=True,
        location="x.data",
    )


def _mxnet(folder: Path, shared: Shared) -> None:
    write_params(folder / "x.params", to_layout(shared.checkpoint.tensors, "gluoncv"))


def _graph(folder: Path, shared: Shared) -> None:
    write_graph(folder / "x.pb", to_layout(shared.checkpoint.tensors, "deepmind"))


def _tensorflow_v1(folder: Path, shared: Shared) -> None:
    """Write SavedTensorSlices: one message with names and shapes, and one for each tensor."""
    meta, pairs = b"", []
    for name, array in sorted(to_layout(shared.checkpoint.tensors, "deepmind").items()):
        dimensions = b"".join(encode_bytes(2, b"\x08" + encode_varint(n)) for n in array.shape)
        text = encode_bytes(1, name.encode())
        meta += encode_bytes(1, text + encode_bytes(2, dimensions) + b"\x18\x01")
        numbers = b"\x08\x01" + encode_bytes(5, array.astype("<f4").tobytes())
        pairs.append((name.encode(), encode_bytes(2, text + encode_bytes(3, numbers))))
    content = tensorflow_write._table([(b"", encode_bytes(1, meta)), *pairs])
    (folder / "x.ckpt").write_bytes(content)


def _sharded(folder: Path, shared: Shared) -> None:
    (folder / "model").mkdir()
    state = torch_state(shared.checkpoint.tensors)
    save_torch_state_dict(state, folder / "model", max_shard_size="10MB")


def _images(folder: Path, shared: Shared) -> None:
    write_deflated(folder / "x.pth", shared.checkpoint)


def _table(folder: Path, shared: Shared) -> None:
    write_checkpoint(folder / "x.pt", shared.checkpoint, "piergiaj")
    (folder / "mine.toml").write_bytes((data("converters") / "piergiaj.toml").read_bytes())


def _preset(folder: Path, _: Shared) -> None:
    source = data("converters") / "presets" / "video-features.toml"
    (folder / "mine.toml").write_bytes(source.read_bytes())


def _output_table(folder: Path, _: Shared) -> None:
    (folder / "mine.toml").write_bytes((data("converters") / "hassony2.toml").read_bytes())


def _labels(file: str, text: str) -> Callable[[Path, Shared], None]:
    def build_seed(folder: Path, _: Shared) -> None:
        (folder / file).write_text(text)

    return build_seed


def _saved_folder(folder: Path, shared: Shared) -> None:
    i3dzoo.hub.prepare(shared.checkpoint, folder, i3dzoo.hub.About(licence="Apache-2.0"))


def _manifest(folder: Path, _: Shared) -> None:
    (folder / "rgb_scratch.toml").write_bytes((data("manifests") / "rgb_scratch.toml").read_bytes())


_INFO = ("info", "x.onnx")

KINDS = (
    Kind("safetensors", _layout("canonical", "x.safetensors"),
         {"x.safetensors": damage.damage_bytes}, _convert("x.safetensors"), _LARGE),
    Kind("safetensors header", _without_checksums,
         {"x.safetensors": damage.damage_safetensors}, _convert("x.safetensors"), _LARGE),
    Kind("description", _without_checksums,
         {"x.safetensors": damage.damage_description},
         ("predict", "{shared}/video.avi", "--model", "x.safetensors", "--device", "cpu"), 0.35),
    Kind("torch zip", _torch(zipped=True), {"x.pt": damage.damage_bytes}, _convert("x.pt"), _LARGE),
    Kind("torch zip members", _torch(zipped=True), {"x.pt": damage.damage_zip}, _convert("x.pt"),
         _LARGE),
    Kind("torch zip pickle", _torch(zipped=True, whole=True),
         {"x.pt": damage.damage_member("data.pkl", damage.damage_bytes)}, _convert("x.pt"), _LARGE),
    Kind("network of images", _images, {"x.pth": damage.damage_zip},
         ("inflate", "x.pth", "out/y.safetensors"), _LARGE),
    Kind("torch legacy", _torch(zipped=False), {"x.pt": damage.damage_bytes}, _convert("x.pt"),
         _LARGE),
    Kind("torchscript", _torchscript, {"x.pt": damage.damage_zip}, _convert("x.pt"), _LARGE),
    Kind("hassony2", _layout("hassony2", "x.pt"), {"x.pt": damage.damage_zip}, _convert("x.pt"),
         _LARGE),
    Kind("lightning", _layout("tao", "x.ckpt"), {"x.ckpt": damage.damage_zip}, _convert("x.ckpt"),
         _LARGE),
    Kind("joint checkpoint", _joint, {"x.ckpt": damage.damage_bytes},
         _convert("x.ckpt", "--stream", "flow"), _LARGE),
    Kind("tensorflow index", _layout("deepmind", "x.index"), {"x.index": damage.damage_index},
         _convert("x.index")),
    Kind("tensorflow data", _layout("deepmind600", "x.index"), {"x.data*": damage.damage_bytes},
         _convert("x.index"), _LARGE),
    Kind("tensorflow v1", _tensorflow_v1, {"x.ckpt": damage.damage_index}, _convert("x.ckpt"),
         0.05),
    Kind("saved model", _saved_model, {"model/variables/*.index": damage.damage_index},
         _convert("model")),
    Kind("keras hdf5", _layout("keras", "x.h5"), {"x.h5": damage.damage_bytes}, _convert("x.h5"),
         0.12),
    Kind("keras 3 weights", _layout("keras3", "x.weights.h5"),
         {"x.weights.h5": damage.damage_bytes}, _convert("x.weights.h5"), 0.12),
    Kind("keras 3 archive", _keras_archive, {"x.keras": damage.damage_zip}, _convert("x.keras"),
         0.12),
    Kind("flax pickle", _layout("flax", "x.pkl"), {"x.pkl": damage.damage_bytes},
         _convert("x.pkl"), _LARGE),
    Kind("mxnet parameters", _mxnet, {"x.params": damage.damage_bytes}, _convert("x.params"),
         _LARGE),
    Kind("tensorflow graph", _graph, {"x.pb": damage.damage_bytes}, _convert("x.pb"), _LARGE),
    Kind("sharded safetensors", _sharded, {"model/*.json": damage.damage_json}, _convert("model"),
         _LARGE),
    Kind("onnx", _onnx, {"x.onnx": damage.damage_bytes}, _INFO, _LARGE),
    Kind("onnx in two files", _onnx_in_two, {"x.onnx": damage.damage_bytes}, _INFO, _LARGE),
    Kind("onnx in onnxruntime", _onnx, {"x.onnx": damage.damage_bytes},
         ("predict", "{shared}/video.avi", "--model", "x.onnx"), _LARGE),
    Kind("input preset", _preset, {"mine.toml": damage.damage_toml},
         ("presets", "check", "mine.toml", "--kind", "input"), 0.1),
    Kind("converter table", _table, {"mine.toml": damage.damage_toml},
         _convert("x.pt", "--converter", "mine.toml"), 0.5),
    Kind("output converter table", _output_table, {"mine.toml": damage.damage_toml},
         ("convert", "{shared}/rgb.safetensors", "out/y.pt", "--to", "mine.toml", "--quiet"), 0.5),
    Kind("labels", _labels("x.txt", "one\ntwo\nthree\nfour\nfive\n"),
         {"x.txt": damage.damage_lines}, _relabel("x.txt"), 0.3),
    Kind("labels in JSON", _labels("x.json", '{"1": "b", "0": "a", "2": "c", "3": "d", "4": "e"}'),
         {"x.json": damage.damage_json}, _relabel("x.json"), 0.3),
    Kind("labels in CSV", _labels("x.csv", "id,name\n0,a\n1,b\n2,c\n3,d\n4,e\n"),
         {"x.csv": damage.damage_lines}, _relabel("x.csv"), 0.3),
    Kind("saved folder", _saved_folder, {"SHA256SUMS": damage.damage_lines, "*.json":
         damage.damage_json}, ("info", "."), 0.5),
    Kind("manifest", _manifest, {"rgb_scratch.toml": damage.damage_toml},
         ("i3dzoo.zoo.registry:load_manifest", "rgb_scratch.toml")),
)  # fmt: skip
