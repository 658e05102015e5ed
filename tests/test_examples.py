"""The examples in the docstrings of the public names: there is one for each, and each runs."""

import doctest
import inspect
import runpy
from pathlib import Path

import pytest
import torch
from helpers.checkpoints import described
from helpers.exported import noisy
from helpers.video_files import numbered, write_video

import i3dzoo
from i3dzoo.checkpoints.checkpoint import Checkpoint, write_checkpoint
from i3dzoo.checkpoints.inflation import write_deflated
from i3dzoo.network import cost
from i3dzoo.zoo import statistics

PUBLIC = [name for name in i3dzoo.__all__ if name != "__version__"]


def run(name: str, item: object) -> doctest.TestResults:
    """Run the examples in the docstring of one object."""
    text = inspect.getdoc(item) or ""
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    result = runner.run(test, out=report.append)
    assert not result.failed, "".join(report)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as of a user: a model, videos of two classes, and a 2D network."""
    folder = tmp_path_factory.mktemp("examples")
    checkpoint = described(noisy("rgb", 2), labels=("walk", "wave"))
    write_checkpoint(folder / "mine.safetensors", checkpoint)
    write_deflated(folder / "googlenet.pth", checkpoint, "torchvision")
    for number, name in enumerate(("walk/a", "walk/b", "walk/c", "wave/d", "wave/e", "wave/f")):
        path = folder / "clips" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, numbered(16 + number))
    write_video(folder / "clip.mp4", numbered(32))
    return folder


@pytest.mark.parametrize("name", PUBLIC)
def test_example(
    folder: Path, rgb_scratch: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Every public name has an example, and it shows what it says."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("I3DZOO_CACHE", str(rgb_scratch.parents[1]))
    assert run(name, getattr(i3dzoo, name)).attempted > 0


@pytest.mark.parametrize("item", [cost.cost, statistics.tensor_statistics])
def test_other_examples(item: object) -> None:
    """So do other functions with an example."""
    assert run(item.__name__, item).attempted > 0  # type: ignore[attr-defined]


def test_a_wrong_example_is_found() -> None:
    """The test of examples can fail."""

    def wrong() -> None:
        """Add numbers.

        >>> 1 + 1
        3
        """

    with pytest.raises(AssertionError, match=r"Expected:\s+3\s+Got:\s+2"):
        run("wrong", wrong)


def test_list_models() -> None:
    """Patterns are those of a shell, in any case."""
    assert i3dzoo.list_models() == list(i3dzoo.list_models("*"))
    assert i3dzoo.list_models("RGB_?cratch") == ["rgb_scratch"]
    assert i3dzoo.list_models("nothing*") == []


def test_torch_hub(genuine: Checkpoint, rgb_scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.hub loads the published checkpoints from a checkout; each is an entry point."""
    monkeypatch.setenv("I3DZOO_CACHE", str(rgb_scratch.parents[1]))
    checkout = Path(i3dzoo.__file__).parents[1]
    if not (checkout / "hubconf.py").is_file():
        pytest.skip("this is not a checkout")
    entries = runpy.run_path(str(checkout / "hubconf.py"))
    assert {*i3dzoo.list_models(), "i3d", "dependencies"} <= set(entries)
    assert "from scratch" in entries["rgb_scratch"].__doc__
    model = torch.hub.load(str(checkout), "rgb_scratch", source="local", offline=True)
    assert model.labels == genuine.metadata.labels
    bias = "Logits.Conv3d_0c_1x1.conv.bias"
    assert (model.state_dict()[bias].numpy() == genuine.tensors[bias]).all()
