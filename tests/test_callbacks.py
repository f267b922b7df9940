"""The callbacks: which hooks are called when, and what each of those in the library writes and shows."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

import lstmx
from lstmx.callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping, LivePlot, Progress, TensorBoard
from lstmx.data import Stream
from lstmx.trainer import Trainer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
HOOKS = [name for name in vars(Callback) if name.startswith("on_")]


def new_model(seed=0):
    rng = np.random.default_rng(seed)
    return lstmx.Sequential(
        lstmx.Linear(1, 4, rng=rng), lstmx.LSTM(4, 5, batch_first=True, rng=rng), lstmx.Linear(5, 1, rng=rng)
    )


def sine_stream(batches=6):
    t = np.arange(3 * 10 * batches) / 5
    return Stream(np.sin(t), np.cos(t), steps=10, batch_size=3)


def fit(*callbacks, epochs=2, **options):
    trainer = Trainer(new_model(), callbacks=callbacks)
    trainer.fit(sine_stream(), epochs=epochs, **options)
    return trainer


def need(*packages):
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: what needs it was NOT tested")


# ---------------------------------------------------------------- hooks


def recorder():
    """A callback that overrides every hook, and its record."""
    record = []

    def hook(name):
        def called(self, *arguments):
            record.append((name, *arguments))
            assert self.trainer.model is not None

        return called

    return type("Records", (Callback,), {name: hook(name) for name in HOOKS})(), record


def test_hooks_come_in_keras_order():
    callback, record = recorder()
    trainer = Trainer(new_model(), callbacks=[callback])
    data = sine_stream(batches=2)
    history = trainer.fit(data, epochs=2, validation=data)
    names = [name for name, *_ in record]
    epoch = (
        ["on_epoch_begin"]
        + ["on_train_batch_begin", "on_train_batch_end"] * 2
        + ["on_test_begin", *["on_test_batch_begin", "on_test_batch_end"] * 2, "on_test_end"]
        + ["on_epoch_end"]
    )
    assert names == ["on_train_begin", *epoch, *epoch, "on_train_end"]
    ends = [arguments for name, *arguments in record if name == "on_epoch_end"]
    assert [number for number, _ in ends] == [0, 1]
    assert [logs for _, logs in ends] == [
        {"loss": loss, "val_loss": val}
        for loss, val in zip(history["loss"], history["val_loss"], strict=True)
    ]
    steps = [arguments for name, *arguments in record if name == "on_train_batch_end"]
    assert [number for number, _ in steps] == [0, 1, 0, 1]
    assert np.mean([logs["loss"] for _, logs in steps[:2]]) == pytest.approx(history["loss"][0], rel=1e-12)

    record.clear()
    loss = trainer.evaluate(data)
    assert record[0] == ("on_test_begin",)
    assert record[-1] == ("on_test_end", loss)
    record.clear()
    trainer.predict(data)
    batches = [("on_predict_batch_begin", 0), ("on_predict_batch_end", 0)]
    batches += [("on_predict_batch_begin", 1), ("on_predict_batch_end", 1)]
    assert record == [("on_predict_begin",), *batches, ("on_predict_end",)]
    assert {*names, "on_test_begin", *(name for name, *_ in record)} == set(HOOKS)


def test_what_callbacks_see_of_the_trainer():
    seen = []

    class Looks(Callback):
        def on_train_batch_end(self, batch, logs):
            t = self.trainer
            error = t.last_prediction - t.last_batch.y
            seen.append((t.epochs, t.epoch, t.steps_per_epoch, t.steps_in_epoch, t.step))
            assert logs["loss"] == pytest.approx(np.mean(error**2), rel=1e-5)

    fit(Looks())
    assert seen == [(2, n // 6, 6, n % 6 + 1, n + 1) for n in range(12)]


def test_a_callback_can_stop_the_training_and_set_the_rate():
    class Acts(Callback):
        def on_epoch_end(self, epoch, logs):
            self.trainer.optimizer.lr /= 2
            self.trainer.stop_training = epoch == 2

    trainer = fit(Acts(), epochs=9)
    assert trainer.epoch == 3
    assert trainer.optimizer.lr == 1e-3 / 8


def test_train_end_is_called_after_an_error():
    callback, record = recorder()

    class Breaks(Callback):
        def on_epoch_begin(self, epoch):
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        fit(callback, Breaks())
    assert record[-1] == ("on_train_end",)


# ---------------------------------------------------------------- EarlyStopping


class Scripted(Callback):
    """Puts numbers of a script into the logs, for what watches them."""

    def __init__(self, numbers):
        self.numbers = numbers

    def on_epoch_end(self, epoch, logs):
        logs["watched"] = self.numbers[epoch]


@pytest.mark.parametrize(
    ("numbers", "options", "epochs", "best"),
    [
        ([5, 4, 3, 2], {}, 4, 3),
        ([5, 4, 4, 1], {}, 3, 1),
        ([5, 4, 6, 3, 6, 7, 8, 1], {"patience": 3}, 7, 3),
        ([5, 4.95, 4.9, 1], {"min_delta": 0.2, "patience": 2}, 3, 0),
        ([1, 2, 3, 2], {"mode": "max"}, 4, 2),
        ([np.nan, 4, np.nan, 3], {"patience": 2}, 4, 3),
        ([np.nan, np.nan, 1], {"patience": 2}, 2, -1),
    ],
)
def test_early_stopping(numbers, options, epochs, best):
    stopping = EarlyStopping("watched", **options)
    trainer = fit(Scripted(numbers), stopping, epochs=len(numbers))
    assert trainer.epoch == epochs
    assert stopping.best_epoch == best
    if best >= 0:
        assert stopping.best == numbers[best]


def test_early_stopping_restores_the_best_parameters():
    best = fit(epochs=2).model.arena.params
    stopping = EarlyStopping("watched", patience=2, restore_best_weights=True)
    trainer = fit(Scripted([3, 1, 2, 2, 0]), stopping, epochs=5)
    assert trainer.epoch == 4
    np.testing.assert_array_equal(trainer.model.arena.params, best)
    for numbers in ([3, 1, 2], [3, 2, 1]):  # ended by its number of epochs
        trainer = fit(
            Scripted(numbers), EarlyStopping("watched", patience=9, restore_best_weights=True), epochs=3
        )
        expected = fit(epochs=1 + int(np.argmin(numbers))).model.arena.params
        np.testing.assert_array_equal(trainer.model.arena.params, expected)


def test_early_stopping_starts_anew_with_a_new_training():
    stopping = EarlyStopping("watched")
    fit(Scripted([1, 2]), stopping)
    assert fit(Scripted([9, 8]), stopping).epoch == 2
    assert stopping.best == 8


def test_early_stopping_needs_its_number():
    with pytest.raises(
        ValueError, match="monitor: expected one of loss, got 'val_loss'; give fit validation data"
    ):
        fit(EarlyStopping())


# ---------------------------------------------------------------- Checkpoint


def test_checkpoint_files(tmp_path):
    fit(Checkpoint(tmp_path / "{epoch}.ckpt", every=2), epochs=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.ckpt", "4.ckpt"]
    trainer = Trainer(new_model()).load_checkpoint(tmp_path / "4.ckpt")
    assert trainer.epoch == 4
    np.testing.assert_array_equal(trainer.model.arena.params, fit(epochs=4).model.arena.params)


def test_checkpoint_of_the_best_epoch_only(tmp_path):
    fit(Scripted([3, 1, 2, 5]), Checkpoint(tmp_path / "best", monitor="watched"), epochs=4)
    assert Trainer(new_model()).load_checkpoint(tmp_path / "best").epoch == 2
    resumed = Trainer(
        new_model(), callbacks=[Scripted([0, 0, 2, 0.5]), Checkpoint(tmp_path / "best", monitor="watched")]
    )
    resumed.load_checkpoint(tmp_path / "best").fit(sine_stream(), epochs=3)
    assert Trainer(new_model()).load_checkpoint(tmp_path / "best").epoch == 2, (
        "2 is no better than the 1 before"
    )
    resumed.fit(sine_stream(), epochs=4)
    assert Trainer(new_model()).load_checkpoint(tmp_path / "best").epoch == 4


def test_checkpoint_is_written_after_the_other_callbacks(tmp_path):
    stopping = EarlyStopping("loss", patience=5)
    fit(Checkpoint(tmp_path / "state"), stopping, epochs=3)
    resumed = EarlyStopping("loss", patience=5)
    Trainer(new_model(), callbacks=[resumed]).load_checkpoint(tmp_path / "state")
    assert resumed.state_dict() == stopping.state_dict()
    assert resumed.best_epoch == 2


def test_checkpoint_refuses_a_missing_folder_at_once(tmp_path):
    callback, record = recorder()
    with pytest.raises(FileNotFoundError, match="path: expected a file in a folder that exists"):
        fit(Checkpoint(tmp_path / "none" / "state"), callback)
    assert not any(name.startswith("on_epoch") for name, *_ in record)


# ---------------------------------------------------------------- Progress


def test_progress_writes_a_plain_line_an_epoch_without_a_terminal():
    out = io.StringIO()
    trainer = fit(Progress(out), epochs=2, validation=sine_stream())
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    for number, line in enumerate(lines):
        loss, val_loss = (trainer.history[name][number] for name in ("loss", "val_loss"))
        assert line.startswith(f"epoch {number + 1}/2: loss {loss:.4g}, val_loss {val_loss:.4g}, ")
        assert line.endswith(" s")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_progress_draws_a_bar_of_steps_on_a_terminal():
    import threading

    need("tqdm")
    before = threading.active_count()
    out = Terminal()
    trainer = fit(Progress(out), epochs=2)
    drawn = out.getvalue()
    for number in (1, 2):
        assert f"epoch {number}/2" in drawn
    last = drawn.splitlines()[-1].rsplit("\r", 1)[-1]
    assert "6/6" in last
    assert f"loss {trainer.history['loss'][-1]:.4g}" in last
    assert threading.active_count() == before


def test_progress_is_drawn_ten_times_a_second_at_most():
    need("tqdm")
    out = Terminal()
    trainer = Trainer(new_model(), callbacks=[Progress(out)])
    begin = time.monotonic()
    trainer.fit(sine_stream(batches=2000))
    assert out.getvalue().count("\r") < 10 * (time.monotonic() - begin) + 6


@pytest.mark.parametrize("out", [io.StringIO, Terminal])
def test_progress_tells_of_an_interrupt(out):
    class Interrupts(Callback):
        def on_train_batch_end(self, batch, logs):
            if self.trainer.step == 8:
                raise KeyboardInterrupt

    stream = out()
    fit(Interrupts(), Progress(stream), epochs=3)
    assert stream.getvalue().endswith("interrupted; epochs completed: 1\n")


# ---------------------------------------------------------------- CSVLogger


def rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_csv_holds_the_history_exactly(tmp_path):
    trainer = fit(CSVLogger(tmp_path / "log.csv"), epochs=3, validation=sine_stream())
    table = rows(tmp_path / "log.csv")
    assert table[0] == ["epoch", "loss", "val_loss"]
    assert [row[0] for row in table[1:]] == ["1", "2", "3"]
    for column, name in ((1, "loss"), (2, "val_loss")):
        assert [float(row[column]) for row in table[1:]] == trainer.history[name]


def test_csv_of_a_resumed_training_is_that_of_the_whole_one(tmp_path):
    fit(CSVLogger(tmp_path / "whole.csv"), epochs=5)
    fit(CSVLogger(tmp_path / "log.csv"), Checkpoint(tmp_path / "state", every=2), epochs=3)  # 3 was not saved
    resumed = Trainer(new_model(), callbacks=[CSVLogger(tmp_path / "log.csv")])
    resumed.load_checkpoint(tmp_path / "state").fit(sine_stream(), epochs=5)
    assert (tmp_path / "log.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    fit(CSVLogger(tmp_path / "log.csv"), epochs=1)
    assert len(rows(tmp_path / "log.csv")) == 2


# ---------------------------------------------------------------- a full disk


FULL = """
import resource, sys, warnings
import numpy as np
from tests.test_callbacks import new_model, sine_stream
from lstmx.callbacks import CSVLogger, TensorBoard
from lstmx.trainer import Trainer
which, path, limit = sys.argv[1:]
callback = TensorBoard(path, flush_seconds=0) if which == "tensorboard" else CSVLogger(path)
import tensorboardX  # what importing it may write is not counted
resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
trainer = Trainer(new_model(), callbacks=[callback])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    trainer.fit(sine_stream(), epochs=60)
print(trainer.epoch, len(caught), caught[0].category.__name__, caught[0].message)
"""


@pytest.mark.skipif(
    os.name != "posix", reason="needs a limit on the size of files: a full disk was NOT tested"
)
@pytest.mark.parametrize(("which", "limit"), [("tensorboard", 4000), ("tensorboard", 20), ("csv", 300)])
def test_a_full_disk_warns_once_and_training_goes_on(tmp_path, which, limit):
    """The system refuses to make a file larger than the limit: a real OSError from a real write."""
    need("tensorboardX")
    result = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::ResourceWarning",
            "-c",
            FULL,
            which,
            str(tmp_path / "out"),
            str(limit),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout.startswith("60 1 RuntimeWarning ")
    assert "File too large; training goes on without this file" in result.stdout
    [file] = [path for path in (tmp_path, tmp_path / "out") for path in path.glob("*") if path.is_file()]
    assert file.stat().st_size == limit, "what fitted was written"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full: a full disk was NOT tested")
def test_a_full_device_warns_once():
    logger = CSVLogger("/dev/full")
    with pytest.warns(RuntimeWarning, match="/dev/full: No space left on device; training goes on") as caught:
        trainer = fit(logger, epochs=3)
    assert len(caught) == 1
    assert trainer.epoch == 3


# ---------------------------------------------------------------- TensorBoard


def read_back(log_dir):
    """TensorBoard's own reader."""
    need("tensorboard", "tensorboardX")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its imports
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(log_dir), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
        return events.Reload()


