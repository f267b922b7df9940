"""Watching the prediction come closer to the target while the model learns."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lstmx._checks import check_bool, check_float, check_int
from lstmx.callbacks.base import Callback, Logs
from lstmx.plotting import PREDICTION, TARGET, new_figure, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# A GIF's pictures wait in memory, about 0.3 MB each. When there are so many, every second one is dropped.
_MAX_PICTURES = 200


class LivePlot(Callback):
    """Draws one row of the training batch every few steps: target red, prediction blue and dashed.

    In a window where there is a screen (matplotlib has an interactive backend), else into a file.

    Args:
        path: The file: one animation if it ends in `.gif`, written when the training ends; else a folder,
            which is made, for pictures `000010.png`, named by their step. (The animation keeps at most 200
            pictures, evenly spread over the training.)
        every: Steps from one picture to the next.
        row: The row of the batch to show, along its first axis.
        feature: The feature of the target to show, along its last axis.
        window: True insists on a window, False on the file; None takes a window where there is a screen.
        fps: Pictures a second in the animation.

    Raises:
        ImportError: (when a training begins) matplotlib is not installed.
        RuntimeError: (when a training begins) A window is insisted on and there is no screen.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = "live.gif",
        every: int = 10,
        *,
        row: int = 0,
        feature: int = 0,
        window: bool | None = None,
        fps: float = 10.0,
    ) -> None:
        self.path = Path(path)
        self.every = check_int("every", every, minimum=1)
        self.row = check_int("row", row)
        self.feature = check_int("feature", feature)
        self.window = None if window is None else check_bool("window", window)
        self.fps = check_float("fps", fps, minimum=0.0, exclusive=True)
        self._close()

    def _close(self) -> None:
        self._axes: Axes | None = None
        self._lines: tuple[Line2D, Line2D] | None = None
        self._in_window = False
        self._spacing = self.every
        self._pictures: list[Any] = []
        self._low, self._high = math.inf, -math.inf

    def on_train_begin(self) -> None:
        """Open the window, or find out that there is none."""
        require_matplotlib()
        self._close()
        if self.window is not False:
            self._axes = _window_axes()
        if self._axes is None and self.window:
            raise RuntimeError("window: expected a screen, found none; use window=False")
        self._in_window = self._axes is not None
        if self._axes is None:
            self._axes = new_figure()[1]
            if self.path.suffix != ".gif":
                self.path.mkdir(parents=True, exist_ok=True)

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Draw, if it is time."""
        if self.trainer.step % self._spacing or self._axes is None:
            return
        target, prediction = self._rows()
        self._draw(target, prediction, f"step {self.trainer.step}: loss {logs['loss']:.4g}")
        if self._in_window:
            self._show()
        elif self.path.suffix == ".gif":
            self._pictures.append(_picture(self._axes))
            if len(self._pictures) > _MAX_PICTURES:
                del self._pictures[::2]
                self._spacing *= 2
        else:
            _figure(self._axes).savefig(self.path / f"{self.trainer.step:06d}.png")

    def on_train_end(self) -> None:
        """Write the animation; leave a window to its user."""
        if self._pictures:
            first, *others = self._pictures
            milliseconds = max(round(1000 / self.fps), 20)
            first.save(self.path, save_all=True, append_images=others, duration=milliseconds, loop=0)
        self._close()

    def _rows(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """The row of target and prediction to show, each `[T]`."""
        target, prediction = self.trainer.last_batch.y, self.trainer.last_prediction
        assert target is not None
        if prediction.ndim == target.ndim + 1:
            # Logits are shown as the class they tell, a last axis of extent 1 is dropped.
            single = prediction.shape[-1] == 1
            prediction = prediction[..., 0] if single else prediction.argmax(axis=-1)
        return self._one_row(target), self._one_row(prediction)

    def _one_row(self, values: NDArray[Any]) -> NDArray[Any]:
        if values.ndim == 1:
            return values  # one number a row: the rows side by side
        return values[self.row] if values.ndim == 2 else values[self.row, ..., self.feature].reshape(-1)

    def _draw(self, target: NDArray[Any], prediction: NDArray[Any], title: str) -> None:
        ax = self._axes
        assert ax is not None
        steps = np.arange(len(target))
        if self._lines is None:
            self._lines = (
                ax.plot(steps, target, label="target", **TARGET)[0],
                ax.plot(steps, prediction, label="prediction", **PREDICTION)[0],
            )
            ax.set_xlabel("step")
            ax.grid(alpha=0.3)
            ax.legend(loc="upper right")
        for line, values in zip(self._lines, (target, prediction), strict=True):
            line.set_data(steps, values)
        ax.set_title(title)
        ax.set_xlim(-0.5, max(len(target) - 0.5, 0.5))
        self._widen(np.concatenate([target, prediction]))
        if self._low <= self._high:
            margin = 0.05 * (self._high - self._low) or 0.5
            ax.set_ylim(self._low - margin, self._high + margin)

    def _widen(self, values: NDArray[Any]) -> None:
        """Let the vertical axis hold these values too; it never shrinks, so that pictures can be compared."""
        finite = values[np.isfinite(values)]
        if finite.size:
            self._low = min(self._low, float(finite.min()))
            self._high = max(self._high, float(finite.max()))

    def _show(self) -> None:
        import matplotlib.pyplot as plt

        assert self._axes is not None
        figure = _figure(self._axes)
        if not plt.fignum_exists(figure.number):
            self._axes = None  # the user closed it
            return
        figure.canvas.draw_idle()
        figure.canvas.flush_events()

    def __repr__(self) -> str:
        return (
            f"LivePlot({str(self.path)!r}, every={self.every}, row={self.row}, feature={self.feature}, "
            f"window={self.window}, fps={self.fps})"
        )


def _figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    assert figure is not None
    return figure


def _window_axes() -> Axes | None:
    """The axes of a window that is open; None where there is no screen."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return None
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots()
    if figure.canvas.required_interactive_framework is None:
        plt.close(figure)
        return None
    plt.show(block=False)
    return ax


def _picture(ax: Axes) -> Any:
    """The figure as a picture of 256 colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(_figure(ax))
    canvas.draw()
    return (
        Image.fromarray(np.asarray(canvas.buffer_rgba()))
        .convert("RGB")
        .quantize(method=Image.Quantize.FASTOCTREE)
    )
