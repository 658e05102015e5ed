"""A page for each command: mkdocs-click renders usage and options, and the help as Markdown."""

import copy
import re
import sys
import textwrap
from types import ModuleType

import click

from i3dzoo.cli import cli
from i3dzoo.cli._exit import EXIT_CODES

_MODULE = "i3dzoo_commands"  # where mkdocs-click finds the commands
FOLDER = "reference/commands"
_KEPT = "\b"  # click's mark for a paragraph that keeps its lines


def nav() -> list[dict[str, str] | str]:
    """The pages in the order of `i3dzoo --help`."""
    return [f"{FOLDER}/index.md", *({name: f"{FOLDER}/{name}.md"} for name in _commands())]


def pages() -> dict[str, str]:
    """Markdown of each page by its path, with a block that mkdocs-click replaces."""
    module = ModuleType(_MODULE)
    found = {}
    rows = []
    for name, command in _commands().items():
        attribute = name.replace("-", "_")
        setattr(module, attribute, _with_markdown(command))
        found[f"{FOLDER}/{name}.md"] = (
            f"::: mkdocs-click\n    :module: {_MODULE}\n    :command: {attribute}\n"
            f"    :prog_name: i3dzoo {name}\n    :style: table\n"
        )
        summary = _plain(command.get_short_help_str(200))
        rows.append(f"| [`i3dzoo {name}`]({name}.md) | {summary} |")
    sys.modules[_MODULE] = module
    codes = (f"| {code} | {text} |" for code, text in EXIT_CODES.items())
    index = _INDEX.format(exit_codes="\n".join(codes))
    found[f"{FOLDER}/index.md"] = index + "\n".join(rows) + "\n"
    return found


_INDEX = """# Commands

Every command prints its help, with examples, for `--help`. Each page below has the help of one
command.

A command that writes a file prints its path as the last line of standard output. Remarks and
progress go to standard error. `--json` prints one JSON document, in ASCII. `--quiet` leaves out
remarks and progress. Colours appear on a terminal only, and not if `NO_COLOR` is set.

| exit code | meaning |
|---|---|
{exit_codes}

| command | |
|---|---|
"""


def _commands() -> dict[str, click.Command]:
    context = click.Context(cli, info_name="i3dzoo")
    found = {}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command is not None and not command.hidden:
            found[name] = command
    return found


def _with_markdown(command: click.Command) -> click.Command:
    """A copy of the command, and of those below, with Markdown as help."""
    text = _markdown(command.help or "")
    if not isinstance(command, click.Group):
        documented = click.Command(command.name, params=_parameters(command), help=text)
        documented.context_settings = command.context_settings
        return documented
    context = click.Context(command)
    below = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return click.Group(
        command.name,
        {name: _with_markdown(each) for name, each in below.items() if each},
        params=_parameters(command),
        help=text,
    )


def _parameters(command: click.Command) -> list[click.Parameter]:
    """The parameters with what mkdocs-click shows of them: type, default and help."""
    parameters = []
    for parameter in map(copy.copy, command.params):
        if isinstance(parameter, click.Option):
            if not isinstance(parameter.default, str | int | float) or parameter.is_flag:
                parameter.default = None  # click 8.5 has a mark for "no default"
            parameter.help = (parameter.help or "").replace("|", "&#x7C;")
            parameter.type = copy.copy(parameter.type)
            name = "flag" if parameter.is_flag else parameter.metavar or parameter.type.name
            parameter.type.name = name.replace("|", "&#x7C;")
        parameters.append(parameter)
    return parameters


def _markdown(text: str) -> str:
    """Markdown of a help text: examples become a block of code, and nothing else is markup."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", text.partition("\f")[0]):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        kept = bool(lines) and lines[0].strip() == _KEPT
        if not kept:
            parts.append(_plain(" ".join(line.strip() for line in lines)))
            continue
        title, *rest = lines[1:]
        if rest and all(line.startswith(" ") for line in rest):
            code = textwrap.dedent("\n".join(rest))
            parts.append(f"**{_plain(title.strip())}**\n\n```sh\n{code}\n```")
        else:
            parts.append("```text\n" + "\n".join([title, *rest]) + "\n```")
    return "\n\n".join(parts)


def _plain(text: str) -> str:
    """Text without markup."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