def scalars(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_tensorboard_reads_everything_back(tmp_path):
    need("tensorboard", "tensorboardX")
    costs = []

    class Costs(Callback):
        def on_train_batch_end(self, batch, logs):
            costs.append(logs["loss"])

    board = TensorBoard(tmp_path / "a" / "b", tags={"loss": "cost"}, gradients=True, histograms_every=2)
    trainer = fit(Costs(), board, epochs=4, validation=sine_stream())
    events = read_back(tmp_path / "a" / "b")
    tags = events.Tags()
    assert set(tags["scalars"]) == {"cost", "epoch/cost", "epoch/val_loss"}
    assert scalars(events, "cost") == [(n, pytest.approx(cost)) for n, cost in enumerate(costs, 1)]
    for tag, name in (("epoch/cost", "loss"), ("epoch/val_loss", "val_loss")):
        expected = [(6 * n, pytest.approx(value)) for n, value in enumerate(trainer.history[name], 1)]
        assert scalars(events, tag) == expected
    names = list(trainer.model.params)
    assert set(tags["histograms"]) == {
        f"{kind}/{name}" for kind in ("parameters", "gradients") for name in names
    }
    histograms = events.Histograms("parameters/1.weight_hh_l0")
    assert [event.step for event in histograms] == [12, 24]
    last, values = histograms[-1].histogram_value, trainer.model.params["1.weight_hh_l0"]
    assert last.num == values.size == sum(last.bucket)
    assert (last.min, last.max) == (pytest.approx(values.min()), pytest.approx(values.max()))
    from tensorboard.compat.proto.graph_pb2 import GraphDef

    graph = GraphDef.FromString(events.Graph().SerializeToString())
    assert [(node.name, list(node.input)) for node in graph.node] == [
        ("x", []),
        ("0_Linear", ["x"]),
        ("1_LSTM", ["0_Linear"]),
        ("2_Linear", ["1_LSTM"]),
    ]
    [text] = events.Tensors("model/text_summary")
    assert b"| 1 | LSTM(4, 5, batch_first=True) | 220 |" in text.tensor_proto.string_val[0]


def test_tensorboard_of_a_resumed_training_has_every_step_once(tmp_path):
    need("tensorboard", "tensorboardX")
    fit(TensorBoard(tmp_path / "whole"), epochs=4)
    fit(TensorBoard(tmp_path / "parts"), Checkpoint(tmp_path / "state", every=2), epochs=3)  # 3 was not saved
    resumed = Trainer(new_model(), callbacks=[TensorBoard(tmp_path / "parts")])
    resumed.load_checkpoint(tmp_path / "state").fit(sine_stream(), epochs=4)
    whole, parts = read_back(tmp_path / "whole"), read_back(tmp_path / "parts")
    assert len(list((tmp_path / "parts").iterdir())) == 2
    for tag in ("loss", "epoch/loss"):
        assert scalars(parts, tag) == scalars(whole, tag)


def test_tensorboard_writes_less_on_demand(tmp_path):
    need("tensorboard", "tensorboardX")
    fit(TensorBoard(tmp_path, every=4, histograms_every=0))
    events = read_back(tmp_path)
    assert [step for step, _ in scalars(events, "loss")] == [4, 8, 12]
    assert events.Tags()["histograms"] == []
    fit(TensorBoard(tmp_path / "none", every=0))
    assert set(read_back(tmp_path / "none").Tags()["scalars"]) == {"epoch/loss"}


def test_tensorboard_events_reach_the_file_while_training(tmp_path):
    need("tensorboard", "tensorboardX")
    seen = []

    class Looks(Callback):
        def on_epoch_end(self, epoch, logs):
            seen.append(len(scalars(read_back(tmp_path), "epoch/loss")))

    fit(TensorBoard(tmp_path), Looks(), epochs=3)
    assert seen == [1, 2, 3]


def test_tensorboard_leaves_out_what_is_not_finite(tmp_path):
    need("tensorboard", "tensorboardX")
    model = new_model()
    with model.editing() as params:
        params["0.bias"] = [np.nan] * 4
        params["2.weight"][0, 0] = np.inf
    frozen = lstmx.optim.SGD(groups={"*": {"lr_scale": 0.0}})
    trainer = Trainer(model, optimizer=frozen, loss=lambda p, y, **_: (1.0, np.zeros_like(p)))
    trainer.callbacks = (TensorBoard(tmp_path),)
    trainer.fit(sine_stream())
    events = read_back(tmp_path)
    assert "parameters/0.bias" not in events.Tags()["histograms"]
    assert events.Histograms("parameters/2.weight")[0].histogram_value.num == 4


def test_tensorboard_refuses_a_folder_that_cannot_be(tmp_path):
    need("tensorboardX")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        fit(TensorBoard(tmp_path / "file"))


@pytest.mark.parametrize(
    ("package", "make", "message"),
    [
        (
            "tensorboardX",
            "TensorBoard('unused')",
            "TensorBoard event files need tensorboardX: from the checkout",
        ),
        ("matplotlib", "LivePlot('unused')", "drawing needs matplotlib: from the checkout"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(tmp_path, package, make, message):
    code = f"""
import sys
sys.modules[{package!r}] = None
from tests.test_callbacks import fit
from lstmx.callbacks import *
fit({make})
"""
    environment = {**os.environ, "PYTHONPATH": ROOT}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert f"ImportError: {message} of lstmx, pip install '.[viz]'" in result.stderr
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- LivePlot


def frames(path):
    from PIL import Image

    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            yield np.asarray(image.convert("RGB")).astype(int)


def amount(image, colour):
    return int((np.abs(image - colour).max(axis=-1) < 60).sum())


def test_live_plot_writes_an_animation(tmp_path):
    need("matplotlib")
    fit(LivePlot(tmp_path / "live.gif", every=4, window=False), epochs=2)
    pictures = list(frames(tmp_path / "live.gif"))
    assert len(pictures) == 3
    for picture in pictures:
        assert amount(picture, (255, 0, 0)) > 300
        assert amount(picture, (0, 0, 255)) > 150
    assert (pictures[0] != pictures[-1]).any()


def test_live_plot_writes_pictures_into_a_folder(tmp_path):
    need("matplotlib")
    fit(LivePlot(tmp_path / "frames", every=5, window=False), epochs=2)
    assert sorted(path.name for path in (tmp_path / "frames").iterdir()) == ["000005.png", "000010.png"]


def test_live_plot_shows_the_row_and_feature_asked_for(tmp_path, monkeypatch):
    need("matplotlib")
    shown = []
    draw = LivePlot._draw
    monkeypatch.setattr(LivePlot, "_draw", lambda self, *a: (shown.append(a[:2]), draw(self, *a)))
    x = np.random.default_rng(0).standard_normal((4, 7, 1))
    y = np.random.default_rng(1).standard_normal((4, 7, 2)).astype(np.float32)
    two = lstmx.Sequential(lstmx.LSTM(1, 5, batch_first=True, rng=0), lstmx.Linear(5, 2, rng=1))
    trainer = Trainer(two, callbacks=[LivePlot(tmp_path / "a.gif", every=1, row=2, feature=1, window=False)])
    trainer.fit((x, y))
    np.testing.assert_array_equal(shown[-1][0], y[2, :, 1])
    np.testing.assert_array_equal(shown[-1][1], trainer.last_prediction[2, :, 1])

    classes = (y[:, :, 0] > 0).astype(int)
    trainer = Trainer(two, "cross_entropy", callbacks=[LivePlot(tmp_path / "b.gif", every=1, window=False)])
    trainer.fit((x, classes))
    np.testing.assert_array_equal(shown[-1][0], classes[0])
    assert set(shown[-1][1]) <= {0, 1}


def test_live_plot_keeps_the_animation_short(tmp_path, monkeypatch):
    need("matplotlib")
    import lstmx.callbacks.liveplot as module

    monkeypatch.setattr(module, "_MAX_PICTURES", 8)
    trainer = Trainer(new_model(), callbacks=[LivePlot(tmp_path / "live.gif", every=1, window=False)])
    trainer.fit(sine_stream(batches=60))
    assert 4 <= len(list(frames(tmp_path / "live.gif"))) <= 8


def test_live_plot_without_a_screen(tmp_path, monkeypatch):
    need("matplotlib")
    if sys.platform != "linux":
        pytest.skip("only on Linux is it known how to take the screen away")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RuntimeError, match="window: expected a screen, found none; use window=False"):
        fit(LivePlot(tmp_path / "live.gif", window=True))
    fit(LivePlot(tmp_path / "live.gif"))
    assert (tmp_path / "live.gif").exists()


WINDOW = """
import matplotlib
import matplotlib.pyplot as plt
from tests.test_callbacks import Callback, LivePlot, fit

class Looks(Callback):
    def on_train_batch_end(self, batch, logs):
        if self.trainer.step == 4:
            [line, _] = plt.gcf().axes[0].get_lines()
            assert line.get_ydata()[0] == self.trainer.last_batch.y[0, 0, 0]
            print(len(plt.get_fignums()), "window")
        if self.trainer.step == 7:
            plt.close("all")  # as a user closes it; training goes on

print(fit(LivePlot("unused.gif", every=2, window=True), Looks()).step, "steps")
"""


def test_live_plot_in_a_window(tmp_path):
    need("matplotlib", "tkinter")
    xvfb = shutil.which("Xvfb")
    if sys.platform != "linux" or xvfb is None:
        pytest.skip("no Xvfb to make a screen: the window was NOT tested")
    screen = subprocess.Popen(
        [xvfb, "-displayfd", "1"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        display = ":" + screen.stdout.readline().strip()
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", WINDOW],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "DISPLAY": display, "PYTHONPATH": ROOT},
        )
    finally:
        screen.terminate()
        screen.communicate()
    assert result.stdout == "1 window\n12 steps\n", result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "callback",
    [
        Progress(),
        CSVLogger("a.csv"),
        EarlyStopping(patience=3, mode="max"),
        Checkpoint("a", every=2, monitor="loss"),
        TensorBoard("runs", every=5, tags={"loss": "cost"}),
        LivePlot("a.gif", row=1, window=False),
    ],
)
def test_repr_makes_it(callback):
    again = eval(repr(callback))
    assert type(again) is type(callback)
    assert repr(again) == repr(callback)
