"""Completion: click's protocol in this process, the installed script in a real bash."""

import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from helpers.cli import run, succeed
from helpers.commands import leaf_commands

from i3dzoo import zoo
from i3dzoo.checkpoints import converter, presets
from i3dzoo.cli import COMMANDS, _completion, cli
from i3dzoo.features import feature_preset_names
from i3dzoo.fvd.protocol import protocol_names
from i3dzoo.network.architecture import ENDPOINTS
from i3dzoo.training.recipe import recipe_names

Capture = pytest.CaptureFixture[str]


def complete(*words: str) -> list[str]:
    """Return what the last word is completed to."""
    shell = ShellComplete(cli, {}, "i3dzoo", _completion.VARIABLE)
    items = shell.get_completions(list(words[:-1]), words[-1])
    return [item.value if item.type == "plain" else item.type for item in items]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([""], tuple(COMMANDS)),
        (["info", ""], zoo.names()),
        (["predict", "clip.mp4", "--model", ""], zoo.names()),
        (["finetune", "--from", ""], zoo.names()),
        (["convert", "x.pt", "--to", ""], converter.names()),
        (["convert", "x.pt", "--input", ""], presets.names()),
        (["convert", "x.pt", "--labels", ""], zoo.label_sets()),
        (["finetune", "--recipe", ""], recipe_names()),
        (["fvd", "--protocol", ""], tuple(sorted(protocol_names()))),
        (["recipes", "show", ""], recipe_names()),
        (["features", "--endpoint", ""], ("pooled", "logits", *ENDPOINTS)),
        (["features", "--preset", ""], feature_preset_names()),
        (["predict", "--device", "c"], ("cpu", "cuda", "cuda:0", "cuda:1")),
    ],
)
def test_names(words: list[str], names: tuple[str, ...]) -> None:
    """Models, layouts, presets, label sets, recipes, protocols and endpoints are completed."""
    assert set(names) <= set(complete(*words))


def test_begin_of_a_name_and_files() -> None:
    """Only names that begin as typed are given, and files where no name does."""
    assert complete("info", "RGB_s") == ["rgb_scratch"]
    assert complete("info", "./mine") == ["file"]


def test_kept_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`cache rm` completes what is kept."""
    monkeypatch.setenv("I3DZOO_CACHE", str(tmp_path))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "flow_scratch.safetensors").touch()
    assert "flow_scratch" in complete("cache", "rm", "")


def test_every_model_is_completed() -> None:
    """No option that takes a model was forgotten."""
    for path, command in leaf_commands():
        for option in command.params:
            if "--model" in option.opts or option.name in ("model", "models"):
                assert option.type.name == "model", path


def test_no_heavy_import() -> None:
    """Completion imports neither torch nor av, for any command."""
    code = (
        "import sys, i3dzoo.cli as c; from click.shell_completion import ShellComplete\n"
        "shell = ShellComplete(c.cli, {}, 'i3dzoo', '')\n"
        "for name in c.COMMANDS: shell.get_completions([name], '-')\n"
        "assert not {'torch', 'av', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_install(capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The script is written, and one line is added to the file of the shell, once."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / ".zshrc").write_text("alias a=b")
    for _ in range(2):
        out, _ = succeed(capsys, "--install-completion", "zsh")
    script = Path(out.strip())
    assert script == tmp_path / ".local/share/i3dzoo/completion.zsh"
    assert "_I3DZOO_COMPLETE=zsh_complete" in script.read_text()
    first, line, *rest = (tmp_path / ".zshrc").read_text().splitlines()
    assert (first, rest) == ("alias a=b", [])
    assert str(script) in line
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    out, _ = succeed(capsys, "--install-completion")
    assert out.strip() == str(tmp_path / ".config/fish/completions/i3dzoo.fish")


@pytest.mark.parametrize("shell", ["", "/bin/tcsh"])
def test_other_shells(capsys: Capture, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    """Another shell is refused, with those that there are."""
    monkeypatch.setenv("SHELL", shell)
    code, out, err = run(capsys, "--install-completion")
    assert (code, out) == (2, "")
    assert "completion is for bash, zsh, fish" in err


def test_syntax(capsys: Capture) -> None:
    """The scripts are those of click, and shells that are here accept them."""
    for shell in _completion.SHELLS:
        out, _ = succeed(capsys, "--show-completion", shell)
        assert f"_I3DZOO_COMPLETE={shell}_complete" in out
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=out, text=True, check=True)


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="there is no bash")
def test_in_a_real_bash(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Capture) -> None:
    """After the installation, the Tab key completes in an interactive bash."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    succeed(capsys, "--install-completion", "bash")
    program = tmp_path / "bin" / "i3dzoo"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m i3dzoo "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PS1": "$ "}
    master, slave = pty.openpty()
    with subprocess.Popen(
        ["/bin/bash", "--noprofile", "-i"],
        stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True,
    ) as shell:  # fmt: skip
        os.close(slave)
        os.write(master, b"i3dzoo info rgb_sc\t")
        shown = read_until(master, "rgb_scratch ")
        os.write(master, b"\x15exit\n")  # clears the line
        shell.wait(timeout=20)
    os.close(master)
    assert "i3dzoo info rgb_scratch " in shown


def read_until(descriptor: int, text: str) -> str:
    """Read from a terminal until it shows a text, for 60 seconds at most."""
    shown = ""
    os.set_blocking(descriptor, False)
    stop = time.monotonic() + 60
    while text not in shown and time.monotonic() < stop:
        try:
            shown += os.read(descriptor, 4096).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.02)
    os.set_blocking(descriptor, True)
    return shown
