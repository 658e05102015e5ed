"""Which images of a folder are a clip, and which folders are not one."""

from pathlib import Path

import pytest

from i3dzoo.errors import VideoError
from i3dzoo.video.series import Images, find_images


def make(folder: Path, *names: str) -> Path:
    """Create empty files, whose names alone count here."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(images: Images) -> list[list[str]]:
    """Return the names of the images of each plane."""
    return [[image.name for image in plane] for plane in images.planes]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["f10.png", "f2.PNG", ".f3.png", "Thumbs.db", "desktop.ini"], ["f2.PNG", "f10.png"]),
        (["clip7_000002.jpg", "clip7_000001.jpeg"], ["clip7_000001.jpeg", "clip7_000002.jpg"]),
        (["2_cam1.png", "10_cam1.png"], ["2_cam1.png", "10_cam1.png"]),
        (["000001.webp"], ["000001.webp"]),
        (["rgb/2.bmp", "rgb/1.bmp", "u/1.png", "v/1.png", "notes.txt"], ["1.bmp", "2.bmp"]),
        (["x_2.png", "x_1.png"], ["x_1.png", "x_2.png"]),
    ],
)
def test_one_series(tmp_path: Path, files: list[str], expected: list[str]) -> None:
    """A series is in the order of its numbers, whatever else its names hold."""
    images = find_images(make(tmp_path, *files), "rgb")
    assert names(images) == [expected]
    assert images.notes == ()


@pytest.mark.parametrize(
    ("x", "y"), [("flow_x_", "flow_y_"), ("x_", "y_"), ("flow_x", "flow_y"), ("u_", "v_")]
)
def test_frames_and_flow_in_one_folder(tmp_path: Path, x: str, y: str) -> None:
    """The layouts of TSN and dense_flow are read as RGB and as flow, and it is said."""
    files = [f"{kind}{number:05d}.jpg" for kind in ("img_", x, y) for number in (2, 1)]
    make(tmp_path, *files)
    frames, flow = find_images(tmp_path, "rgb"), find_images(tmp_path, "xy")
    assert names(frames) == [["img_00001.jpg", "img_00002.jpg"]]
    assert names(flow) == [[f"{plane}0000{n}.jpg" for n in (1, 2)] for plane in (x, y)]
    assert f"read img_*; {x}* and {y}* are optical flow" in frames.notes
    assert f"read {x}* and {y}* as optical flow of ±20 pixels" in flow.notes
    (tmp_path / f"{y}00002.jpg").unlink()
    with pytest.raises(VideoError, match=r"2 images and .* 1; expected the same numbers"):
        find_images(tmp_path, "xy")


def test_only_flow(tmp_path: Path) -> None:
    """A model that takes RGB refuses a folder of flow, and the reverse."""
    make(tmp_path, "flow_x_1.jpg", "flow_y_1.jpg")
    assert len(find_images(tmp_path, "xy").planes) == 2
    with pytest.raises(VideoError, match=r"optical flow \(flow_x_\* and flow_y_\*\), but .* RGB"):
        find_images(tmp_path, "rgb")
    with pytest.raises(VideoError, match="holds no optical flow"):
        find_images(make(tmp_path / "a", "1.png"), "xy")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.mp4", "b.mp4"], r"a folder of 2 videos, such as a\.mp4; pass .* \S+/\*\.mp4"),
        (["a.MP4", "b.mp4", "thumb1.jpg"], r"a\.MP4 beside images such as thumb1.*pass the videos"),
        (["img_1.png", "mask_1.png"], r"img_\* \(1\), mask_\* \(1\), which .* folder of its own"),
        (["1.png", "1_mask.png"], r"\* \(1\), \*_mask \(1\)"),
        (["img_1.png", "flow_x_1.png"], r"flow_x_\* \(1\), img_\*"),
        (["flow_x_1.png"], r"flow_x_\* \(1\), which are not RGB and optical flow"),
        (["i_1.png", "m_1.png", "x_1.png", "y_1.png"], r"i_\* \(1\), m_\* \(1\), x_"),
        (["a1_1.png", "a2_2.png"], "differ in 2 numbers, so they may be several clips"),
        (["1.png", "01.png"], r"01\.png and 1\.png have the same number"),
        (["1.png", "2.jpg"], r"suffixes \.jpg and \.png"),
        (["thumb.jpg"], r"thumb\.jpg, whose name has no number"),
        (["1.png", "notes.txt"], r"notes\.txt beside images such as 1\.png.*move it"),
        (["1.png", "rgb/1.png"], "rgb beside images"),
        (["wave/1.png"], r"holds no images \(.*it holds wave"),
        (["rgb/1.png", "rgb/mask_1.png"], r"rgb: holds \* and mask_\*"),
    ],
)
def test_what_is_not_one_clip(tmp_path: Path, files: list[str], message: str) -> None:
    """Any other folder is refused by name, with the reason and the remedy."""
    with pytest.raises(VideoError, match=message):
        find_images(make(tmp_path, *files), "rgb")


def test_missing_images(tmp_path: Path) -> None:
    """A gap in the numbers is said, but not that every fifth frame was kept."""
    make(tmp_path, "1.png", "2.png", "4.png", "5.png")
    assert find_images(tmp_path, "rgb").notes == ("no images between 2.png and 4.png",)
    make(tmp_path / "fifth", "0.png", "5.png", "10.png")
    assert find_images(tmp_path / "fifth", "rgb").notes == ()
