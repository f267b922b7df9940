"""ONNX: exports equal ONNX Runtime, imports equal the graphs they come from, the rest is refused by name."""

from __future__ import annotations

import contextlib
import copy
import itertools
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import lstmx.onnx  # noqa: E402

TOLERANCE = 1e-5


def draw(rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def run(path: Path | bytes, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime makes of a file, by the names of the outputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = path if isinstance(path, bytes) else str(path)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def assert_equal(got: Any, expected: Any) -> None:
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def make_graph(nodes, inputs, outputs, constants, opset: int = 17):
    """A model of `inputs` {name: dims}; those called lengths are int32. Outputs are named only."""
    kinds = {"lengths": TensorProto.INT32}
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), dims)
            for n, dims in inputs.items()
        ],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * rank) for n, rank in outputs.items()],
        [numpy_helper.from_array(array, n) for n, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def lstm_weights(rng, width: int, hidden: int, directions: int = 1) -> dict[str, np.ndarray]:
    return {
        "W": draw(rng, directions, 4 * hidden, width),
        "R": draw(rng, directions, 4 * hidden, hidden),
        "B": draw(rng, directions, 8 * hidden),
    }


@pytest.fixture
def load(tmp_path):
    def load_proto(proto):
        onnx.save(proto, str(tmp_path / "graph.onnx"))
        return lstmx.onnx.import_model(tmp_path / "graph.onnx")

    return load_proto


# ---------------------------------------------------------------- out


def feeds_for(rng, model, path: Path, time: int = 5, batch: int = 4) -> dict[str, np.ndarray]:
    """Random inputs for an exported file; lengths with an empty and a full row."""
    sizes = {"T": time, "B": batch}
    feeds = {}
    for value in onnx.load(str(path)).graph.input:
        dims = [sizes.get(dim.dim_param, dim.dim_value) for dim in value.type.tensor_type.shape.dim]
        if value.name == "lengths":
            feeds["lengths"] = np.array([time, 0, *rng.integers(0, time + 1, batch - 2)], np.int32)
        else:
            feeds[value.name] = draw(rng, *dims)
    return feeds


@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "batch_first", "bias", "lengths", "state"),
    list(itertools.product([1, 2], *[[False, True]] * 5)),
)
def test_lstm_there_and_back(
    rng, tmp_path, num_layers, bidirectional, batch_first, bias, lengths, state
) -> None:
    model = lstmx.LSTM(3, 4, num_layers, bias, batch_first, bidirectional=bidirectional, rng=rng)
    path = tmp_path / "model.onnx"
    lstmx.onnx.export(model, path, lengths=lengths, state=state)
    onnx.checker.check_model(str(path), full_check=True)
    feeds = feeds_for(rng, model, path)
    results = run(path, feeds)
    initial = (feeds["h_0"], feeds["c_0"]) if state else None
    y, (h_n, c_n) = model(feeds["x"], initial, lengths=feeds.get("lengths"))
    assert list(results) == ["y", "h_n", "c_n"]
    for got, expected in zip(results.values(), (y, h_n, c_n), strict=True):
        assert got.shape == expected.shape
        assert_equal(got, expected)

    back = lstmx.onnx.import_model(path)
    assert len(back) == num_layers
    assert back.batch_first == batch_first
    if initial:
        initial = list(
            zip(*(np.split(part, num_layers) for part in initial), strict=True)
        )  # one pair a layer
    again, final = back(feeds["x"], initial, lengths=feeds.get("lengths"))
    assert_equal(again, y)
    assert_equal(np.concatenate([h for h, _ in final]), h_n)
    assert_equal(np.concatenate([c for _, c in final]), c_n)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_sequential_there_and_back(rng, tmp_path, lengths, bidirectional) -> None:
    wide, last = (12, 8) if bidirectional else (6, 4)
    model = lstmx.Sequential(
        lstmx.Linear(3, 5, rng=rng),
        lstmx.Sequential(
            lstmx.LSTM(5, 6, bidirectional=bidirectional, batch_first=True, rng=rng), lstmx.Dropout(0.5)
        ),
        lstmx.LSTM(wide, 4, batch_first=True, bidirectional=bidirectional, rng=rng),
        lstmx.Linear(last, 4, rng=rng),
        lstmx.LastStep(bidirectional=bidirectional),
        lstmx.Linear(4, 2, rng=rng),
    )
    path = tmp_path / "model.onnx"
    lstmx.onnx.export(model, path, lengths=lengths)
    feeds = feeds_for(rng, model, path)
    assert list(feeds) == ["x", *(["lengths"] if lengths else []), "1.0.h_0", "1.0.c_0", "2.h_0", "2.c_0"]
    results = run(path, feeds)
    states = [(feeds["1.0.h_0"], feeds["1.0.c_0"]), (feeds["2.h_0"], feeds["2.c_0"])]
    nested = (None, (states[0], None), states[1], None, None, None)
    y, final = model(feeds["x"], nested, lengths=feeds.get("lengths"))
    assert results["y"].shape == y.shape == (4, 2)
    assert_equal(results["y"], y)
    assert_equal(results["1.0.h_n"], final[1][0][0])
    assert_equal(results["2.c_n"], final[2][1])

    back = lstmx.onnx.import_model(path)
    assert [type(layer).__name__ for layer in back] == [
        "Linear",
        "LSTM",
        "LSTM",
        "Linear",
        "LastStep",
        "Linear",
    ]
    assert back[4].bidirectional == bidirectional
    again, _ = back(feeds["x"], (None, *states, None, None, None), lengths=feeds.get("lengths"))
    assert_equal(again, y)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lstmx.Linear(3, 2, rng=1), (4, 3)),
        (lstmx.Linear(3, 2, bias=False, rng=1), (4, 3)),
        (lstmx.Activation("leaky_relu", 0.3), (4, 3)),
        (lstmx.Softmax(), (4, 3)),
        (lstmx.Dropout(0.5), (4, 3)),
        (lstmx.LastStep(), (4, 5, 3)),
        (lstmx.LastStep(bidirectional=True), (4, 5, 6)),
    ],
    ids=repr,
)
def test_layer_alone(rng, tmp_path, model, shape) -> None:
    lstmx.onnx.export(model, tmp_path / "model.onnx")
    x = draw(rng, *shape)
    results = run(tmp_path / "model.onnx", {"x": x})
    assert list(results) == ["y"]
    assert_equal(results["y"], model(x)[0])


@pytest.mark.parametrize("lengths", [False, True])
def test_a_sum_of_directions(rng, tmp_path, lengths) -> None:
    options = {"bidirectional": True, "merge": "sum", "batch_first": True, "weight_dropout": 0.5}
    model = lstmx.LSTM(3, 4, 2, **options, rng=rng)
    lstmx.onnx.export(model, tmp_path / "model.onnx", lengths=lengths, state=False)
    feeds = {"x": draw(rng, 4, 5, 3)} | ({"lengths": np.array([5, 1, 3, 2], np.int32)} if lengths else {})
    results = run(tmp_path / "model.onnx", feeds)
    y, (h_n, c_n) = model(**feeds)
    assert_equal(results["y"], y)
    assert_equal(results["h_n"], h_n)
    assert_equal(results["c_n"], c_n)


