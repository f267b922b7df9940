"""The variants against PyTorch and ONNX Runtime, where these have the same or can say it in single steps."""

from __future__ import annotations

import numpy as np
import pytest

from lstmx import reference
from lstmx.reference import (
    Activation,
    BatchNormLstmCell,
    CellOptions,
    GruCell,
    LayerNormLstmCell,
    LstmCell,
    RnnCell,
)

NO_TORCH = "PyTorch is not installed: the comparison with it did not run"
NO_ONNX = "ONNX or ONNX Runtime is not installed: the comparison with it did not run"


def close(got, want, name=""):
    np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(
    ("module", "cell", "options"),
    [
        ("LSTM", LstmCell(), {"proj_size": 2}),
        ("GRU", GruCell(), {}),
        ("GRU", GruCell(), {"bias": False}),
        ("RNN", RnnCell(), {}),
        ("RNN", RnnCell("relu"), {"nonlinearity": "relu"}),
    ],
    ids=["projection", "gru", "gru_without_bias", "rnn", "rnn_relu"],
)
def test_modules_of_pytorch(rng, module, cell, options, bidirectional):
    """Packed sequences through two layers: outputs, states and all gradients, within float64 rounding."""
    torch = pytest.importorskip("torch", reason=NO_TORCH)
    lengths = np.array([3, 7, 1, 7, 4])
    stack = {"num_layers": 2, "bidirectional": bidirectional}
    judge = getattr(torch.nn, module)(3, 4, dtype=torch.float64, **stack, **options)
    params = {name: rng.standard_normal(p.shape) * 0.6 for name, p in judge.named_parameters()}
    judge.load_state_dict({name: torch.from_numpy(value) for name, value in params.items()})
    x = rng.standard_normal((7, 5, 3))
    sizes = [options.get("proj_size", 4), 4][: len(cell.states)]
    state = tuple(rng.standard_normal((4 if bidirectional else 2, 5, size)) for size in sizes)

    y, final, backward = reference.recurrent(x, params, state, cell=cell, lengths=lengths, **stack)
    dy = rng.standard_normal(y.shape)
    d_final = tuple(rng.standard_normal(part.shape) for part in final)
    dx, d_initial, grads = backward(dy, d_final)

    ins = [torch.from_numpy(a).requires_grad_() for a in (x, *state)]
    rnn = torch.nn.utils.rnn
    packed = rnn.pack_padded_sequence(ins[0], torch.from_numpy(lengths), enforce_sorted=False)
    their_y, their_final = judge(packed, tuple(ins[1:]) if module == "LSTM" else ins[1])
    outputs = [rnn.pad_packed_sequence(their_y, total_length=7)[0]]
    outputs += their_final if module == "LSTM" else [their_final]
    torch.autograd.backward(outputs, [torch.from_numpy(a) for a in (dy, *d_final)])
    for got, want in zip((y, *final), outputs, strict=True):
        close(got, want.detach().numpy())
    for got, leaf in zip((dx, *d_initial), ins, strict=True):
        close(got, leaf.grad.numpy())
    assert grads.keys() == params.keys()
    for name, parameter in judge.named_parameters():
        close(grads[name], parameter.grad.numpy(), name)


