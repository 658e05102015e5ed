"""The blocks of code in the documentation: found, parsed, and run in this process.

A comment on the line before a block says what to do with it:

- `<!-- run -->`: run this shell block; its commands must succeed.
- `<!-- fails -->`: run it; its last command must end with exit code 1.
- `<!-- not run: REASON -->`: do not run this block.

Without a comment, Python is run, and shell lines are parsed by the command line. A block of data
with a title is a file: it is written where the blocks of its page run.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from i3dzoo.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^\n]*?) -->\n)?"
    r"(?P<indent> *)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<code>.*?)^(?P=indent)```$",
    re.M | re.S,
)
_LAUNCHERS = ("torchrun", "accelerate")


@dataclass(frozen=True)
class Block:
    """A block of code: where it starts, its language, and what the comment before it says."""

    page: Path
    line: int
    language: str
    code: str
    mark: str
    title: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether the block is run, and not only parsed."""
        if self.mark.startswith("not run: "):
            return False
        return self.language == "python" or self.mark in ("run", "fails")

    def commands(self) -> list[list[str]]:
        """The words of each command of i3dzoo in a shell block, without its launcher."""
        text = re.sub(r"\\\n\s*", " ", self.code)
        return [words for line in text.splitlines() if (words := _command(line)) is not None]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    text = page.read_text("utf-8")
    for match in _BLOCK.finditer(text):
        indent = match["indent"]
        code = "".join(line.removeprefix(indent) for line in match["code"].splitlines(True))
        line = text.count("\n", 0, match.start("language")) + 1
        yield Block(page, line, match["language"], code, match["mark"] or "", match["title"])


def check_command(words: list[str]) -> None:
    """Parse a command like the command line does, without opening files.

    Raises:
        click.UsageError: It has an unknown command, option or value, or lacks an argument.
    """
    context = click.Context(cli, info_name="i3dzoo")
    command: click.Command = cli
    while isinstance(command, click.Group):
        options, rest, _ = command.make_parser(context).parse_args(list(words))
        if not rest and options:
            return  # such as --version
        name, below, words = command.resolve_command(context, rest)
        assert below is not None, name
        command, context = below, click.Context(below, info_name=name, parent=context)
    if {"-h", "--help"} & set(words):
        return
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    if rest:
        raise click.UsageError(f"unexpected arguments: {' '.join(rest)}")
    for parameter in command.params:
        _check_value(parameter, values.get(parameter.name or ""), context)


def _check_value(parameter: click.Parameter, value: object, context: click.Context) -> None:
    values = value if isinstance(value, list | tuple) else [value]
    given = [each for each in values if isinstance(each, str | bool | int | float)]
    if parameter.required and not given:
        raise click.MissingParameter(param=parameter, ctx=context)
    if isinstance(
        parameter.type, click.Choice | click.types.IntParamType | click.types.FloatParamType
    ):
        for each in given:
            if isinstance(each, str):
                parameter.type.convert(each, parameter, context)


def _command(line: str) -> list[str] | None:
    """The words after `i3dzoo` of one line; None if it runs something else."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        words = words[1:]
    if words[:1] and words[0] in _LAUNCHERS and "i3dzoo" in words:
        words = words[words.index("i3dzoo") :]
    if words[:1] != ["i3dzoo"]:
        return None
    for number, word in enumerate(words):
        if word in ("|", ">", "<", "2>", "&&", "&", ";"):
            words = words[:number]
            break
    return words[1:]
