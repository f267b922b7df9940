"""The sides that an LSTM layer is compared with, and the variables that limit them all to AVX2.

lstmx and PyTorch are `lstmx._bench`'s; here are PyTorch with gradients enabled, ONNX Runtime and JAX. As a
program this is the worker that runs one of them. A side that is not installed, or cannot do a case, is left
out by `installed` and `can`.
"""

from __future__ import annotations

import functools
import importlib.util
from typing import Any

import numpy as np

from lstmx._bench import SIDES, Case, Job, Worker, serve, torch_side

# Each needs these packages.
PACKAGES = {
    "torch": ("torch",),
    "torch-grad": ("torch",),
    "onnxruntime": ("onnx", "onnxruntime"),
    "jax": ("jax",),
}

AVX2 = {
    "lstmx": {"LSTMX_TARGET": "avx2"},
    "torch": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "jax": {"XLA_FLAGS": "--xla_cpu_max_isa=AVX2"},
}
AVX2["torch-grad"] = AVX2["torch"]


def installed(peers: list[str]) -> list[str]:
    """Those of `peers` whose packages are there."""
    return [peer for peer in peers if all(importlib.util.find_spec(name) for name in PACKAGES[peer])]


def can(peer: str, case: Case, isa: str) -> bool:
    """Whether a side can do a case: modes, lengths and limits differ."""
    if isa == "avx2" and peer not in AVX2:
        return False
    if peer in ("torch-grad", "onnxruntime"):
        return case.mode == "inference"
    return not (peer == "jax" and case.lengths)


def start(side: str, threads: int, isa: str) -> Worker:
    """A process of the side."""
    return Worker([__file__], side, threads, AVX2[side] if isa == "avx2" else None)


# --- ONNX Runtime -------------------------------------------------------------------------------------------


def onnxruntime_side(request: dict[str, Any], threads: int) -> Job:
    """One ONNX `LSTM` node a layer, weights as constants of the model, lengths as its `sequence_lens`."""
    import onnxruntime

    case = Case(**request)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = _onnx_model(case).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {"x": case.x()}
    if case.lengths:
        feeds["lengths"] = case.row_lengths().astype(np.int32)

    def run() -> list[np.ndarray]:
        return session.run(None, feeds)

    y, *states = run()  # y [T, D, B, H]; then h_n, c_n of every layer
    check = {"y": y.transpose(0, 2, 1, 3).reshape(case.T, case.B, -1)}
    check |= {"h_n": np.concatenate(states[0::2]), "c_n": np.concatenate(states[1::2])}
    return Job(check, run)


def _onnx_model(case: Case) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    weights, constants, nodes, source, outputs = case.weights(), [], [], "x", []
    if case.layers > 1:
        constants.append(numpy_helper.from_array(np.array([0, 0, -1]), "shape"))  # [T, B, D*H]
    for layer in range(case.layers):
        suffixes = [f"l{layer}", f"l{layer}_reverse"][: case.directions]
        stacked = {
            "W": np.stack([_iofc(weights[f"weight_ih_{s}"]) for s in suffixes]),
            "R": np.stack([_iofc(weights[f"weight_hh_{s}"]) for s in suffixes]),
            "B": np.stack(
                [np.concatenate([_iofc(weights[f"bias_{k}_{s}"]) for k in ("ih", "hh")]) for s in suffixes]
            ),
        }
        constants += [numpy_helper.from_array(value, f"{name}{layer}") for name, value in stacked.items()]
        names = [f"y{layer}", f"h{layer}", f"c{layer}"]
        nodes.append(
            helper.make_node(
                "LSTM",
                [source, f"W{layer}", f"R{layer}", f"B{layer}", "lengths" if case.lengths else ""],
                names,
                hidden_size=case.H,
                direction="bidirectional" if case.bidirectional else "forward",
            )
        )
        outputs += names[1:]
        if layer < case.layers - 1:
            nodes.append(helper.make_node("Transpose", [names[0]], [f"t{layer}"], perm=[0, 2, 1, 3]))
            nodes.append(helper.make_node("Reshape", [f"t{layer}", "shape"], [f"x{layer + 1}"]))
            source = f"x{layer + 1}"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [case.T, case.B, case.I])]
    if case.lengths:
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT32, [case.B]))
    results = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in (f"y{case.layers - 1}", *outputs)
    ]
    graph = helper.make_graph(nodes, "lstm", inputs, results, constants)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def _iofc(array: np.ndarray) -> np.ndarray:
    i, f, g, o = np.split(array, 4)
    return np.concatenate([i, o, f, g])


# --- JAX ----------------------------------------------------------------------------------------------------


def jax_side(request: dict[str, Any], threads: int) -> Job:
    """The usual JAX program, compiled before: the product with x over all steps at once, then `lax.scan`.

    JAX has no argument for threads; it takes the processors that the process is pinned to.
    """
    import jax

    case = Case(**request)
    weights, x = case.weights(), case.x()

    def call(weights: Any, x: Any) -> Any:
        h_n, c_n = [], []
        for layer in range(case.layers):
            results = [
                _jax_direction(weights, f"l{layer}" + "_reverse" * k, x, bool(k))
                for k in range(case.directions)
            ]
            h_n += [h for _, h, _ in results]
            c_n += [c for _, _, c in results]
            x = jax.numpy.concatenate([y for y, _, _ in results], axis=2)
        return x, jax.numpy.stack(h_n), jax.numpy.stack(c_n)

    def train(weights: Any, x: Any, dy: Any) -> Any:
        outputs, backward = jax.vjp(call, weights, x)
        zeros = jax.numpy.zeros_like(outputs[1])
        d_weights, dx = backward((dy, zeros, zeros))
        return *outputs, dx, d_weights

    weights, x, dy = jax.device_put((weights, x, case.dy()))
    compiled = jax.jit(call if case.mode == "inference" else train)
    arguments = (weights, x) if case.mode == "inference" else (weights, x, dy)
    result = compiled(*arguments)
    check = dict(zip(("y", "h_n", "c_n", "dx"), map(np.asarray, result[:4]), strict=False))
    if case.mode == "training":
        check |= {name: np.asarray(value) for name, value in result[4].items()}
    return Job(check, lambda: jax.block_until_ready(compiled(*arguments)))


def _jax_direction(weights: Any, suffix: str, x: Any, reverse: bool) -> Any:
    import jax

    hh = weights[f"weight_hh_{suffix}"].T
    inputs = (
        x @ weights[f"weight_ih_{suffix}"].T + weights[f"bias_ih_{suffix}"] + weights[f"bias_hh_{suffix}"]
    )

    def step(state: Any, row: Any) -> Any:
        h, c = state
        i, f, g, o = jax.numpy.split(row + h @ hh, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jax.numpy.tanh(g)
        h = jax.nn.sigmoid(o) * jax.numpy.tanh(c)
        return (h, c), h

    zeros = jax.numpy.zeros((x.shape[1], hh.shape[0]), x.dtype)
    (h, c), y = jax.lax.scan(step, (zeros, zeros), inputs, reverse=reverse)
    return y, h, c


if __name__ == "__main__":
    serve(
        {
            **SIDES,
            "torch-grad": functools.partial(torch_side, gradients=True),
            "onnxruntime": onnxruntime_side,
            "jax": jax_side,
        }
    )
