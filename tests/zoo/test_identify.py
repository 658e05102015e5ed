"""Identify files that are published checkpoints, contain them, or were made from them."""

import dataclasses
import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from i3dzoo import zoo
from i3dzoo.arrays import Tensors
from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.metadata import Input
from i3dzoo.checkpoints.streams import change_dtype, change_stream
from i3dzoo.cli import main
from i3dzoo.digests import git_blob
from i3dzoo.errors import ChecksumError
from i3dzoo.fetch.find import open_checkpoint
from i3dzoo.zoo import identify
from i3dzoo.zoo.identify import best_match, check_claim, published_file
from i3dzoo.zoo.manifest import Files
from i3dzoo.zoo.match import compare_checksums


def change(tensors: Tensors, *suffixes: str) -> dict[str, np.ndarray]:
    """Return the tensors, with those of these suffixes changed as by training."""
    return {
        name: array * np.float32(1.01) if name.endswith(suffixes) else array
        for name, array in tensors.items()
    }


def test_exact_trunk_and_headless(genuine: Checkpoint) -> None:
    """A complete match, another head, and a missing head are told apart."""
    assert str(best_match(genuine.tensors)) == "rgb_scratch, 230 of 230 tensors"
    trunk = change_head(genuine, 51).tensors
    words = "rgb_scratch trunk, 228 of 230 tensors: "
    assert str(best_match(trunk)) == words + "the head differs (51 classes)"
    headless = change_head(genuine, None, head="drop").tensors
    assert str(best_match(headless)) == words + "there is no head"


def test_batchnorm_alone_moved(genuine: Checkpoint) -> None:
    """If all convolutions match, the description counts the BatchNorm tensors that match."""
    result = best_match(change(genuine.tensors, "running_mean", "running_var"))
    assert result.convolutions
    assert not result.trunk
    assert str(result) == (
        "convolutions of rgb_scratch (57 of 57), 116 of 230 tensors: BatchNorm differs, it shares "
        "57 of 57 biases and 0 of 114 statistics"
    )
    tuned = change(change_head(genuine, 7).tensors, "running_var", "bn.bias")
    assert str(best_match(tuned)).endswith(
        "0 of 57 biases and 57 of 114 statistics; the head differs (7 classes)"
    )


def test_last_blocks_moved(genuine: Checkpoint) -> None:
    """If the last blocks were trained, the description names the first tensor that differs."""
    tensors = {
        name: array + np.float32(0.5) if name.startswith(("Mixed_5", "Logits")) else array
        for name, array in genuine.tensors.items()
    }
    words = str(best_match(tensors))
    assert words.startswith("closest to rgb_scratch, 180 of 230 tensors: convolutions 45 of 57")
    assert words.endswith("that differs is Mixed_5b.Branch_0.Conv3d_0a_1x1.conv.weight")


