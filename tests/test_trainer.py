"""The trainer: steps, carried state, evaluation, prediction, Ctrl-C, checkpoints that survive a kill."""

from __future__ import annotations

import copy
import math
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import lstmx
from lstmx import losses, optim
from lstmx.callbacks import Callback, Checkpoint, EarlyStopping
from lstmx.data import Arrays, Batch, Stream, Windows
from lstmx.files import read_tensors, write_tensors
from lstmx.history import History
from lstmx.trainer import Trainer


def new_model(seed=0, dropout=0.0, outputs=1):
    rng = np.random.default_rng(seed)
    lstm = lstmx.LSTM(4, 6, batch_first=True, rng=rng)
    return lstmx.Sequential(
        lstmx.Linear(1, 4, rng=rng),
        lstm,
        lstmx.Dropout(dropout, rng=seed + 1),
        lstmx.Linear(6, outputs, rng=rng),
    )


def sine_stream(steps=8, batch_size=4, length=256):
    t = np.arange(length) / 5
    return Stream(np.sin(t), np.cos(t), steps, batch_size)


def sine_windows(shuffle=True, seed=7):
    """Windows whose targets are as long as they are: sequence to sequence."""
    return Windows(np.sin(np.arange(90) / 5), window=6, horizon=6, batch_size=16, shuffle=shuffle, rng=seed)


def parameters(trainer):
    return trainer.model.arena.params.copy()


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_training_is_the_loop_one_would_write(clip_norm):
    data = sine_stream()
    trainer = Trainer(new_model(), "mse", optim.Adam(lr=0.01), clip_norm=clip_norm)
    history = trainer.fit(data, epochs=2)

    model, loss, optimizer = new_model(), losses.MSE(), optim.Adam(lr=0.01)
    means = []
    for _ in range(2):
        state, values = None, []
        for x, y, _, _ in data:
            prediction, state, backward = model.forward(x, state)
            value, gradient = loss(prediction, y)
            model.zero_grad()
            backward(gradient)
            scale = 1.0 if clip_norm is None else optim.clip_scale(optim.grad_norm(model), clip_norm)
            optimizer.step(model, grad_scale=scale)
            values.append(value)
        means.append(np.mean(values))
    np.testing.assert_array_equal(trainer.model.arena.params, model.arena.params)
    assert history["loss"] == pytest.approx(means, rel=1e-12)
    assert trainer.step == 2 * len(data)
    assert trainer.epoch == 2


def test_state_is_carried_only_where_the_data_says_so():
    x, y = np.ones((3, 4, 1), np.float32), np.zeros((3, 4, 1), np.float32)
    batches = [Batch(x, y), Batch(x, y)]

    class Stateful(list):
        stateful = True

    frozen = optim.SGD(lr=0.0)
    plain = Trainer(new_model(), optimizer=copy.deepcopy(frozen))
    carried = Trainer(new_model(), optimizer=copy.deepcopy(frozen))
    fresh = plain.model(x)[0]
    for trainer, data in ((plain, batches), (carried, Stateful(batches))):
        trainer.fit(data, epochs=2)
        same = np.array_equal(trainer.last_prediction, fresh)
        assert same is (trainer is plain)
        assert trainer.history["loss"][0] == trainer.history["loss"][1], (
            "the state is reset at the start of an epoch"
        )
    assert plain.evaluate(batches) != carried.evaluate(Stateful(batches))
    assert carried.evaluate(Stateful(batches))["loss"] == carried.history["loss"][0]


def test_it_learns():
    trainer = Trainer(new_model(), optimizer=optim.Adam(lr=0.02))
    history = trainer.fit(sine_stream(), epochs=30)
    assert history["loss"][-1] < 0.05 * history["loss"][0]
    many_to_one = lstmx.Sequential(
        lstmx.LSTM(1, 8, batch_first=True, rng=0), lstmx.LastStep(), lstmx.Linear(8, 3, rng=1)
    )
    x = np.random.default_rng(0).standard_normal((60, 5, 1))
    classes = 1 + np.sign(x[:, -1, 0]).astype(int) * (np.abs(x[:, -1, 0]) > 0.5)
    trainer = Trainer(many_to_one, "cross_entropy", optim.Adam(lr=0.02))
    trainer.fit(Arrays(x, classes, 20, shuffle=True, rng=0), epochs=60)
    assert (trainer.predict(x.astype(np.float32)).argmax(axis=-1) == classes).mean() > 0.9