CELLS = [
    (lstmx.LSTM, {"peephole": True}),
    (lstmx.LSTM, {"peephole": True, "num_layers": 2, "bidirectional": True}),
    (lstmx.LSTM, {"coupled": True, "gate_clip": 0.4}),
    (lstmx.LSTM, {"num_layers": 3, "bidirectional": True, "merge": "sum"}),
    (lstmx.LSTM, {"reverse": True, "num_layers": 2, "batch_first": True}),
    (lstmx.LSTM, {"activations": ["hard_sigmoid", "relu", "softsign"]}),
    (lstmx.LSTM, {"activations": ["sigmoid", "relu", "tanh"]}),
    (
        lstmx.LSTM,
        {
            "activations": [("hard_sigmoid", 1 / 6, 0.4), ("scaled_tanh", 1.7, 0.6), ("leaky_relu", 0.3)],
            "bidirectional": True,
            "peephole": True,
            "recurrent_dropout": 0.5,
        },
    ),
    (lstmx.GRU, {}),
    (lstmx.GRU, {"bias": False, "batch_first": True, "reverse": True}),
    (lstmx.GRU, {"num_layers": 2, "bidirectional": True, "recurrent_dropout": 0.5}),
    (lstmx.GRU, {"bidirectional": True, "merge": "sum", "batch_first": True}),
    (lstmx.RNN, {}),
    (lstmx.RNN, {"nonlinearity": "relu", "bias": False, "batch_first": True, "reverse": True}),
    (lstmx.RNN, {"nonlinearity": "relu", "num_layers": 2, "bidirectional": True}),
    (lstmx.RNN, {"bidirectional": True, "merge": "sum", "batch_first": True}),
]


