"""Label files, and matching the classes of two label sets."""

from pathlib import Path

import pytest

from i3dzoo.checkpoints.label_map import label_map, match_labels, parse_label_map
from i3dzoo.checkpoints.labels import find_labels, label_set_of, labels
from i3dzoo.errors import ManifestError, UnknownNameError
from i3dzoo.resources import data

NAME = "kinetics-400_to_hmdb51"
TEXT = (data("manifests") / "labels" / f"{NAME}.toml").read_text("utf-8")
KINETICS = labels("kinetics-400")


@pytest.mark.parametrize(("target", "carried"), [("hmdb51", 32), ("ucf101", 67)])
def test_reviewed_tables(target: str, carried: int) -> None:
    """No reviewed table uses a class twice."""
    table = label_map("kinetics-400", target)
    assert table is not None
    used = [name for names in table.sources.values() for name in names]
    assert len(set(used)) == len(used)
    match = match_labels(KINETICS, labels(target))
    assert match.label_map == f"kinetics-400_to_{target}"
    assert match.carried == table.sources
    assert len(match.carried) == carried
    assert set(match.carried).isdisjoint(match.fresh)
    assert {*match.carried, *match.fresh} == set(labels(target))


def test_what_matches_what() -> None:
    """Cartwheeling matches cartwheel, three kinds of golf match golf, nothing matches wave."""
    match = match_labels(KINETICS, labels("hmdb51"))
    assert match.carried["cartwheel"] == ("cartwheeling",)
    assert match.carried["golf"] == ("golf chipping", "golf driving", "golf putting")
    assert "wave" in match.fresh
    row = match.rows[labels("hmdb51").index("cartwheel")]
    assert [KINETICS[index] for index in row] == ["cartwheeling"]


def test_the_same_names_match_without_a_table() -> None:
    """Without a table, equal names match."""
    match = match_labels(KINETICS, labels("kinetics-600"))
    assert match.label_map is None
    assert match.carried["archery"] == ("archery",)
    assert all(names == (name,) for name, names in match.carried.items())
    assert match_labels(("a", "b", "c"), ("c", "x", "a")).rows == ((2,), (), (0,))
    assert match_labels(KINETICS, ("Archery",)).carried == {"Archery": ("archery",)}


def test_part_of_a_set_uses_its_table() -> None:
    """Some classes of HMDB51 use the table of HMDB51."""
    five = ("fall_floor", "ride_bike", "walk", "run", "push")
    match = match_labels(KINETICS, five)
    assert match.label_map == NAME
    assert match.fresh == ("walk",)
    few = match_labels(("jogging", "archery"), ("run", "walk", "shoot_bow"))
    assert few.rows == ((0,), (), (1,))


def test_label_set_of() -> None:
    """The label set of a list, or of a part of one, is found."""
    assert label_set_of(labels("ucf101")) == "ucf101"
    assert label_set_of(("YoYo", "Archery")) == "ucf101"
    assert label_set_of(("a", "b")) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('["cartwheeling"]', '["somersaulting"]', "not used elsewhere, found 'somersaulting'"),
        ('["cartwheeling"]', '["cartwheel"]', "same.cartwheel: expected classes of kinetics-400"),
        ('["cartwheeling"]', "[]", "same.cartwheel: expected a list of length 1 or more"),
        ('["cartwheeling"]', '"x"', "same.cartwheel: expected a list of length 1 or more"),
        ('["hugging"]', '["hugging", "hugging"]', "same.hug: expected classes"),
        ("cartwheel = [", "cartwheels = [", "same.cartwheels: expected a class of hmdb51"),
        ('hug = ["hugging"]', 'ride_horse = ["hugging"]', "broader.ride_horse: expected a class"),
        ("[same]", "[similar]", "similar: unknown key; expected one of source, target, same"),
        ("[same]", "color = 1\n[same]", "color: unknown key"),
        ('target = "hmdb51"', 'target = "hmdb"', "expected label sets of charades"),
        ("[same]", "[same", "is not valid TOML"),
    ],
)
def test_broken_tables(old: str, new: str, message: str) -> None:
    """A malformed table is refused; the message names file, class and reason."""
    assert old in TEXT
    with pytest.raises(ManifestError) as caught:
        parse_label_map(NAME, TEXT.replace(old, new, 1), "my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert message in str(caught.value)


def test_no_table() -> None:
    """There is no table between most label sets."""
    assert label_map("charades", "hmdb51") is None


def test_neither_set_nor_file(tmp_path: Path) -> None:
    """The error for an unknown label set lists the known ones."""
    with pytest.raises(UnknownNameError, match=r"expected a label set \(charades, "):
        find_labels(tmp_path)
