"""Install and run the completion of shells."""

import os
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from click.shell_completion import get_completion_class, shell_complete

from i3dzoo.cli._console import say, show
from i3dzoo.errors import OptionError
from i3dzoo.files import atomic_write, make_folder, output_error

SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_I3DZOO_COMPLETE"
"""The variable in which a shell asks for completions; click defines what its values mean."""

_NAME: Final = "i3dzoo"


def answer_shell(command: click.Command, instruction: str) -> NoReturn:
    """Print completions or the script of a shell, as the instruction says, and exit."""
    raise SystemExit(shell_complete(command, {}, _NAME, VARIABLE, instruction))


def completion_option(install: bool) -> click.Option:
    """Return the option --install-completion, or --show-completion."""
    return click.Option(
        ["--install-completion" if install else "--show-completion"],
        is_flag=False,
        flag_value="",
        expose_value=False,
        is_eager=True,
        metavar="[SHELL]",
        callback=_install if install else _show,
        help="Install completion of commands, options and names with the Tab key (bash, zsh or "
        "fish)."
        if install
        else "Print the completion script of a shell.",
    )


def _install(context: click.Context, _: Any, shell: str | None) -> None:
    if shell is None or context.resilient_parsing:
        return
    shell = _shell(shell)
    script = _script_path(shell)
    make_folder(script.parent)
    with atomic_write(script) as file:
        file.write(_script(shell).encode())
    say(f"wrote the completion of {shell}")
    if (startup := _startup_file(shell)) is not None and _add_line(startup, _line(shell, script)):
        say(f"added a line to {startup} that reads it")
    say(f"Start a new {shell} to use it.")
    show(script)
    context.exit()


def _show(context: click.Context, _: Any, shell: str | None) -> None:
    if shell is None or context.resilient_parsing:
        return
    show(_script(_shell(shell)))
    context.exit()


def _shell(name: str) -> str:
    """Return the name of a shell, by default that of the user."""
    shell = name or Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        found = f"found {shell!r}" if shell else "and SHELL is not set"
        raise OptionError(
            f"completion is for {', '.join(SHELLS)}; {found}; name one: --install-completion bash"
        )
    return shell


def _script(shell: str) -> str:
    completion = get_completion_class(shell)
    assert completion is not None  # noqa: S101 - click has all of SHELLS
    return completion(click.Command(_NAME), {}, _NAME, VARIABLE).source()


def _script_path(shell: str) -> Path:
    """Return where the script is written; fish reads its folder by itself."""
    if shell == "fish":
        config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        return Path(config) / "fish" / "completions" / f"{_NAME}.fish"
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / _NAME / f"completion.{shell}"


def _startup_file(shell: str) -> Path | None:
    if shell == "fish":
        return None
    folder = os.environ.get("ZDOTDIR") if shell == "zsh" else None
    return Path(folder or Path.home()) / f".{shell}rc"


def _line(shell: str, script: Path) -> str:
    quoted = "'" + str(script).replace("'", "'\\''") + "'"
    read = f"[ -f {quoted} ] && . {quoted}"
    if shell == "zsh":  # compdef is there only after compinit
        return f"(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}; {read}"
    return read


def _add_line(path: Path, line: str) -> bool:
    """Append a line to a file if the file does not have it; a link to the file stays one."""
    try:
        text = path.read_text("utf-8", errors="surrogateescape") if path.exists() else ""
        if line in text.split("\n"):
            return False
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n")
    except OSError as error:
        raise output_error(path, error) from error
    return True