@pytest.mark.parametrize(("lengths", "state"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize(("kind", "options"), CELLS, ids=str)
def test_other_cells(rng, tmp_path, kind, options, lengths, state) -> None:
    layer = kind(3, 4, **options, rng=rng)
    scale = 0.4 if "nonlinearity" in options else 1.0  # through relu, h would grow with every step
    with layer.editing() as params:
        for view in params.values():
            view[...] = scale * draw(rng, *view.shape)
    path = tmp_path / "model.onnx"
    lstmx.onnx.export(layer, path, lengths=lengths, state=state)
    onnx.checker.check_model(str(path), full_check=True)
    feeds = feeds_for(rng, layer, path)
    initial = (feeds.get("h_0"), feeds.get("c_0")) if kind is lstmx.LSTM else feeds.get("h_0")
    y, final = layer(feeds["x"], initial if state else None, lengths=feeds.get("lengths"))
    results = run(path, feeds)
    outputs = (y, *final) if kind is lstmx.LSTM else (y, final)
    assert list(results) == ["y", "h_n", "c_n"][: len(outputs)]
    for got, expected in zip(results.values(), outputs, strict=True):
        assert_equal(got, expected)

    back = lstmx.onnx.import_model(path)
    names = ("bias", "batch_first", "bidirectional", "reverse", "merge")
    names += {
        lstmx.LSTM: ("peephole", "coupled", "gate_clip"),
        lstmx.GRU: (),
        lstmx.RNN: ("nonlinearity",),
    }[kind]
    for name in names:
        assert {getattr(part, name) for part in back} == {getattr(layer, name)}
    states = None
    if state:
        parts = [np.split(feeds[name], layer.num_layers) for name in ("h_0", "c_0")[: len(outputs) - 1]]
        states = [*zip(*parts, strict=True)] if kind is lstmx.LSTM else parts[0]
    again, finals = back(feeds["x"], states, lengths=feeds.get("lengths"))
    assert np.array_equal(again, y)  # the same bits
    finals = [*zip(*finals, strict=True)] if kind is lstmx.LSTM else [finals]
    for parts, expected in zip(finals, outputs[1:], strict=True):
        assert np.array_equal(np.concatenate(parts), expected)


FUNCTIONS = {  # with parameters that they take
    "sigmoid": {}, "tanh": {}, "relu": {}, "softsign": {}, "softplus": {}, "elu": {"alpha": 0.3},
    "leaky_relu": {"alpha": 0.2}, "thresholded_relu": {"alpha": 0.1},
    "hard_sigmoid": {"alpha": 0.3, "beta": 0.4},
}  # fmt: skip


@pytest.mark.parametrize("own", [False, True], ids=["usual", "own"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_there_and_back(rng, tmp_path, name, own) -> None:
    """Each behind a Linear, an LSTM and a LastStep, with rows of unequal length."""
    function = lstmx.Activation(name, **(FUNCTIONS[name] if own else {}))
    model = lstmx.Sequential(
        lstmx.Linear(3, 5, rng=rng),
        copy.copy(function),
        lstmx.LSTM(5, 4, batch_first=True, bidirectional=True, rng=rng),
        copy.copy(function),
        lstmx.LastStep(bidirectional=True),
        function,
        lstmx.Linear(8, 3, rng=rng),
        lstmx.Softmax(),
    )
    path = tmp_path / "model.onnx"
    lstmx.onnx.export(model, path, lengths=True, state=False)
    onnx.checker.check_model(str(path), full_check=True)
    feeds = feeds_for(rng, model, path)
    y, _ = model(feeds["x"], lengths=feeds["lengths"])
    assert_equal(run(path, feeds)["y"], y)
    back = lstmx.onnx.import_model(path)
    assert repr(back) == repr(model)
    assert np.array_equal(back(feeds["x"], lengths=feeds["lengths"])[0], y)


def test_a_folded_batch_norm(rng, tmp_path) -> None:
    model = lstmx.Sequential(
        lstmx.BatchNorm(3), lstmx.RNN(3, 4, rng=0), lstmx.BatchNorm(4), lstmx.Linear(4, 2)
    )
    model.forward(2 + 3 * draw(rng, 6, 4, 3))  # moves the running statistics
    path = tmp_path / "model.onnx"
    with pytest.raises(TypeError, match=r"model\[0\]: .*, got BatchNorm"):
        lstmx.onnx.export(model, path)
    lstmx.onnx.export(lstmx.fold_batch_norm(model, lengths=False), path, state=False)
    x = 2 + 3 * draw(rng, 6, 4, 3)
    assert_equal(run(path, {"x": x})["y"], model(x)[0])


def test_batch_and_time_stay_open(tmp_path) -> None:
    lstmx.onnx.export(lstmx.LSTM(3, 4, batch_first=True), tmp_path / "model.onnx", lengths=True)
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    dims = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    assert dims == {
        "x": ["B", "T", 3],
        "lengths": ["B"],
        "h_0": [1, "B", 4],
        "c_0": [1, "B", 4],
        "y": ["B", "T", 4],
        "h_n": [1, "B", 4],
        "c_n": [1, "B", 4],
    }


def test_export_refuses(tmp_path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(TypeError, match="model: expected an lstmx layer, got str"):
        lstmx.onnx.export("model", path)
    with pytest.raises(ValueError, match=r"lengths: expected False \(the model reads no time\), got True"):
        lstmx.onnx.export(lstmx.Linear(1, 1), path, lengths=True)
    with pytest.raises(ValueError, match="model: expected dtype float32, got float64"):
        lstmx.onnx.export(lstmx.Linear(1, 1, dtype="float64"), tmp_path / "no.onnx")
    with pytest.raises(TypeError, match="state: expected True or False, got 1"):
        lstmx.onnx.export(lstmx.LSTM(1, 1), path, state=1)
    twice = lstmx.Sequential(lstmx.LastStep(), lstmx.Sequential(lstmx.LSTM(1, 1, batch_first=True)))
    with pytest.raises(ValueError, match=r"model\[1\]\[0\]: expected no layer that reads time after LastSt"):
        lstmx.onnx.export(twice, path)

    for options, message in (
        ({"hidden_size": [4, 5]}, r"expected one hidden_size for all layers, got \[4, 5\]"),
        ({"hidden_size": [4, 4], "connection": "residual"}, "expected an LSTM with connection=None"),
        ({"hidden_size": 4, "learn_initial_state": True}, "an LSTM with learn_initial_state=False, got True"),
        ({"hidden_size": 4, "proj_size": 2}, "an LSTM with proj_size=0, got 2"),
        ({"hidden_size": 4, "cell_clip": 2.0}, "an LSTM with cell_clip=None, got 2.0"),
        ({"hidden_size": 4, "zoneout": (0.0, 0.5)}, r"an LSTM with zoneout=0.0, got \(0.0, 0.5\)"),
    ):
        with pytest.raises(ValueError, match=rf"model\[0\]: .*{message}"):
            lstmx.onnx.export(lstmx.Sequential(lstmx.LSTM(1, **options)), path)
    with pytest.raises(ValueError, match=r"model: expected a GRU with zoneout=0\.0, got 0\.5"):
        lstmx.onnx.export(lstmx.GRU(1, 4, zoneout=0.5), path)
    functions = "sigmoid, tanh, relu, .*, softplus"
    for layer in (lstmx.Activation("affine"), lstmx.Activation("scaled_tanh", 1.7)):
        with pytest.raises(ValueError, match=rf"model\[0\]: expected one of {functions}, got Activation\("):
            lstmx.onnx.export(lstmx.Sequential(layer), path)
    with pytest.raises(ValueError, match=r"model: expected an RNN with connection=None, got 'residual'"):
        lstmx.onnx.export(lstmx.RNN(1, [4, 4], connection="residual"), path)

    own_type = type("Own", (lstmx.Module,), dict.fromkeys(lstmx.Module.__abstractmethods__))
    with pytest.raises(TypeError, match=r"model: expected LSTM, GRU, RNN, .* or Sequential, got Own"):
        lstmx.onnx.export(own_type(), path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        lstmx.onnx.export(lstmx.Linear(1, 1), tmp_path / "nowhere" / "model.onnx")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_imported_on_demand_only() -> None:
    code = """
        import sys, lstmx
        lstmx.LSTM(1, 1)
        assert "onnx" not in sys.modules
        assert not hasattr(lstmx, "nothing") and "onnx" not in sys.modules
        assert callable(lstmx.onnx.export) and "onnx" in sys.modules
    """
    run_python(code)
    run_python("""
        import sys
        sys.modules["onnx"] = None
        try:
            import lstmx.onnx
        except ImportError as error:
            assert "pip install '.[onnx]'" in str(error), error
        else:
            raise AssertionError
    """)


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


# ---------------------------------------------------------------- in


def node_cases() -> dict[str, Any]:
    """Those of recurrent operators in the tests that onnx carries for who implements the standard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = {case.name: case for case in collect_testcases(None)}
    return {name: case for name, case in cases.items() if case.model.graph.node[0].op_type in CELL_TYPES}


CELL_TYPES = ("LSTM", "GRU", "RNN")
NODE_CASES = node_cases()


def test_all_node_cases_are_there() -> None:
    kinds = [case.model.graph.node[0].op_type for case in NODE_CASES.values()]
    assert [kinds.count(kind) for kind in CELL_TYPES] == [6, 6, 6]


@pytest.mark.parametrize("inputs_as", ["inputs", "constants"])
@pytest.mark.parametrize("name", NODE_CASES)
def test_node_cases_of_onnx(name, inputs_as, load) -> None:
    """With lengths and initial states as the graph's inputs, and with all but X as constants."""
    case = NODE_CASES[name]
    ((inputs, outputs),) = case.data_sets
    proto = onnx.ModelProto.FromString(case.model.SerializeToString())
    graph = proto.graph
    given = dict(zip((value.name for value in graph.input), inputs, strict=True))
    calls = ("X", "sequence_lens", "initial_h", "initial_c") if inputs_as == "inputs" else ("X",)
    kept = [value for value in graph.input if value.name in calls]
    del graph.input[:]
    graph.input.extend(kept)
    weights = {name: array for name, array in given.items() if name not in calls}
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    if "_gru_" in name:  # all of them
        with pytest.raises(
            ValueError, match=r"node GRU .*: linear_before_reset: expected 1, got 0 by defaul"
        ):
            load(proto)
        return
    state = None
    if inputs_as == "inputs" and "initial_h" in given:
        state = [(given["initial_h"], given["initial_c"])]  # an LSTM's
    lengths = given.get("sequence_lens") if inputs_as == "inputs" else None
    y, (final,) = load(proto)(given["X"], state, lengths=lengths)
    h_n, c_n = final if isinstance(final, tuple) else (final, None)
    results = {"Y": y[:, :, np.newaxis], "Y_h": h_n, "Y_c": c_n}  # Y is wanted of layout=1 only
    if name.endswith("_batchwise"):
        results["Y_h"] = h_n.swapaxes(0, 1)
    for value, expected in zip(graph.output, outputs, strict=True):
        assert_equal(results[value.name], expected)


ACTIVATIONS = {
    "Sigmoid": (), "Tanh": (), "Relu": (), "Softsign": (), "Softplus": (), "HardSigmoid": (0.3, 0.4),
    "Affine": (0.7, 0.1), "ScaledTanh": (0.9, 0.8), "LeakyRelu": (0.2,), "Elu": (0.6,),
    "ThresholdedRelu": (0.3,),
}  # fmt: skip


def random_activations(rng, directions: int, clipped: bool) -> dict[str, Any]:
    """Gates without bounds, through which h would grow beyond all of them, only where they are clipped."""
    gates = list(ACTIVATIONS) if clipped else ["Sigmoid", "Tanh", "Softsign", "HardSigmoid", "ScaledTanh"]
    names = [str(rng.choice(gates)), *map(str, rng.choice(list(ACTIVATIONS), 2))] * directions
    alphas = [ACTIVATIONS[name][0] for name in names if len(ACTIVATIONS[name]) > 0]
    betas = [ACTIVATIONS[name][1] for name in names if len(ACTIVATIONS[name]) > 1]
    parts = {"activation_alpha": alphas, "activation_beta": betas}
    return {"activations": names} | {part: values for part, values in parts.items() if values}


@pytest.mark.parametrize("number", range(300))
def test_random_nodes(rng, load, number) -> None:
    """All that a node can have, 200 LSTM, 50 GRU and 50 RNN, against ONNX Runtime."""
    kind = "LSTM" if number < 200 else "GRU" if number < 250 else "RNN"
    time, batch, width, hidden = (int(rng.integers(*ends)) for ends in ((1, 6), (2, 6), (1, 9), (1, 20)))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    directions, layout = 2 if direction == "bidirectional" else 1, int(rng.integers(0, 2))
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    weights = {
        "W": 0.5 * draw(rng, directions, gates * hidden, width),
        "R": 0.3 * draw(rng, directions, gates * hidden, hidden),
        "B": 0.5 * draw(rng, directions, 2 * gates * hidden),
    }

    def maybe() -> bool:
        return rng.random() < 0.5

    states = ("h_0", "c_0") if kind == "LSTM" else ("h_0",)
    feeds = {"x": draw(rng, time, batch, width)}
    if has_lengths := maybe():
        feeds["lengths"] = rng.integers(0, time + 1, batch).astype(np.int32)
    if has_state := maybe():
        feeds |= {name: draw(rng, directions, batch, hidden) for name in states}
    reads = ["x", "W", "R", "B" if maybe() else "", "lengths" if has_lengths else ""]
    reads += [name if has_state else "" for name in states]
    attributes: dict[str, Any] = {"direction": direction, "hidden_size": hidden}
    if kind == "GRU":
        attributes |= {"linear_before_reset": 1}
        attributes |= {"activations": ["Sigmoid", "tanh"] * directions} if maybe() else {}
    elif kind == "RNN":
        attributes |= {"activations": [str(rng.choice(["Tanh", "Relu"]))] * directions} if maybe() else {}
    else:
        if maybe():
            weights["P"] = draw(rng, directions, 3 * hidden)
            reads.append("P")
        attributes |= {"clip": float(rng.uniform(0.1, 2.0))} if maybe() else {}
        attributes |= random_activations(rng, directions, "clip" in attributes) if maybe() else {}
        attributes |= {"input_forget": 1} if maybe() else {}
    weights = {name: array for name, array in weights.items() if name in reads}
    outputs = dict(zip(("Y", "Y_h", "Y_c"), (4, 3, 3)[: 1 + len(states)], strict=False))

    def graph(layout: int):
        node = helper.make_node(kind, reads, list(outputs), layout=layout, **attributes)
        inputs = {name: [None] * array.ndim for name, array in feeds.items()}
        return make_graph([node], inputs, outputs, weights)

    expected = run(graph(0).SerializeToString(), feeds)  # ONNX Runtime has layout=0 only
    model = load(graph(layout))
    assert model.batch_first == (layout == 1)
    x = feeds["x"].swapaxes(0, 1) if layout else feeds["x"]
    initial = [feeds[name] for name in states] if has_state else None
    if initial is not None:
        initial = [tuple(initial)] if kind == "LSTM" else initial
    y, (final,) = model(x, initial, lengths=feeds.get("lengths"))
    y = y.swapaxes(0, 1) if layout else y
    scale = max(1.0, np.absolute(expected["Y"]).max())  # without bounds, h may grow
    assert_equal(y / scale, expected["Y"].swapaxes(1, 2).reshape(y.shape) / scale)
    for k, (name, got) in enumerate(zip(states, final if kind == "LSTM" else [final], strict=True)):
        wanted = expected[("Y_h", "Y_c")[k]]
        if has_lengths:  # of a row without steps ONNX Runtime makes zeros, the layer here its initial state
            empty = feeds["lengths"] == 0
            assert not wanted[:, empty].any()
            wanted[:, empty] = feeds[name][:, empty] if has_state else 0.0
        scale = max(1.0, np.absolute(wanted).max())
        assert_equal(got / scale, wanted / scale)


RANGES: dict[str, dict[str, tuple[float, float]]] = {  # of what their nodes may have
    "Relu": {}, "Sigmoid": {}, "Tanh": {}, "Softsign": {}, "Softplus": {}, "Softmax": {},
    "Elu": {"alpha": (0, 2)}, "LeakyRelu": {"alpha": (0, 1)}, "ThresholdedRelu": {"alpha": (0, 1)},
    "HardSigmoid": {"alpha": (0.05, 1), "beta": (-0.5, 0.8)},
}  # fmt: skip


@pytest.mark.parametrize("number", range(60))
def test_random_graphs_with_activations(rng, load, number) -> None:
    """LSTM, GRU, RNN and MatMul in a row, with activations anywhere around them, against ONNX Runtime."""
    time, batch, width = int(rng.integers(1, 6)), int(rng.integers(2, 6)), int(rng.integers(1, 7))
    x = draw(rng, time, batch, width)
    nodes, layers, constants = [], [], {"one": ints(1), "turned": ints(0, 0, -1)}

    def add(kind: str, *reads: str, **attributes: Any) -> None:
        value = nodes[-1].output[0] if nodes else "x"
        nodes.append(helper.make_node(kind, [value, *reads], [f"value {len(nodes)}"], **attributes))

    def constant(*shape: int) -> str:
        name = f"constant {len(constants)}"
        constants[name] = 0.5 * draw(rng, *shape)
        return name

    def add_functions(last: int, *, softmax: bool = True) -> None:
        """Up to two, each with some of its attributes; `last` is the index of the last axis."""
        for _ in range(rng.integers(0, 3)):
            kind = str(rng.choice([name for name in RANGES if softmax or name != "Softmax"]))
            given = {part: float(rng.uniform(*r)) for part, r in RANGES[kind].items() if rng.random() < 0.5}
            if kind == "Softmax" and rng.random() < 0.5:
                given["axis"] = int(rng.choice([-1, last]))
            add(kind, **given)
            layers.append("Softmax" if kind == "Softmax" else "Activation")

    add_functions(2)
    for _ in range(rng.integers(1, 4)):
        hidden = int(rng.integers(1, 8))
        kind = str(rng.choice(["LSTM", "GRU", "RNN", "MatMul"]))
        layers.append("Linear" if kind == "MatMul" else kind)
        if kind == "MatMul":
            add("MatMul", constant(width, hidden))
            if rng.random() < 0.5:
                add("Add", constant(hidden))
        else:
            both = int(rng.integers(1, 3))
            gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] * hidden
            shapes = (both, gates, width), (both, gates, hidden), (both, 2 * gates)
            extra = {"linear_before_reset": 1} if kind == "GRU" else {}
            extra |= {"direction": "bidirectional"} if both == 2 else {}
            add(kind, *[constant(*shape) for shape in shapes], hidden_size=hidden, **extra)
            add_functions(3, softmax=both == 1)
            if both == 2:
                add("Transpose", perm=[0, 2, 1, 3])
                add_functions(3, softmax=False)
                add("Reshape", "turned")
                hidden *= 2
            else:
                add("Squeeze", "one")
        width = hidden
        add_functions(2)
    nodes.append(helper.make_node("Identity", [nodes[-1].output[0]], ["out"]))
    proto = make_graph(nodes, {"x": ["T", "B", x.shape[2]]}, {"out": 3}, constants)
    model = load(proto)
    assert [type(layer).__name__ for layer in model] == layers
    assert_equal(model(x)[0], run(proto.SerializeToString(), {"x": x})["out"])


@pytest.mark.parametrize("squeezed", ["before", "after"])
def test_activation_of_the_final_h(rng, load, squeezed) -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["turned", "W", "R", "B"], ["Y", "Y_h"], hidden_size=5),
        helper.make_node("Squeeze", ["Y_h", "zero"], ["h"]),
        helper.make_node("Tanh", ["h"], ["hidden"]),
        helper.make_node("Softmax", ["hidden"], ["out"], axis=1),
    ]
    if squeezed == "after":
        nodes[2:4] = [
            helper.make_node("Tanh", ["Y_h"], ["h"]),
            helper.make_node("Squeeze", ["h", "zero"], ["hidden"]),
        ]
    constants = lstm_weights(rng, 3, 5) | {"zero": ints(0)}
    proto = make_graph(nodes, {"x": ["B", "T", 3]}, {"out": 2}, constants)
    model = load(proto)
    assert (
        repr(model) == "Sequential(LSTM(3, 5, batch_first=True), LastStep(), Activation('tanh'), Softmax())"
    )
    x = draw(rng, 4, 6, 3)
    assert_equal(model(x)[0], run(proto.SerializeToString(), {"x": x})["out"])


@pytest.mark.parametrize(("opset", "axis"), [(11, 2), (11, -1), (13, None), (17, 2)])
def test_softmax_in_all_versions(rng, load, opset, axis) -> None:
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Softmax", ["y"], ["out"], **attributes),
    ]
    proto = make_graph(nodes, {"x": ["B", "T", 3]}, {"out": 3}, {"w": draw(rng, 3, 4)}, opset)
    x = draw(rng, 2, 5, 3)
    assert_equal(load(proto)(x)[0], run(proto.SerializeToString(), {"x": x})["out"])


TORCH_MODELS = {
    "all steps": (lambda y, h: y, {}),
    "all steps, both directions": (lambda y, h: y, {"bidirectional": True}),
    "time first": (lambda y, h: y, {"batch_first": False}),
    "last step": (lambda y, h: y[:, -1], {}),
    "last step kept": (lambda y, h: y[:, -1:].reshape(-1, 4), {}),
    "last step, both directions": (lambda y, h: y[:, -1, :], {"bidirectional": True}),
    "last h": (lambda y, h: h[-1], {}),
    "h of the only layer": (lambda y, h: h.squeeze(0), {"num_layers": 1}),
    "h of both directions": (
        lambda y, h: __import__("torch").cat((h[-2], h[-1]), 1),
        {"bidirectional": True},
    ),
    "activation of all steps, softmax": (
        lambda y, h: __import__("torch").nn.functional.leaky_relu(y, 0.2).softmax(-1),
        {"bidirectional": True},
    ),
    "activation of the last step": (lambda y, h: y[:, -1].relu(), {}),
    "activation of the last h": (lambda y, h: __import__("torch").nn.functional.elu(h[-1], 0.5), {}),
    "h of both directions, one layer": (
        lambda y, h: h.transpose(0, 1).reshape(-1, 8),
        {"bidirectional": True, "num_layers": 1},
    ),
}


@pytest.mark.filterwarnings("ignore")  # of the exporters
@pytest.mark.parametrize("state", [False, True], ids=["zeros", "state"])
@pytest.mark.parametrize("name", TORCH_MODELS)
@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
def test_graphs_of_pytorch(rng, tmp_path, dynamo, name, state) -> None:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    reduce, options = TORCH_MODELS[name]
    options = {"num_layers": 2, "batch_first": True} | options

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 4, **options)
            self.drop = torch.nn.Dropout(0.1)
            self.linear = torch.nn.Linear(8 if options.get("bidirectional") else 4, 2)

        def forward(self, x, h_0=None, c_0=None):
            y, (h_n, c_n) = self.lstm(x, None if h_0 is None else (h_0, c_0))
            return self.linear(self.drop(reduce(y, h_n))), h_n, c_n

    torch.manual_seed(int(rng.integers(1 << 30)))
    net = Net().eval()
    count, directions = options["num_layers"], 2 if options.get("bidirectional") else 1
    time, batch = 5, 3
    x = draw(rng, batch, time, 3) if options["batch_first"] else draw(rng, time, batch, 3)
    initial = [draw(rng, count * directions, batch, 4) for _ in range(2)] if state else []
    if dynamo:
        initial = initial[:1] * 2  # the newer exporter, as of PyTorch 2.13, writes c_0 in h_0's place
    arguments = tuple(map(torch.from_numpy, (x, *initial)))
    path = tmp_path / "net.onnx"
    names = ["x", "h_0", "c_0"][: len(arguments)]
    axes = {"x": {0: "d0", 1: "d1"}, "h_0": {1: "B"}, "c_0": {1: "B"}}
    open_axes = {} if dynamo else {"dynamic_axes": {key: axes[key] for key in names}}
    torch.onnx.export(net, arguments, str(path), input_names=names, dynamo=dynamo, verbose=False, **open_axes)

    model = lstmx.onnx.import_model(path)
    assert model.batch_first == options["batch_first"]
    states = None
    if state:
        states = [*zip(*(np.split(part, count) for part in initial), strict=True)]
        states += [None] * (len(model) - count)
    y, final = model(x, states)
    with torch.no_grad():
        expected, h_n, c_n = net(*arguments)
    assert y.shape == expected.shape
    assert_equal(y, expected)
    assert_equal(np.concatenate([item[0] for item in final[:count]]), h_n)
    assert_equal(np.concatenate([item[1] for item in final[:count]]), c_n)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("return_sequences", [False, True])
def test_graph_of_keras(rng, load, return_sequences) -> None:
    """As tf2onnx writes `LSTM(5)`, then `Dense(2)`: zeros as many as rows, Dense over merged axes."""
    constants = lstm_weights(rng, 3, 5) | {
        "zero": np.zeros(1, np.float32), "kernel": draw(rng, 5, 2), "dense_bias": draw(rng, 2),
        "first": ints(0), "second": ints(1), "one": ints(1), "two": ints(2), "units": ints(5),
        "merged": ints(-1, 5),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["x_shape"]),
        node("Cast", ["x_shape"], ["x_cast"], to=TensorProto.INT32),
        node("Slice", ["x_cast", "first", "second", "first"], ["batch"]),
        node("Cast", ["batch"], ["batch_64"], to=TensorProto.INT64),
        node("Concat", ["one", "batch_64", "units"], ["state_shape"], axis=0),
        node("Expand", ["zero", "state_shape"], ["state"]),
        node("Transpose", ["x"], ["x_time_first"], perm=[1, 0, 2]),
        node("LSTM", ["x_time_first", "W", "R", "B", "", "state", "state"], ["Y", "Y_h"], hidden_size=5,
             activations=["Sigmoid", "Tanh", "Tanh"]),
    ]  # fmt: skip
    if return_sequences:
        nodes += [
            node("Squeeze", ["Y", "one"], ["y_time_first"]),
            node("Transpose", ["y_time_first"], ["y_lstm"], perm=[1, 0, 2]),
            node("Shape", ["y_lstm"], ["y_shape"]),
            node("Slice", ["y_shape", "first", "two"], ["front"]),
            node("Concat", ["front", "two"], ["dense_shape"], axis=0),
            node("Reshape", ["y_lstm", "merged"], ["rows"]),
            node("MatMul", ["rows", "kernel"], ["product"]),
            node("Reshape", ["product", "dense_shape"], ["unmerged"]),
            node("Add", ["unmerged", "dense_bias"], ["y"]),
        ]
    else:
        nodes += [
            node("Squeeze", ["Y_h", "first"], ["h"]),
            node("Gemm", ["h", "kernel", "dense_bias"], ["y"]),
        ]
    proto = make_graph(nodes, {"x": ["B", "T", 3]}, {"y": 3 if return_sequences else 2}, constants)
    x = draw(rng, 4, 6, 3)
    model = load(proto)
    assert [type(layer).__name__ for layer in model] == (
        ["LSTM", "Linear"] if return_sequences else ["LSTM", "LastStep", "Linear"]
    )
    y, _ = model(x)
    expected = run(proto.SerializeToString(), {"x": x})["y"]
    assert y.shape == expected.shape
    assert_equal(y, expected)


