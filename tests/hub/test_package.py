"""The files of a repository: addresses, card, configuration, results, pictures."""

import dataclasses
import hashlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.hub_home import constants, onnx_of
from huggingface_hub import ModelCard, ModelCardData

from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint
from i3dzoo.checkpoints.head import change_head
from i3dzoo.checkpoints.history import HistoryStep
from i3dzoo.checkpoints.labels import labels
from i3dzoo.checkpoints.metadata import default_input
from i3dzoo.errors import (
    ChecksumError,
    FormatError,
    ManifestError,
    MetadataError,
    MissingFileError,
    UnknownNameError,
)
from i3dzoo.hub import About, Address, Package, is_address, parse, prepare
from i3dzoo.hub.package import preprocessor
from i3dzoo.hub.results import Result, read_results
from i3dzoo.hub.sums import read_sums, verify_folder
from i3dzoo.pretrained import build, load
from i3dzoo.resources import data
from i3dzoo.zoo.manifest import HubFile
from i3dzoo.zoo.manifest import parse as parse_manifest

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("alice/i3d", Address("alice/i3d")),
        ("alice/i3d-rgb_v1.5@v1", Address("alice/i3d-rgb_v1.5", "v1")),
        ("alice/i3d@refs/pr/1", Address("alice/i3d", "refs/pr/1")),
        ("hf://alice/i3d", Address("alice/i3d")),
        ("hf://models/alice/i3d@refs%2Fpr%2F1", Address("alice/i3d", "refs/pr/1")),
        ("hf://alice/i3d@v1/sub/x.pt", Address("alice/i3d", "v1", "sub/x.pt")),
        (str(Path("hf://alice/i3d/x.pt")), Address("alice/i3d", file="x.pt")),
        ("https://huggingface.co/alice/i3d", Address("alice/i3d")),
        ("https://huggingface.co/alice/i3d/tree/v1", Address("alice/i3d", "v1")),
        (
            "https://huggingface.co/alice/i3d/resolve/main/sub/x%20y.pt?download=true",
            Address("alice/i3d", file="sub/x y.pt"),
        ),
        ("https:/hf.co/alice/i3d/blob/refs/pr/1/x.pt", Address("alice/i3d", "refs/pr/1", "x.pt")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    """Addresses are parsed, and written in the same form."""
    assert is_address(text)
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["rgb_scratch", "x.safetensors", "runs/best.pt", "/a/b", "a/b/c", "./a/b", "../b"]
)
def test_paths_are_no_addresses(text: str) -> None:
    """A path is not an address, even if it does not exist."""
    assert not is_address(text)


@pytest.mark.parametrize("text", ["hf://alice", "hf://alice/i3d/../x", "alice", "a b/c", "a/b@"])
def test_malformed_addresses(text: str) -> None:
    """The error for a malformed address lists the valid forms."""
    with pytest.raises(UnknownNameError, match="is not an address on the Hub; expected USER"):
        parse(text)