class TestNormalization:
    """The normalized LSTMs said once more in PyTorch's operations, gradients by its autograd."""

    STEPS, BATCH, INPUTS, HIDDEN = 5, 4, 2, 3

    def compare(self, rng, cell, norm, lengths=None, statistics=None):
        torch = pytest.importorskip("torch", reason=NO_TORCH)
        size = self.HIDDEN
        shapes = {"weight_ih": (4 * size, self.INPUTS), "weight_hh": (4 * size, size)}
        shapes |= {name: units * size for name, units in cell.parameters.items()}
        given = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        given |= {"x": rng.standard_normal((self.STEPS, self.BATCH, self.INPUTS))}
        given |= {name: rng.standard_normal((self.BATCH, size)) for name in ("h_0", "c_0")}
        params = {name: given[name] for name in shapes}
        lengths = np.full(self.BATCH, self.STEPS) if lengths is None else np.array(lengths)
        run = reference.recurrent_forward(
            given["x"],
            params,
            (given["h_0"], given["c_0"]),
            cell=cell,
            lengths=lengths,
            statistics=statistics,
        )
        dy, dc = rng.standard_normal(run.y.shape), rng.standard_normal(run.cells.shape)
        got = reference.recurrent_backward(run.tape, dy, None, dc)

        p = {name: torch.from_numpy(value).requires_grad_() for name, value in given.items()}
        h, c, y, cells = p["h_0"], p["c_0"], [], []
        for t in range(self.STEPS):
            rows = torch.from_numpy(t < lengths)
            here = rows[:, None]

            def at(name, v, rows=rows, t=t):
                """Normalized in the rows that are there; what is elsewhere is dropped below."""
                return torch.zeros_like(v).masked_scatter(rows[:, None], norm(torch, name, v[rows], t))

            a = p["gain_ih"] * at("ih", p["x"][t] @ p["weight_ih"].T)
            a = a + p["gain_hh"] * at("hh", h @ p["weight_hh"].T) + p["bias_ih"] + p["bias_hh"]
            i, f, g, o = a.chunk(4, dim=1)
            new_c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            new_h = torch.sigmoid(o) * torch.tanh(p["gain_c"] * at("c", new_c) + p["bias_c"])
            y.append(torch.where(here, new_h, 0.0))
            cells.append(torch.where(here, new_c, 0.0))
            h, c = torch.where(here, new_h, h), torch.where(here, new_c, c)
        outputs = [torch.stack(y), torch.stack(cells)]
        torch.autograd.backward(outputs, [torch.from_numpy(dy), torch.from_numpy(dc)])
        close(run.y, outputs[0].detach().numpy())
        close(run.cells, outputs[1].detach().numpy())
        gradients = {"x": got.dx, "h_0": got.d_state[0], "c_0": got.d_state[1], **got.d_params}
        assert gradients.keys() == given.keys()
        for name, gradient in gradients.items():
            close(gradient, p[name].grad.numpy(), name)
        return run.tape

    def test_layer_norm(self, rng):
        def norm(torch, name, v, t):
            parts = [v] if name == "c" else v.chunk(4, dim=1)
            return torch.cat([torch.nn.functional.layer_norm(part, (self.HIDDEN,)) for part in parts], dim=1)

        self.compare(rng, LayerNormLstmCell(), norm)
        self.compare(rng, LayerNormLstmCell(), norm, [5, 0, 3, 4])

    @pytest.mark.parametrize("kept", [2, 5, 7])
    def test_batch_norm(self, rng, kept):
        """Training, its running statistics, and inference with those, beyond their steps too."""
        torch = pytest.importorskip("torch", reason=NO_TORCH)
        old = reference.initial_statistics(kept, self.HIDDEN)
        old = {name: rng.uniform(0.5, 2, value.shape) for name, value in old.items()}
        theirs = {name: torch.from_numpy(value.copy()) for name, value in old.items()}

        def train(torch, name, v, t):
            running = [theirs[f"running_{kind}_{name}"] for kind in ("mean", "var")]
            running = [part[t] for part in running] if t < kept else [None, None]
            return torch.nn.functional.batch_norm(v, *running, training=True, momentum=0.3)

        def infer(torch, name, v, t):
            t = min(t, kept - 1)
            running = [theirs[f"running_{kind}_{name}"][t] for kind in ("mean", "var")]
            return torch.nn.functional.batch_norm(v, *running)

        cell = BatchNormLstmCell()
        for lengths in (None, [5, 0, 3, 5]):
            tape = self.compare(rng, cell, train, lengths)
            old = reference.running_statistics(tape, old, momentum=0.3)
            for name, value in old.items():
                close(value, theirs[name].numpy(), name)
            self.compare(rng, cell, infer, lengths, old)

    def test_a_row_alone_leaves_the_statistics_and_is_normalized_to_zero(self, rng):
        cell, one = BatchNormLstmCell(), np.ones
        params = {"weight_ih": one((12, 2)), "weight_hh": one((12, 3))}
        params |= {name: one(units * 3) for name, units in cell.parameters.items()}
        x = rng.standard_normal((2, 2, 2))
        run = reference.recurrent_forward(x, params, cell=cell, lengths=[1, 2])
        old = reference.initial_statistics(2, 3)
        new = reference.running_statistics(run.tape, old, momentum=1.0)
        for name, value in new.items():
            np.testing.assert_array_equal(value[1], old[name][1])
            assert name == "running_mean_hh" or (value[0] != old[name][0]).all()
        gates = reference.trace(run.tape)
        np.testing.assert_array_equal(gates["i"][1, 1], reference.sigmoid(2.0 * one(3)))  # the biases alone

    def test_statistics_need_a_training_pass(self, rng):
        x, weights = np.ones((1, 2, 1)), {"weight_ih": np.ones((4, 1)), "weight_hh": np.ones((4, 1))}
        run = reference.recurrent_forward(x, weights, cell=reference.LSTM)
        with pytest.raises(ValueError, match="tape: expected that of training with a BatchNormLstmCell"):
            reference.running_statistics(run.tape, reference.initial_statistics(1, 1))


def run_onnx(operator, inputs, outputs, **attributes):
    """One node of a recurrent operator, the inputs being float32 and at their places."""
    onnx = pytest.importorskip("onnx", reason=NO_ONNX)
    runtime = pytest.importorskip("onnxruntime", reason=NO_ONNX)
    helper = onnx.helper
    node = helper.make_node(
        operator, [name if value is not None else "" for name, value in inputs.items()], outputs, **attributes
    )
    given = {name: value for name, value in inputs.items() if value is not None}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in given.items()
    ]
    results = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph([node], operator, infos, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, given)