def test_weights_and_masks_reach_the_loss():
    x, y = np.zeros((6, 2, 1)), np.ones((6, 2, 1))
    y[2:] = np.nan
    mask = np.arange(6) < 2
    trainer = Trainer(new_model(), optimizer=optim.SGD(lr=0.1))
    trainer.fit((x, y, None, mask), epochs=1)
    masked = parameters(trainer)
    alone = Trainer(new_model(), optimizer=optim.SGD(lr=0.1))
    alone.fit((x[:2], y[:2]), epochs=1)
    np.testing.assert_allclose(masked, parameters(alone), rtol=1e-6, atol=1e-7)
    weighted = Trainer(new_model(), losses.MSE("batch"), optim.SGD(lr=0.1))
    weighted.fit((x, np.ones((6, 2, 1)), np.zeros(6)), epochs=1)
    np.testing.assert_array_equal(parameters(weighted), new_model().arena.params)


def test_any_iterable_of_batches_and_any_function_as_loss():
    x, y = np.ones((4, 3, 1), np.float32), np.ones((4, 3, 1), np.float32)

    def half_squares(pred, target, *, weights=None, mask=None):
        return float(0.5 * np.sum((pred - target) ** 2)), pred - target

    own = Trainer(new_model(), half_squares, optim.SGD(lr=0.1))
    own.fit([(x, y), Batch(x, y)], epochs=1)
    theirs = Trainer(new_model(), losses.MSE("none"), optim.SGD(lr=0.05))
    theirs.fit([(x, y), Batch(x, y)], epochs=1)
    np.testing.assert_allclose(parameters(own), parameters(theirs), rtol=1e-5, atol=1e-6)


def test_epochs_count_from_the_beginning():
    whole = Trainer(new_model())
    whole.fit(sine_windows(), epochs=5)
    data = sine_windows()
    parts = Trainer(new_model())
    parts.fit(data, epochs=2)
    history = parts.fit(data, epochs=5)
    assert history == whole.history
    np.testing.assert_array_equal(parameters(parts), parameters(whole))
    with pytest.warns(
        UserWarning, match=r"nothing to do: 5 epochs are completed .* epochs=9 would train 4 more"
    ):
        parts.fit(data, epochs=4)
    assert parts.epoch == 5


def test_a_trainer_can_be_pickled_and_copied():
    trainer = Trainer(new_model(dropout=0.3), callbacks=[EarlyStopping("loss", patience=3)])
    data = sine_windows()
    trainer.fit(data, epochs=2)
    for other in (pickle.loads(pickle.dumps((trainer, data))), copy.deepcopy((trainer, data))):
        other[0].fit(other[1], epochs=4)
        other[0].predict(np.zeros((1, 2, 1), np.float32))
    assert trainer.epoch == 2
    trainer.fit(data, epochs=4)
    np.testing.assert_array_equal(parameters(other[0]), parameters(trainer))
    assert repr(other[0]) == repr(trainer)
    assert repr(trainer).startswith("Trainer(Sequential(Linear(1, 4), LSTM(4, 6, batch_first=True)")


# ---------------------------------------------------------------- evaluation and prediction


@pytest.mark.parametrize("divisor", losses.DIVISORS)
def test_evaluation_is_the_loss_of_all_as_one_batch(rng, divisor):
    x, y = rng.standard_normal((2, 11, 5, 1)).astype(np.float32)
    weights, mask = rng.random((11, 5)), rng.random((11, 5)) < 0.6
    loss = losses.MSE(divisor)
    trainer = Trainer(new_model(dropout=0.5), loss)
    whole, _ = loss(trainer.model(x)[0], y, weights=weights, mask=mask)
    for size in (1, 4, 11):
        data = Arrays(x, y, size, shuffle=True, rng=0, weights=weights, mask=mask)
        assert trainer.evaluate(data)["loss"] == pytest.approx(whole, rel=1e-6)
    assert trainer.evaluate(Arrays(x, y, 4))["loss"] == pytest.approx(
        loss(trainer.model(x)[0], y)[0], rel=1e-6
    )


