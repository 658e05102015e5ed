"""The command line: its output and exit codes, some of them in child processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.cli import call, run_process

from i3dzoo.checkpoints.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from i3dzoo.cli import COMMANDS


def test_more_classes_than_memory(file: Path, tmp_path: Path) -> None:
    """A head that no memory can hold is one sentence."""
    result = call("convert", file, "--num-classes", 10**14, "--dry-run", cwd=tmp_path, code=1)
    assert result.stderr.startswith("i3dzoo: out of memory: Unable to allocate")
    assert result.stderr.count("\n") == 1


TERMINATED = """
import multiprocessing, time
from pathlib import Path
import click
from i3dzoo import cli
from i3dzoo.files import atomic_write

context = multiprocessing.get_context("fork")
ready = context.Event()

def wait():
    ready.set()
    time.sleep(60)

@click.command()
def write():
    with atomic_write(Path("x")):
        child = context.Process(target=wait)
        child.start()
        ready.wait()
        child.terminate()
        child.join()
        print(child.exitcode, len(list(Path().iterdir())), flush=True)
        time.sleep(60)

cli._Commands.get_command = lambda *_: write
cli.main(["write"])
"""


@pytest.mark.parametrize("world", ["1", "2"])
def test_sigterm_leaves_no_half_file(tmp_path: Path, world: str) -> None:
    """SIGTERM removes temporary files, not in forked workers nor beside other processes."""
    with subprocess.Popen(
        [sys.executable, "-c", TERMINATED],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "WORLD_SIZE": world},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"{-signal.SIGTERM} 1\n"
        process.terminate()
    assert process.returncode == (143 if world == "1" else -signal.SIGTERM)
    assert len(list(tmp_path.iterdir())) == (0 if world == "1" else 1)


def test_help_imports_nothing_heavy() -> None:
    """The help names every command, and neither numpy nor torch is imported for it."""
    code = (
        "import sys; from i3dzoo.cli import cli; cli.main(['--help'], standalone_mode=False);"
        "assert not {'numpy', 'torch', 'av', 'rich', 'requests'} & set(sys.modules), sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout


def test_convert_to_tao_and_back(file: Path, tmp_path: Path) -> None:
    """A canonical file becomes a .pt and comes back; the path is the last line of output."""
    options = ("tao.pt", "--to", "piergiaj")
    planned = call("convert", file, *options, "--dry-run", cwd=tmp_path, code=0)
    assert "Conv3d_1a_7x7.conv.weight" in planned.stderr
    assert "[64x3x7x7x7]" in planned.stderr
    there = run_process("convert", file, *options, cwd=tmp_path, code=0)
    assert there.stdout == "tao.pt\n"
    assert there.stderr == (
        "344 tensors in layout piergiaj, 0 ignored; --dry-run lists them\n"
        "Next: i3dzoo identify tao.pt\n"
    )
    state = torch.load(tmp_path / "tao.pt", weights_only=True)
    assert len(state) == 344
    assert state["logits.conv3d.weight"].shape == (12, 1024, 1, 1, 1)
    back = run_process("convert", "tao.pt", "--quiet", cwd=tmp_path)
    assert back.stdout == "tao.safetensors\n"
    assert read_checkpoint(tmp_path / "tao.safetensors").metadata.num_classes == 12


def test_new_head_with_labels(file: Path, tmp_path: Path) -> None:
    """--labels gives a head of that many classes, named, with the change in the history."""
    target = tmp_path / "hmdb51.safetensors"
    made = call("convert", file, target, "--labels", "hmdb51", code=0)
    assert f"Next: i3dzoo finetune mine --data FOLDER --from {target}\n" in made.stderr
    metadata = read_checkpoint(target).metadata
    assert metadata.num_classes == 51
    assert metadata.labels is not None
    assert metadata.labels[1] == "cartwheel"
    (step,) = metadata.history
    assert (step.operation, step.head, step.classes, step.seed) == ("head", "fresh", 51, 0)


def test_next_is_what_the_network_can_do(file: Path, tmp_path: Path) -> None:
    """A network without a head has features and predicts nothing; names are quoted for a shell."""
    drop = ("a b.safetensors", "--head", "drop")
    made = call("convert", file, *drop, cwd=tmp_path, code=0)
    assert "Next: i3dzoo features VIDEO --model 'a b.safetensors' -o FOLDER" in made.stderr
    verified = call("verify", tmp_path / "a b.safetensors", code=0)
    assert (
        f"Next: i3dzoo features VIDEO --model '{tmp_path / 'a b.safetensors'}'" in verified.stderr
    )
    shown = call("info", tmp_path / "a b.safetensors", code=0)
    assert "i3dzoo predict" not in verified.stderr + shown.stderr


def test_dry_run_and_report(file: Path, tmp_path: Path) -> None:
    """A dry run writes nothing but the report that was asked for."""
    report = tmp_path / "report.json"
    arguments = ["--to", "piergiaj", "--dry-run", "--report", report]
    result = call("convert", file, tmp_path / "x.pt", *arguments, code=0)
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    document = json.loads(report.read_text())
    assert len(document["tensors"]) == 344
    assert document["written"] is False


def test_json_output_is_one_document(file: Path, tmp_path: Path) -> None:
    """--json prints one document and nothing else on standard output."""
    converted = json.loads(call("convert", file, tmp_path / "y.safetensors", "--json").stdout)
    assert converted["metadata"]["num_classes"] == 12
    (identified,) = json.loads(call("identify", file, "--json").stdout)
    assert identified["layout"] == "canonical"
    assert identified["published"] is None
    (verified,) = json.loads(call("verify", file, "--json").stdout)
    assert verified["checksums"] is True


def test_identify_goes_on_after_a_bad_file(file: Path, tmp_path: Path) -> None:
    """Of several files the good ones are told, the bad one is named, and the exit code is 1."""
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    result = call("identify", tmp_path / "bad.pt", file, code=1)
    assert result.stdout.startswith(f"{file}: canonical, rgb, 12 classes")
    assert "bad.pt: has an unknown format" in result.stderr
    told = json.loads(call("identify", "--json", tmp_path / "bad.pt", file).stdout)
    assert ["error" in document for document in told] == [True, False]


def test_identify_and_verify_in_words(rgb_scratch: Path) -> None:
    """The genuine weights are named, and verifying lists what was checked."""
    identified = call("identify", rgb_scratch)
    assert "canonical, rgb, 400 classes: rgb_scratch, 230 of 230 tensors" in identified.stdout
    verified = call("verify", rgb_scratch, code=0)
    assert verified.stdout.count("  ok  ") == 4
    assert "rgb_scratch, 230 of 230 tensors" in verified.stdout


def test_a_false_name_is_found(genuine: Checkpoint, tmp_path: Path) -> None:
    """A file that says that it is a published checkpoint and is not fails verification."""
    altered = dict(genuine.tensors)
    altered["Conv3d_1a_7x7.bn.bias"] = altered["Conv3d_1a_7x7.bn.bias"] + 1
    path = write_checkpoint(tmp_path / "x.safetensors", Checkpoint(altered, genuine.metadata))
    result = call("verify", path, code=1)
    assert "its description names rgb_scratch" in result.stderr
    assert "1 of 230 tensors differ from those of rgb_scratch" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "nothing.pt"], "nothing.pt: is neither a file nor a zoo model"),
        (["identify", "nothing.pt"], "nothing.pt: is neither a file nor a zoo model"),
        (["convert", "FILE", "FILE"], "exists already; pass --force"),
        (["convert", "FILE", "no/x.pt", "--to", "piergiaj"], "does not exist; create it first"),
        (["convert", "FILE", "--to", "caffe"], "no layout has the name 'caffe'"),
        (["convert", "FILE", "x.st", "--labels", "nope"], "nope"),
        (
            ["convert", "FILE", "x.st", "--head", "keep", "--num-classes", "3"],
            "expected a head of 3 classes, found 12",
        ),
        (
            ["convert", "FILE", "x.st", "--head", "keep", "--labels", "hmdb51"],
            "hmdb51: has 51 names, but the head has 12 classes",
        ),
    ],
)
def test_errors_are_one_sentence(
    file: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    """An error is one line on standard error, exit code 1, no traceback, nothing left behind."""
    filled = [str(file) if each == "FILE" else each for each in arguments]
    result = call(
        *filled, "--quiet" if arguments[0] == "convert" else "--json", cwd=tmp_path, code=1
    )
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].startswith("i3dzoo: ")
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback() -> None:
    """--debug adds the traceback."""
    result = call("--debug", "identify", "nothing.pt", code=1)
    assert "Traceback" in result.stderr


def test_usage_errors_exit_with_2() -> None:
    """Wrong usage is told from a failure by its exit code."""
    assert call("convert").returncode == 2
    assert run_process("nonsense").returncode == 2
