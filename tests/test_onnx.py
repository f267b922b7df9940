"""ONNX: exports equal ONNX Runtime, imports equal the graphs they come from, the rest is refused by name."""

from __future__ import annotations

import contextlib
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
    wide = 12 if bidirectional else 6
    model = lstmx.Sequential(
        lstmx.Linear(3, 5, rng=rng),
        lstmx.Sequential(
            lstmx.LSTM(5, 6, bidirectional=bidirectional, batch_first=True, rng=rng), lstmx.Dropout(0.5)
        ),
        lstmx.LSTM(wide, 4, batch_first=True, rng=rng),
        lstmx.Linear(4, 4, bias=False, rng=rng),
        lstmx.LastStep(),
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
    again, _ = back(feeds["x"], (None, *states, None, None, None), lengths=feeds.get("lengths"))
    assert_equal(again, y)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lstmx.Linear(3, 2, rng=1), (4, 3)),
        (lstmx.Linear(3, 2, bias=False, rng=1), (4, 3)),
        (lstmx.Dropout(0.5), (4, 3)),
        (lstmx.LastStep(), (4, 5, 3)),
    ],
    ids=["Linear", "Linear without bias", "Dropout", "LastStep"],
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
    (lstmx.LSTM, {"reverse": True, "num_layers": 2, "batch_first": True}),
    (lstmx.LSTM, {"activations": ["hard_sigmoid", "relu", "softsign"]}),
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
    assert list(results) == ["y", "h_n", "c_n"][: 3 if kind is lstmx.LSTM else 2]
    for got, expected in zip(
        results.values(), (y, *final) if kind is lstmx.LSTM else (y, final), strict=True
    ):
        assert_equal(got, expected)


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
    both = lstmx.LastStep(bidirectional=True)
    with pytest.raises(ValueError, match=r"model: expected .* one direction, got LastStep\(bidirectional=T"):
        lstmx.onnx.export(both, path)

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
    """The LSTM cases of the tests that onnx carries for those who implement the standard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return {case.name: case for case in collect_testcases("LSTM")}


NODE_CASES = node_cases()


@pytest.mark.parametrize("name", NODE_CASES)
def test_node_cases_of_onnx(name, load) -> None:
    case = NODE_CASES[name]
    ((inputs, outputs),) = case.data_sets
    graph = case.model.graph
    given = dict(zip((value.name for value in graph.input), inputs, strict=True))
    del graph.input[1:]
    x = given.pop("X")
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in given.items())
    refused = {
        "test_lstm_with_peepholes": "P: expected no peepholes",
        "test_lstm_reverse": "direction: expected",
    }
    if name in refused:
        with pytest.raises(ValueError, match=refused[name]):
            load(case.model)
        return
    y, ((h_n, c_n),) = load(case.model)(x)
    results = {"Y": y[:, :, np.newaxis], "Y_h": h_n, "Y_c": c_n}  # Y is wanted of layout=1 only
    if name == "test_lstm_batchwise":
        results["Y_h"] = h_n.swapaxes(0, 1)
    for value, expected in zip(graph.output, outputs, strict=True):
        assert_equal(results[value.name], expected)


@pytest.mark.parametrize("number", range(100))
def test_random_nodes(rng, load, number) -> None:
    """Any direction the layers have, lengths, initial states and layouts, against ONNX Runtime."""
    time, batch, width, hidden = (
        rng.integers(1, 6),
        rng.integers(2, 6),
        rng.integers(1, 9),
        rng.integers(1, 20),
    )
    directions, layout = int(rng.integers(1, 3)), int(rng.integers(0, 2))
    weights = lstm_weights(rng, width, hidden, directions)
    feeds = {"x": draw(rng, time, batch, width)}
    if has_lengths := rng.random() < 0.5:
        feeds["lengths"] = rng.integers(0, time + 1, batch).astype(np.int32)
    if has_state := rng.random() < 0.5:
        feeds |= {name: draw(rng, directions, batch, hidden) for name in ("h_0", "c_0")}
    if has_no_bias := rng.random() < 0.3:
        del weights["B"]
    reads = ["x", "W", "R", "" if has_no_bias else "B", "lengths" if has_lengths else ""]
    reads += ["h_0", "c_0"] if has_state else []
    attributes: dict[str, Any] = {"direction": ["forward", "bidirectional"][directions - 1]}
    if rng.random() < 0.5:
        attributes["activations"] = ["Sigmoid", "Tanh", "Tanh"] * directions

    def graph(layout: int):
        node = helper.make_node(
            "LSTM", reads, ["Y", "Y_h", "Y_c"], hidden_size=int(hidden), layout=layout, **attributes
        )
        inputs = {name: [None] * array.ndim for name, array in feeds.items()}
        return make_graph([node], inputs, {"Y": 4, "Y_h": 3, "Y_c": 3}, weights)

    expected = run(graph(0).SerializeToString(), feeds)  # ONNX Runtime has layout=0 only
    model = load(graph(layout))
    assert model.batch_first == (layout == 1)
    x = feeds["x"].swapaxes(0, 1) if layout else feeds["x"]
    state = [(feeds["h_0"], feeds["c_0"])] if has_state else None
    y, ((h_n, c_n),) = model(x, state, lengths=feeds.get("lengths"))
    y = y.swapaxes(0, 1) if layout else y
    assert_equal(y, expected["Y"].swapaxes(1, 2).reshape(y.shape))
    # Of a row without steps ONNX Runtime makes zeros, the layer here its initial state.
    rows = feeds["lengths"] > 0 if has_lengths else slice(None)
    assert_equal(h_n[:, rows], expected["Y_h"][:, rows])
    assert_equal(c_n[:, rows], expected["Y_c"][:, rows])


TORCH_MODELS = {
    "all steps": (lambda y, h: y, {}),
    "all steps, both directions": (lambda y, h: y, {"bidirectional": True}),
    "time first": (lambda y, h: y, {"batch_first": False}),
    "last step": (lambda y, h: y[:, -1], {}),
    "last step kept": (lambda y, h: y[:, -1:].reshape(-1, 4), {}),
    "last step, both directions": (lambda y, h: y[:, -1, :], {"bidirectional": True}),
    "last h": (lambda y, h: h[-1], {}),
    "h of the only layer": (lambda y, h: h.squeeze(0), {"num_layers": 1}),
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


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"direction": "reverse"}, "direction: expected 'forward' or 'bidirectional', got 'reverse'"),
        ({"clip": 2.0}, "clip: expected none, got 2"),
        ({"input_forget": 1}, "input_forget: expected 0, got 1"),
        (
            {"activations": ["HardSigmoid", "Tanh", "Tanh"]},
            "activations: expected Sigmoid, Tanh, Tanh, got HardSigmoid, Tanh, Tanh",
        ),
        ({"layout": 2}, "layout: expected 0 or 1, got 2"),
        ({"hidden_size": 4}, "hidden_size: expected 5 as in R, got 4"),
    ],
)
def test_refuses_attributes(rng, load, attributes, message) -> None:
    refused_lstm(rng, load, message, **attributes)


def test_refuses_inputs_of_lstm(rng, load) -> None:
    refused_lstm(
        rng, load, "P: expected no peepholes, got weights for them",
        inputs=("", "", "", "P"), constants={"P": draw(rng, 1, 15)},
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


def refused_graph(load, rng, message: str, nodes, inputs=None, outputs=None, **constants) -> None:
    """`nodes` come behind an LSTM x -> Y [T, 1, B, 5], Y_h, Y_c and Y squeezed, y_lstm [T, B, 5]."""
    front = [
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["Y", "Y_h", "Y_c"]),
        helper.make_node("Squeeze", ["Y", "one"], ["y_lstm"]),
    ]
    everything = lstm_weights(rng, 3, 5) | {"one": ints(1), "w": draw(rng, 5, 5)} | constants
    proto = make_graph([*front, *nodes], inputs or {"x": ["T", "B", 3]}, outputs or {"out": 3}, everything)
    with pytest.raises(ValueError, match=message):
        load(proto)


def test_refuses_graphs(rng, load) -> None:
    node = helper.make_node

    def check(message, *nodes, **options):
        refused_graph(load, rng, message, nodes, **options)

    check(r"node Relu 'out': expected one of LSTM, .*, got Relu", node("Relu", ["y_lstm"], ["out"]))
    check("node Add 'out': expected a constant bias, got y", node("Add", ["y_lstm", "x"], ["out"]))
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
        "node LSTM 'out': X: expected time on axis 0 of x as the LSTM before, got it on axis 1",
        node("Transpose", ["y_lstm"], ["turned"], perm=[1, 0, 2]),
        node("LSTM", ["turned", "W2", "R", "B"], ["out"]),
        outputs={"out": 4},
        W2=draw(rng, 1, 20, 5),
    )
    check(
        "node LSTM 'out': sequence_lens: expected for all LSTM nodes or for none",
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
    check("node Squeeze 'out': axes: expected axes of size 1", node("Squeeze", ["y_lstm", "one"], ["out"]))
    check("node Gemm 'out': alpha: expected 1", node("Gemm", ["y_lstm", "w"], ["out"], alpha=0.5))
    check("output 'out': expected data of a layer, got a constant", node("Identity", ["w"], ["out"]))


@pytest.mark.parametrize("op_type", ["GRU", "RNN"])
def test_refuses_other_cells(rng, load, op_type) -> None:
    gates = {"GRU": 3, "RNN": 1}[op_type]
    weights = {"W": draw(rng, 1, gates * 5, 3), "R": draw(rng, 1, gates * 5, 5)}
    node = helper.make_node(op_type, ["x", "W", "R"], ["Y"], hidden_size=5)
    with pytest.raises(ValueError, match=f"node {op_type} 'Y': expected one of LSTM, .*, got {op_type}"):
        load(make_graph([node], {"x": ["T", "B", 3]}, {"Y": 4}, weights))


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
    with pytest.raises(ValueError, match="graph: expected at least one LSTM or linear layer, got none"):
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
