"""Pictures of training and prediction: history curves, target against prediction, forecasts, gates.

Targets are red, predictions blue and dashed, the past grey. Files are drawn with matplotlib's `Figure`
objects, never through `pyplot`, so that no backend, style or figure of the caller changes. matplotlib is
imported when the first picture is drawn; it is an optional need (the `viz` extra). Not here: the window and
the animation during training, which are `lstmx.callbacks.LivePlot`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lstmx._checks import check_array, check_bool, check_int

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TARGET: dict[str, Any] = {"color": "red", "linestyle": "-"}
PREDICTION: dict[str, Any] = {"color": "blue", "linestyle": "--"}
PAST: dict[str, Any] = {"color": "0.45", "linestyle": "-"}

GATE_TITLES = {"i": "input gate i", "f": "forget gate f", "g": "candidate g", "o": "output gate o"}

# Of heat maps, by what an activation gives: in both, 0 is white.
FROM_0_TO_1: dict[str, Any] = {"cmap": "Greens", "vmin": 0.0, "vmax": 1.0}
FROM_MINUS_1_TO_1: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -1.0, "vmax": 1.0}

SIZE_INCHES = (8.0, 4.5)
DOTS_PER_INCH = 120


def new_figure() -> tuple[Figure, Axes]:
    """A figure with one axes that belongs to nobody but the caller.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = _empty_figure(SIZE_INCHES)
    return figure, figure.add_subplot()


def _empty_figure(size_inches: tuple[float, float]) -> Figure:
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=size_inches, dpi=DOTS_PER_INCH, layout="constrained")


