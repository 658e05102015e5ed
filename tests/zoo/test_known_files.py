"""Files of other projects that are known by their git blob."""

import json
from pathlib import Path

import pytest
import torch
from helpers.cli import fail, succeed

from i3dzoo.digests import git_blob
from i3dzoo.zoo import known_files, names


def test_a_known_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose layout is not read is named by its digest; any other is refused as before."""
    path = tmp_path / "i3d.pt"
    torch.save({"x": torch.zeros(3)}, path)
    fail(capsys, "identify", path)
    (known, _) = known_files.KNOWN_FILES.values()
    monkeypatch.setattr(known_files, "KNOWN_FILES", {git_blob(path): known})
    out, err = succeed(capsys, "identify", path)
    assert "i3d_torchscript.pt of StyleGAN-V, with the weights of rgb_scratch" in out
    assert "i3dzoo fvd --protocol styleganv" in err
    (document,) = json.loads(succeed(capsys, "identify", path, "--json")[0])
    assert document["published"] == "rgb_scratch"
    assert document["num_classes"] == 400
    renamed = path.rename(tmp_path / "i3d.bin")
    assert known_files.known_file(renamed) is None


def test_their_weights_are_in_the_zoo() -> None:
    """What they are the same as exists, and the blobs are SHA-1."""
    for blob, known in known_files.KNOWN_FILES.items():
        assert len(bytes.fromhex(blob)) == 20
        assert known.same_as in names()