@pytest.mark.parametrize("by", ["Slice", "Split"])
def test_directions_apart_and_joined(rng, load, by) -> None:
    """As tf2onnx writes `Bidirectional`; joined the other way round it is no layer here."""
    node = helper.make_node
    constants = lstm_weights(rng, 3, 5, 2) | {
        "i0": ints(0),
        "i1": ints(1),
        "i2": ints(2),
        "w": draw(rng, 10, 2),
    }
    apart = [node("Split", ["Y"], ["one", "other"], axis=1)]
    if by == "Slice":
        apart = [
            node("Slice", ["Y", "i0", "i1", "i1"], ["one"]),
            node("Slice", ["Y", "i1", "i2", "i1"], ["other"]),
        ]

    def graph(*order: str):
        nodes = [
            node("LSTM", ["x", "W", "R", "B"], ["Y"], hidden_size=5, direction="bidirectional"),
            *apart,
            node("Squeeze", ["one", "i1"], ["forward"]),
            node("Squeeze", ["other", "i1"], ["backward"]),
            node("Concat", order, ["both"], axis=-1),
            node("MatMul", ["both", "w"], ["y"]),
        ]
        return make_graph(nodes, {"x": ["T", "B", 3]}, {"y": 3}, constants, opset=13)

    x = draw(rng, 6, 4, 3)
    proto = graph("forward", "backward")
    y, _ = load(proto)(x)
    assert_equal(y, run(proto.SerializeToString(), {"x": x})["y"])
    with pytest.raises(ValueError, match="node Concat 'both'"):
        load(graph("backward", "forward"))


