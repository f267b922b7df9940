"""The benchmarks: results are compared before anything is timed, the gate finds regressions, the scripts run.

Tiny shapes and few runs; what is measured here means nothing.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lstmx
from lstmx import _bench
from lstmx._bench import Case, Disagreement, Worker, check_agreement, compare

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import engines  # noqa: E402
import harness  # noqa: E402
import precision  # noqa: E402
import probe  # noqa: E402
import report  # noqa: E402
import shapes  # noqa: E402
import sweep  # noqa: E402
import torch_step  # noqa: E402
import variants  # noqa: E402

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is missing: nothing was compared with it"
)
needs_onnxruntime = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("onnx", "onnxruntime"))),
    reason="ONNX Runtime is missing: nothing was compared with it",
)
PACE = {"rounds": 2, "round_seconds": 0.001}
TINY = Case(5, 3, 2, 4)

# A worker of sides that are right, wrong, not a number, of another shape, and broken. They print where the
# answers go, and each leaves a mark when it is timed.
SIDES = """
import sys
import numpy as np
from lstmx._bench import Job, serve

def side(value):
    def prepare(case, threads):
        def run():
            print("talk")
            open(case["timed"], "a").close()
        print("talk")
        return Job({"y": np.array(value, np.float32)}, run)
    return prepare

def broken(case, threads):
    raise OSError("no such thing")

serve({
    "right": side([1.0, 2.0]), "same": side([1.0, 2.00001]), "wrong": side([1.0, 2.01]),
    "nan": side([1.0, float("nan")]), "other": side([1.0]), "broken": broken, "gone": lambda *_: sys.exit(3),
})
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "sides.py"
    path.write_text(SIDES)
    return str(path)


def run_sides(script, tmp_path, *sides):
    """The times, and whether anything was timed."""
    timed = tmp_path / "timed"
    workers = [Worker([script], side, 1) for side in sides]
    try:
        return compare(workers, {"timed": str(timed)}, **PACE), timed
    finally:
        for worker in workers:
            worker.close()


def test_sides_that_agree_are_timed(script, tmp_path):
    times, timed = run_sides(script, tmp_path, "right", "same")
    assert times.keys() == {"right", "same"}
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in times.values())
    assert timed.exists()


@pytest.mark.parametrize("side", ["wrong", "nan", "other"])
def test_sides_that_differ_are_not_timed(script, tmp_path, side):
    with pytest.raises(Disagreement, match=f"y: {side}"):
        run_sides(script, tmp_path, "right", side)
    assert not (tmp_path / "timed").exists()


def test_a_side_that_fails_is_named(script, tmp_path):
    with pytest.raises(RuntimeError, match="broken: OSError: no such thing"):
        run_sides(script, tmp_path, "right", "broken")
    with pytest.raises(RuntimeError, match="the process of gone ended with status 3"):
        run_sides(script, tmp_path, "right", "gone")


def test_agreement_is_judged_array_by_array():
    big, small = np.array([1e6]), np.array([1e-3])
    with pytest.raises(Disagreement, match="db"):
        check_agreement({"a": {"dw": big, "db": small}, "b": {"dw": big, "db": 2 * small}}, 1e-4)
    with pytest.raises(Disagreement, match="b gives"):
        check_agreement({"a": {"y": big, "dx": small}, "b": {"y": big}}, 1e-4)


def test_flops_count_what_is_computed():
    assert Case(2, 3, 4, 5).flops() == 2 * 3 * 8 * 5 * (4 + 5)
    assert Case(2, 3, 4, 5, mode="training").flops() == 3 * Case(2, 3, 4, 5).flops()
    deep = Case(2, 3, 4, 5, layers=2, bidirectional=True)
    assert deep.flops() == 2 * 3 * 8 * 5 * 2 * ((4 + 5) + (10 + 5))
    ragged = Case(40, 6, 4, 5, lengths=True)
    assert ragged.row_lengths().min() >= 10
    assert ragged.flops() == ragged.row_lengths().sum() * 8 * 5 * 9


@needs_torch
@pytest.mark.parametrize("mode", _bench.MODES)
@pytest.mark.parametrize(
    "case",
    [
        TINY,
        Case(1, 1, 1, 1),
        dataclasses.replace(TINY, layers=2, bidirectional=True),
        Case(12, 5, 3, 4, lengths=True),
        Case(12, 5, 3, 4, layers=2, bidirectional=True, lengths=True),
    ],
    ids=str,
)
def test_lstmx_and_torch_agree(case, mode):
    request = dataclasses.replace(case, mode=mode).as_json()
    check_agreement(
        {"torch": _bench.torch_side(request, 1).check, "lstmx": _bench.lstmx_side(request, 1).check}, 1e-5
    )