def test_validation_is_evaluation_after_each_epoch():
    data, validation = sine_windows(), sine_windows(seed=1)
    trainer = Trainer(new_model(dropout=0.5))
    history = trainer.fit(data, epochs=3, validation=validation)
    assert history["val_loss"][-1] == trainer.evaluate(validation)["loss"]
    without = Trainer(new_model(dropout=0.5))
    without.fit(sine_windows(), epochs=3)
    np.testing.assert_array_equal(parameters(trainer), parameters(without))


def test_prediction_of_arrays_data_sets_and_streams(rng):
    trainer = Trainer(new_model(dropout=0.5))
    x = rng.standard_normal((600, 5, 1)).astype(np.float32)
    expected = trainer.model(x)[0]
    for data in (x, Arrays(x, batch_size=7, shuffle=True), (x, np.zeros(600)), [(x[:100],), Batch(x[100:])]):
        np.testing.assert_array_equal(trainer.predict(data), expected)
    assert trainer.predict(x[:0]).shape == (0, 5, 1)
    assert trainer.predict(x.astype(np.float64)).dtype == np.float32

    stream = sine_stream(steps=7, batch_size=3, length=150)
    series = np.sin(np.arange(150) / 5).astype(np.float32).reshape(3, 50, 1)
    np.testing.assert_array_equal(trainer.predict(stream), trainer.model(series)[0])


def test_evaluation_and_prediction_change_nothing():
    trainer = Trainer(new_model(dropout=0.5))
    data = sine_windows()
    before = parameters(trainer)
    states = [rng.bit_generator.state for rng in trainer.model.rngs() + data.rngs()]
    trainer.evaluate(data)
    trainer.predict(data)
    np.testing.assert_array_equal(parameters(trainer), before)
    assert [rng.bit_generator.state for rng in trainer.model.rngs() + data.rngs()] == states
    assert trainer.step == 0
    assert trainer.history == {}


# ---------------------------------------------------------------- refusals


