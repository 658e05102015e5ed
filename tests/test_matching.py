"""Label lists of the user's own, and which classes of two label sets are the same."""

from pathlib import Path

import pytest

from i3dzoo._resources import data
from i3dzoo.errors import FormatError, ManifestError, UnknownNameError
from i3dzoo.labels import find_labels, label_set_of, labels, read_labels
from i3dzoo.matching import label_map, match_labels, parse_label_map

NAME = "kinetics-400_to_hmdb51"
TEXT = (data("manifests") / "labels" / f"{NAME}.toml").read_text("utf-8")
KINETICS = labels("kinetics-400")


@pytest.mark.parametrize(("target", "carried"), [("hmdb51", 32), ("ucf101", 67)])
def test_reviewed_tables(target: str, carried: int) -> None:
    """Each reviewed table keeps its law and gives no row to two classes."""
    table = label_map("kinetics-400", target)
    assert table is not None
    assert set(table.sources) == set(table.relations)
    used = [name for names in table.sources.values() for name in names]
    assert len(set(used)) == len(used)
    matching = match_labels(KINETICS, labels(target))
    assert matching.table == f"kinetics-400_to_{target}"
    assert matching.carried == table.sources
    assert len(matching.carried) == carried
    assert set(matching.carried).isdisjoint(matching.fresh)
    assert {*matching.carried, *matching.fresh} == set(labels(target))


def test_what_matches_what() -> None:
    """Cartwheeling becomes cartwheel, three kinds of golf become golf, waving has nothing."""
    matching = match_labels(KINETICS, labels("hmdb51"))
    assert matching.carried["cartwheel"] == ("cartwheeling",)
    assert matching.carried["golf"] == ("golf chipping", "golf driving", "golf putting")
    assert "wave" in matching.fresh
    row = matching.rows[labels("hmdb51").index("cartwheel")]
    assert [KINETICS[index] for index in row] == ["cartwheeling"]


def test_the_same_names_match_without_a_table() -> None:
    """Without a table exactly the same names match, each with itself."""
    matching = match_labels(KINETICS, labels("kinetics-600"))
    assert matching.table is None
    assert matching.carried["archery"] == ("archery",)
    assert all(names == (name,) for name, names in matching.carried.items())
    assert match_labels(("a", "b", "c"), ("c", "x", "a")).rows == ((2,), (), (0,))
    assert match_labels(KINETICS, ("Archery",)).carried == {"Archery": ("archery",)}


def test_part_of_a_set_uses_its_table() -> None:
    """Five classes of HMDB51, as tutorials take, are matched as HMDB51's are."""
    five = ("fall_floor", "ride_bike", "walk", "run", "push")
    matching = match_labels(KINETICS, five)
    assert matching.table == NAME
    assert matching.fresh == ("walk",)
    few = match_labels(("jogging", "archery"), ("run", "walk", "shoot_bow"))
    assert few.rows == ((0,), (), (1,))


def test_label_set_of() -> None:
    """A list is recognised as a label set or part of one."""
    assert label_set_of(labels("ucf101")) == "ucf101"
    assert label_set_of(("YoYo", "Archery")) == "ucf101"
    assert label_set_of(("a", "b")) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('cartwheel = ["cartwheeling"]', 'cartwheel = ["somersaulting"]', "is taken already"),
        ('cartwheel = ["cartwheeling"]', 'cartwheel = ["cartwheel"]', "is no class of kinetics"),
        ('cartwheel = ["cartwheeling"]', "cartwheel = []", r"same.cartwheel is []; expected names"),
        ('cartwheel = ["cartwheeling"]', 'cartwheel = "x"', "same.cartwheel is 'x'; expected"),
        ('hug = ["hugging"]', 'hug = ["hugging", "hugging"]', "same.hug holds a name twice"),
        ("cartwheel = [", "cartwheels = [", "same.cartwheels is no class of hmdb51"),
        ('hug = ["hugging"]', 'ride_horse = ["hugging"]', "broader.ride_horse is in two tables"),
        ("[same]", "[similar]", "similar is unknown; expected tables same, narrower, broader"),
        ("[same]", "color = 1\n[same]", "color is unknown"),
        ('target = "hmdb51"', 'target = "ucf101"', "is from 'kinetics-400' to 'ucf101'; expected"),
        ("[same]", "[same", "is no TOML"),
    ],
)
def test_broken_tables(old: str, new: str, message: str) -> None:
    """A table that breaks the law is refused with file, class and reason."""
    assert old in TEXT
    with pytest.raises(ManifestError) as caught:
        parse_label_map(NAME, TEXT.replace(old, new, 1), "my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert message in str(caught.value)


def test_no_table() -> None:
    """Two sets without a reviewed table have none."""
    assert label_map("charades", "hmdb51") is None


def test_labels_of_a_file(tmp_path: Path) -> None:
    """A file gives a name a line, without the spaces, line ends and mark of other systems."""
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffjump\r\n  climb stairs \r\nübung".encode())
    assert read_labels(path) == ("jump", "climb stairs", "übung")
    assert find_labels(path) == read_labels(path)
    assert find_labels("hmdb51") == labels("hmdb51")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\n\nb\n", r"names.txt: line 2 is blank; expected one label a line"),
        (b"a\nb\n \n", r"line 3 is blank"),
        (b"a\nb\na \n", r"line 3 repeats 'a' of line 1; every class needs a name of its own"),
        (b"", r"names.txt: is empty"),
        (b"\xff\xfe\xfa", r"names.txt: cannot be read as UTF-8 text with one label a line"),
    ],
)
def test_bad_files_of_labels(tmp_path: Path, content: bytes, message: str) -> None:
    """Blank and repeated lines, and what is no text, are refused with file and line."""
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message):
        read_labels(path)


def test_neither_set_nor_file(tmp_path: Path) -> None:
    """What is neither is answered with the label sets."""
    with pytest.raises(UnknownNameError, match="is neither a label set nor a file; there are char"):
        find_labels(tmp_path)
