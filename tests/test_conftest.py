"""A target that the machine lacks is skipped loudly, or fails where LSTMX_REQUIRE_TARGETS demands it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lstmx import _core
from tests.conftest import ENGINES_OF_LOWER_PRECISION

ROOT = Path(__file__).resolve().parents[1]
OTHERS = [name for name in _core.compiled_targets() if name not in ("portable", *ENGINES_OF_LOWER_PRECISION)]

# A machine that can run the portable target only.
PLUGIN = """
from lstmx import _core
_core.supported_targets = lambda: ["portable"]
"""


def run_pytest(tmp_path, require):
    (tmp_path / "old_machine.py").write_text(PLUGIN)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "LSTMX_REQUIRE_TARGETS": require}
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "old_machine", "-p", "no:cacheprovider"),
            *("tests/kernels/test_linear_kernels.py", "-k", "test_dx_not_wanted"),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(not OTHERS, reason="only the portable target is built here")
class TestMissingTarget:
    def test_is_skipped_with_its_name(self, tmp_path):
        answer = run_pytest(tmp_path, "portable")
        assert answer.returncode == 0, answer.stdout
        assert f"1 passed, {len(OTHERS)} skipped" in answer.stdout
        for name in OTHERS:
            assert (
                f"target {name}: this machine lacks it, so that its kernels were NOT tested" in answer.stdout
            )

    @pytest.mark.parametrize("require", ["all", OTHERS[-1] if OTHERS else ""])
    def test_fails_where_it_is_required(self, tmp_path, require):
        answer = run_pytest(tmp_path, require)
        assert answer.returncode == 1, answer.stdout
        assert f"target {OTHERS[-1]}" in answer.stdout
        assert "LSTMX_REQUIRE_TARGETS demands it" in answer.stdout


def test_an_unknown_name_is_an_error(tmp_path):
    answer = run_pytest(tmp_path, "portable,sse9")
    assert answer.returncode == 4
    assert "LSTMX_REQUIRE_TARGETS: expected 'all' or some of portable" in answer.stderr
    assert "got sse9" in answer.stderr