@pytest.mark.parametrize("by", ["Split", "Slice", "Gather", "Transpose"])
def test_h_of_both_directions(rng, load, by) -> None:
    """As in Keras's `Bidirectional(LSTM(5))`: a `LastStep` of both directions; other orders are refused."""
    node = helper.make_node
    constants = lstm_weights(rng, 3, 5, 2) | {
        "i0": ints(0), "i1": ints(1), "i2": ints(2), "w": draw(rng, 10, 2), "wide": ints(-1, 10),
        "first": np.array(0), "second": np.array(-1),
    }  # fmt: skip
    squeeze = [node("Squeeze", ["one", "i0"], ["f"]), node("Squeeze", ["other", "i0"], ["b"])]
    apart = {
        "Split": [node("Split", ["h"], ["one", "other"], axis=0), *squeeze],
        "Slice": [
            node("Slice", ["h", "i0", "i1", "i0"], ["one"]),
            node("Slice", ["h", "i1", "i2", "i0"], ["other"]),
            *squeeze,
        ],
        "Gather": [node("Gather", ["h", "first"], ["f"]), node("Gather", ["h", "second"], ["b"])],
        "Transpose": [node("Transpose", ["h"], ["turned"], perm=[1, 0, 2])],
    }

    def graph(*order: str, dense: bool = True):
        both = node("Concat", order, ["both"], axis=1)
        if by == "Transpose":
            both = node("Reshape", ["turned", "wide"], ["both"])
        nodes = [
            node("Transpose", ["x"], ["x_time_first"], perm=[1, 0, 2]),
            node(
                "LSTM", ["x_time_first", "W", "R", "B"], ["", "h"], direction="bidirectional", hidden_size=5
            ),
            *apart[by],
            both,
            *([node("MatMul", ["both", "w"], ["y"])] if dense else []),
        ]
        return make_graph(nodes, {"x": ["B", "T", 3]}, {"y" if dense else "both": 2}, constants)

    x = draw(rng, 4, 6, 3)
    for dense in (True, False):
        proto = graph("f", "b", dense=dense)
        model = load(proto)
        assert model[1].bidirectional
        (expected,) = run(proto.SerializeToString(), {"x": x}).values()
        assert_equal(model(x)[0], expected)
    if by != "Transpose":
        for order in (("b", "f"), ("f", "f"), ("f",)):
            with pytest.raises(ValueError, match=r"node (MatMul 'y'|Concat 'both'): expected "):
                load(graph(*order))


