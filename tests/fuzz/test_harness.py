"""The fuzzing harness finds commands that do what no command may do."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest

from fuzz import mutators
from fuzz.__main__ import table, update_table
from fuzz.bad_commands import BAD, GOOD
from fuzz.server import ForkServer, generator_of
from fuzz.verdict import Limits


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """A fork server with low limits."""
    limits = Limits(refusal=0.5, acceptance=1, wall=4)
    with ForkServer(tmp_path_factory.mktemp("fuzz") / "server", limits) as server:
        yield server


@pytest.mark.parametrize(("name", "reason"), BAD.items())
def test_bad_commands_are_found(server: ForkServer, name: str, reason: str) -> None:
    """Each bad command is an escape, and the reason is right."""
    outcome = server.run(name, None)
    assert outcome["verdict"] == "escape"
    assert re.search(reason, outcome["reason"], re.DOTALL), outcome["reason"]


@pytest.mark.parametrize(("name", "verdict"), GOOD.items())
def test_good_commands_are_not(server: ForkServer, name: str, verdict: str) -> None:
    """A command that accepts or refuses its input is no escape."""
    outcome = server.run(name, 1 if verdict == "refused" else None)
    assert outcome["verdict"] == verdict, outcome["reason"]


def test_the_server_survives(server: ForkServer) -> None:
    """What one mutant does is gone when the next runs."""
    assert server.run("overwrite", None)["verdict"] == "escape"
    assert server.run("accept", 3)["verdict"] == "accepted"


def test_mutants_are_reproducible() -> None:
    """A kind and a number give one mutant, and other numbers give others."""
    content = bytes(range(256)) * 4
    mutants = [mutators.damage_bytes(content, generator_of("x", n)) for n in range(60)]
    assert mutants == [mutators.damage_bytes(content, generator_of("x", n)) for n in range(60)]
    assert len(set(mutants)) > 50
    assert mutators.damage_bytes(content, generator_of("y", 0)) != mutants[0]


@pytest.mark.parametrize(
    ("mutate", "content"),
    [
        (mutators.damage_json, b'{"a": [1, 2.5, "x"], "b": {"c": null}}'),
        (mutators.damage_json_lines, b'{"a": 1}\n{"b": 2}\n'),
        (mutators.damage_yaml, b"a: 1\nb: [x, y]\nc: {d: 0.5}\n"),
        (mutators.damage_toml, b'a = 1\n[b]\nc = "x"\n'),
        (mutators.damage_lines, b"one\ntwo\nthree\n"),
        (mutators.damage_text, b"one: two\n"),
    ],
)
def test_documents_are_damaged(mutate: mutators.Mutator, content: bytes) -> None:
    """Mutators of texts work on any seed, and most mutants are unlike the seed."""
    mutants = {mutate(content, generator_of("x", number)) for number in range(300)}
    assert len(mutants) > 150
    assert any(b"9" * 400 in mutant for mutant in mutants)


def test_counts_are_a_table() -> None:
    """The counts by kind, and of all kinds, are a table, in which a later run replaces its rows."""
    counts = {"a": Counter(refused=2, accepted=1), "b": Counter(refused=1000, escape=1)}
    assert table(counts).splitlines()[2:] == [
        "| a | 3 | 2 | 1 | 0 |",
        "| b | 1,001 | 1,000 | 0 | 1 |",
        "| **all** | 1,004 | 1,002 | 1 | 1 |",
    ]
    page = "Text.\n<!-- counts of the long run -->\n<!-- end of the counts -->\nMore.\n"
    page = update_table(page, counts, ("c", "b", "a"))
    page = update_table(page, {"b": Counter(accepted=5), "c": Counter(refused=7)}, ("c", "b", "a"))
    assert page.splitlines()[4:8] == [
        "| c | 7 | 7 | 0 | 0 |",
        "| b | 5 | 0 | 5 | 0 |",
        "| a | 3 | 2 | 1 | 0 |",
        "| **all** | 15 | 9 | 6 | 0 |",
    ]
    assert page.startswith("Text.")
    assert page.endswith("More.\n")
