"""Which target runs: the lists, choosing one, refusing others, and the environment variable LSTMX_TARGET."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lstmx import _core, targets


def run_python(code, **environment):
    """A fresh interpreter with these environment variables; None removes one."""
    inherited = {k: v for k, v in os.environ.items() if environment.get(k, "") is not None}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=inherited | {k: v for k, v in environment.items() if v is not None},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_lists():
    compiled, supported = _core.compiled_targets(), _core.supported_targets()
    assert compiled[0] == "portable"
    assert supported[0] == "portable"
    assert len(set(compiled)) == len(compiled)
    assert supported == [name for name in compiled if name in supported], "another order, or one not compiled"
    assert targets.compiled() == tuple(compiled)
    assert targets.supported() == tuple(supported)


def test_use_and_return(target):
    before = targets.active()
    for name in _core.supported_targets():
        with targets.use(name) as active:
            assert active == name == targets.active() == _core.active_target()
            with targets.use("portable"):
                assert targets.active() == "portable"
            assert targets.active() == name
    assert targets.active() == before


def test_use_returns_after_an_exception():
    before = targets.active()
    with pytest.raises(KeyError), targets.use("portable"):
        raise KeyError
    assert targets.active() == before


@pytest.mark.parametrize("name", ["", "AVX2", "sse9", "portable "])
def test_unknown_names_are_refused(name):
    before = targets.active()
    with pytest.raises(ValueError, match="target: expected one of") as refusal:
        _core.set_active_target(name)
    for valid in _core.compiled_targets():
        assert valid in str(refusal.value)
    with pytest.raises(ValueError, match="target: expected one of"), targets.use(name):
        pytest.fail("the block must not run")
    assert targets.active() == before


def test_the_best_target_is_the_default():
    answer = run_python("import lstmx; print(lstmx.targets.active())", LSTMX_TARGET=None)
    assert answer.stdout.strip() == _core.supported_targets()[-1], answer.stderr


def test_environment_variable_chooses(target):
    answer = run_python("import lstmx; print(lstmx.targets.active())", LSTMX_TARGET=target)
    assert answer.stdout.strip() == target, answer.stderr


def test_unknown_environment_variable_is_an_error():
    answer = run_python("import lstmx", LSTMX_TARGET="sse9")
    assert answer.returncode != 0
    last = answer.stderr.strip().splitlines()[-1]
    assert "LSTMX_TARGET" in last
    assert "'sse9'" in last
    for valid in _core.compiled_targets():
        assert valid in last


@pytest.mark.parametrize("number", ["0", "-1", "two", "2.5", "9999999999999"])
def test_wrong_number_of_threads_in_the_environment_is_an_error(number):
    answer = run_python("import lstmx", LSTMX_NUM_THREADS=number)
    assert answer.returncode != 0
    assert f"LSTMX_NUM_THREADS: expected a whole number of at least 1, got '{number}'" in answer.stderr


def test_number_of_threads_in_the_environment():
    answer = run_python("import lstmx; print(lstmx.get_num_threads())", LSTMX_NUM_THREADS="3")
    assert answer.stdout.strip() == "3", answer.stderr