@pytest.mark.parametrize("by", ["ReduceSum", "Add"])
def test_sum_of_directions(rng, load, by) -> None:
    node = helper.make_node
    constants = lstm_weights(rng, 3, 5, 2) | {"i1": ints(1), "w": draw(rng, 5, 2)}
    parts = {
        "ReduceSum": [node("ReduceSum", ["Y", "i1"], ["sum"], keepdims=0)],
        "Add": [
            node("Split", ["Y"], ["one", "other"], axis=1),
            node("Squeeze", ["one", "i1"], ["forward"]),
            node("Squeeze", ["other", "i1"], ["backward"]),
            node("Add", ["backward", "forward"], ["sum"]),
        ],
    }
    lstm = node("LSTM", ["x", "W", "R", "B"], ["Y", "Y_h"], hidden_size=5, direction="bidirectional")
    proto = make_graph(
        [lstm, *parts[by], node("MatMul", ["sum", "w"], ["y"])],
        {"x": ["T", "B", 3]},
        {"y": 3, "Y_h": 3},
        constants,
    )
    x = draw(rng, 6, 4, 3)
    model = load(proto)
    assert model[0].merge == "sum"
    expected = run(proto.SerializeToString(), {"x": x})
    y, ((h_n, _), _) = model(x)
    assert_equal(y, expected["y"])
    assert_equal(h_n, expected["Y_h"])


def test_refuses_functions_of_one_direction_or_before_their_sum(rng, load) -> None:
    node = helper.make_node
    split = node("Split", ["Y"], ["one", "other"], axis=1)
    cases = {
        "node Relu 'y': expected all features, got y .axis 0, 1, axis 1, forward.": [
            split,
            node("Relu", ["one"], ["y"]),
        ],
        "node Softmax 'y': expected a sum over all features, got axis -1": [node("Softmax", ["Y"], ["y"])],
        "node ReduceSum 'y': expected the directions that a layer has just returned, got other data": [
            node("Relu", ["Y"], ["positive"]),
            node("ReduceSum", ["positive", "i1"], ["y"]),
        ],
        "node Add 'y': expected the directions that a layer has just returned, got other data": [
            node("Relu", ["Y"], ["positive"]),
            node("Split", ["positive"], ["one", "other"], axis=1),
            node("Add", ["one", "other"], ["y"]),
        ],
    }
    for message, nodes in cases.items():
        lstm = node("LSTM", ["x", "W", "R", "B"], ["Y"], direction="bidirectional", hidden_size=5)
        constants = lstm_weights(rng, 3, 5, 2) | {"i1": ints(1)}
        proto = make_graph([lstm, *nodes], {"x": ["T", "B", 3]}, {"y": 4}, constants, opset=13)
        with pytest.raises(ValueError, match=message):
            load(proto)


def test_h_alone_is_the_answer(rng, load) -> None:
    """A batch-first graph that gives h without its axis of directions: the model's y."""
    node = helper.make_node
    nodes = [
        node("LSTM", ["x", "W", "R", "B"], ["", "Y_h"], layout=1),
        node("Squeeze", ["Y_h", "one"], ["h"]),
    ]
    model = load(
        make_graph(nodes, {"x": ["B", "T", 3]}, {"h": 2}, lstm_weights(rng, 3, 5) | {"one": ints(1)})
    )
    y, ((h_n, _), _) = model(draw(rng, 4, 6, 3))
    assert np.array_equal(y, h_n[0])
    assert y.shape == (4, 5)


def test_weights_beside_the_file(rng, tmp_path) -> None:
    proto = make_graph(
        [helper.make_node("LSTM", ["x", "W", "R", "B"], ["Y"], hidden_size=5)],
        {"x": ["T", "B", 3]},
        {"Y": 4},
        lstm_weights(rng, 3, 5),
    )
    x = draw(rng, 6, 4, 3)
    expected = run(proto.SerializeToString(), {"x": x})["Y"].squeeze(1)
    path = tmp_path / "graph.onnx"
    onnx.save(proto, str(path), save_as_external_data=True, location="graph.data", size_threshold=0)
    assert_equal(lstmx.onnx.import_model(path)(x)[0], expected)
    (tmp_path / "graph.data").unlink()
    with pytest.raises(ValueError, match=r"graph\.onnx: not a valid ONNX file"):
        lstmx.onnx.import_model(path)


