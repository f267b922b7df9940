"""`lstmx train`, `predict` and `info`: from a CSV file to a forecast, and every wrong use without a trace."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import date, timedelta

import numpy as np
import pytest
from PIL import Image

import lstmx
from lstmx.cli import main
from tests.cli.process import run_lstmx


def write_series(path, rows: int = 300, columns=("level", "other")):
    """Daily rows: a climbing level with a season of a week, and its square."""
    t = np.arange(rows)
    level = 50 + 0.1 * t + 4 * np.sin(2 * np.pi * t / 7)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["day", *columns])
        for k in range(rows):
            writer.writerow([date(2024, 1, 1) + timedelta(days=k), f"{level[k]:.3f}", f"{level[k] ** 2:.3f}"])
    return path


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series.csv")


SMALL = ("--target", "level", "--window", "21", "--horizon", "5", "--hidden", "8", "--epochs", "12")


@pytest.fixture
def trained(series, tmp_path, capsys):
    assert main(["train", str(series), *SMALL, "--out", str(tmp_path / "out")]) == 0
    capsys.readouterr()
    return tmp_path / "out" / "model.safetensors"


def read_forecast(text: str) -> tuple[list[str], list[list[str]]]:
    heading, *rows = csv.reader(io.StringIO(text))
    return heading, rows


def test_train_reports_and_writes(series, tmp_path, capsys):
    folder = tmp_path / "deep" / "out"
    assert main(["train", str(series), *SMALL, "--features", "other", "level", "--out", str(folder)]) == 0
    output = capsys.readouterr().out
    assert "300 rows of level, other; day from 2024-01-01 to 2024-10-26, a row every 1 day" in output
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["columns"] == ["level", "other"]
    assert metrics["step"] == "1 day"
    assert metrics["validation"]["season"] == 7
    for name, key in (
        ("LSTM", "lstm"),
        ("persistence", "persistence"),
        (r"seasonal-naive \(7\)", "seasonal_naive"),
    ):
        found = re.search(rf"^{name} +(\S+) +(\S+)$", output, re.MULTILINE)
        assert found is not None
        assert float(found[1]) == pytest.approx(metrics["validation"][key]["mae"], rel=1e-4)
        assert float(found[2]) == pytest.approx(metrics["validation"][key]["rmse"], rel=1e-4)
    with Image.open(folder / "forecast.png") as picture:
        assert picture.size[0] > 500
    assert sorted(path.name for path in folder.iterdir()) == [
        "forecast.png",
        "metrics.json",
        "model.safetensors",
    ]
    for name in ("forecast.png", "metrics.json", "model.safetensors"):
        assert str(folder / name) in output


def test_the_seed_decides(series, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert main(["train", str(series), *SMALL, "--seed", seed, "--out", str(tmp_path / name)]) == 0
    a, b, c = (lstmx.load(tmp_path / name / "model.safetensors").arena.params.tobytes() for name in "abc")
    assert a == b != c


def test_a_bad_model_is_called_bad(tmp_path, rng, capsys):
    path = tmp_path / "walk.csv"
    steps = rng.normal(size=300).cumsum()
    path.write_text("level\n" + "\n".join(f"{value:.4f}" for value in steps))
    options = ("--normalize", "train", "--epochs", "1")
    assert main(["train", str(path), *SMALL, *options, "--out", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    assert "no seasonal-naive baseline" in output
    assert "In MAE the LSTM is worse than persistence" in output


def test_predict_continues_the_times(trained, series, tmp_path, capsys):
    assert main(["predict", str(trained), str(series)]) == 0
    heading, rows = read_forecast(capsys.readouterr().out)
    assert heading == ["day", "level"]
    assert [row[0] for row in rows] == [f"2024-10-{day}" for day in range(27, 32)]
    forecaster = lstmx.Forecaster.load(trained)
    values = lstmx.tabular.read_csv(series, ["level"]).values
    np.testing.assert_allclose([float(row[1]) for row in rows], forecaster.predict(values), rtol=1e-8)

    assert main(["predict", str(trained), str(series), "--out", str(tmp_path / "next.csv")]) == 0
    assert capsys.readouterr().out == ""
    assert read_forecast((tmp_path / "next.csv").read_text()) == (heading, rows)


def test_a_forecast_can_be_read_back_as_the_continuation(trained, series, capsys):
    assert main(["predict", str(trained), str(series)]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    longer = series.with_name("longer.csv")
    longer.write_text(series.read_text() + "".join(f"{line},0\n" for line in lines))
    assert len(lstmx.tabular.read_csv(longer, ["level"])) == 305


def test_without_times_the_steps_are_numbered(tmp_path, capsys):
    path = tmp_path / "plain.csv"
    path.write_text("level\n" + "\n".join(str(k % 7) for k in range(300)))
    assert main(["train", str(path), *SMALL, "--season", "7", "--out", str(tmp_path / "out")]) == 0
    assert "seasonal-naive (7)" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "out" / "model.safetensors"), str(path)]) == 0
    heading, rows = read_forecast(capsys.readouterr().out)
    assert heading == ["step", "level"]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]


def test_info_without_a_model(capsys):
    assert main(["info"]) == 0
    output = capsys.readouterr().out
    assert output.strip() == lstmx.show_config()
    assert lstmx.__version__ in output
    assert lstmx.targets.active() in output


def test_info_of_a_model(trained, tmp_path, capsys):
    assert main(["info", str(trained)]) == 0
    output = capsys.readouterr().out
    model = lstmx.load(trained)
    assert f"{model.num_parameters:,} parameters" in output
    for layer in model:
        assert re.search(rf"{re.escape(repr(layer))} +{layer.num_parameters:,}\n", output)
    assert "forecasts 5 rows of 'level', a row every 1 day (day), from the last 21 rows of 'level'" in output
    lstmx.save(tmp_path / "plain", lstmx.Linear(2, 3))
    assert main(["info", str(tmp_path / "plain")]) == 0
    assert "Linear, 9 parameters, 36 bytes of float32" in capsys.readouterr().out


# ---------------------------------------------------------------- wrong uses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["train"], "the following arguments are required: FILE.csv, --target"),
        (["train", "none.csv", "--target", "level"], "none.csv: No such file or directory"),
        (
            ["train", "series.csv", "--target", "x"],
            "series.csv: no column 'x'; the file has 'day', 'level', 'other'",
        ),
        (["train", "series.csv", "--target", "level", "--features", "x"], "no column 'x'"),
        (["train", "series.csv", "--target", "level", "--time", "x"], "no column 'x'"),
        (
            ["train", "series.csv", "--target", "level", "--time", "other"],
            "line 2: column 'other': expected a time",
        ),
        (
            ["train", "series.csv", "--target", "day"],
            "line 2: column 'day': expected a finite number, got '2024-01-01'",
        ),
        (
            ["train", "series.csv", "--target", "level", "--window", "300"],
            "series.csv: expected at least 405 rows (window 300, horizon 24, val 0.2), got 300",
        ),
        (
            ["train", "series.csv", "--target", "level", "--window", "1"],
            "--window: expected an integer of at least 2",
        ),
        (
            ["train", "series.csv", "--target", "level", "--epochs", "x"],
            "--epochs: expected an integer of at least 1",
        ),
        (
            ["train", "series.csv", "--target", "level", "--val", "1"],
            "--val: expected a number between 0 and 1",
        ),
        (["train", "series.csv", "--target", "level", "--normalize", "z"], "invalid choice: 'z'"),
        (
            ["train", "series.csv", "--target", "level", "--seed", "-1"],
            "--seed: expected an integer of at least 0",
        ),
        (
            ["train", "series.csv", "--target", "level", "--out", "series.csv"],
            "series.csv: expected a folder, got a file",
        ),
        (
            ["train", "series.csv", "--target", "level", "--out", "series.csv/x"],
            "expected a folder, got a file",
        ),
        (["train", ".", "--target", "level"], "Is a directory"),
        (["predict", "none", "series.csv"], "none: No such file or directory"),
        (["predict", "series.csv", "series.csv"], "series.csv: truncated or not a safetensors file"),
        (["predict", "plain", "series.csv"], "plain: a model, but not a forecaster's"),
        (["info", "none"], "none: No such file or directory"),
        (["info", "series.csv"], "series.csv: truncated or not a safetensors file"),
        (["demo", "--out", "series.csv"], "series.csv: expected a folder, got a file"),
        (["demo", "--seed", "x"], "--seed: expected an integer of at least 0"),
    ],
)
def test_wrong_uses_end_in_one_message_and_write_nothing(
    series, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    lstmx.save("plain", lstmx.Linear(1, 1))
    before = sorted(tmp_path.iterdir())
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("lstmx: error: ")
    assert message in output.err
    assert "Traceback" not in output.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:10], "expected at least 21 rows, got 9"),
        (
            lambda lines: ["day,height,other", *lines[1:]],
            "no column 'level'; the file has 'day', 'height', 'other'",
        ),
        (lambda lines: ["date,level,other", *lines[1:]], "no column 'day'"),
        (lambda lines: [*lines, "2024-10-28,1,1"], "line 302: expected 2024-10-27"),
        (lambda lines: [*lines, "2024-10-27,,1"], "line 302: column 'level': expected a number, got ''"),
        (
            lambda lines: lines[:1] + lines[1::7],
            "expected a row every 1 day, as the model was trained on, got one every 1 week",
        ),
    ],
)
def test_predict_refuses_series_that_do_not_fit(trained, series, tmp_path, capsys, change, message):
    series.write_text("\n".join(change(series.read_text().splitlines())) + "\n")
    assert main(["predict", str(trained), str(series), "--out", str(tmp_path / "next.csv")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lstmx: error: ")
    assert message in error
    assert not (tmp_path / "next.csv").exists()


def test_train_without_matplotlib_draws_nothing_and_says_so(series, tmp_path):
    done = run_lstmx("train", str(series), *SMALL, "--out", str(tmp_path / "out"), hide="matplotlib")
    assert done.returncode == 0, done.stderr
    assert "no picture: matplotlib is missing" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.json", "model.safetensors"]


def test_version_and_help_in_a_process():
    done = run_lstmx("--version")
    assert (done.returncode, done.stdout) == (0, f"lstmx {lstmx.__version__}\n")
    for command in ((), ("demo",), ("train",), ("predict",), ("info",)):
        done = run_lstmx(*command, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith("usage: lstmx")


def test_a_reader_that_goes_away_is_no_error(trained, series):
    command = [sys.executable, "-m", "lstmx", "predict", str(trained), str(series)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT: Ctrl-C NOT tested")
def test_ctrl_c_keeps_what_was_learnt(series, tmp_path):
    write_series(series, rows=20_000)
    command = [sys.executable, "-m", "lstmx", "train", str(series), *SMALL[:-1], "1000", "--out", "out"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline().startswith("epoch 1/1000")
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output = process.stdout.read()
        errors = process.stderr.read()
    assert process.returncode == 130, errors
    assert "Interrupted: what was learnt until then is kept." in output
    assert "Traceback" not in errors
    lstmx.Forecaster.load(tmp_path / "out" / "model.safetensors")


# ---------------------------------------------------------------- the real series


@pytest.fixture
def one_thread():
    """Tests share their machine: two threads that wait for each other would lose to everybody else."""
    before = lstmx.get_num_threads()
    lstmx.set_num_threads(1)
    yield
    lstmx.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_co2_beats_both_baselines(request, tmp_path):
    path = request.config.rootpath / "examples" / "data" / "co2_weekly.csv"
    check_beats_baselines(tmp_path, str(path), "--target", "co2")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_transformer_oil_temperature_beats_both_baselines(request, tmp_path):
    path = request.config.rootpath.parent / "shared" / "data" / "ett" / "ETTh1.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there: training on the transformer data was NOT tested")
    check_beats_baselines(tmp_path, str(path), "--target", "OT", "--window", "96", "--horizon", "24")


def check_beats_baselines(folder, *arguments: str) -> None:
    assert main(["train", *arguments, "--out", str(folder)]) == 0
    found = json.loads((folder / "metrics.json").read_text())["validation"]
    assert found["lstm"]["mae"] < found["persistence"]["mae"]
    assert found["lstm"]["mae"] < found["seasonal_naive"]["mae"]