def test_no_client_before_it_is_needed() -> None:
    """Importing i3dzoo.hub imports neither the client of huggingface_hub nor torch."""
    code = (
        "import sys, i3dzoo.hub, i3dzoo.fetch.find;"
        "assert not {'huggingface_hub.constants', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def front_matter(package: Package) -> dict[str, object]:
    """Return the front matter of a card."""
    document = yaml.safe_load(package.card.split("---\n")[1])
    assert isinstance(document, dict)
    return document


def test_card_of_a_published_checkpoint(genuine: Checkpoint, tmp_path: Path) -> None:
    """The card of rgb_scratch has its licence, dataset and published results."""
    package = prepare(genuine, tmp_path, About("alice/i3d-kinetics"))
    front = front_matter(package)
    assert front["library_name"] == "i3dzoo"
    assert front["pipeline_tag"] == "video-classification"
    assert front["license"] == "apache-2.0"
    assert front["datasets"] == ["kinetics-400"]
    (index,) = front["model-index"]  # type: ignore[misc] # yaml has no types
    (result,) = index["results"]
    assert result["dataset"] == {"name": "Kinetics-400", "type": "kinetics-400", "split": "test"}
    assert [metric["value"] for metric in result["metrics"]] == [68.4, 88.0]
    assert result["source"]["url"].startswith("https://github.com/google-deepmind/")
    assert "All tensors are as published" in package.card
    assert "i3dzoo predict clip.mp4 --model alice/i3d-kinetics" in package.card


def test_card_of_a_fine_tuned_checkpoint(tmp_path: Path) -> None:
    """The card has the given results, base model, pictures and licence."""
    run, folder = tmp_path / "run", tmp_path / "package"
    run.mkdir()
    folder.mkdir()
    (run / "curves.png").write_bytes(PNG)
    (run / "confusion_matrix.png").write_bytes(PNG)
    (run / "model.onnx").write_bytes(onnx_of(constants()))
    (run / "results.json").write_text(
        '[{"dataset": "HMDB51", "split": "test 1", "top1": 74.3, "videos": 1530, "seconds": 9}]'
    )
    about = About(
        "alice/i3d",
        licence="LicenseRef-Own",
        results=run / "results.json",
        onnx=run / "model.onnx",
        base_model="alice/i3d-kinetics",
        datasets=("alice/hmdb51",),
    )
    package = prepare(constants(), folder, about, run / "best.safetensors")
    front = front_matter(package)
    assert (front["license"], front["license_name"]) == ("other", "licenseref-own")
    assert (front["base_model"], front["datasets"]) == ("alice/i3d-kinetics", ["alice/hmdb51"])
    (index,) = front["model-index"]  # type: ignore[misc] # yaml has no types
    (metric,) = index["results"][0]["metrics"]
    assert metric == {"type": "accuracy", "value": 74.3, "name": "Top-1 accuracy (%)"}
    for text in (
        "| HMDB51 | test 1 | 74.3 |  | 1530 |",
        "![Training curves](training_curves.png)",
        "![Confusion matrix](confusion_matrix.png)",
        "| [`model.onnx`](model.onnx) |",
        "51 classes. Made from the published checkpoint `rgb_scratch`.",
        "\nbrush_hair, cartwheel, catch,",
        "- Fine-tuned rgb_scratch on hmdb51 split 1 with the recipe 'small': top-1 70.00%",
        "@inproceedings{carreira2017quo,",
        "`rgb_scratch`, I3D on RGB, trained on Kinetics-400 from scratch, Apache-2.0",
    ):
        assert text in package.card
    assert {name for name, _, _ in package.files} == {path.name for path in folder.iterdir()}


def test_card_of_an_untrained_head(genuine: Checkpoint, tmp_path: Path) -> None:
    """A new head that was not trained does not change the datasets of the card."""
    package = prepare(change_head(genuine, 51, labels("hmdb51"), "fresh"), tmp_path)
    assert front_matter(package)["datasets"] == ["kinetics-400"]
    assert "The head has not been trained on these classes" in package.card


def test_cards_are_what_the_hub_reads(package: Package, tmp_path: Path) -> None:
    """huggingface_hub parses the front matter, with all results and no unknown keys."""
    results = tmp_path / "results.json"
    results.write_text('{"dataset": "hmdb51", "split": "test 1", "top1": 74.3, "top5": 91.9}')
    checkpoint = constants()
    step = HistoryStep(operation="finetune", base_model="bob/i3d", dataset="ucf101")
    checkpoint = dataclasses.replace(checkpoint, metadata=checkpoint.metadata.changed(step))
    card = ModelCard(prepare(checkpoint, tmp_path, About("alice/i3d", results=results)).card)
    assert card.data.base_model == "bob/i3d"
    assert card.data.datasets == ["ucf101"]
    metrics = [(result.metric_name, result.metric_value) for result in card.data.eval_results or []]
    assert metrics == [("Top-1 accuracy (%)", 74.3), ("Top-5 accuracy (%)", 91.9)]
    assert {result.dataset_type for result in card.data.eval_results or []} == {"hmdb51"}
    known = set(inspect.signature(ModelCardData).parameters) | {"model-index"}
    assert front_matter(package).keys() | card.data.to_dict().keys() <= known


def test_every_file_but_the_card_has_its_digest(package: Package) -> None:
    """SHA256SUMS lists all files except itself and the card."""
    sums = read_sums(package.folder / "SHA256SUMS")
    names = {name for name, _, _ in package.files}
    assert sums.keys() == names - {"SHA256SUMS", "README.md"}
    for name, size, digest in package.files:
        content = (package.folder / name).read_bytes()
        assert (size, digest) == (len(content), hashlib.sha256(content).hexdigest())
        assert sums.get(name, digest) == digest


def test_configuration(package: Package) -> None:
    """config.json has the classes in the format of transformers, and the metadata."""
    config = json.loads((package.folder / "config.json").read_text())
    assert config["architectures"] == ["InceptionI3d"]
    assert (config["num_classes"], config["in_channels"], config["num_frames"]) == (51, 3, 64)
    assert config["id2label"]["1"] == "cartwheel"
    assert config["label2id"]["cartwheel"] == 1
    assert config["i3dzoo"]["input"]["resize"] == 256
    text = (package.folder / "labels.txt").read_text()
    assert tuple(text.splitlines()) == labels("hmdb51")
    metadata = read_checkpoint(package.folder / "model.safetensors").metadata
    assert metadata.labels == labels("hmdb51")


def test_preprocessor() -> None:
    """preprocessor_config.json has the input in the format of transformers."""
    rgb = preprocessor(default_input("rgb"))
    assert rgb["image_processor_type"] == "VideoMAEImageProcessor"
    assert rgb["size"] == {"shortest_edge": 256}
    assert rgb["crop_size"] == {"height": 224, "width": 224}
    assert (rgb["image_mean"], rgb["image_std"]) == ([0.5] * 3, [0.5] * 3)
    assert rgb["rescale_factor"] * 255 == 1
    flow = preprocessor(default_input("flow"))
    assert "image_processor_type" not in flow
    assert (flow["flow_bound"], flow["channels"], flow["image_mean"]) == (20.0, "xy", [0.5, 0.5])
    assert preprocessor(default_input("rgb").replace(resize=None))["do_resize"] is False


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not valid JSON"),
        ("[]", "has no results; expected dataset, split and top1"),
        ("[3]", r"\[0\]: expected a mapping, found 3"),
        ('{"split": "test", "top1": 1}', r"\[0\].dataset: missing"),
        (
            '{"dataset": "x", "split": "1", "top1": "74"}',
            r"\[0\].top1: expected null or a percentage",
        ),
        ('{"dataset": "x", "split": "1", "top1": NaN}', "expected finite numbers, found NaN"),
        ('{"dataset": "x", "split": "1", "top1": 1, "top5": 101}', r"\[0\].top5: expected null or"),
    ],
)
def test_malformed_results(tmp_path: Path, text: str, message: str) -> None:
    """The error for invalid results names the file and the key."""
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(MetadataError, match=rf"results\.json: {message}"):
        read_results(path)