def test_everything_moved(random_tensors: Tensors) -> None:
    """A file without a shared tensor matches nothing."""
    result = best_match(random_tensors)
    assert (result.matched, result.trunk, result.convolutions) == (0, False, False)
    assert str(result).startswith("no tensor of a published checkpoint (0 of 230)")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounded_weights(
    genuine: Checkpoint,
    rgb_scratch: Path,
    dtype: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half precision is compared with cached checkpoints; without any, the description says so."""
    numbers = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    rounded = {name: array.astype(numbers) for name, array in genuine.tensors.items()}
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    assert str(best_match(rounded)).startswith(f"not compared: the file is {dtype}")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "rgb_scratch.safetensors").symlink_to(rgb_scratch)
    assert str(best_match(rounded)) == f"rgb_scratch as {dtype}, 230 of 230 tensors"
    first = "Conv3d_1a_7x7.conv.weight"
    rounded[first] = rounded[first] * numbers.type(2)
    assert str(best_match(rounded)).endswith(f"the first tensor that differs is {first}")
    flow = change_dtype(change_stream(genuine, 2), dtype)  # type: ignore[arg-type]
    assert not best_match(flow.tensors).name


def test_unsound_cache_is_no_evidence(
    genuine: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corrupt file in the cache is not used for comparison."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "rgb_scratch.safetensors").write_bytes(b"rubbish")
    assert not best_match(change_dtype(genuine, "float16").tensors).name


def test_what_is_taken_from_the_base(genuine: Checkpoint, tmp_path: Path) -> None:
    """A file with the trunk of a published checkpoint gets its input and its name as base."""
    spec = Input(resize=None, crop=112)
    own = Checkpoint(
        change_head(genuine, 51).tensors,
        genuine.metadata.replace(num_classes=51, labels=None, zoo=None, input=spec),
    )
    metadata = open_checkpoint(write_checkpoint(tmp_path / "x.pt", own, "piergiaj")).metadata
    assert (metadata.zoo, metadata.base, metadata.labels) == (None, "rgb_scratch", None)
    assert metadata.input == zoo.manifest("rgb_scratch").input


def test_known_by_the_digest_of_its_file(
    random_checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint without published checksums is identified by the digest of its file."""
    wide = change_head(random_checkpoint, 157)
    path = write_checkpoint(tmp_path / "rgb_charades.pt", wide, "piergiaj")
    assert published_file(path, "rgb", 157) is None
    assert open_checkpoint(path).metadata.zoo is None
    model = zoo.manifest("rgb_charades")
    source = model.sources[0]
    assert isinstance(source, Files)
    file = source.files[0].replace(digest=f"git-blob:{git_blob(path)}")
    pinned = model.replace(sources=(source.replace(files=(file,)),))
    monkeypatch.setattr(
        identify, "manifest", lambda name: pinned if name == model.name else zoo.manifest(name)
    )
    assert published_file(path, "rgb", 157) == "rgb_charades"
    assert published_file(path, "rgb", 400) is None
    metadata = open_checkpoint(path).metadata
    assert metadata.zoo == "rgb_charades"
    assert metadata.labels == zoo.labels("charades")
    assert metadata.input.fps is None
    copy = tmp_path / "copy.pt"
    shutil.copy(path, copy)
    with copy.open("ab") as end:
        end.write(b"\0")
    assert published_file(copy, "rgb", 157) is None


def test_nothing_published_never_matches() -> None:
    """A manifest without checksums matches no file, not even an empty one."""
    assert not compare_checksums("rgb_charades", {}, {}).exact


def test_identify_says_all_of_it(
    capsys: pytest.CaptureFixture[str], genuine: Checkpoint, tmp_path: Path
) -> None:
    """The command prints the description, and as JSON all counts."""
    path = write_checkpoint(tmp_path / "x.pt", change_head(genuine, 51), "piergiaj")
    words = "rgb_scratch trunk, 228 of 230 tensors: the head differs (51 classes)"
    with pytest.raises(SystemExit) as caught:
        main(["identify", str(path)])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{path}: piergiaj, rgb, 51 classes: {words}\n"
    with pytest.raises(SystemExit):
        main(["identify", str(path), "--json"])
    (document,) = json.loads(capsys.readouterr().out)
    assert document["summary"] == words
    assert (document["exact"], document["trunk"]) == (False, True)
    assert document["published"] == "rgb_scratch"
    assert document["parts"] == {
        "convolutions": [57, 57],
        "batchnorm_biases": [57, 57],
        "batchnorm_statistics": [114, 114],
        "head": [0, 2],
    }
    assert document["made_from"] == "rgb_scratch"


def test_scales_are_compared(genuine: Checkpoint, tmp_path: Path) -> None:
    """A BatchNorm scale that is not 1 is no published checkpoint, though it has no checksum."""
    scale = "Conv3d_2b_1x1.bn.weight"
    altered = {**genuine.tensors, scale: genuine.tensors[scale] * np.float32(2)}
    result = best_match(altered)
    assert (result.exact, result.trunk, result.differing) == (False, False, (scale,))
    assert "230 of 230 tensors: BatchNorm differs" in str(result)
    assert str(result).endswith("114 of 114 statistics, and 1 scales are not 1")
    with pytest.raises(ChecksumError, match=f"1 BatchNorm scales are not 1.*rgb_scratch: {scale}"):
        check_claim(dataclasses.replace(genuine, tensors=altered), "x")
    file = write_checkpoint(tmp_path / "x.pt", Checkpoint(altered, genuine.metadata), "piergiaj")
    metadata = open_checkpoint(file).metadata  # its archive has a checksum, so it is no damage
    assert (metadata.zoo, metadata.base) == (None, "rgb_scratch")