@needs_torch
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("optimizer", torch_step.OPTIMIZERS)
def test_steps_agree(lengths, optimizer):
    """Of both LSTMs; the step without one has outputs of the same shape."""
    case = Case(6, 5, 3, 4, lengths=lengths)
    request = case.as_json() | {"optimizer": optimizer}
    jobs = {name: side(request, 1) for name, side in torch_step.SIDES.items()}
    outputs, loss, *gradients = (jobs["lstmx"].check[name] for name in sorted(jobs["lstmx"].check, key=int))
    assert outputs.shape == ((case.row_lengths().sum(), 4) if lengths else (6, 5, 4))
    assert loss.shape == ()
    assert [g.shape for g in gradients] == [(16, 3), (16, 4), (16,), (16,), (1, 4), (1,)]
    assert all(map(np.any, gradients))
    check_agreement({name: jobs[name].check for name in ("lstmx", "torch")}, 1e-5)
    assert jobs["rest"].check["0"].shape == outputs.shape
    for job in jobs.values():
        job.run()


@needs_torch
def test_a_wrong_gradient_is_refused():
    request = dataclasses.replace(TINY, mode="training").as_json()
    ours = dict(_bench.lstmx_side(request, 1).check)
    ours["bias_hh_l0"] = ours["bias_hh_l0"] * np.float32(1.001)
    with pytest.raises(Disagreement, match="bias_hh_l0"):
        check_agreement({"torch": _bench.torch_side(request, 1).check, "lstmx": ours}, _bench.TOLERANCE)


@needs_onnxruntime
def test_lstmx_and_onnxruntime_agree():
    import peers

    request = dataclasses.replace(TINY, layers=2, bidirectional=True).as_json()
    check_agreement(
        {
            "lstmx": _bench.lstmx_side(request, 1).check,
            "onnxruntime": peers.onnxruntime_side(request, 1).check,
        },
        1e-5,
    )


def test_training_runs_on_changed_weights_and_fresh_gradients(monkeypatch):
    import lstmx

    made = []

    class Watched(lstmx.LSTM):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(lstmx, "LSTM", Watched)
    job = _bench.lstmx_side(dataclasses.replace(TINY, mode="training").as_json(), 1)
    version = made[0].arena.version
    job.run()
    assert made[0].arena.version > version
    np.testing.assert_array_equal(made[0].grads["weight_ih_l0"], job.check["weight_ih_l0"])


def script_run(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@needs_torch
def test_the_shapes_script_measures_and_names_a_bound():
    result = script_run(
        "lstm.py", "--quick", "--shapes", "5,3,2,4", "--threads", "1", "--isa", "native", "--peers", "torch"
    )
    assert result.returncode == 0, result.stderr
    content = harness.read_results("quick")
    row = next(row for row in content["rows"] if row["shape"] == "5,3,2,4" and row["mode"] == "training")
    assert row["ratio"]["torch"]["low"] <= row["ratio"]["torch"]["median"] <= row["ratio"]["torch"]["high"]
    assert row["limits"] is None or row["bound"] in {"flops", "L2", "L3", "gates", "latency"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "huge"], "got 'huge'"),
        (["--shapes", "1,2,3"], "T,B,I,H"),
        (["--threads", "99"], "got [99]"),
    ],
)
def test_the_shapes_script_refuses_wrong_input(arguments, message):
    result = script_run("lstm.py", *arguments)
    assert result.returncode == 2
    assert message in result.stderr


# What is above the limit, and may not become slower than this: sums over few units are as much work as
# their products (benchmarks/ATTEMPTS.md).
ABOVE = {("layer normalization", variants.SHAPES[0]): 1.5}


@pytest.mark.slow
@pytest.mark.parametrize("case", variants.SHAPES, ids=lambda case: f"{case.T},{case.B},{case.I},{case.H}")
def test_no_variant_takes_much_longer_than_the_plain_cell(case):
    """Forward and backward; others' load may spoil an attempt, hardly three."""
    left = list(variants.VARIANTS)
    for _ in range(3):
        ratios = {row["variant"]: row["ratio"]["plain"] for row in variants.measure(case, 9, left)}
        limits = {variant.name: ABOVE.get((variant.name, case), variant.limit) for variant in left}
        left = [variant for variant in left if ratios[variant.name]["median"] > limits[variant.name]]
        if not left:
            return
    pytest.fail(f"beyond the limit three times: { {v.name: ratios[v.name] for v in left} }")