def test_results(tmp_path: Path) -> None:
    """Results are read from an object with a key; other keys are ignored."""
    path = tmp_path / "results.json"
    path.write_text('{"results": [{"dataset": "X", "split": 1, "top1": 5, "top5": 9.5, "a": []}]}')
    assert read_results(path) == (Result(dataset="x", split="1", top1=5.0, top5=9.5),)


def test_results_of_an_evaluation(tmp_path: Path) -> None:
    """Results of `evaluate --json` become percentages, with the dataset of the labels."""
    path = tmp_path / "results.json"
    document = {"i3dzoo": "evaluation", "dataset": None, "split": "1", "protocol": "paper"}
    document |= {"videos": 1530, "top1": 0.7431, "top5": 0.9195}
    path.write_text(json.dumps([document, {**document, "dataset": "ucf101", "split": "none"}]))
    assert read_results(path, "hmdb51") == (
        Result(dataset="hmdb51", split="test 1, paper", top1=74.31, top5=91.95, videos=1530),
        Result(dataset="ucf101", split="test, paper", top1=74.31, top5=91.95, videos=1530),
    )
    with pytest.raises(MetadataError, match="dataset: missing"):
        read_results(path)
    for key, value in (("top1", [0.5]), ("top5", {"a": 1}), ("split", 1e300), ("top1", 1e300)):
        path.write_text(json.dumps({**document, "interval": [None, {}], key: value}))
        with pytest.raises(MetadataError, match=f"results.json: .*(dataset|{key})"):
            read_results(path)
    path.write_text(json.dumps([document, {**document, "interval": [None, [0.1], "x"]}]))
    card = prepare(constants(), tmp_path, About("alice/i3d", results=path)).card
    assert "| HMDB51 | test 1, paper | 74.3 | 92.0 | 1530 |" in card


