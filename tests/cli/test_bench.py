"""`lstmx bench`: figures and a picture; wrong input is refused before anything is measured."""

from __future__ import annotations

import importlib.util
import re

import pytest

from tests.cli.process import run_lstmx

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is missing: nothing was compared with it"
)


def test_alone(tmp_path):
    result = run_lstmx("bench", "--shape", "3,2,2,4", "--against", "none", "--threads", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.search(r"3,2,2,4 +inference +[\d.,]+ +[\d.e-]+\n3,2,2,4 +training ", result.stdout)
    assert "PyTorch" not in result.stdout
    assert (tmp_path / "lstmx-bench.png").read_bytes().startswith(b"\x89PNG")


@needs_torch
def test_against_torch(tmp_path):
    result = run_lstmx(
        "bench", "--shape", "3,2,2,4", "--threads", "1", "--out", "new/picture.svg", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"\d\.\d\dx", result.stdout)) == 2
    assert "<!-- PyTorch -->" in (tmp_path / "new/picture.svg").read_text()


def test_missing_torch_is_said():
    result = run_lstmx("bench", "--shape", "3,2,2,4", hide="torch")
    assert result.returncode == 2
    assert "PyTorch is not installed" in result.stderr
    assert "--against none" in result.stderr


def test_missing_matplotlib_leaves_the_figures(tmp_path):
    result = run_lstmx("bench", "--shape", "1,1,1,1", "--against", "none", hide="matplotlib", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "no picture: matplotlib is missing" in result.stdout
    assert "1,1,1,1" in result.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "3,2,2"], "four integers T,B,I,H of at least 1, got '3,2,2'"),
        (["--shape", "3,0,2,4"], "of at least 1, got '3,0,2,4'"),
        (["--shape", "3,x,2,4"], "got '3,x,2,4'"),
        (["--shape", "100000,10000,100,100"], "at most 1 GiB"),
        (["--threads", "0"], "at least 1"),
        (["--threads", "100000"], "--threads: expected at most"),
        (["--against", "numpy"], "--against"),
        (["--against", "none", "--out", "picture.txt"], "--out: expected a file ending with"),
        (["--against", "none", "--out", "file/picture.png"], "expected a folder, got a file"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_measured(tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    result = run_lstmx("bench", *arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