def test_a_wrong_variant_is_not_timed():
    class Wrong(variants.Variant):
        def spec(self):
            return variants.PLAIN.spec()

    with pytest.raises(Disagreement, match="y: wrong is off"):
        list(variants.measure(TINY, 1, [Wrong("wrong", {"coupled": True})]))


def test_every_variant_is_measured():
    rows = list(variants.measure(TINY, 2))
    assert [row["variant"] for row in rows] == [variant.name for variant in variants.VARIANTS]
    for row in rows:
        assert 0 < row["ratio"]["plain"]["low"] <= row["ratio"]["plain"]["median"]
        assert min(row["seconds"].values()) > 0


# --- the gate ---------------------------------------------------------------------------------------------


def results_file(path, ratios, *, seconds=1.0, processor="P"):
    rows = [
        {
            **TINY.as_json(),
            "shape": name,
            "isa": "native",
            "threads": 1,
            "seconds": {"lstmx": seconds, "torch": seconds * ratio},
            "ratio": {"torch": {"median": ratio, "low": ratio, "high": ratio}},
        }
        for name, ratio in ratios.items()
    ]
    path.write_text(json.dumps({"machine": {"processor": processor}, "rows": rows}))
    return str(path)


def gate(tmp_path, before, after, *options, **slower):
    old = results_file(tmp_path / "a.json", before)
    new = results_file(tmp_path / "b.json", after, **slower)
    return script_run("compare.py", old, new, *options)


def test_the_gate_passes_a_slower_machine_and_finds_a_lower_ratio(tmp_path):
    assert gate(tmp_path, {"x": 2.0, "y": 1.0}, {"x": 1.9, "y": 1.2}, seconds=10.0).returncode == 0
    result = gate(tmp_path, {"x": 2.0, "y": 1.0}, {"x": 1.7, "y": 1.2})
    assert result.returncode == 1
    regressions = [line for line in result.stdout.splitlines() if "REGRESSION" in line]
    assert len(regressions) == 1
    assert regressions[0].startswith("x, inference")
    assert gate(tmp_path, {"x": 2.0}, {"x": 1.7}, "--threshold", "0.2").returncode == 0


def test_the_gate_counts_rows_that_one_file_lacks(tmp_path):
    result = gate(tmp_path, {"x": 2.0, "y": 1.0}, {"x": 2.0, "z": 0.1})
    assert result.returncode == 0
    assert "only before: 1, only after: 1" in result.stdout


def test_the_gate_refuses_what_it_cannot_compare(tmp_path):
    assert gate(tmp_path, {"x": 2.0}, {"y": 2.0}).returncode == 2
    assert gate(tmp_path, {"x": 2.0}, {"x": math.nan}).returncode == 2
    assert gate(tmp_path, {"x": 2.0}, {"x": 2.0}, "--peer", "jax").returncode == 2
    (tmp_path / "empty.json").write_text("{}")
    old = results_file(tmp_path / "a.json", {"x": 2.0})
    assert script_run("compare.py", old, str(tmp_path / "empty.json")).returncode == 2
    assert script_run("compare.py", old, str(tmp_path / "none.json")).returncode == 2
    assert script_run("compare.py", old, old, "--threshold", "1.5").returncode == 2


# --- shapes, bounds, page ---------------------------------------------------------------------------------


def test_targets_are_those_of_their_table():
    def figure(name, peer="torch", mode="inference", lengths=False, isa="native"):
        return shapes.targets(name, peer=peer, mode=mode, lengths=lengths, isa=isa)

    assert figure("sine", mode="training") == (6, 9)
    assert figure("sine", lengths=True) == (15, 30)
    assert figure("wide batch", lengths=True, mode="training") == (4, 6)
    assert figure("medium", mode="step").at_least == 1.1
    assert figure("small", mode="step", lengths=True).at_least == 8
    assert figure("100,64,256,512", isa="avx2").at_least == 1.0
    assert figure("long", isa="avx2").at_least == 1.4
    assert figure("one call", peer="onnxruntime").at_least == 4
    assert figure("one call", peer="torch-grad") is None
    assert figure("tall") is None
    assert figure("7,7,7,7") is None


def test_every_table_names_shapes_that_there_are():
    steps = shapes.AGAINST_TORCH_STEP, shapes.AGAINST_PACKED_STEP
    for table in (shapes.AGAINST_TORCH, shapes.AGAINST_PACKED, shapes.LARGE, shapes.MEDIUM, *steps):
        assert set(table) <= set(shapes.SHAPES)