def test_false_claim_is_not_pushed(genuine: Checkpoint, tmp_path: Path) -> None:
    """Weights whose metadata wrongly names a published checkpoint are refused."""
    altered = dict(genuine.tensors)
    altered["Conv3d_1a_7x7.bn.bias"] = altered["Conv3d_1a_7x7.bn.bias"] + 1
    with pytest.raises(ChecksumError, match="1 of 230 tensors differ from those of rgb_scratch"):
        prepare(Checkpoint(altered, genuine.metadata), tmp_path)
    names = tuple(f"class {number}" for number in range(400))
    renamed = genuine.metadata.replace(labels=names)
    with pytest.raises(MetadataError, match="names rgb_scratch, but its classes have other names"):
        prepare(Checkpoint(genuine.tensors, renamed), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    """An invalid licence, a missing ONNX file and an invalid picture are refused."""
    checkpoint = constants()
    with pytest.raises(MetadataError, match="'My licence!' is not an SPDX identifier"):
        prepare(checkpoint, tmp_path, About(licence="My licence!"))
    (tmp_path / "confusion.png").write_bytes(b"no picture")
    with pytest.raises(FormatError, match=r"confusion\.png: is not a PNG"):
        prepare(checkpoint, tmp_path, source=tmp_path / "x.safetensors")
    (tmp_path / "package").mkdir()
    with pytest.raises(MissingFileError, match=r"none\.onnx: there is no such ONNX file"):
        prepare(checkpoint, tmp_path / "package", About(onnx=tmp_path / "none.onnx"))


def test_onnx_of_other_weights(tmp_path: Path) -> None:
    """An ONNX file of other or unknown weights is refused."""
    path = tmp_path / "model.onnx"
    for content, error, message in (
        (onnx_of(constants(value=0.25)), ChecksumError, "was exported from weights with checksum"),
        (b"", FormatError, "is truncated"),
        (b"onnx", FormatError, "is truncated"),
        (b"\x08\x0a", ChecksumError, "does not state which weights it was exported from"),
    ):
        path.write_bytes(content)
        with pytest.raises(error, match=rf"model\.onnx: {message}"):
            prepare(constants(), tmp_path, About(onnx=path))


def test_save_twice_and_load(tmp_path: Path) -> None:
    """Saving twice into a folder with other files works, and the folder loads."""
    model = build(constants())
    model.save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    model.save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine, later")
    assert load(tmp_path).labels == model.labels
    (tmp_path / "labels.txt").write_text("other")
    with pytest.raises(ChecksumError, match=r"labels\.txt: has sha256 .* it was changed; save or"):
        load(tmp_path)
    assert model.metadata is not None
    model.metadata = model.metadata.replace(labels=None)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(MetadataError, match="its 51 classes have no names"):
        model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/dev/zero", "outside of the folder"),
        ("../x", "outside of the folder"),
        ("zero", "zero: is missing"),
        ("a\nnonsense", "line 2: expected a sha256"),
    ],
)
def test_sums_of_other_files(tmp_path: Path, name: str, message: str) -> None:
    """No file outside of the folder and no device is hashed; a wrong line is an error."""
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  {name}\n")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with pytest.raises((FormatError, MissingFileError), match=message):
        verify_folder(tmp_path)


MANIFEST = (data("manifests") / "rgb_scratch.toml").read_text("utf-8")
SOURCE = """[[sources]]
kind = "hub"
title = "A"
layout = "canonical"
licence = "MIT"
repository = "alice/i3d"
revision = "v1"
file = "sub/model.safetensors"
max_size = 60000000

[[sources]]"""


def test_hub_source_in_a_manifest() -> None:
    """A manifest can name a file of a repository, without a digest."""
    text = MANIFEST.replace("[[sources]]", SOURCE, 1)
    source = parse_manifest("rgb_scratch", text, "x").sources[0]
    assert source == HubFile(
        "A", "canonical", "MIT", "alice/i3d", "v1", "sub/model.safetensors", 60_000_000
    )
    assert source.total_size == 60_000_000


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [("repository", "alice/i3d", "alice"), ("file", "sub/", "../"), ("max_size", "60000000", "0")],
)
def test_malformed_hub_source(key: str, old: str, new: str) -> None:
    """The error for a malformed Hub source names the key."""
    text = MANIFEST.replace("[[sources]]", SOURCE.replace(old, new), 1)
    with pytest.raises(ManifestError, match=rf"x: sources\[0\]\.{key}: expected "):
        parse_manifest("rgb_scratch", text, "x")
