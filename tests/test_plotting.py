"""The pictures: what is drawn, in which colours, from which arguments; refusals; no global state touched."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed: no picture was drawn")

import lstmx  # noqa: E402
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


def trace_of(i=0.0, f=0.0, g=0.0, o=0.0, shape=(12, 2, 5)):
    """Gates of one layer, each the same everywhere."""
    return {name: [np.full(shape, value)] for name, value in {"i": i, "f": f, "g": g, "o": o}.items()}


def panels(image):
    """The parts of a picture of gates where i, f, g and o are, without their frames."""
    tops = [0.09, 0.32, 0.55, 0.78]
    height, width = image.shape[:2]
    return [
        image[int((top + 0.04) * height) : int((top + 0.10) * height), int(0.2 * width) : int(0.6 * width)]
        for top in tops
    ]


GREEN, DARK_RED, DARK_BLUE, WHITE = (0, 68, 27), (103, 0, 31), (5, 48, 97), (255, 255, 255)


@pytest.mark.parametrize(
    ("values", "colours"),
    [
        ((1, 0, 1, 0), (GREEN, WHITE, DARK_RED, WHITE)),
        ((0, 1, 0, 1), (WHITE, GREEN, WHITE, GREEN)),
        ((0, 0, -1, 1), (WHITE, WHITE, DARK_BLUE, GREEN)),
    ],
)
def test_gates_are_on_scales_of_their_own(tmp_path, values, colours):
    path = plotting.plot_gates(tmp_path / "gates", trace_of(*values), title="open and shut")
    assert path == tmp_path / "gates.png"
    for panel, colour in zip(panels(picture(path)), colours, strict=True):
        assert np.abs(panel - colour).max() < 20


@pytest.mark.parametrize("batch_first", [False, True])
def test_gates_of_one_layer_row_and_length(tmp_path, batch_first):
    """Time goes to the right: what opens in the second half of the steps drawn is dark on the right."""
    trace = trace_of()
    gate = np.zeros((12, 2, 5))
    gate[4:8, 1] = 1
    trace["o"].append(gate.swapaxes(0, 1) if batch_first else gate)
    for name in "ifg":
        trace[name].append(0 * trace["o"][1])
    path = plotting.plot_gates(tmp_path / "a.png", trace, layer=1, row=1, length=8, batch_first=batch_first)
    shut, *_, output = panels(picture(path))
    assert np.abs(shut - WHITE).max() < 20
    half = output.shape[1] // 2
    assert amount(output[:, :half], GREEN) < 0.2 * output[:, :half, 0].size
    assert amount(output[:, half:], GREEN) > 0.8 * output[:, half:, 0].size


def test_gates_of_a_layer(tmp_path):
    lstm = lstmx.LSTM(3, [8, 4], bidirectional=True, rng=0)
    for shape in ((20, 3), (20, 2, 3)):
        trace = lstm(np.ones(shape, np.float32), trace=True)[2]
        path = plotting.plot_gates(tmp_path / f"{len(shape)}.png", trace, layer=1, xlabel="frame")
        assert path.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"trace": [1]}, TypeError, "trace: expected a mapping of gates by name, got list"),
        ({"trace": {"i": [], "f": []}}, ValueError, "trace: expected i, f, g, o, got none of g, o"),
        ({"layer": 1}, ValueError, "layer: expected at most 0, got 1"),
        ({"row": 2}, ValueError, "row: expected at most 1, got 2"),
        ({"row": -1}, ValueError, "row: expected at least 0, got -1"),
        ({"length": 13}, ValueError, "length: expected at most 12, got 13"),
        ({"batch_first": 1}, TypeError, "batch_first: expected True or False, got 1"),
        ({"trace": trace_of(shape=(5,))}, ValueError, r"trace\['i'\]\[0\]: expected shape .*, got \(5,\)"),
        (
            {"trace": trace_of() | {"o": [np.zeros((12, 2, 4))]}},
            ValueError,
            r"trace: expected gates of one shape, got \(12, 4\), \(12, 5\)",
        ),
    ],
)
def test_gates_refusals(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        plotting.plot_gates(tmp_path / "no.png", **{"trace": trace_of(), **arguments})
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