# ---------------------------------------------------------------- refused


def refused_lstm(
    rng, load, message: str, *, inputs=(), constants=None, open_inputs=None, **attributes
) -> None:
    node = helper.make_node("LSTM", ["x", "W", "R", "B", *inputs], ["Y"], name="the_lstm", **attributes)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    weights = lstm_weights(rng, 3, 5, directions) | (constants or {})
    proto = make_graph([node], {"x": ["T", "B", 3]} | (open_inputs or {}), {"Y": 4}, weights)
    with pytest.raises(ValueError, match=f"node LSTM 'the_lstm': {message}"):
        load(proto)


BOTH = "bidirectional"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"direction": "back"}, "direction: expected 'forward', 'reverse' or 'bidirectional', got 'back'"),
        ({"clip": 0.0}, "clip: expected a number > 0, got 0"),
        ({"input_forget": 2}, "input_forget: expected 0 or 1, got 2"),
        ({"activations": ["Sigmoid", "Gelu", "Tanh"]}, "activations: expected some of sigmoid, .*, got Gelu"),
        ({"activations": ["Sigmoid", "Tanh"]}, "activations: expected 3, got Sigmoid, Tanh"),
        (
            {"activations": ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Tanh", "Relu"], "direction": BOTH},
            "activations: expected the same of both directions, got Sigmoid, Tanh, Tanh, Sigmoid, Tanh, Relu",
        ),
        (
            {"activations": ["Sigmoid", "Affine", "Tanh"], "activation_alpha": [0.5]},
            "activation_beta: expected a number for Affine, got none",
        ),
        (
            {"activations": ["Sigmoid", "ThresholdedRelu", "Tanh"]},
            "activation_alpha: expected a number for ThresholdedRelu, got none",
        ),
        (
            {"activations": ["Sigmoid", "Elu", "Tanh"], "activation_alpha": [0.0, 0.5, 0.0]},
            "activation_alpha: expected 1, one of each function with alpha, got 3",
        ),
        (
            {"activations": ["Sigmoid", "Elu", "Tanh"], "activation_alpha": [-1.0]},
            "alpha: expected a number >= 0 for elu, got -1.0",
        ),
        ({"layout": 2}, "layout: expected 0 or 1, got 2"),
        ({"hidden_size": 4}, "hidden_size: expected 5 as in R, got 4"),
    ],
)
def test_refuses_attributes(rng, load, attributes, message) -> None:
    refused_lstm(rng, load, message, **attributes)


def test_refuses_inputs_of_lstm(rng, load) -> None:
    refused_lstm(
        rng, load, r"P: expected float32 \[1, 15\], got float32 \[1, 20\]",
        inputs=("", "", "", "P"), constants={"P": draw(rng, 1, 20)},
    )  # fmt: skip
    refused_lstm(
        rng, load, "initial_h: expected an input of the graph or zeros, got a constant",
        inputs=("", "learned"), constants={"learned": draw(rng, 1, 1, 5)},
    )  # fmt: skip
    refused_lstm(
        rng, load, "sequence_lens: expected an input of the graph, got a constant",
        inputs=("fixed",), constants={"fixed": np.array([3], np.int32)},
    )  # fmt: skip
    refused_lstm(
        rng, load, "initial_h: expected an input of the graph or zeros, got the input 'lengths'",
        inputs=("", "lengths"), open_inputs={"lengths": ["B"]},
    )  # fmt: skip
    refused_lstm(
        rng, load, "initial_c: expected another input than initial_h, got 'state' for both",
        inputs=("", "state", "state"), open_inputs={"state": [1, "B", 5]},
    )  # fmt: skip
    shape = r"expected float32 \[1, 20, \*\], got float32 \[1, 16, 3\]"
    refused_lstm(rng, load, f"W: {shape}", constants={"W": draw(rng, 1, 16, 3)})
    refused_lstm(rng, load, "expected 4 features, got 3", constants={"W": draw(rng, 1, 20, 4)})
    refused_lstm(rng, load, "W: expected float32", constants={"W": np.zeros((1, 20, 3), np.float64)})


def refused_graph(load, rng, message: str, nodes, inputs=None, outputs=None, opset=17, **constants) -> None:
    """`nodes` come behind an LSTM x -> Y [T, 1, B, 5], Y_h, Y_c and Y squeezed, y_lstm [T, B, 5]."""
    front = [
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["Y", "Y_h", "Y_c"]),
        helper.make_node("Squeeze", ["Y", "one"], ["y_lstm"]),
    ]
    if opset < 13:
        front[1] = helper.make_node("Squeeze", ["Y"], ["y_lstm"], axes=[1])
    everything = lstm_weights(rng, 3, 5) | {"one": ints(1), "w": draw(rng, 5, 5)} | constants
    inputs, outputs = inputs or {"x": ["T", "B", 3]}, outputs or {"out": 3}
    proto = make_graph([*front, *nodes], inputs, outputs, everything, opset)
    with pytest.raises(ValueError, match=message):
        load(proto)