def require_matplotlib() -> None:
    """Raise an ImportError that says what to install where matplotlib is missing."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "drawing needs matplotlib: from the checkout of lstmx, pip install '.[viz]'"
        ) from error


def save_figure(path: str | os.PathLike[str], figure: Figure) -> Path:
    """Write a figure to an image file and return its path; no suffix means `.png`."""
    target = Path(path)
    if not target.suffix:
        target = target.with_suffix(".png")
    figure.savefig(target)
    return target


def draw_history(ax: Axes, history: Mapping[str, Sequence[float]]) -> None:
    """Draw one curve per series of `history` over the epochs, counted from 1, into `ax`."""
    from matplotlib.ticker import MaxNLocator

    for name, values in history.items():
        style = "--" if name.startswith("val_") else "-"
        marker = "o" if len(values) == 1 else None
        ax.plot(np.arange(1, len(values) + 1), values, style, marker=marker, label=name)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    positive = all(value > 0 for values in history.values() for value in values)
    if positive and _spans_decades(history):
        ax.set_yscale("log")
    if history:
        ax.legend()


def _spans_decades(history: Mapping[str, Sequence[float]]) -> bool:
    values = [value for series in history.values() for value in series]
    return bool(values) and max(values) > 100 * min(values)


def plot_prediction(
    path: str | os.PathLike[str],
    target: ArrayLike,
    prediction: ArrayLike,
    t: ArrayLike | None = None,
    *,
    title: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Path:
    """Write a picture of a target (red) and its prediction (blue, dashed) to an image file.

    Args:
        path: The file; its suffix chooses the format, none means `.png`.
        target: `[T]` numbers; axes of extent 1 are dropped. NaN leaves a gap.
        prediction: As `target`, of the same length.
        t: `[T]` positions on the horizontal axis, numbers or dates (`datetime64`); 0, 1, 2, ... by default.
        title: A line above the picture.
        xlabel: What the horizontal axis shows; by default "step", or nothing under dates.
        ylabel: What the vertical axis shows, with its unit.

    Returns:
        The path written.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The lengths differ or an argument is not one series.

    Example:
        >>> import tempfile, numpy as np
        >>> t = np.arange(60) / 10
        >>> folder = tempfile.mkdtemp()
        >>> path = plot_prediction(f"{folder}/sine.png", np.sin(t), 0.9 * np.sin(t), t, xlabel="seconds")
        >>> path.name
        'sine.png'
    """
    wanted = _series("target", target)
    given = _series("prediction", prediction, length=len(wanted))
    where = np.arange(len(wanted)) if t is None else _series("t", t, length=len(wanted))
    figure, ax = new_figure()
    ax.plot(where, wanted, label="target", **TARGET)
    ax.plot(where, given, label="prediction", **PREDICTION)
    _label(ax, _default_xlabel(where) if xlabel is None else xlabel, ylabel, title)
    return save_figure(path, figure)


def plot_forecast(
    path: str | os.PathLike[str],
    past: ArrayLike,
    forecast: ArrayLike,
    *,
    t_past: ArrayLike | None = None,
    t_forecast: ArrayLike | None = None,
    actual: ArrayLike | None = None,
    title: str | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> Path:
    """Write a picture of a forecast (blue, dashed) after the past it was made from (grey) to an image file.

    Args:
        path: The file; its suffix chooses the format, none means `.png`.
        past: `[N]` numbers up to the moment of the forecast; pass the part that is to be seen.
        forecast: `[horizon]` numbers that follow.
        t_past: `[N]` positions of `past`, numbers or dates (`datetime64`); -N+1, ..., 0 by default.
        t_forecast: `[horizon]` positions of `forecast`; 1, 2, ..., horizon by default. Both or neither.
        actual: `[horizon]` numbers that came true (red), where they are known.
        title: A line above the picture.
        xlabel: What the horizontal axis shows; by default "step", or nothing under dates.
        ylabel: What the vertical axis shows, with its unit.

    Returns:
        The path written.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: Lengths differ, an argument is not one series, or only one of the two `t` is given.
    """
    before = _series("past", past)
    after = _series("forecast", forecast)
    if (t_past is None) != (t_forecast is None):
        missing = "t_past" if t_past is None else "t_forecast"
        raise ValueError(f"{missing}: expected t_past and t_forecast together, got None")
    if t_past is None or t_forecast is None:
        t_past, t_forecast = np.arange(1 - len(before), 1), np.arange(1, len(after) + 1)
    t_before = _series("t_past", t_past, length=len(before))
    t_after = _series("t_forecast", t_forecast, length=len(after))
    truth = None if actual is None else _series("actual", actual, length=len(after))
    figure, ax = new_figure()
    ax.plot(t_before, before, label="past", **PAST)
    if len(before):
        ax.axvline(t_before[-1], color="0.8", linewidth=1)
    if truth is not None:
        ax.plot(t_after, truth, label="target", **TARGET, **_dot(after))
    ax.plot(t_after, after, label="forecast", **PREDICTION, **_dot(after))
    _label(ax, _default_xlabel(t_after) if xlabel is None else xlabel, ylabel, title)
    return save_figure(path, figure)


def plot_gates(
    path: str | os.PathLike[str],
    trace: Mapping[str, Sequence[ArrayLike]],
    *,
    layer: int = 0,
    row: int = 0,
    batch_first: bool = False,
    length: int | None = None,
    title: str | None = None,
    xlabel: str = "step",
) -> Path:
    """Write heat maps of the gates i, f, g, o of one layer over one sequence to an image file.

    Time goes to the right, hidden units downwards (of a bidirectional layer the reverse direction's after the
    forward ones). One colour bar is for i, f and o, from 0 (shut) to 1 (open), another for g, from -1 to 1.

    Args:
        path: The file; its suffix chooses the format, none means `.png`.
        trace: What an `LSTM` called with `trace=True` returns last.
        layer: The layer, from 0.
        row: The row of the batch, from 0.
        batch_first: Whether the layer is: whether a gate is `[B, T, D*H]` instead of `[T, B, D*H]`. Of an
            unbatched sequence, `[T, D*H]`, it says nothing.
        length: The number of steps to draw, such as the row's own in a padded batch; None: all.
        title: A line above the picture.
        xlabel: What the horizontal axis shows.

    Returns:
        The path written.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: `trace` is no such mapping, or a number no integer.
        ValueError: `trace` lacks a gate, a gate is of another shape, or there is no such layer, row or
            length.

    Example:
        >>> import tempfile, lstmx, numpy as np
        >>> lstm = lstmx.LSTM(3, 8, rng=0)
        >>> y, state, trace = lstm(np.ones((40, 2, 3), np.float32), trace=True)
        >>> plot_gates(f"{tempfile.mkdtemp()}/gates.png", trace, row=1).name
        'gates.png'
    """
    gates = _gates(trace, layer, row, check_bool("batch_first", batch_first), length)
    figure = _empty_figure((SIZE_INCHES[0], 1.5 * SIZE_INCHES[1]))
    axes = figure.subplots(len(gates), sharex=True, sharey=True)
    bars = {}
    for ax, (name, values) in zip(axes, gates.items(), strict=True):
        scale = FROM_MINUS_1_TO_1 if name == "g" else FROM_0_TO_1
        image = ax.imshow(values.T, aspect="auto", interpolation="nearest", **scale)
        bars["g" if name == "g" else "i, f, o"] = image, np.linspace(scale["vmin"], scale["vmax"], 5)
        ax.set_title(GATE_TITLES[name], fontsize="medium", loc="left")
        ax.set_ylabel("unit")
        ax.xaxis.set_major_locator(_whole_numbers())
        ax.yaxis.set_major_locator(_whole_numbers())
    axes[-1].set_xlabel(xlabel)
    for label, (image, ticks) in reversed(bars.items()):  # the first one drawn is the outermost
        figure.colorbar(image, ax=axes, label=label, ticks=ticks, aspect=40, pad=0.02)
    if title is not None:
        figure.suptitle(title)
    return save_figure(path, figure)


def _gates(
    trace: Mapping[str, Sequence[ArrayLike]], layer: int, row: int, batch_first: bool, length: int | None
) -> dict[str, NDArray[Any]]:
    """The gates to draw by name, each [T, D*H]."""
    if not isinstance(trace, Mapping):
        raise TypeError(f"trace: expected a mapping of gates by name, got {type(trace).__name__}")
    missing = [name for name in GATE_TITLES if name not in trace]
    if missing:
        raise ValueError(f"trace: expected {', '.join(GATE_TITLES)}, got none of {', '.join(missing)}")
    gates: dict[str, NDArray[Any]] = {}
    for name in GATE_TITLES:
        layers = trace[name]
        label = f"trace[{name!r}][{check_int('layer', layer, minimum=0, maximum=len(layers) - 1)}]"
        array = np.asarray(check_array(label, layers[layer]))
        if array.ndim == 2:
            array = array[:, np.newaxis]
        elif batch_first and array.ndim == 3:
            array = array.swapaxes(0, 1)
        if array.ndim != 3:
            raise ValueError(f"{label}: expected shape (T, B, D*H) or (T, D*H), got {array.shape}")
        steps, rows, _ = array.shape
        row = check_int("row", row, minimum=0, maximum=rows - 1)
        stop = steps if length is None else check_int("length", length, minimum=1, maximum=steps)
        gates[name] = array[:stop, row]
    shapes = {gate.shape for gate in gates.values()}
    if len(shapes) > 1:
        raise ValueError(f"trace: expected gates of one shape, got {', '.join(map(str, sorted(shapes)))}")
    return gates


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator("auto", integer=True, steps=(1, 2, 5, 10))


def _dot(values: NDArray[Any]) -> dict[str, Any]:
    """A line through one point is invisible: mark it."""
    return {"marker": "o"} if len(values) == 1 else {}


def _series(name: str, value: ArrayLike, length: int | None = None) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "biufM":
        raise TypeError(f"{name}: expected numbers or dates, got dtype {array.dtype}")
    if array.size != max(array.shape, default=1):
        raise ValueError(f"{name}: expected one series, got shape {array.shape}")
    array = array.reshape(-1)
    if length is not None and len(array) != length:
        raise ValueError(f"{name}: expected length {length}, got {len(array)}")
    return array


def _default_xlabel(t: NDArray[Any]) -> str:
    return "" if t.dtype.kind == "M" else "step"


def _label(ax: Axes, xlabel: str, ylabel: str | None, title: str | None) -> None:
    if title is not None:
        ax.set_title(title)
    ax.set_xlabel(xlabel)
    if ylabel is not None:
        ax.set_ylabel(ylabel)
    ax.grid(alpha=0.3)
    ax.legend()