# ours: the name in ONNX, and whether it takes alpha and beta
ONNX_ACTIVATIONS = {
    "sigmoid": ("Sigmoid", 0),
    "tanh": ("Tanh", 0),
    "relu": ("Relu", 0),
    "hard_sigmoid": ("HardSigmoid", 2),
    "affine": ("Affine", 2),
    "leaky_relu": ("LeakyRelu", 1),
    "thresholded_relu": ("ThresholdedRelu", 1),
    "scaled_tanh": ("ScaledTanh", 2),
    "elu": ("Elu", 1),
    "softsign": ("Softsign", 0),
    "softplus": ("Softplus", 0),
}


class TestOnnxRuntime:
    """Within float32 rounding: the weights are float32 numbers, the reference computes in float64."""

    STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 2, 4

    def compare(self, rng, operator, cell, order, **attributes):
        """`order` says which of our gates is at each place of ONNX."""
        size, gates = self.HIDDEN, cell.gates
        float32 = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
        params = {"weight_ih": float32(gates * size, self.INPUTS), "weight_hh": float32(gates * size, size)}
        params |= {name: float32(units * size) for name, units in cell.parameters.items()}
        x, lengths = float32(self.STEPS, self.BATCH, self.INPUTS), np.array([5, 2, 4], np.int32)
        state = tuple(float32(self.BATCH, size) for _ in cell.states)
        run = reference.recurrent_forward(x, params, state, cell=cell, lengths=lengths)

        def ordered(a, order=order):
            return np.concatenate([np.split(a, len(order))[n] for n in order])[None]

        biases = np.concatenate([ordered(params["bias_ih"]), ordered(params["bias_hh"])], axis=1)
        inputs = {"X": x, "W": ordered(params["weight_ih"]), "R": ordered(params["weight_hh"]), "B": biases}
        inputs |= {"lengths": lengths, "h_0": state[0][None]}
        if operator == "LSTM":
            inputs["c_0"] = state[1][None]
            inputs["P"] = ordered(params["weight_ch"], (0, 2, 1)) if "weight_ch" in params else None
        outputs = ["y", *(f"{name}_n" for name in cell.states)]
        y, *final = run_onnx(operator, inputs, outputs, hidden_size=size, **attributes)
        for got, want in zip((run.y, *run.state), (y[:, 0], *(part[0] for part in final)), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)

    @pytest.mark.parametrize("peephole", [False, True])
    @pytest.mark.parametrize("coupled", [False, True])
    @pytest.mark.parametrize("clip", [None, 0.6])
    def test_options(self, rng, peephole, coupled, clip):
        cell = LstmCell(CellOptions(peephole=peephole, coupled=coupled, gate_clip=clip))
        attributes = {"input_forget": int(coupled)} | ({} if clip is None else {"clip": clip})
        self.compare(rng, "LSTM", cell, (0, 3, 1, 2), **attributes)

    @pytest.mark.parametrize("name", ONNX_ACTIVATIONS)
    @pytest.mark.parametrize("at", ["gates", "candidate", "c"])
    def test_activations(self, rng, name, at):
        theirs, count = ONNX_ACTIVATIONS[name]
        numbers = (0.3, 0.4)[:count]
        ours = {"gates": "sigmoid", "candidate": "tanh", "c": "tanh"} | {at: Activation(name, *numbers)}
        attributes = {"activations": ["Sigmoid", "Tanh", "Tanh"]}
        attributes["activations"][list(ours).index(at)] = theirs
        attributes |= dict(zip(("activation_alpha", "activation_beta"), [[n] for n in numbers], strict=False))
        cell = LstmCell(CellOptions(activations=tuple(ours.values())))
        self.compare(rng, "LSTM", cell, (0, 3, 1, 2), **attributes)

    @pytest.mark.parametrize("name", ["hard_sigmoid", "leaky_relu", "elu"])
    def test_default_parameters(self, rng, name):
        """Of thresholded_relu ONNX says 1, its runtime takes 0."""
        cell = LstmCell(CellOptions(activations=("sigmoid", name, "tanh")))
        activations = ["Sigmoid", ONNX_ACTIVATIONS[name][0], "Tanh"]
        self.compare(rng, "LSTM", cell, (0, 3, 1, 2), activations=activations)

    @pytest.mark.parametrize("linear_before_reset", [False, True])
    def test_gru(self, rng, linear_before_reset):
        cell = GruCell(linear_before_reset)
        self.compare(rng, "GRU", cell, (1, 0, 2), linear_before_reset=int(linear_before_reset))

    @pytest.mark.parametrize("name", ["tanh", "relu"])
    def test_rnn(self, rng, name):
        self.compare(rng, "RNN", RnnCell(name), (0,), activations=[name.capitalize()])
