"""What `Trainer.fit` returns: the numbers of every epoch, and their picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class History(dict[str, list[float]]):
    """A dict from a name (`"loss"`, `"val_loss"`, ...) to one number an epoch.

    Attributes:
        interrupted: Whether Ctrl-C ended the training.

    Example:
        >>> history = History()
        >>> history.append({"loss": 0.5})
        >>> history.append({"loss": 0.25, "val_loss": 0.4})
        >>> history["loss"], history.epochs
        ([0.5, 0.25], 2)
        >>> history["val_loss"]  # one number an epoch: nan where there was none
        [nan, 0.4]
    """

    interrupted: bool = False

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return max(map(len, self.values()), default=0)

    def append(self, logs: Mapping[str, float]) -> None:
        """Add the numbers of one epoch."""
        epochs = self.epochs
        for name, value in logs.items():
            series = self.setdefault(name, [])
            series.extend([float("nan")] * (epochs - len(series)))
            series.append(value)
        for series in self.values():
            series.extend([float("nan")] * (epochs + 1 - len(series)))

    def keep(self, epochs: int) -> None:
        """Drop what is there of any epoch after the first `epochs`."""
        for name in list(self):
            del self[name][epochs:]
            if not self[name]:
                del self[name]

    def plot(self, path: str | os.PathLike[str] | None = None, ax: Axes | None = None) -> Axes:
        """Draw the curves.

        Args:
            path: An image file to write (`.png`, `.svg`, `.pdf`, ...); no window opens.
            ax: The axes to draw into. Without `path` and `ax`, a new figure of `matplotlib.pyplot`'s is
                drawn, which a notebook shows by itself and a script by `plt.show()`.

        Returns:
            The axes drawn into.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from lstmx.plotting import draw_history, new_figure, require_matplotlib, save_figure

        if ax is None and path is None:
            require_matplotlib()
            import matplotlib.pyplot as plt

            ax = plt.subplots()[1]
        elif ax is None:
            ax = new_figure()[1]
        draw_history(ax, self)
        figure = ax.get_figure(root=True)
        if path is not None and figure is not None:
            save_figure(path, figure)
        return ax

    def __repr__(self) -> str:
        return f"History({dict.__repr__(self)})"