def test_refuses_graphs(rng, load) -> None:
    node = helper.make_node

    def check(message, *nodes, **options):
        refused_graph(load, rng, message, nodes, **options)

    check(r"node Selu 'out': expected one of LSTM, .*, got Selu", node("Selu", ["y_lstm"], ["out"]))
    check(
        "node Add 'out': expected a constant bias or the directions of y, got y",
        node("Add", ["y_lstm", "x"], ["out"]),
    )
    check(
        "node Add 'out': expected the bias of a MatMul", node("Add", ["y_lstm", "b"], ["out"]), b=draw(rng, 5)
    )
    check(
        "node MatMul 'out': expected layers in a row, got an input that an earlier node has read",
        node("MatMul", ["y_lstm", "w"], ["dead"]),
        node("MatMul", ["y_lstm", "w"], ["out"]),
    )
    check(
        "output 'out': expected the last layer's output, got an earlier one's",
        node("Identity", ["y_lstm"], ["out"]),
        node("MatMul", ["y_lstm", "w"], ["dead"]),
    )
    check("node Gather 'out': .*batch-first", node("Gather", ["y_lstm", "last"], ["out"]), last=ints(-1))
    check(
        "node Gather 'out': expected the last step of time, got index 2",
        node("Gather", ["y_lstm", "two"], ["out"]),
        two=ints(2),
    )
    check("node MatMul 'out': expected the output of a layer, got c", node("MatMul", ["Y_c", "w"], ["out"]))
    check(
        "node LSTM 'out': initial_h: expected an input of the graph or zeros, got h",
        node("LSTM", ["y_lstm", "W2", "R", "B", "", "Y_h", "Y_c"], ["out"]),
        outputs={"out": 4},
        W2=draw(rng, 1, 20, 5),
    )
    check(
        "node LSTM 'out': X: expected time on axis 0 of x as before, got it on axis 1",
        node("Transpose", ["y_lstm"], ["turned"], perm=[1, 0, 2]),
        node("LSTM", ["turned", "W2", "R", "B"], ["out"]),
        outputs={"out": 4},
        W2=draw(rng, 1, 20, 5),
    )
    check(
        "node LSTM 'out': sequence_lens: expected for all recurrent nodes or for none",
        node("LSTM", ["y_lstm", "W2", "R", "B", "lengths"], ["out"]),
        inputs={"x": ["T", "B", 3], "lengths": ["B"]},
        outputs={"out": 4},
        W2=draw(rng, 1, 20, 5),
    )
    check(
        "node MatMul 'out': expected features on the last axis, got y .axis 0, features, axis 1.",
        node("Transpose", ["y_lstm"], ["turned"], perm=[0, 2, 1]),
        node("MatMul", ["turned", "w"], ["out"]),
    )
    check(
        "node ThresholdedRelu 'out': alpha: expected",
        node("ThresholdedRelu", ["y_lstm"], ["out"], alpha=-1.0),
    )
    check("node Relu 'out': expected the data of one layer, got a constant", node("Relu", ["w"], ["out"]))
    check("node Relu 'out': expected the output of a layer, got c", node("Relu", ["Y_c"], ["out"]))
    check(
        "node Relu 'out': expected layers in a row", node("Tanh", ["Y"], ["y"]), node("Relu", ["Y"], ["out"])
    )
    over = "node Softmax 'out': expected a sum over all features, got axis"
    check(f"{over} 1 of y", node("Softmax", ["y_lstm"], ["out"], axis=1))
    check(f"{over} 1 of y", node("Softmax", ["y_lstm"], ["out"]), opset=11)
    check(f"{over} 1 of y", node("Softmax", ["Y"], ["out"], axis=1))
    check("node Squeeze 'out': axes: expected axes of size 1", node("Squeeze", ["y_lstm", "one"], ["out"]))
    check("node Gemm 'out': alpha: expected 1", node("Gemm", ["y_lstm", "w"], ["out"], alpha=0.5))
    check("output 'out': expected data of a layer, got a constant", node("Identity", ["w"], ["out"]))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "linear_before_reset: expected 1, got 0 by default"),
        ({"linear_before_reset": 0}, "linear_before_reset: expected 1, got 0"),
        ({"linear_before_reset": 1, "clip": 3.0}, "clip: expected none, got 3"),
        (
            {"linear_before_reset": 1, "activations": ["Sigmoid", "Relu"]},
            "activations: expected Sigmoid, Tanh, got Sigmoid, Relu",
        ),
    ],
)
def test_refuses_other_grus(rng, load, attributes, message) -> None:
    weights = {"W": draw(rng, 1, 15, 3), "R": draw(rng, 1, 15, 5)}
    node = helper.make_node("GRU", ["x", "W", "R"], ["Y"], hidden_size=5, **attributes)
    with pytest.raises(ValueError, match=f"node GRU 'Y': {message}"):
        load(make_graph([node], {"x": ["T", "B", 3]}, {"Y": 4}, weights))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"clip": 3.0}, "clip: expected none, got 3"),
        ({"activations": ["Elu"]}, "activations: expected Tanh or Relu, got Elu"),
        ({"activations": ["Tanh", "Relu"]}, "activations: expected 1, got Tanh, Relu"),
    ],
)
def test_refuses_other_rnns(rng, load, attributes, message) -> None:
    weights = {"W": draw(rng, 1, 5, 3), "R": draw(rng, 1, 5, 5)}
    node = helper.make_node("RNN", ["x", "W", "R"], ["Y"], hidden_size=5, **attributes)
    with pytest.raises(ValueError, match=f"node RNN 'Y': {message}"):
        load(make_graph([node], {"x": ["T", "B", 3]}, {"Y": 4}, weights))


def test_refuses_ends_that_are_none(rng, load) -> None:
    """h of one direction where the model has both, h of the reverse direction, half of y."""
    node = helper.make_node
    constants = {"i1": ints(1), "first": np.array(0), "w": draw(rng, 5, 5)}

    def check(message, direction, *nodes, output="out") -> None:
        weights = lstm_weights(rng, 3, 5, 2 if direction == BOTH else 1)
        lstm = node("LSTM", ["x", "W", "R", "B"], ["Y", "Y_h"], direction=direction, layout=1)
        proto = make_graph([lstm, *nodes], {"x": ["B", "T", 3]}, {output: 2}, weights | constants)
        with pytest.raises(ValueError, match=message):
            load(proto)

    forward = node("Gather", ["Y_h", "first"], ["h"], axis=1)
    dense = node("MatMul", ["h", "w"], ["out"])
    check("node MatMul 'out': expected the final h of both directions, got that of one", BOTH, forward, dense)
    backward = "expected the final h of direction 'forward', got that of 'reverse'"
    check(f"node MatMul 'out': {backward}", "reverse", node("Squeeze", ["Y_h", "i1"], ["h"]), dense)
    check(f"output 'h': {backward}", "reverse", node("Squeeze", ["Y_h", "i1"], ["h"]), output="h")
    one = node("Gather", ["Y", "first"], ["out"], axis=2)
    check("output 'out': expected both directions of y, got one", BOTH, one)


def test_refuses_other_lengths(rng, load) -> None:
    nodes = [
        helper.make_node("Min", ["lengths", "i1"], ["short"]),
        helper.make_node("LSTM", ["x", "W", "R", "B", "short"], ["Y"]),
    ]
    inputs = {"x": ["T", "B", 3], "lengths": ["B"]}
    constants = lstm_weights(rng, 3, 5) | {"i1": np.ones(1, np.int32)}
    with pytest.raises(ValueError, match="node LSTM 'Y': sequence_lens: expected an input of the graph, got"):
        load(make_graph(nodes, inputs, {"Y": 4}, constants))


def test_refuses_float64(rng, load) -> None:
    """ONNX Runtime lacks the recurrent operators in double."""
    weights = {name: array.astype(np.float64) for name, array in lstm_weights(rng, 3, 5).items()}
    node = helper.make_node("LSTM", ["x", "W", "R", "B"], ["Y"], hidden_size=5)
    proto = make_graph([node], {"x": ["T", "B", 3]}, {"Y": 4}, weights)
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(ValueError, match="input 'x': expected float32 of 2 or 3 axes, got double of 3"):
        load(proto)


def test_refuses_constants_that_grow(rng, load) -> None:
    """A small file cannot make large arrays."""
    names = ["w", *(f"w{k}" for k in range(40))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in itertools.pairwise(names)]
    proto = make_graph(nodes, {"x": ["T", "B", 3]}, {names[-1]: 2}, {"w": draw(rng, 8, 8)})
    with pytest.raises(ValueError, match=r"node Concat .*: expected constants no larger than the file makes"):
        load(proto)


def test_refuses_what_is_no_model(tmp_path, load) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError):
        lstmx.onnx.import_model(path)
    for data in (b"", b"not a model", b"\x80\x04K\x01."):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"model\.onnx: not a valid ONNX file"):
            lstmx.onnx.import_model(path)
    lstmx.onnx.export(lstmx.LSTM(3, 4, rng=1), path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"model\.onnx: "):
            lstmx.onnx.import_model(path)
    nothing = make_graph([helper.make_node("Identity", ["x"], ["y"])], {"x": ["B", 3]}, {"y": 2}, {})
    with pytest.raises(ValueError, match="graph: expected at least one layer, got none"):
        load(nothing)


def test_damaged_files_are_value_errors(rng, tmp_path) -> None:
    path = tmp_path / "model.onnx"
    lstmx.onnx.export(lstmx.LSTM(2, 2, 2, bidirectional=True, rng=1), path, lengths=True)
    whole = path.read_bytes()
    for _ in range(300):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            lstmx.onnx.import_model(path)
