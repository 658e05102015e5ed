"""The doctor: what is tried, what is found, and what is not shown."""

import json
import os
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cli import run, succeed

from i3dzoo import doctor
from i3dzoo.doctor import attempts, examination
from i3dzoo.doctor.traps import find_traps
from i3dzoo.text.redaction import hide

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", ["onnxruntime", "video", "flow", "parquet"])
def test_attempts(name: str) -> None:
    """What is installed for the tests works, when it is tried in this process."""
    assert attempts.ATTEMPTS[name]()["detail"]


def test_torch_is_described() -> None:
    """The report of PyTorch has what a report of a problem needs."""
    report = attempts.try_torch()
    assert report["detail"].startswith("ran I3D on cpu")
    assert report["version"] == torch.__version__
    assert report["devices"][0] == "cpu"
    assert report["threads"] == torch.get_num_threads()


def test_wrong_numbers_are_a_failure() -> None:
    """An engine that computes something else is not called working."""
    with pytest.raises(ArithmeticError, match="expected 27"):
        attempts._check_sum([26.0])


def test_extras_exist() -> None:
    """What is proposed to install is an extra of the package."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    named = {name for name, (kind, _) in examination._PARTS.items() if kind == "extra"}
    assert named | {"onnx", "openvino", "tensorrt"} <= set(extras)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts of which one works, one fails, one dies, one hangs, and one is not installed."""
    parts = dict.fromkeys(("works", "fails", "dies", "hangs", "no_device"), ("extra", ("json",)))
    parts |= {"torch": ("engine", ("json",)), "video": ("video", ("json",))}
    parts["plot"] = ("extra", ("no_such_module|nor_this",))
    monkeypatch.setattr(examination, "_PARTS", parts)
    monkeypatch.setattr(examination, "_MODULE", "doctor_attempts")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)


@pytest.mark.usefixtures("quick")
def test_states() -> None:
    """Each attempt ends by itself or by its limit, and the others go on."""
    names = ("works", "fails", "dies", "hangs", "no_device", "plot")
    result = {a.name: (a.state, a.detail) for a in doctor.examine(names, seconds=2).attempts}
    assert result == {
        "works": ("works", "did it"),
        "fails": ("fails", "ValueError: …/secret.txt is wrong"),
        "dies": ("fails", f"killed by signal {int(signal.SIGABRT)}"),
        "hangs": ("no answer", "within 2 seconds"),
        "no_device": ("no device", "there is no GPU"),
        "plot": ("not installed", "needs no_such_module: pip install 'i3dzoo[plot]'"),
    }


@pytest.mark.usefixtures("quick")
def test_command(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The block and the JSON have the facts, and neither paths nor tokens."""
    home = tmp_path / "home"
    token = "hf_" + "secret" * 5
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("I3DZOO_CACHE", str(home / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    hide(token)
    keep = ("torch", "video", "works", "fails")
    parts = {name: examination._PARTS[name] for name in keep}
    monkeypatch.setattr(examination, "_PARTS", parts)
    out, _ = succeed(capsys, "doctor")
    shown, _ = succeed(capsys, "doctor", "--json")
    document = json.loads(shown)
    assert document["works"] is True
    assert [attempt["name"] for attempt in document["attempts"]] == list(keep)
    assert document["cache"]["folder"] == "~/cache"
    assert document["system"]["python"] == sys.version.split()[0]
    lines = out.splitlines()
    assert lines[0] == lines[-1] == "```"
    assert "cache       ~/cache: no model, 0 MB" in out
    for text in (out, shown):
        assert str(tmp_path) not in text
        assert token not in text
        assert "/work" not in text.replace("works", "")


@pytest.mark.usefixtures("quick")
def test_what_is_needed_fails(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyTorch, the exit code is 1."""
    parts = {"torch": ("engine", ("no_such_module",))}
    monkeypatch.setattr(examination, "_PARTS", parts)
    monkeypatch.setattr(
        doctor.examine, "__defaults__", (("torch",), 2.0, *doctor.examine.__defaults__[2:])
    )
    code, out, _ = run(capsys, "doctor")
    assert code == 1
    assert "torch        not installed: needs no_such_module" in out


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"packages": {"torch": "2.9.0+cu128"}, "torch": {"cudnn": 91900}}, "2.9.0+cu128 avoids"),
        ({"packages": {"torch": "2.9.1"}, "torch": {"cudnn": 91002}}, "use another version"),
        ({"packages": {"torch": "2.8.0"}, "torch": {"cudnn": 91002}}, "cuDNN 9.10 may give wrong"),
        ({"driver": "580.1", "torch": {"cuda": None, "gpus": []}}, "built without CUDA"),
        ({"driver": "450.1", "torch": {"cuda": "13.0", "gpus": []}}, "driver may be too old"),
        ({"packages": {"opencv-python": "5", "opencv-contrib-python-headless": "5"}}, "overwrite"),
        ({"packages": {"onnxruntime": "1", "onnxruntime-gpu": "1"}}, "uninstall all but one"),
        ({"video": {"missing_decoders": ["hevc", "av1"]}}, "no decoder for hevc, av1"),
        ({"video": {"missing_encoders": ["libx264"]}}, "writes MPEG-4"),
        ({"environment": {"OMP_NUM_THREADS": "1"}, "processors": 8}, "uses one processor"),
        ({"environment": {"HF_HUB_OFFLINE": "1"}}, "nothing is fetched"),
        ({"archives": []}, "cannot extract .rar files"),
        ({"free_bytes": 5 * 10**8}, "0.5 GB left"),
        ({"shared_memory_bytes": 67108864}, "--shm-size"),
    ],
)  # fmt: skip
def test_traps(facts: dict[str, Any], words: str) -> None:
    """Each trap is named by the facts that show it."""
    (trap,) = find_traps(facts)
    assert words in trap


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"packages": {"torch": "2.9.1"}, "torch": {"cudnn": 91500}},
        {"packages": {"torch": "2.13.0+cpu"}, "torch": {"cudnn": None, "gpus": []}},
        {"driver": "580", "torch": {"cuda": "13.0", "gpus": [{}]}, "archives": ["7z"]},
        {"environment": {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "0"}, "processors": 1},
        {"video": {"missing_decoders": [], "missing_encoders": []}, "free_bytes": 10**11},
    ],
)
def test_no_trap(facts: dict[str, Any]) -> None:
    """A machine without a trap is not warned."""
    assert list(find_traps(facts)) == []


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("/home/me/a b.txt: no", "…/a b.txt: no"),
        ("open 'C:\\Users\\me\\x.dll'", "open '…/x.dll'"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
        ("a/b and 3/4", "a/b and 3/4"),
    ],
)
def test_clean(text: str, cleaned: str) -> None:
    """Folders are left out of messages, and addresses stay."""
    assert examination.clean(text) == cleaned
