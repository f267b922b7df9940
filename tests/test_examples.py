"""The examples run as they stand and draw their pictures."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from PIL import Image


def run_example(request, name: str, folder) -> str:
    command = [sys.executable, str(request.config.rootpath / "examples" / name), str(folder)]
    environment = {**os.environ, "LSTMX_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_picture(path) -> None:
    with Image.open(path) as picture:
        assert picture.size[0] > 500


def test_sine_to_cosine(request, tmp_path):
    output = run_example(request, "sine_to_cosine.py", tmp_path)
    found = re.search(r"after the first 100 steps: (\S+)", output)
    assert found is not None
    assert float(found[1]) < 0.1
    check_picture(tmp_path / "sine_to_cosine.png")


def test_forecast_co2(request, tmp_path):
    output = run_example(request, "forecast_co2.py", tmp_path)
    errors = dict(re.findall(r"^(\w+) +mean absolute error (\S+) ppm", output, re.MULTILINE))
    assert float(errors["lstm"]) < min(float(errors["persistence"]), float(errors["seasonal_naive"]))
    assert len(re.findall(r"^2002-\d\d-\d\d  3\d\d\.\d ppm$", output, re.MULTILINE)) == 26
    check_picture(tmp_path / "forecast_co2.png")
    assert (tmp_path / "co2.safetensors").exists()


def test_gates_of_a_memory(request, tmp_path):
    output = run_example(request, "gates_of_a_memory.py", tmp_path)
    error = re.search(r"over a new sequence: (\S+)", output)
    gate = re.search(r"forget gate, mean over the units: (\S+) at marks, (\S+) elsewhere", output)
    assert error is not None
    assert gate is not None
    assert float(error[1]) < 0.1
    assert float(gate[1]) < float(gate[2]) - 0.15
    check_picture(tmp_path / "gates_of_a_memory.png")


def test_the_co2_file_is_what_its_script_makes(request, tmp_path):
    pytest.importorskip("statsmodels", reason="statsmodels: the making of co2_weekly.csv was NOT tested")
    folder = request.config.rootpath / "examples" / "data"
    script = tmp_path / "make_co2.py"
    script.write_text((folder / "make_co2.py").read_text())
    subprocess.run([sys.executable, str(script)], check=True, capture_output=True, timeout=120)
    assert (tmp_path / "co2_weekly.csv").read_bytes() == (folder / "co2_weekly.csv").read_bytes()
