"""What the README shows is executed: its example, its commands; its install commands are looked at."""

import re
import shlex
from pathlib import Path

import numpy as np

import lstmx
from lstmx import cli

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_example_runs_and_learns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["history"]["loss"][-1] < 0.05 < names["history"]["loss"][0]
    assert names["prediction"].shape == (1, 100, 1)
    assert np.array_equal(
        names["model"].params["1.weight"], lstmx.load("sine.safetensors").params["1.weight"]
    )
    assert str(names["prediction"].shape) in capsys.readouterr().out


def test_the_example_is_short():
    (example,) = blocks("python")
    assert len([line for line in example.splitlines() if line]) <= 18


def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (shown,) = [block for block in blocks("bash") if "lstmx train" in block]
    for line in shown.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "lstmx"
        assert cli.main(arguments) == 0


def test_both_install_commands_install_from_the_checkout():
    installs = re.findall(r"pip install ([^&\n]*)", "".join(blocks("bash")))
    assert len(installs) == 2
    for what in installs:
        assert "lstmx" not in what
        assert "'.[" in what