LIMITS = {
    "flops": 2e11,
    "l2_bytes_per_s": 1e11,
    "l3_bytes_per_s": 2e10,
    "cells_per_s": 1e9,
    "multiply_add_s": 1e-9,
    "cell_s": 4e-8,
    "l1_bytes": 32768,
    "l2_bytes": 2**20,
}


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("one call", "latency"),
        ("sine", "gates"),
        ("tall", "latency"),
        ("medium", "flops"),
        ("stream", "L2"),
        ("100,1,256,512", "L3"),
    ],
)
def test_the_bound_of_a_shape(name, bound):
    assert probe.name_bound(shapes.SHAPES[name], LIMITS)["bound"] == bound


def test_the_probe_measures_this_machine():
    limits = probe.limits("native", 1, 0.06)
    if limits is None:
        pytest.skip("no C++ compiler: the probe was NOT tested")
    assert limits.keys() == LIMITS.keys()
    assert all(value > 0 for value in limits.values())
    assert limits["cell_s"] > limits["multiply_add_s"]


def test_the_sweep_draws_the_same_bounded_shapes_from_a_seed():
    cases = list(sweep.draw(50, 3, 0.5))
    assert cases == list(sweep.draw(50, 3, 0.5))
    assert cases != list(sweep.draw(50, 4, 0.5))
    assert len(set(cases)) == 50
    assert max(case.flops() for case in cases) <= 0.5e9


def page_row(shape, ratio, **changes):
    case = shapes.SHAPES[shape]
    summary = {"median": ratio, "low": ratio, "high": ratio}
    return {
        **case.as_json(),
        "shape": shape,
        "isa": "native",
        "threads": 1,
        "seconds": {"lstmx": 1e-4, "torch": 1e-4 * ratio},
        "ratio": {"torch": summary},
        "gflops": 1.0,
        "limits": LIMITS,
        **changes,
    }


def test_the_page_says_what_is_reached(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    machine = {
        "processor": "P",
        "processors": 2,
        "target": "avx2",
        "python": "3",
        "versions": {},
        "load_at_start": 0,
    }
    rows = [page_row("sine", 7.0), page_row("small", 2.0), page_row("medium", 0.5), page_row("tall", 3.0)]
    monkeypatch.setattr(
        report, "read_results", lambda name: {"machine": machine, "rows": rows} if name == "lstm" else None
    )
    text = report.write().read_text()
    table, missed = text.split("## What is missed")
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if line.startswith("|")}
    assert "| 4 / 6 | aim |" in lines["sine"]
    assert "| 1.9 / 2.5 | yes |" in lines["small"]
    assert "| 1.05 / 1.25 | **no** |" in lines["medium"]
    assert "Of 3 figures set for these rows, 2 are reached." in table
    assert "| medium | inference |" in missed
    assert "| 0.50 | 1.05 |" in missed
    assert "sine" not in missed


def test_the_page_shows_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    seconds = {"lstmx": 6e-4, "torch": 9e-4, "rest": 3e-4}
    row = page_row("sine", 1.5, mode="step", optimizer="Adam", seconds=seconds)
    monkeypatch.setattr(report, "read_results", {"torch_step": {"rows": [row]}}.get)
    line = "| sine | 20,50,10,10 |  | Adam | 1 | 600 | 900 | 300 | 1.50 | 1.50 | 1.50 | 3.0 | 2 | **no** |"
    assert line in report.write().read_text()


