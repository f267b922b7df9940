"""History: one number an epoch under each name, and its picture."""

from __future__ import annotations

import math
import pickle

import pytest

from lstmx.history import History


def filled():
    history = History()
    for epoch in range(3):
        history.append({"loss": 1.0 / (epoch + 1), "val_loss": 2.0 / (epoch + 1)})
    return history


def test_it_is_a_dict_of_lists():
    history = filled()
    assert history == {"loss": [1.0, 0.5, 1 / 3], "val_loss": [2.0, 1.0, 2 / 3]}
    assert history.epochs == 3
    assert not history.interrupted
    assert History().epochs == 0


def test_epochs_stay_aligned_where_a_number_is_missing():
    history = filled()
    history.append({"loss": 0.1})
    history.append({"loss": 0.1, "val_loss": 0.2, "extra": 1.0})
    assert {len(values) for values in history.values()} == {5}
    assert math.isnan(history["val_loss"][3])
    assert all(map(math.isnan, history["extra"][:4]))


def test_keep_drops_later_epochs():
    history = filled()
    history["loss"].append(9.0)  # as where an interrupt came between two names
    history.keep(3)
    assert history == filled()
    history.keep(0)
    assert history == {}


def test_repr_and_pickle():
    history = filled()
    history.interrupted = True
    assert eval(repr(history)) == history
    other = pickle.loads(pickle.dumps(history))
    assert other == history
    assert other.interrupted


def test_plot_into_a_file_leaves_pyplot_alone(tmp_path):
    pyplot = pytest.importorskip(
        "matplotlib.pyplot", reason="matplotlib is not installed: no picture was drawn"
    )
    ax = filled().plot(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == []
    assert [line.get_label() for line in ax.get_lines()] == ["loss", "val_loss"]
    assert list(ax.get_lines()[1].get_ydata()) == [2.0, 1.0, 2 / 3]


def test_plot_into_axes_or_a_new_figure():
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: no picture was drawn")
    import matplotlib

    from lstmx.plotting import new_figure

    ax = new_figure()[1]
    assert filled().plot(ax=ax) is ax
    before = matplotlib.get_backend()
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    try:
        drawn = filled().plot()
        assert plt.gca() is drawn
    finally:
        plt.close("all")
        matplotlib.use(before)
