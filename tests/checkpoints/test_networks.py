"""Files with several networks: what they hold is listed, and a key chooses one."""

import json
import logging
import pickle
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoints import assert_equal, torch_state
from helpers.cli import call

import i3dzoo
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.checkpoint import Checkpoint, network_keys, read_checkpoint
from i3dzoo.errors import FormatError, MappingError
from i3dzoo.fetch.find import digest, find, open_networks

BIAS = "Conv3d_2b_1x1.bn.bias"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def first(random_tensors: Tensors) -> State:
    """A state dict of the layout piergiaj."""
    return torch_state(random_tensors)


@pytest.fixture(scope="module")
def second(random_tensors: Tensors) -> State:
    """One of the layout hassony2, for flow, with half the biases."""
    tensors = dict(random_tensors)
    tensors[BIAS] = tensors[BIAS] / 2
    tensors["Conv3d_1a_7x7.conv.weight"] = tensors["Conv3d_1a_7x7.conv.weight"][:, :2]
    return torch_state(tensors, "hassony2")


def _bias(path: str | Path, key: str | None = None) -> np.ndarray:
    return read_checkpoint(path, key=key).tensors[BIAS]


@pytest.mark.parametrize(
    ("one", "other"), [("rgb", "flow"), ("student", "teacher"), ("weights", "ema")]
)
def test_two_state_dicts(
    first: State, second: State, random_tensors: Tensors, tmp_path: Path, one: str, other: str
) -> None:
    """The error lists both, with layout, stream and classes; a key or a stream takes one."""
    path = tmp_path / "two.pt"
    torch.save({one: first, other: second, "epoch": 3}, path)
    with pytest.raises(MappingError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert f"rgb under {one!r} (layout piergiaj, 12 classes)" in message
    assert f"flow under {other!r} (layout hassony2, 12 classes)" in message
    assert f"--stream rgb or --stream flow or --key {one} or --key {other}" in message
    np.testing.assert_array_equal(_bias(path, one), random_tensors[BIAS])
    np.testing.assert_array_equal(_bias(f"{path}#{other}"), random_tensors[BIAS] / 2)
    flow = read_checkpoint(path, stream="flow")
    assert (flow.metadata.stream, flow.key) == ("flow", other)
    assert flow.conversion is not None
    reasons = {mapped.source: mapped.operation for mapped in flow.conversion.ignored}
    assert f"under {one!r}, which is not read" in reasons[f"{one}.logits.conv3d.bias"]
    with pytest.raises(MappingError, match=f"expected a network under 'swa', found .*{other}"):
        read_checkpoint(path, key="swa")


@pytest.mark.parametrize(
    ("usual", "other", "key"),
    [
        ("state_dict", "state_dict_ema", "state_dict_ema"),
        ("model", "ema", "ema"),
        ("net", "shadow", "averages.shadow"),
    ],
)
def test_a_usual_key_is_read_and_the_other_is_named(
    first: State,
    random_tensors: Tensors,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    usual: str,
    other: str,
    key: str,
) -> None:
    """What training tools load is read, and a warning says how to read the other one."""
    path = tmp_path / "x.pt"
    average = {
        name: tensor / 2 if name.endswith("bias") else tensor for name, tensor in first.items()
    }
    torch.save(
        {usual: first, **({other: average} if key == other else {"averages": {other: average}})},
        path,
    )
    with caplog.at_level(logging.WARNING, "i3dzoo"):
        np.testing.assert_array_equal(_bias(path), random_tensors[BIAS])
    (record,) = caplog.records
    assert f"reads the network under {usual!r}" in record.getMessage()
    assert f"--key {key}" in record.getMessage()
    caplog.clear()
    np.testing.assert_array_equal(_bias(path, key), random_tensors[BIAS] / 2)
    assert not caplog.records


def test_prefixes(first: State, random_tensors: Tensors, tmp_path: Path) -> None:
    """Two encoders in one state dict, with a queue: a key takes one and leaves out the rest."""
    path = tmp_path / "moco.pth"
    state = {f"module.encoder_q.{name}": tensor for name, tensor in first.items()}
    state |= {f"module.encoder_k.{name}": tensor for name, tensor in first.items()}
    torch.save({"state_dict": {**state, "module.queue": torch.ones(3)}}, path)
    with pytest.raises(
        MappingError, match=r"choose one with --key module.encoder_q or --key module"
    ):
        read_checkpoint(path)
    for key in ("encoder_k", "module.encoder_k", "encoder_k."):
        checkpoint = read_checkpoint(path, key=key)
        assert_equal(checkpoint.tensors, random_tensors)
        assert checkpoint.key == "module.encoder_k"
    assert checkpoint.conversion is not None
    reasons = {mapped.source: mapped.operation for mapped in checkpoint.conversion.ignored}
    assert "not part of the network under 'module.encoder_k'" in reasons["module.queue"]
    assert "network under 'module.encoder_q'" in reasons["module.encoder_q.logits.conv3d.bias"]
    with pytest.raises(MappingError, match="expected one network"):
        read_checkpoint(path, key="module")
    with pytest.raises(MappingError, match="expected a network under 'encoder', found"):
        read_checkpoint(path, key="encoder")


def test_a_network_without_a_prefix(first: State, second: State, tmp_path: Path) -> None:
    """An empty key is the network whose names have no prefix."""
    path = tmp_path / "x.pt"
    torch.save(first | {f"aux.{name}": tensor for name, tensor in second.items()}, path)
    with pytest.raises(MappingError, match="--key '' or --key aux"):
        read_checkpoint(path)
    assert read_checkpoint(f"{path}#").metadata.stream == "rgb"
    assert read_checkpoint(path, key="aux").metadata.stream == "flow"


@pytest.mark.parametrize("names", ["logits.conv3d", "conv3d", ""])
def test_a_trunk_and_its_head(
    first: State, random_tensors: Tensors, tmp_path: Path, names: str
) -> None:
    """A head that is a state dict of its own is joined with the trunk, unless a key takes one."""
    path = tmp_path / "x.pt"
    trunk = {name: tensor for name, tensor in first.items() if "logits" not in name}
    head = {
        f"{names}.{part}".removeprefix("."): first[f"logits.conv3d.{part}"]
        for part in ("weight", "bias")
    }
    torch.save({"backbone": trunk, "head": head}, path)
    whole = read_checkpoint(path)
    assert_equal(whole.tensors, random_tensors)
    assert whole.conversion is not None
    assert len(whole.conversion.ignored) == 57
    assert read_checkpoint(path, key="backbone").metadata.num_classes == 0


def test_a_head_of_another_kind(
    first: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A trunk is not read without its head in silence."""
    trunk = {name: tensor for name, tensor in first.items() if "logits" not in name}
    head = {"fc.weight": torch.ones(3, 1024)}
    torch.save({"backbone": trunk, "head": head}, tmp_path / "x.pt")
    message = r"head of the network under 'backbone', found 'head' \(fc.weight\); .*--key backbone"
    with pytest.raises(MappingError, match=message):
        read_checkpoint(tmp_path / "x.pt")
    torch.save({"model": trunk, "head": head}, tmp_path / "y.pt")
    assert read_checkpoint(tmp_path / "y.pt").metadata.num_classes == 0
    assert "has no head; 'head' (fc.weight) is not read" in caplog.text


@pytest.mark.parametrize(
    "heads",
    [
        {"projector": {"weight": torch.ones(12, 1024), "bias": torch.ones(12)}},
        {
            name: {"weight": torch.ones(12, 1024, 1, 1, 1), "bias": torch.ones(12)}
            for name in ("verb", "noun")
        },
    ],
)
def test_no_head_is_guessed(first: State, tmp_path: Path, heads: dict[str, State]) -> None:
    """A linear layer is not a head, and of two heads none is taken."""
    trunk = {name: tensor for name, tensor in first.items() if "logits" not in name}
    torch.save({"backbone": trunk, **heads}, tmp_path / "x.pt")
    listed = ", ".join(f"'{name}' (weight, bias)" for name in heads)
    with pytest.raises(MappingError, match=f"expected the head .*, found {re.escape(listed)}; "):
        read_checkpoint(tmp_path / "x.pt")
    torch.save({"model": trunk, **heads}, tmp_path / "y.pt")
    assert read_checkpoint(tmp_path / "y.pt").metadata.num_classes == 0


def test_many_state_dicts_are_refused_soon(tmp_path: Path) -> None:
    """Thousands of state dicts of one tensor take no time, and their list is short."""
    content = {f"part{number}": {"a": torch.ones(1)} for number in range(3000)}
    torch.save(content, tmp_path / "x.pt")
    start = time.process_time()
    with pytest.raises(MappingError, match="expected the tensor names of a known layout") as caught:
        read_checkpoint(tmp_path / "x.pt")
    assert time.process_time() - start < 5
    assert len(str(caught.value)) < 1000


def test_an_incomplete_network_among_several(first: State, tmp_path: Path) -> None:
    """A state dict under a usual key that is no network is an error, whatever else there is."""
    torch.save({"state_dict": {**first, "epoch": 3}, "ema": first}, tmp_path / "x.pt")
    with pytest.raises(FormatError, match="contains int under 'epoch'; expected a state dict"):
        read_checkpoint(tmp_path / "x.pt")


def test_files_with_a_sharp(first: State, second: State, tmp_path: Path) -> None:
    """A file whose own name has a # is that file."""
    path = tmp_path / "c#.pt"
    torch.save({"a": first, "b": second}, path)
    assert find(str(path)) == path
    assert read_checkpoint(path, key="b").key == "b"
    assert read_checkpoint(f"{path}#b").key == "b"
    assert find(f"{path}#b") == Path(f"{path}#b")
    assert len({digest(path), digest(Path(f"{path}#a")), digest(Path(f"{path}#b"))}) == 3


def test_python(first: State, second: State, tmp_path: Path) -> None:
    """open_checkpoint and load take a key, and open_networks reads all."""
    path = tmp_path / "two.pt"
    torch.save({"rgb": first, "flow": second}, path)
    assert i3dzoo.open_checkpoint(path, key="flow").metadata.stream == "flow"
    assert i3dzoo.load(path, key="flow").in_channels == 2
    assert i3dzoo.load(f"{path}#rgb").in_channels == 3
    assert network_keys(path) == ("rgb", "flow")
    assert [network.key for network in open_networks(path)] == ["rgb", "flow"]
    assert [network.key for network in open_networks(f"{path}#flow")] == ["flow"]


@pytest.fixture(scope="module")
def two(rgb: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small networks in one file; the teacher is the genuine one."""
    path = tmp_path_factory.mktemp("two") / "two.pt"
    state = torch_state(rgb.tensors)
    torch.save({"student": torch_state(rgb.tensors, "hassony2"), "teacher": state}, path)
    return path


def test_commands(two: Path, tmp_path: Path) -> None:
    """Commands that read a model take --key or FILE#KEY, and list the networks without."""
    listed = json.loads(call("identify", two, "--json", code=0).stdout)
    assert [(each["key"], each["layout"]) for each in listed] == [
        ("student", "hassony2"),
        ("teacher", "piergiaj"),
    ]
    refused = call("info", two, code=1)
    assert "--key student or --key teacher" in refused.stderr
    shown = call("info", two, "--key", "teacher", code=0).stdout.splitlines()
    assert ["network", "teacher"] in [line.split() for line in shown]
    (verified,) = json.loads(call("verify", two, "--key", "student", "--json").stdout)
    assert verified["layout"] == "hassony2"
    agrees = call("verify", f"{two}#student", "--against", f"{two}#teacher", code=0)
    assert "agree" in agrees.stdout
    made = call("convert", two, "--key", "teacher", "--json", cwd=tmp_path, code=0)
    assert json.loads(made.stdout)["target"] == "two.safetensors"


def test_commands_that_run_a_network(two: Path, tmp_path: Path) -> None:
    """predict, features and export read the network of the key; it is read before the video."""
    (tmp_path / "empty.mp4").touch()
    for command in (["predict", "empty.mp4"], ["features", "empty.mp4", "-o", "features"]):
        refused = call(*command, "--model", two, cwd=tmp_path, code=1)
        assert "--key student or --key teacher" in refused.stderr
        chosen = call(*command, "--model", two, "--key", "teacher", cwd=tmp_path, code=1)
        assert "two.pt" not in chosen.stderr
        assert "empty.mp4" in chosen.stderr
    call("export", two, "--key", "student", "--to", "tao", "-o", tmp_path / "x.pt", code=0)
    back = read_checkpoint(tmp_path / "x.pt").tensors
    assert_equal(back, read_checkpoint(two, key="student").tensors)


def test_a_warning_is_a_remark(first: State, tmp_path: Path) -> None:
    """A command prints the warning on standard error, and JSON stays one document."""
    torch.save({"model": first, "ema\x1b[2J": dict(first)}, tmp_path / "x.pt")
    result = call("identify", f"{tmp_path / 'x.pt'}#model", "--json", code=0)
    assert json.loads(result.stdout)[0]["key"] == "model"
    result = call("info", tmp_path / "x.pt", "--json", code=0)
    assert json.loads(result.stdout)["key"] == "model"
    assert "reads the network under 'model'" in result.stderr
    assert "\x1b" not in result.stderr


@pytest.mark.parametrize("names", [[BIAS], None])
def test_float64(random_tensors: Tensors, tmp_path: Path, names: list[str] | None) -> None:
    """float64 in one tensor or in all is rounded if asked for, else refused with the remedy."""
    double = {
        name: array.astype("f8") + 1e-12 if names is None or name in names else array
        for name, array in random_tensors.items()
    }
    for name in (name for name in double if name.endswith("bn.weight")):
        double[name] = random_tensors[name]
    torch.save({name: torch.from_numpy(array) for name, array in double.items()}, tmp_path / "x.pt")
    with pytest.raises(MappingError, match=r"has dtype float64; .*--dtype float32.*round_float64"):
        read_checkpoint(tmp_path / "x.pt")
    rounded = i3dzoo.open_checkpoint(tmp_path / "x.pt", round_float64=True)
    assert {array.dtype.name for array in rounded.tensors.values()} == {"float32"}
    expected = torch.from_numpy(double[BIAS]).float().numpy()  # PyTorch rounds to nearest even
    np.testing.assert_array_equal(rounded.tensors[BIAS], expected)
    call("convert", tmp_path / "x.pt", "--dtype", "float32", "--quiet", cwd=tmp_path, code=0)
    np.testing.assert_array_equal(_bias(tmp_path / "x.safetensors"), expected)


def test_float64_out_of_range(random_tensors: Tensors, tmp_path: Path) -> None:
    """A value beyond float32 is an error that names it."""
    double = {**random_tensors, BIAS: np.full(64, 1e300)}
    torch.save({name: torch.from_numpy(array) for name, array in double.items()}, tmp_path / "x.pt")
    with pytest.raises(FormatError, match=rf"{BIAS}: the value 1e\+300 is outside the range"):
        read_checkpoint(tmp_path / "x.pt", round_float64=True)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [None, "state_dict"])
def test_numpy_arrays_in_a_pt(
    first: State, random_tensors: Tensors, tmp_path: Path, zipped: bool, wrap: str | None
) -> None:
    """A .pt of NumPy arrays is read as the plain pickle of them is."""
    arrays = {name: tensor.numpy() for name, tensor in first.items()}
    content = {wrap: arrays, "epoch": 1} if wrap else arrays
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(arrays))
    for name in ("x.pt", "x.pkl"):
        assert_equal(read_checkpoint(tmp_path / name).tensors, random_tensors)


def test_arrays_among_tensors(first: State, random_tensors: Tensors, tmp_path: Path) -> None:
    """One array among tensors is read too."""
    name = "logits.conv3d.bias"
    torch.save({**first, name: first[name].numpy()}, tmp_path / "x.pt")
    assert_equal(read_checkpoint(tmp_path / "x.pt").tensors, random_tensors)


def test_a_pickle_with_two_networks(first: State, tmp_path: Path) -> None:
    """Nested dicts of arrays are chosen from in the same way."""
    arrays = {name: tensor.numpy() for name, tensor in first.items()}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"rgb": arrays, "ema": arrays}))
    with pytest.raises(MappingError, match="--key rgb or --key ema"):
        read_checkpoint(tmp_path / "x.pkl")
    assert read_checkpoint(tmp_path / "x.pkl", key="ema").key == "ema"