def test_the_page_shows_variants(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    rows = [
        {
            "shape": "1,2,3,4",
            "variant": name,
            "limit": 1.35,
            "seconds": {"plain": 2e-4, "variant": 2e-4 * ratio},
            "ratio": {"plain": {"median": ratio, "low": 1.0, "high": 2.0}},
        }
        for name, ratio in (("one", 1.3), ("two", 1.4))
    ]
    monkeypatch.setattr(report, "read_results", {"variants": {"rows": rows}}.get)
    text = report.write().read_text()
    assert "| 1,2,3,4 | one | 200 | 260 | 1.30 | 1.00 | 2.00 | 1.35 | yes |" in text
    assert "| 1,2,3,4 | two | 200 | 280 | 1.40 | 1.00 | 2.00 | 1.35 | **no** |" in text


def test_the_page_shows_engines(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PAGE", tmp_path / "page.md")
    row = dataclasses.asdict(shapes.SHAPES["medium"]) | {
        "shape": "medium",
        "precision": "medium",
        "threads": 1,
        "peer": "torch-bf16",
        "seconds": {"lstmx": 1e-4, "torch-bf16": 1.4e-4},
        "ratio": {"median": 1.4, "low": 1.3, "high": 1.5},
    }
    rule = {"precision": "medium", "chosen": 3, "shapes": 4, "worst": 0.9, "shape": "1,2,3,4 training"}
    content = {"machine": {"target": "some"}, "rows": [row], "rule": [rule]}
    monkeypatch.setattr(report, "read_results", {"engines": content}.get)
    text = report.write().read_text()
    assert "medium | 64,48,96,160 | medium | inference | 1 | 100 | 140 | 1.40 | 1.30 | 1.50 |" in text
    assert "chosen for 3 of 4 calls" in text
    assert "1,2,3,4 training, had 0.90 times" in text


class TestEngines:
    def test_the_rule_is_measured_where_it_takes_the_engine(self):
        with lstmx.targets.use("portable"):
            assert engines.precisions() == []
        if "emulated" not in lstmx.targets.supported():
            pytest.skip("no engine runs here: the rule was NOT measured")
        with lstmx.targets.use("emulated"):
            assert engines.precisions() == ["highest", "high", "medium"]
            result = engines.cost_rule("medium", 1, seed=8)
        assert result["chosen"] == result["shapes"] == 2
        assert 0 < result["worst"] < 1, "the emulation is slow"

    @needs_torch
    def test_beside_pytorch(self, monkeypatch):
        """Both sides agree within what bf16 allows, in both modes."""
        monkeypatch.setitem(shapes.SHAPES, "tiny", Case(3, 16, 32, 32))
        monkeypatch.setitem(engines.AGAINST_TORCH_BY_ENGINE, "medium", {"tiny": None})
        monkeypatch.setattr(engines, "ROUNDS", 1)
        monkeypatch.setattr(engines, "ROUND_SECONDS", 0.001)
        rows = engines.beside_pytorch("medium", 1)
        assert [row["mode"] for row in rows] == ["inference", "training"]
        assert {row["peer"] for row in rows} == {"torch-bf16"}


def test_rows_of_another_machine_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    old, new = page_row("sine", 1.0), page_row("small", 2.0)
    harness.write_results("lstm", {"rows": [old]})
    assert harness.merge_rows("lstm", [new]) == [old, new]
    assert harness.merge_rows("lstm", [page_row("sine", 3.0)]) == [page_row("sine", 3.0)]
    path = tmp_path / "lstm.json"
    content = json.loads(path.read_text())
    content["machine"]["processor"] = "another"
    path.write_text(json.dumps(content))
    assert harness.merge_rows("lstm", [new]) == [new]


@pytest.fixture
def emulated():
    if "emulated" not in lstmx.targets.supported():
        pytest.skip("the target emulated needs AVX-512: the errors of precisions were NOT measured")


@needs_torch
def test_errors_by_precision(emulated):
    found = precision.errors(precision.Size(6, 17, 9, 20))
    for name in precision.ARRAYS:
        largest = {side: quantiles[name][-1] for side, quantiles in found.items()}
        assert largest["PyTorch"] < 1e-4
        assert max(largest["highest"], largest["multiply-add"]) < 1e-5 < 1e-3 < largest["medium"] < 1
        assert 1e-6 < largest["high"] < 1e-3
        assert all(sorted(quantiles[name]) == quantiles[name] for quantiles in found.values())
    assert found["highest"] != found["multiply-add"]


def test_curves_by_precision(emulated, tmp_path):
    size = precision.Size(5, 3, 4, 16)
    made = precision.curves("to be or not to be, that is the question" * 3, 4, size)
    assert made["multiply-add"] != made["highest"] != made["high"] != made["medium"]
    for losses in made.values():
        np.testing.assert_allclose(losses, made["multiply-add"], rtol=0.01)
    text = precision.describe_curves(made, size)
    assert text.startswith(
        "4 steps of Adam on 3 windows of 5 characters; two layers of 16. The loss falls from"
    )


def test_figures_go_between_their_marks():
    page = precision.PAGE.read_text()
    for mark in ("summary", "errors", "curves"):
        page = precision.put(page, mark, f"the {mark}")
        assert f"<!-- {mark} -->\nthe {mark}\n<!-- end -->" in page
    assert page.count("<!-- end -->") == 3
    with pytest.raises(ValueError, match="expected one mark 'other', got 0"):
        precision.put(page, "other", "")
