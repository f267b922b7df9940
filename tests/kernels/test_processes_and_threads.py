"""Kernels in a forked child, and from many Python threads at once."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lstmx import _core
from tests.kernels.lstm_case import assert_equal_results, make_case, run

# The parent starts OpenMP's threads; a child of fork() has none of them and would wait for them forever.
FORK = """
    import os, sys, warnings
    import numpy as np
    from lstmx import _core
    from tests.kernels.lstm_case import make_case, run

    warnings.simplefilter("ignore")  # Python warns of fork() beside threads; this is the point here
    case = make_case(np.random.default_rng(0), 20, 33, 33, 33)
    before = run(case, threads=2)
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            after = run(case, threads=2)
            equal = all(np.array_equal(before[name], after[name]) for name in before)
            os._exit(0 if equal else 1)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    again = run(case, threads=2)
    assert codes == [0, 0], codes
    assert all(np.array_equal(before[name], again[name]) for name in before)
    print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork() on this system: the child was NOT tested")
def test_a_forked_child_computes():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORK)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.stdout.strip() == "done", answer.stderr


@pytest.mark.parametrize("threads", [1, 2])
def test_many_python_threads_on_one_plan(target, rng, threads):
    """Inference and training of several batches through one plan at once: each as if alone."""
    plan = _core.LstmPlan(33, 33)
    cases = [make_case(rng, 15, batch, 33, 33) for batch in (1, 5, 33, 40)]
    parameters = {name: cases[0][name] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    cases = [case | parameters for case in cases]
    want = [run(case) for case in cases]
    want_inference = [run(case, training=False) for case in cases]

    def work(index):
        training = index % 2 == 0
        n = index // 2 % len(cases)
        got = run(cases[n], plan=plan, training=training, threads=threads)
        assert_equal_results(got, want[n] if training else want_inference[n])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(80)))


def test_the_first_call_of_a_plan_from_many_threads(target, rng):
    """All of them find the weights not packed yet."""
    case = make_case(rng, 3, 4, 40, 50)
    want = run(case, training=False)
    for _ in range(10):
        plan = _core.LstmPlan(40, 50)
        with ThreadPoolExecutor(8) as pool:
            for got in pool.map(lambda _, plan=plan: run(case, plan=plan, training=False), range(8)):
                assert_equal_results(got, want)


def test_the_interpreter_runs_on_while_kernels_compute(rng):
    """The interpreter lock is released: another Python thread makes progress during one long call."""
    case = make_case(rng, 300, 64, 128, 256)
    ticks = 0
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, case, training=False)
        while not future.done():
            ticks += 1
    assert np.isfinite(future.result()["y"]).all()
    assert ticks > 1000
