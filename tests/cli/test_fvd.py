"""`i3dzoo fvd`."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import fail, run, succeed

Capture = pytest.CaptureFixture[str]


def _refuse(capsys: Capture, *arguments: object) -> str:
    """Run a command whose options do not fit; return standard error."""
    code, out, err = run(capsys, "fvd", *arguments)
    assert (code, out) == (2, "")
    return err


@pytest.fixture
def features(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of features of 400 numbers."""
    random = np.random.default_rng(0)
    for name, count in (("real", 30), ("fake", 20)):
        np.save(tmp_path / f"{name}.npy", random.normal(size=(count, 400)).astype("f4"))
    return tmp_path / "real.npy", tmp_path / "fake.npy"


def test_features(capsys: Capture, features: tuple[Path, Path], tmp_path: Path) -> None:
    """The number, what it was computed of, and what to be careful about."""
    plot = tmp_path / "fvd.png"
    out, err = succeed(capsys, "fvd", *features, "--bootstrap", 10, "--plot", plot)
    assert out.startswith("FVD ")
    assert "95% confidence interval" in out
    assert "for infinitely many videos" in out
    assert "KVD " in out
    assert "30 real and 20 fake clips" in out
    assert "protocol tf: The definition" in out
    assert out.endswith(f"{plot}\n")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "warning: 20 features are too few for 400 dimensions" in err
    document = json.loads(succeed(capsys, "fvd", *features, "--json")[0])
    assert f"FVD {document['fvd']:.6g}\n" in out
    assert document["protocol"]["ddof"] == 1
    assert (document["real"], document["fake"], document["interval"]) == (30, 20, None)
    assert document["infinite"]["counts"][-1] == 20
    err = _refuse(capsys, *features, "--stats", tmp_path / "x")
    assert "already; --stats is for" in err
    assert "exists already" in fail(capsys, "fvd", *features, "--plot", plot)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name two sets of videos"),
        (("a",), "name two sets of videos"),
        (("a", "b", "--selftest"), "pass --selftest alone"),
        (("a", "b", "--lengths", "10-x"), "'10-x' is not a number of frames"),
        (("a", "b", "--frames", "8"), "8 is not in the range x>=9"),
    ],
)
def test_usage(capsys: Capture, arguments: tuple[str, ...], message: str) -> None:
    """Wrong options are usage errors."""
    code, _, err = run(capsys, "fvd", *arguments)
    assert code == 2
    assert message in err


def test_ambiguous_range(capsys: Capture, tmp_path: Path) -> None:
    """Floats of 0..1 are refused with the name of the option; a picture is no set."""
    np.save(tmp_path / "x.npy", np.zeros((1, 9, 8, 8, 3), "f4"))
    err = _refuse(capsys, tmp_path / "x.npy", tmp_path / "x.npy")
    assert "--range 0..1 or --range -1..1" in err
    err = fail(capsys, "fvd", tmp_path / "gone", tmp_path / "x.npy")
    assert "gone" in err
    err = fail(capsys, "fvd", "a", "b", "--protocol", "fid")
    assert "tf, cdfvd, common, styleganv, videogpt" in err


def test_videos(capsys: Capture, rgb_scratch: Path, tmp_path: Path) -> None:
    """Black and white arrays by the command have the published distance, also from statistics."""
    np.save(tmp_path / "black.npy", np.zeros((1, 3, 10, 8, 8), "u1"))
    np.savez(tmp_path / "white.npz", np.full((1, 10, 8, 8, 3), 1, "f4"))
    stats = tmp_path / "black.safetensors"
    sets = (tmp_path / "black.npy", tmp_path / "white.npz")
    common = ("--frames", 10, "--range", "0..1", "--model", rgb_scratch, "--device", "cpu")
    assert "holds uint8" in _refuse(capsys, *sets, *common)
    np.savez(tmp_path / "white.npz", np.full((1, 10, 8, 8, 3), 255, "f4"))
    common = ("--frames", 10, "--model", rgb_scratch, "--device", "cpu", "--json")
    document = json.loads(succeed(capsys, "fvd", *sets, *common, "--stats", stats)[0])
    assert document["fvd"] == pytest.approx(569.7712, rel=1e-4)
    assert document["kvd"] is None
    assert any("floats of 0..255, as its values show" in note for note in document["notes"])
    again = json.loads(succeed(capsys, "fvd", stats, stats, *common)[0])
    assert again["fvd"] == pytest.approx(0, abs=1e-9)
    assert again["weights"] == document["weights"]
