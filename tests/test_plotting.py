"""The pictures: what is drawn, in which colours, from which arguments; refusals; no global state touched."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed: no picture was drawn")

from lstmx import plotting  # noqa: E402

SHADES_APART = 60


def picture(path):
    """RGB [height, width, 3] of a file."""
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def amount(image, colour):
    """How many pixels are about this colour."""
    return int((np.abs(image - colour).max(axis=-1) < SHADES_APART).sum())


RED, BLUE, GREY = (255, 0, 0), (0, 0, 255), (115, 115, 115)


def test_prediction_is_blue_and_the_target_red(tmp_path):
    t = np.arange(50) / 5
    path = plotting.plot_prediction(
        tmp_path / "sine", np.sin(t)[None, :, None], np.cos(t), title="a title", ylabel="amplitude (V)"
    )
    assert path == tmp_path / "sine.png"
    image = picture(path)
    # Lines of the same length: the dashed one has less ink.
    assert 400 < amount(image, BLUE) < 0.9 * amount(image, RED)


def test_forecast_follows_its_past(tmp_path):
    days = np.datetime64("2024-01-01") + np.arange(40)
    path = plotting.plot_forecast(
        tmp_path / "co2.png",
        np.sin(np.arange(30) / 5),
        np.sin(np.arange(30, 40) / 5),
        t_past=days[:30],
        t_forecast=days[30:],
        actual=np.sin(np.arange(30, 40) / 5) - 0.5,
        ylabel="ppm",
    )
    image = picture(path)
    for colour in (RED, BLUE, GREY):
        columns = np.flatnonzero((np.abs(image[60:-80] - colour).max(axis=-1) < SHADES_APART).any(axis=0))
        left, right = columns.min() / image.shape[1], columns.max() / image.shape[1]
        assert left < 0.2 if colour == GREY else right > 0.85


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_the_suffix_chooses_the_format(tmp_path, suffix):
    path = plotting.plot_forecast(tmp_path / f"a{suffix}", [1, 2, 3], [4])
    start = {".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG"}[suffix]
    assert path.read_bytes().startswith(start)


def test_gaps_and_single_points_are_drawn(tmp_path):
    one = plotting.plot_forecast(tmp_path / "one.png", [0.0, 0.0], [1.0])
    assert amount(picture(one), BLUE) > 30
    gap = plotting.plot_prediction(tmp_path / "gap.png", [1.0, np.nan, 3.0, 4.0], [1, 2, 3, 4])
    assert amount(picture(gap), RED) > 100


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1, 2], [1]), ValueError, "prediction: expected length 2, got 1"),
        (([[1, 2], [3, 4]], [1, 2]), ValueError, r"target: expected one series, got shape \(2, 2\)"),
        ((["a"], [1]), TypeError, "target: expected numbers or dates"),
        (([1, 2], [1, 2], [0]), ValueError, "t: expected length 2, got 1"),
    ],
)
def test_prediction_refusals(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        plotting.plot_prediction(tmp_path / "no.png", *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"t_past": [1, 2]}, "t_forecast: expected t_past and t_forecast together"),
        ({"t_forecast": [3]}, "t_past: expected t_past and t_forecast together"),
        ({"t_past": [1], "t_forecast": [3]}, "t_past: expected length 2, got 1"),
        ({"actual": [1, 2]}, "actual: expected length 1, got 2"),
    ],
)
def test_forecast_refusals(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        plotting.plot_forecast(tmp_path / "no.png", [1, 2], [3], **options)
    assert list(tmp_path.iterdir()) == []


def test_files_are_drawn_without_pyplot(tmp_path):
    code = f"""
import sys
from lstmx import plotting
assert "matplotlib" not in sys.modules
plotting.plot_prediction({str(tmp_path / "a.png")!r}, [1, 2, 3], [1, 2, 2])
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_matplotlib_the_error_says_what_to_install(tmp_path):
    code = f"""
import sys
sys.modules["matplotlib"] = None
from lstmx import plotting
plotting.plot_prediction({str(tmp_path / "a.png")!r}, [1], [1])
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (
        "ImportError: drawing needs matplotlib: from the checkout of lstmx, pip install '.[viz]'"
        in result.stderr
    )