def test_time_first_layers_are_refused_by_name():
    message = r"model: expected a batch-first layer, got LSTM\(1, 4\); make it with batch_first=True"
    with pytest.raises(ValueError, match=message):
        Trainer(lstmx.LSTM(1, 4))
    nested = lstmx.Sequential(lstmx.Linear(1, 2), lstmx.Sequential(lstmx.LSTM(2, 4)))
    with pytest.raises(ValueError, match=r"model\[1\]\[0\]: expected a batch-first layer, got LSTM\(2, 4\)"):
        Trainer(nested)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Trainer("lstm"), TypeError, "model: expected a layer or Sequential, got str"),
        (lambda: Trainer(new_model(), "l2"), ValueError, "loss: expected one of"),
        (lambda: Trainer(new_model(), optimizer="lbfgs"), ValueError, "optimizer: expected one of"),
        (lambda: Trainer(new_model(), callbacks=[print]), TypeError, r"callbacks\[0\]: expected a Callback"),
        (lambda: Trainer(new_model(), callbacks=Callback()), TypeError, "callbacks: expected a list"),
        (lambda: Trainer(new_model(), clip_norm=0), ValueError, "clip_norm: expected more than 0.0"),
        (
            lambda: Trainer(new_model()).fit(np.zeros(3)),
            TypeError,
            "data: expected a data set, a tuple .* got ndarray",
        ),
        (lambda: Trainer(new_model()).fit((np.zeros(3),)), ValueError, r"data: expected a tuple \(x, y"),
        (lambda: Trainer(new_model()).fit([], epochs=0), ValueError, "epochs: expected at least 1"),
        (lambda: Trainer(new_model()).fit([]), ValueError, "data: expected at least one batch, got none"),
        (
            lambda: Trainer(new_model()).fit(sine_stream(), validation=3),
            TypeError,
            "validation: expected a data set",
        ),
        (
            lambda: Trainer(new_model()).fit(sine_stream(), validation=[]),
            ValueError,
            "validation: expected at least",
        ),
        (lambda: Trainer(new_model()).evaluate([]), ValueError, "data: expected at least one batch"),
        (lambda: Trainer(new_model()).predict([]), ValueError, "data: expected at least one batch"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_an_iterator_that_is_used_up_is_no_second_epoch():
    trainer = Trainer(new_model())
    with pytest.raises(ValueError, match="is it an iterator, used up"):
        trainer.fit(iter(sine_stream()), epochs=2)
    assert trainer.epoch == 1


def test_an_optimizer_of_another_model_is_refused():
    optimizer = optim.Adam()
    Trainer(new_model(), optimizer=optimizer)
    with pytest.raises(ValueError, match="model: expected the model of this optimiser's first step"):
        Trainer(new_model(), optimizer=optimizer)


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_loss_that_is_not_finite_ends_the_training(clip_norm):
    x, y = np.zeros((3, 4, 2, 1), np.float32), np.zeros((3, 4, 2, 1), np.float32)
    y[1, 0, 0, 0] = np.nan
    ended = []

    class Ends(Callback):
        def on_train_end(self):
            ended.append(self.trainer.step)

    trainer = Trainer(new_model(), optimizer=optim.SGD(lr=0.1), callbacks=[Ends()], clip_norm=clip_norm)
    with pytest.raises(
        FloatingPointError, match="loss: expected a finite number, got nan in epoch 1, step 2"
    ):
        trainer.fit(list(zip(x, y, strict=True)))
    first = Trainer(new_model(), optimizer=optim.SGD(lr=0.1), clip_norm=clip_norm)
    first.fit([(x[0], y[0])])
    np.testing.assert_array_equal(parameters(trainer), parameters(first))
    assert ended == [1]


def test_infinite_gradients_end_the_training_where_they_are_clipped():
    def loss(pred, target, *, weights=None, mask=None):
        return 1.0, np.full_like(pred, np.inf)

    trainer = Trainer(new_model(), loss, clip_norm=1.0)
    before = parameters(trainer)
    with pytest.raises(FloatingPointError, match="norm of the gradients: expected a finite number"):
        trainer.fit(sine_stream())
    np.testing.assert_array_equal(parameters(trainer), before)


# ---------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize(
    "hook",
    [
        "on_train_begin",
        "on_epoch_begin",
        "on_train_batch_begin",
        "on_train_batch_end",
        "on_test_batch_end",
        "on_epoch_end",
    ],
)
def test_ctrl_c_ends_the_training_cleanly(hook):
    events = []

    class Interrupts(Callback):
        def on_train_end(self):
            events.append("end")

    def interrupt(self, *arguments):
        if hook == "on_train_begin" or self.trainer.step >= 20:
            signal.raise_signal(signal.SIGINT)

    setattr(Interrupts, hook, interrupt)
    handler = signal.getsignal(signal.SIGINT)
    callbacks = [Interrupts()]
    trainer = Trainer(new_model(), callbacks=callbacks)
    history = trainer.fit(sine_stream(), epochs=10, validation=sine_stream())
    assert history.interrupted
    assert events == ["end"]
    assert signal.getsignal(signal.SIGINT) is handler
    assert {len(values) for values in history.values()} <= {trainer.epoch}

    # Model, history and trainer are usable.
    fresh = new_model()
    fresh.load_state_dict(trainer.model.state_dict())
    x = np.ones((2, 3, 1), np.float32)
    np.testing.assert_array_equal(trainer.model(x)[0], fresh(x)[0])
    trainer.callbacks = ()
    history = trainer.fit(sine_stream(), epochs=12, validation=sine_stream())
    assert not history.interrupted
    assert history.epochs == len(history["val_loss"]) == 12


def test_ctrl_c_between_two_names_of_the_history():
    class Torn(History):
        def append(self, logs):
            if self.epochs == 2:
                self["loss"].append(logs["loss"])
                raise KeyboardInterrupt
            super().append(logs)

    trainer = Trainer(new_model())
    trainer.history = Torn()
    history = trainer.fit(sine_stream(), epochs=5, validation=sine_stream())
    assert history.interrupted
    assert [len(values) for values in history.values()] == [2, 2] == [trainer.epoch] * 2


