"""`lstmx demo`: the job's constants, what it learns over ten seeds, and what is in its files."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import lstmx
from lstmx.cli import demo, main


def run_demo(folder, *options: str) -> None:
    assert main(["demo", "--out", str(folder), *options]) == 0


def final_cost(output: str) -> float:
    costs = re.findall(r"^iteration +(\d+): cost ([\d.]+)$", output, re.MULTILINE)
    assert [int(number) for number, _ in costs] == list(range(20, 201, 20))
    return float(costs[-1][1])


def test_the_data_is_the_job_s():
    batches = list(demo.stream())
    assert len(batches) == 200
    for n in (0, 1, 199):
        for r in (0, 1, 49):
            angle = (20 * (n + r) + np.arange(20)) / (10 * math.pi)
            np.testing.assert_allclose(batches[n].x[r, :, 0], np.sin(angle), atol=1e-7)
            np.testing.assert_allclose(batches[n].y[r, :, 0], np.cos(angle), atol=1e-7)
        assert batches[n].x.shape == (50, 20, 1)
    lstmx.data.check_rows_continue(demo.stream())


def test_the_model_is_the_job_s():
    model = demo.new_model(3)
    assert repr(model) == (
        "Sequential(Linear(1, 10, init='normal', bias_init=0.1), "
        "LSTM(10, 10, batch_first=True, forget_bias=1.0, init='glorot'), "
        "Linear(10, 1, init='normal', bias_init=0.1))"
    )
    params = model.params
    assert set(params["0.bias"]) == set(params["2.bias"]) == {np.float32(0.1)}
    forget = params["1.bias_ih_l0"][10:20] + params["1.bias_hh_l0"][10:20]
    np.testing.assert_array_equal(forget, np.ones(10, np.float32))
    assert np.abs(params["1.weight_hh_l0"]).max() <= math.sqrt(6 / 20)


def test_the_files_are_what_they_are_said_to_be(tmp_path, capsys):
    folder = tmp_path / "a folder"
    run_demo(folder)
    output = capsys.readouterr().out
    cost = final_cost(output)
    for name in ("prediction.png", "tensorboard", "model.safetensors"):
        path = folder / name
        assert path.exists()
        assert f" {path}\n" in output
        assert f"'{path}'" in output, "the command quotes the space"

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("cost")
    assert [scalar.step for scalar in scalars] == list(range(1, 201))
    assert scalars[-1].value == pytest.approx(cost, abs=1e-4)

    with Image.open(folder / "prediction.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 24)}
    assert {(255, 0, 0), (0, 0, 255)} <= colours


def test_the_saved_model_predicts_the_same_bit_for_bit(tmp_path):
    run_demo(tmp_path)
    again = lstmx.load(tmp_path / "model.safetensors")
    trained = demo.new_model(0)
    trainer = lstmx.Trainer(trained, lstmx.losses.MSE("batch"), lstmx.optim.Adam(0.006))
    trainer.fit(demo.stream())
    x, _ = demo.series(400)
    assert again(x[None, :, None])[0].tobytes() == trained(x[None, :, None])[0].tobytes()
    assert trainer.predict(demo.stream()).tobytes() == lstmx.Trainer(again).predict(demo.stream()).tobytes()


def test_the_seed_decides_and_a_second_run_replaces_the_first(tmp_path, capsys):
    costs = []
    for seed in ("4", "4", "5"):
        run_demo(tmp_path, "--seed", seed)
        costs.append(final_cost(capsys.readouterr().out))
    assert costs[0] == costs[1] != costs[2]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_the_animation(tmp_path, capsys):
    run_demo(tmp_path, "--gif")
    assert f"{tmp_path / 'training.gif'}\n" in capsys.readouterr().out
    with Image.open(tmp_path / "training.gif") as animation:
        assert animation.n_frames == 50


def test_costs_over_ten_seeds():
    costs = []
    for seed in range(10):
        trainer = lstmx.Trainer(demo.new_model(seed), lstmx.losses.MSE("batch"), lstmx.optim.Adam(0.006))
        last = LastLoss()
        trainer.callbacks = (last,)
        trainer.fit(demo.stream())
        costs.append(last.loss)
    print(costs)
    assert np.median(costs) <= 0.1
    assert max(costs) <= 1.0


class LastLoss(lstmx.callbacks.Callback):
    loss = math.nan

    def on_train_batch_end(self, batch, logs):
        self.loss = logs["loss"]


def test_a_window_needs_a_screen(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert main(["demo", "--live", "--out", str(tmp_path / "new")]) == 2
    assert "lstmx: error: --live needs a screen" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("package", ["matplotlib", "tensorboardX"])
def test_a_missing_package_is_named_before_any_work(tmp_path, package):
    """In a process where the package cannot be found, as after an install without the extra."""
    from tests.cli.process import run_lstmx

    done = run_lstmx("demo", "--out", str(tmp_path / "new"), hide=package)
    assert done.returncode == 2
    assert f"lstmx: error: demo draws and logs with {package}, not installed" in done.stderr
    assert "pip install '.[viz]'" in done.stderr
    assert not (tmp_path / "new").exists()
