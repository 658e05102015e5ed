"""The commands ls, show, copy and check of things that ship as files: recipes, presets, layouts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from i3dzoo.cli._console import cell, json_option, print_json, say, show, show_table, suggest
from i3dzoo.cli._parameters import Names
from i3dzoo.errors import UnknownNameError
from i3dzoo.files import atomic_write, check_output

_path = click.Path(path_type=Path)


@dataclass(frozen=True)
class Shelf:
    """Files of one kind.

    Attributes:
        names: Returns the names of those that ship.
        file: Returns the file of a name.
        read: Reads a name, or a file of the user's own, into plain data, and raises an error that
            says what is wrong with it; `title` is one line about it.
        use: A command that uses one, with {} for its name.
    """

    names: Callable[[], tuple[str, ...]]
    file: Callable[[str], Traversable]
    read: Callable[[str], dict[str, Any]]
    use: str


@dataclass(frozen=True)
class Catalog:
    """What a group of commands shows.

    Attributes:
        word: What one of them is called, such as `recipe`; the group is called `recipes`.
        shelves: By their kind; with several, names are `KIND/NAME`, and NAME if it is unique.
        columns: Keys of the data to show in the list, with their headings.
    """

    word: str
    shelves: Mapping[str, Shelf]
    columns: Mapping[str, str]

    def group(self, summary: str) -> click.Group:
        """Return the group, whose help is the summary; without a command it lists."""
        example, suffix = self._example()
        text = self._help(summary, "ls", f"show {example}", f"copy {example}", "check FILE")
        ls = self._ls()

        @click.group(help=text, invoke_without_command=True)
        @click.pass_context
        def group(context: click.Context) -> None:
            if context.invoked_subcommand is None:
                context.invoke(ls, as_json=False)

        for command in (ls, self._show(example), self._copy(example, suffix), self._check(suffix)):
            group.add_command(command)
        return group

    def _ls(self) -> click.Command:
        text = self._help(f"List the {self.word}s that ship with i3dzoo.", "ls", "ls --json")

        @click.command("ls", help=text)
        @json_option
        def ls(as_json: bool) -> None:
            rows = [{"name": name, **shelf.read(_own(name))} for name, shelf in self._all()]
            if as_json:
                print_json(rows)
                return
            table = Table(box=None, pad_edge=False)
            for heading in ("name", *self.columns.values()):
                table.add_column(heading, no_wrap=True)
            for row in rows:
                cells = (_text(row.get(key)) for key in ("name", *self.columns))
                table.add_row(*map(cell, cells))
            show_table(table)
            say()
            suggest(f"i3dzoo {self.word}s show {rows[0]['name']}")

        return ls

    def _show(self, example: str) -> click.Command:
        text = self._help(
            f"Print a {self.word} as it is in its file; --json prints its values and defaults.",
            f"show {example}",
            f"show {example} --json",
        )

        @click.command("show", help=text)
        @click.argument("name", type=self._type())
        @json_option
        def show_one(name: str, as_json: bool) -> None:
            found, shelf = self._find(name)
            if as_json:
                print_json(shelf.read(_own(found)))
            else:
                show(shelf.file(_own(found)).read_text("utf-8").rstrip("\n"))

        return show_one

    def _copy(self, example: str, suffix: str) -> click.Command:
        text = self._help(
            f"Copy a {self.word} to a file of your own, to change it.",
            f"copy {example}",
            f"copy {example} mine{suffix}",
        )

        @click.command("copy", help=text)
        @click.argument("name", type=self._type())
        @click.argument("target", metavar="[FILE]", required=False, type=_path)
        @click.option("--force", is_flag=True, help="Replace FILE if it exists.")
        @json_option
        def copy(name: str, target: Path | None, force: bool, as_json: bool) -> None:
            found, shelf = self._find(name)
            file = shelf.file(_own(found))
            target = target or Path(file.name)
            check_output(target, force)
            with atomic_write(target) as output:
                output.write(file.read_bytes())
            path = click.format_filename(target)
            kind = f" --kind {found.partition('/')[0]}" if len(self.shelves) > 1 else ""
            suggest(f"i3dzoo {self.word}s check {path}{kind}", shelf.use.format(path))
            if as_json:
                print_json({"name": found, "path": path})
            else:
                show(path)

        return copy

    def _check(self, suffix: str) -> click.Command:
        several = len(self.shelves) > 1
        kind = click.Option(
            ["--kind"],
            required=True,
            type=click.Choice(list(self.shelves)),
            help=f"Kind of the {self.word}.",
        )
        text = self._help(
            f"Check the keys and values of a {self.word} of your own. The exit code is 1 if it is "
            "not valid.",
            f"check mine{suffix}{f' --kind {next(iter(self.shelves))}' if several else ''}",
        )

        @click.command("check", help=text)
        @click.argument("file", metavar="FILE")
        @json_option
        def check(file: str, as_json: bool, kind: str = next(iter(self.shelves))) -> None:
            document = self.shelves[kind].read(_existing(file))
            if as_json:
                print_json({"file": file, "valid": True, **document})
            else:
                title = document.get("title") or "without a title"
                show(f"{file}: is a valid {self.word}: {title}")

        if several:
            check.params.append(kind)
        return check

    def _help(self, summary: str, *examples: str) -> str:
        lines = "\n".join(f"  i3dzoo {self.word}s {line}" for line in examples)
        return f"{summary}\n\n\b\nExamples:\n{lines}\n"

    def _example(self) -> tuple[str, str]:
        """Return the first name, and the suffix of its file; other shelves may be slow to open."""
        shelf = next(iter(self.shelves.values()))
        name = shelf.names()[0]
        return name, Path(shelf.file(name).name).suffix

    def _type(self) -> Names:
        return Names(self.word, lambda: [name for name, _ in self._all()])

    def _all(self) -> list[tuple[str, Shelf]]:
        several = len(self.shelves) > 1
        return [
            (f"{kind}/{name}" if several else name, shelf)
            for kind, shelf in self.shelves.items()
            for name in shelf.names()
        ]

    def _find(self, name: str) -> tuple[str, Shelf]:
        """Return the full name and the shelf of a name, which may leave out the kind."""
        known = self._all()
        found = [entry for entry in known if name in (entry[0], _own(entry[0]))]
        if len(found) > 1:
            options = " or ".join(entry[0] for entry in found)
            raise UnknownNameError(f"{name}: several {self.word}s have this name; use {options}")
        if not found:
            listed = ", ".join(entry[0] for entry in known)
            raise UnknownNameError(f"{name}: no {self.word} has this name; there are {listed}")
        return found[0]


def _own(name: str) -> str:
    return name.rpartition("/")[2]


def _existing(file: str) -> str:
    if not Path(file).exists():
        raise UnknownNameError(f"{file}: there is no such file")
    return file if "/" in file else f"./{file}"  # a file is meant, not a name


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return {None: "", True: "yes", False: "no"}.get(value, str(value))