def test_ctrl_c_at_any_moment(rng):
    """Interrupts that come from outside at random times, within the optimiser's step too."""
    code = """
import os, signal, sys, threading, time
import numpy as np
import lstmx
from tests.test_trainer import new_model, sine_stream
trainer = lstmx.Trainer(new_model())
stream = sine_stream()
trainer.fit(stream, epochs=1)
x = np.ones((2, 3, 1), np.float32)
for delay in map(float, sys.argv[1:]):
    threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
    history = trainer.fit(stream, epochs=10**6)
    assert history.interrupted, delay
    assert len(history["loss"]) == trainer.epoch
    fresh = new_model()
    fresh.load_state_dict(trainer.model.state_dict())
    assert np.array_equal(trainer.model(x)[0], fresh(x)[0]), "stale packed weights"
print("usable")
"""
    delays = [f"{delay:.5f}" for delay in rng.uniform(0.01, 0.05, 30)]
    result = subprocess.run(
        [sys.executable, "-c", code, *delays],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=root(),
    )
    assert result.stdout == "usable\n", result.stderr


def root():
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


# ---------------------------------------------------------------- checkpoints


def resumable(path=None):
    """A training with everything that a checkpoint must know, and its data."""
    callbacks = [Checkpoint(path)] if path else []
    callbacks.append(EarlyStopping("val_loss", patience=4, restore_best_weights=True))
    optimizer = optim.AdamW(lr=0.01, weight_decay=0.1)
    trainer = Trainer(new_model(dropout=0.3), "huber", optimizer, callbacks, clip_norm=1.0)
    return trainer, sine_windows()


class HalvesTheRate(Callback):
    def on_epoch_end(self, epoch, logs):
        if epoch % 3 == 2:
            self.trainer.optimizer.lr /= 2


def run(trainer, data, epochs):
    trainer.callbacks = (*trainer.callbacks, HalvesTheRate())
    return trainer.fit(data, epochs=epochs, validation=sine_windows(shuffle=False))


def snapshot(trainer, data):
    """All that must be equal, bit for bit."""
    return (
        parameters(trainer).tobytes(),
        {name: value.tobytes() for name, value in trainer.optimizer.state_dict().items()},
        dict(trainer.history),
        trainer.step,
        [rng.bit_generator.state for rng in trainer.model.rngs() + data.rngs()],
        [
            repr(callback.state_dict())
            for callback in trainer.callbacks
            if isinstance(callback, EarlyStopping)
        ],
    )


@pytest.mark.parametrize("at", [1, 4, 9])
def test_a_resumed_training_is_the_one_that_was_not_interrupted(tmp_path, at):
    whole, data = resumable()
    run(whole, data, 10)
    expected = snapshot(whole, data)

    first, data = resumable(tmp_path / "state")
    run(first, data, at)
    second, data = resumable()
    assert second.load_checkpoint(tmp_path / "state") is second
    assert second.epoch == at
    run(second, data, 10)
    assert snapshot(second, data) == expected


def test_a_training_that_early_stopping_ended_stays_ended(tmp_path):
    whole, data = resumable(tmp_path / "state")
    whole.optimizer.lr = 0.5
    run(whole, data, 100)
    assert whole.epoch < 100
    resumed, data = resumable()
    resumed.load_checkpoint(tmp_path / "state")
    with pytest.warns(UserWarning, match="training was stopped; set trainer.stop_training = False"):
        run(resumed, data, 100)
    assert resumed.epoch == whole.epoch


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_every_kind_of_generator_is_kept(tmp_path, kind):
    def trainer():
        return Trainer(new_model())

    def data():
        return sine_windows(seed=np.random.Generator(kind(5)))

    whole, part = trainer(), trainer()
    whole.fit(data(), epochs=3)
    part.fit(data(), epochs=1)
    part.save_checkpoint(tmp_path / "state")
    part.load_checkpoint(tmp_path / "state").fit(data(), epochs=3)
    np.testing.assert_array_equal(parameters(part), parameters(whole))


def test_saving_what_was_loaded_changes_nothing(tmp_path):
    trainer, data = resumable(tmp_path / "a")
    run(trainer, data, 2)
    other, _ = resumable(tmp_path / "a")
    other.load_checkpoint(tmp_path / "a")
    other.save_checkpoint(tmp_path / "b")
    (tensors, metadata), (again, metadata_again) = (read_tensors(tmp_path / name) for name in "ab")
    assert metadata == metadata_again
    assert list(tensors) == list(again)
    for name, tensor in tensors.items():
        assert (tensor.dtype, tensor.tobytes()) == (again[name].dtype, again[name].tobytes()), name


def test_checkpoints_that_do_not_fit_are_refused_and_change_nothing(tmp_path):
    trainer, data = resumable(tmp_path / "good")
    run(trainer, data, 1)
    tensors, metadata = read_tensors(tmp_path / "good")

    def write(name, tensors=tensors, **changes):
        write_tensors(tmp_path / name, tensors, {**metadata, **changes})
        return tmp_path / name

    missing = {name: value for name, value in tensors.items() if name != "optimizer/m/0.bias"}
    (tmp_path / "torn").write_bytes((tmp_path / "good").read_bytes()[:-9])
    lstmx.save(tmp_path / "model", trainer.model)
    bad = [
        (tmp_path / "torn", "torn"),
        (tmp_path / "model", "expected format 'lstmx-checkpoint', got 'lstmx'"),
        (write("version", format_version="2"), "expected format_version '1', got '2'"),
        (write("json", trainer="{"), "json"),
        (write("list", trainer="[]"), "expected a JSON object"),
        (write("empty", trainer="{}"), "not a whole checkpoint"),
        (write("part", missing), r"expected 'm/0.bias' \(1 names missing\)"),
        (write("shape", {**tensors, "model/0.bias": np.zeros(3, np.float32)}), "model: expected parameters"),
    ]
    fresh, data = resumable()
    before = snapshot(fresh, data)
    for path, message in bad:
        with pytest.raises(ValueError, match=message):
            fresh.load_checkpoint(path)
        assert snapshot(fresh, data) == before, path
    with pytest.raises(FileNotFoundError):
        fresh.load_checkpoint(tmp_path / "none")
    others = [
        (Trainer(new_model(outputs=2)), "model: expected parameters"),
        (Trainer(new_model(dropout=0.3), optimizer="sgd"), "optimizer: expected SGD, got AdamW"),
    ]
    for other, message in others:
        with pytest.raises(ValueError, match=message):
            other.load_checkpoint(tmp_path / "good")
    fresh.load_checkpoint(tmp_path / "good")
    with pytest.raises(ValueError, match=r"data: expected random generators \[\], got \['PCG64'\]"):
        fresh.fit(sine_stream(), epochs=5)


KILLED = """
import sys
from tests.test_trainer import resumable, run
trainer, data = resumable(sys.argv[1])
print("begins", flush=True)
run(trainer, data, 10**6)
"""


def test_a_kill_at_any_instant_leaves_a_checkpoint_to_resume_from(tmp_path, rng):
    """The small training saves about 200 times a second, so that many kills fall into a save."""
    path = tmp_path / "state"
    for attempt in range(8):
        path.unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, cwd=root()
        )
        process.stdout.readline()
        deadline = time.monotonic() + 30
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.03))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, attempt

        resumed, data = resumable()
        resumed.load_checkpoint(path)
        epochs = resumed.epoch + 2
        assert resumed.epoch >= 1
        whole, other = resumable()
        if resumed.stop_training:  # EarlyStopping had its way before the kill
            run(whole, other, 10**6)
            assert whole.epoch == resumed.epoch
            continue
        run(resumed, data, epochs)
        run(whole, other, epochs)
        assert snapshot(resumed, data) == snapshot(whole, other), attempt


def test_checkpoints_are_finite_json_or_nan(tmp_path):
    """A validation loss that is nan is kept as it is."""
    y = np.full((4, 2, 1), np.nan)
    trainer = Trainer(new_model())
    trainer.fit((np.zeros((4, 2, 1)), np.zeros((4, 2, 1))), epochs=1, validation=(np.zeros((4, 2, 1)), y))
    trainer.save_checkpoint(tmp_path / "state")
    other = Trainer(new_model()).load_checkpoint(tmp_path / "state")
    assert math.isnan(other.history["val_loss"][0])
    assert other.history["loss"] == trainer.history["loss"]
