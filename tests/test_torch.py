"""lstmx.torch beside PyTorch's own modules: results, gradients, compilers, copies, conversions, refusals.

What is compared are results of two libraries, by the tolerances that PyTorch has for its own
(`torch.testing.assert_close`), and gradients with finite differences (`torch.autograd.gradcheck`); how far
the kernels are from the truth is tested in tests/kernels.
"""

from __future__ import annotations

import builtins
import copy
import ctypes
import importlib
import pickle
import sys
import threading
import tracemalloc

import numpy as np
import pytest

import lstmx

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence  # noqa: E402
from torch.testing import assert_close  # noqa: E402

import lstmx.torch  # noqa: E402
from lstmx import _core  # noqa: E402
from lstmx.torch import operators  # noqa: E402

STEPS, BATCH, INPUTS, HIDDEN = 5, 4, 3, 6
LENGTHS = [3, 5, 1, 3]

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(autouse=True)
def _same_random_numbers(seed):
    torch.manual_seed(seed)


@pytest.fixture(params=["direct", "arrays", "operator"])
def path(request, monkeypatch):
    """The ways of a call in eager mode: past the dispatcher, on tensors or, as with a PyTorch that does not
    export its table of functions, on arrays; and the operator, which all else takes."""
    if request.param == "operator":
        monkeypatch.setattr(operators, "_nothing_intervenes", lambda: False)
    else:
        monkeypatch.setattr(operators, "lstm", None)  # not to be called
    if request.param == "arrays":
        monkeypatch.setattr(operators, "_exchange", None)
    return request.param


@pytest.fixture
def operator_calls(monkeypatch):
    """A list that grows with each call of the operator."""
    calls, real = [], operators.lstm
    monkeypatch.setattr(operators, "lstm", lambda *args: (calls.append(1), real(*args))[1])
    return calls


def twins(*args, module="LSTM", **kwargs):
    """PyTorch's module and ours, made from the same seed."""
    state = torch.get_rng_state()
    made = []
    for package in (nn, lstmx.torch):
        torch.set_rng_state(state)
        made.append(getattr(package, module)(*args, **kwargs))
    return made


def flat(result):
    """The tensors of nested tuples, packed sequences included."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [t for part in result if part is not None for t in flat(part)]


def results_and_gradients(module, x, hx=None, packing=None):
    """Outputs, then the gradients by x, hx and all parameters of a sum with fixed random weights."""
    x = x.detach().clone().requires_grad_()
    hx = None if hx is None else tuple(h.detach().clone().requires_grad_() for h in hx)
    result = module(x if packing is None else packing(x), hx)
    outputs = flat(result)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum()
        for t in outputs
        if t.is_floating_point()
    )
    leaves = [x, *(hx or ()), *module.parameters()]
    return [*outputs, *torch.autograd.grad(loss, leaves)]


def make_input(batch_first=False, unbatched=False, dtype=None):
    if unbatched:
        return torch.randn(STEPS, INPUTS, dtype=dtype)
    return torch.randn((BATCH, STEPS, INPUTS) if batch_first else (STEPS, BATCH, INPUTS), dtype=dtype)


def make_states(module, rows=(BATCH,)):
    ways = module.num_layers * (2 if module.bidirectional else 1)
    widths = module.proj_size or module.hidden_size, module.hidden_size
    return tuple(torch.randn(ways, *rows, width, dtype=module.weight_ih_l0.dtype) for width in widths)


def zeros(*shape, dtype=None, device=None):
    return torch.zeros(*shape, dtype=dtype, device=device)


def packing_of(kind, batch_first=False):
    """How results_and_gradients packs the input of this kind; None: not at all."""
    if not kind.startswith("packed"):
        return None
    in_order = kind == "packed_sorted"
    lengths = sorted(LENGTHS, reverse=True) if in_order else LENGTHS
    return lambda x: pack_padded_sequence(x, lengths, batch_first, enforce_sorted=in_order)


def assert_all_close(got, expected):
    for mine, true in zip(got, expected, strict=True):
        assert_close(mine, true)


ways = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both_ways"])
layers = pytest.mark.parametrize("num_layers", [1, 2])
kinds = pytest.mark.parametrize("kind", ["batch", "unbatched", "packed", "packed_sorted"])
dtypes = pytest.mark.parametrize("torch_dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
# of modules: the kinds of cells that the core has
cells = pytest.mark.parametrize(
    "options",
    [{}, {"proj_size": 2}, {"dtype": torch.float64}, {"dtype": torch.float64, "proj_size": 2}],
    ids=["float32", "projection", "float64", "float64_projection"],
)


class TestLSTM:
    @layers
    @ways
    @pytest.mark.parametrize("batch_first", [False, True], ids=["time_first", "batch_first"])
    @pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])
    @pytest.mark.parametrize("states", [False, True], ids=["zeros", "states"])
    @kinds
    def test_agrees_with_pytorch(self, num_layers, bidirectional, batch_first, bias, states, kind, path):
        theirs, ours = twins(INPUTS, HIDDEN, num_layers, bias, batch_first, bidirectional=bidirectional)
        x = make_input(batch_first, kind == "unbatched")
        hx = make_states(ours, () if kind == "unbatched" else (BATCH,)) if states else None
        packing = packing_of(kind, batch_first)
        expected, got = (results_and_gradients(m, x, hx, packing) for m in (theirs, ours))
        assert_all_close(got, expected)
        assert got[0].stride() == expected[0].stride()

    @layers
    @ways
    @kinds
    @pytest.mark.parametrize("bias", [False, True], ids=["no_bias", "bias"])
    @cells
    def test_cells_agree_with_pytorch(self, num_layers, bidirectional, kind, bias, options, path):
        theirs, ours = twins(INPUTS, HIDDEN, num_layers, bias, bidirectional=bidirectional, **options)
        x = make_input(unbatched=kind == "unbatched", dtype=options.get("dtype"))
        hx = make_states(ours, () if kind == "unbatched" else (BATCH,))
        packing = packing_of(kind)
        expected, got = (results_and_gradients(m, x, hx, packing) for m in (theirs, ours))
        assert_all_close(got, expected)
        assert got[0].dtype == expected[0].dtype

    @layers
    @ways
    @pytest.mark.parametrize("kind", ["batch", "unbatched", "packed"])
    @pytest.mark.parametrize("proj_size", [0, 1])
    def test_gradcheck(self, num_layers, bidirectional, kind, proj_size, path):
        options = {"bidirectional": bidirectional, "proj_size": proj_size, "dtype": torch.float64}
        lstm = lstmx.torch.LSTM(2, 2, num_layers, **options)
        rows, packing = () if kind == "unbatched" else (2,), kind == "packed"
        x = torch.randn(3, *rows, 2, dtype=torch.float64)
        names, parameters = zip(*lstm.named_parameters(), strict=True)

        def call(x, h_0, c_0, *weights):
            x = pack_padded_sequence(x, [2, 3], enforce_sorted=False) if packing else x
            given = dict(zip(names, weights, strict=True))
            result = flat(torch.func.functional_call(lstm, given, (x, (h_0, c_0))))
            return tuple(t for t in result if t.is_floating_point())

        leaves = [t.detach().requires_grad_() for t in (x, *make_states(lstm, rows), *parameters)]
        assert torch.autograd.gradcheck(call, leaves)

    @cells
    def test_strides(self, options, path):
        """Of x, states, and gradients (those of a sum have none): only what kernels cannot read is copied."""
        theirs, ours = twins(INPUTS, HIDDEN, **options)
        dtype, width = options.get("dtype"), options.get("proj_size", HIDDEN)
        x = torch.randn(INPUTS, 2 * BATCH, STEPS, dtype=dtype).permute(2, 1, 0)[:, ::2]
        results = []
        for module in (theirs, ours):
            h_0, c_0 = (torch.ones(1, 1, n, dtype=dtype, requires_grad=True) for n in (width, HIDDEN))
            leaf = x.detach().requires_grad_()
            y, (h_n, c_n) = module(leaf, (h_0.expand(1, BATCH, width), c_0.expand(1, BATCH, HIDDEN)))
            (y.sum() + h_n.sum() + c_n.sum()).backward()
            results.append([y, h_n, c_n, *(t.grad for t in (leaf, h_0, c_0, *module.parameters()))])
        assert_all_close(*reversed(results))

    @pytest.mark.parametrize("made", ["double", "float"])
    def test_made_another_dtype(self, made, path):
        """After a call, so that everything that was packed is of the other dtype."""
        theirs, ours = twins(INPUTS, HIDDEN, 2, proj_size=2)
        for module in (theirs, ours):
            module(make_input())
            module.double()(make_input().double())
            if made != "double":
                module.float()
        x = make_input(dtype=torch.float64 if made == "double" else None)
        assert_all_close(results_and_gradients(ours, x), results_and_gradients(theirs, x))

    def test_default_dtype(self):
        torch.set_default_dtype(torch.float64)
        try:
            y, _ = lstmx.torch.LSTM(INPUTS, HIDDEN)(make_input())
        finally:
            torch.set_default_dtype(torch.float32)
        assert y.dtype == torch.float64

    @layers
    @pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
    def test_drops_what_pytorch_drops(self, num_layers, packed, path):
        theirs, ours = twins(INPUTS, HIDDEN, num_layers + 1, dropout=0.4, bidirectional=True)
        x = make_input()

        def packing(x):
            return pack_padded_sequence(x, LENGTHS, enforce_sorted=False)

        for training in (True, False):
            pair = []
            for module in (theirs, ours):
                torch.manual_seed(3)
                module.train(training)
                pair.append(results_and_gradients(module, x, packing=packing if packed else None))
            for mine, true in zip(pair[1], pair[0], strict=True):
                assert_close(mine, true)

    def test_packed_rows_keep_their_order(self):
        lstm = lstmx.torch.LSTM(INPUTS, HIDDEN)
        packed = pack_padded_sequence(make_input(), LENGTHS, enforce_sorted=False)
        output, _ = lstm(packed)
        assert isinstance(output, PackedSequence)
        for got, given in zip(output[1:], packed[1:], strict=True):
            assert_close(got, given)

    @pytest.mark.parametrize("frozen", ["x", "h_0", "parameters", "weight_hh_l0", "bias_ih_l1"])
    @pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
    def test_gradients_of_a_part(self, frozen, packed, path):
        theirs, ours = twins(INPUTS, HIDDEN, 2)
        x, (h_0, c_0) = make_input(), make_states(ours)
        grads = []
        for module in (theirs, ours):
            leaves = {"x": x.clone(), "h_0": h_0.clone(), "c_0": c_0.clone()}
            module.requires_grad_(frozen != "parameters")
            if frozen in dict(module.named_parameters()):
                module.get_parameter(frozen).requires_grad_(False)
            for name, leaf in leaves.items():
                leaf.requires_grad_(name != frozen)
            source = pack_padded_sequence(leaves["x"], [5, 4, 4, 2]) if packed else leaves["x"]
            module(source, (leaves["h_0"], leaves["c_0"]))[1][1].sum().backward()
            grads.append([t.grad for t in (*leaves.values(), *module.parameters())])
        for mine, true in zip(grads[1], grads[0], strict=True):
            assert (mine is None) == (true is None)
            if true is not None:
                assert_close(mine, true)

    @pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
    def test_backward_twice(self, packed, path):
        """The second time, the forward pass is computed again; without retain_graph it is refused."""
        theirs, ours = twins(INPUTS, HIDDEN, bidirectional=True)
        x, grads = make_input(), []
        source = pack_padded_sequence(x, LENGTHS, enforce_sorted=False) if packed else x
        for module in (theirs, ours):
            loss = flat(module(source))[0].square().sum()
            loss.backward(retain_graph=True)
            loss.backward()
            with pytest.raises(RuntimeError, match="backward through the graph a second time"):
                loss.backward()
            grads.append([p.grad for p in module.parameters()])
        for mine, true in zip(grads[1], grads[0], strict=True):
            assert_close(mine, true)

    def test_hooks(self, path):
        """Of tensors, parameters and modules: called as often, with the same gradients; one is changed."""
        theirs, ours = twins(INPUTS, HIDDEN)
        x, seen = make_input(), []
        for module in (theirs, ours):
            calls = []
            leaf = x.clone().requires_grad_()
            leaf.register_hook(lambda g, calls=calls: calls.append(g.clone()))
            module.weight_hh_l0.register_hook(lambda g, calls=calls: (calls.append(g.clone()), 2 * g)[1])
            module.bias_ih_l0.register_post_accumulate_grad_hook(
                lambda p, calls=calls: calls.append(p.grad.clone())
            )
            module.register_full_backward_hook(lambda _, d, dy, calls=calls: calls.extend(flat((d, dy))))
            y, (h_n, _) = module(leaf)
            y.register_hook(lambda g, calls=calls: calls.append(g.clone()))
            (y.square().sum() + h_n.sum()).backward()
            seen.append([*sorted(calls, key=lambda t: tuple(t.shape)), leaf.grad, *module.parameters()])
            seen[-1] += [p.grad for p in module.parameters()]
        assert len(seen[1]) == len(seen[0]) == 6 + 1 + 8
        for mine, true in zip(seen[1], seen[0], strict=True):
            assert_close(mine, true)

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    @pytest.mark.parametrize("packed", [False, True], ids=["batch", "packed"])
    def test_without_gradients(self, context, packed, path):
        theirs, ours = twins(INPUTS, HIDDEN, 2, bidirectional=True)
        outside = make_input().requires_grad_()
        with context():
            for x in (outside, make_input()):
                source = pack_padded_sequence(x, LENGTHS, enforce_sorted=False) if packed else x
                got, expected = flat(ours(source)), flat(theirs(source))
                for mine, true in zip(got, expected, strict=True):
                    assert_close(mine, true)
                    assert (mine.requires_grad, mine.is_inference()) == (False, true.is_inference())

    def test_nothing_is_kept_where_nothing_needs_it(self, path):
        lstm = lstmx.torch.LSTM(INPUTS, HIDDEN).requires_grad_(False)
        y, _ = lstm(make_input())
        assert not y.requires_grad

    def test_saved_tensors_that_are_copied(self):
        """Hooks that move what autograd saves lose the tape; the gradients stay."""
        lstm, x = lstmx.torch.LSTM(INPUTS, HIDDEN), make_input()
        expected = results_and_gradients(lstm, x)
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda t: t):
            got = results_and_gradients(lstm, x)
        for mine, true in zip(got, expected, strict=True):
            assert_close(mine, true, rtol=0, atol=0)

    def test_checkpointing(self):
        from torch.utils.checkpoint import checkpoint

        lstm, x = lstmx.torch.LSTM(INPUTS, HIDDEN), make_input()
        expected = results_and_gradients(lstm, x)
        got = results_and_gradients(_Call(lstm, lambda *a: checkpoint(lstm, *a, use_reentrant=False)), x)
        for mine, true in zip(got, expected, strict=True):
            assert_close(mine, true, rtol=0, atol=0)

    def test_no_rows(self):
        y, (h_n, c_n) = lstmx.torch.LSTM(INPUTS, HIDDEN)(torch.zeros(STEPS, 0, INPUTS))
        assert (y.shape, h_n.shape, c_n.shape) == ((STEPS, 0, HIDDEN), (1, 0, HIDDEN), (1, 0, HIDDEN))

    def test_a_changed_output_is_noticed(self, path):
        y, _ = lstmx.torch.LSTM(INPUTS, HIDDEN)(make_input())
        with torch.no_grad():
            y.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    @pytest.mark.parametrize("name", ["weight_ih_l0", "bias_hh_l0"])
    def test_changed_weights_are_noticed(self, name, path):
        lstm = lstmx.torch.LSTM(INPUTS, HIDDEN)
        y, _ = lstm(make_input())
        with torch.no_grad():
            lstm.get_parameter(name).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    def test_second_derivatives_are_refused(self, path):
        lstm, x = lstmx.torch.LSTM(INPUTS, HIDDEN), make_input().requires_grad_()
        (dx,) = torch.autograd.grad(lstm(x)[0].square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            dx.sum().backward()

    def test_a_penalty_on_gradients_is_refused_whatever_comes_from_above(self, path):
        """The gradient of a sum of outputs is 1, which needs no gradient itself."""
        lstm, x = lstmx.torch.LSTM(INPUTS, HIDDEN), make_input().requires_grad_()
        loss = lstm(x)[0].sum()
        (dx,) = torch.autograd.grad(loss, x, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            (loss + dx.square().sum()).backward()

    def test_under_autocast(self):
        lstm, x = lstmx.torch.LSTM(INPUTS, HIDDEN), make_input()
        with torch.autocast("cpu"):
            y, _ = lstm(x.bfloat16())
        assert y.dtype == torch.float32
        assert_close(y, lstm(x.bfloat16().float())[0])

    @pytest.mark.parametrize("batch_first", [False, True])
    def test_memory_is_shared(self, batch_first, path, monkeypatch):
        """Results are written into their own memory, and a strided x is read where it is."""
        lstm, x = lstmx.torch.LSTM(256, 2, batch_first=batch_first), torch.randn(40, 50, 256)[::2]
        monkeypatch.setattr(torch.Tensor, "clone", None)  # by which copies are made
        with torch.no_grad():
            lstm(x)
            tracemalloc.start()
            try:
                y, _ = lstm(x)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peak < x.nbytes / 4
        assert y.data_ptr() % 16 == 0

    def test_tapes_are_not_kept(self, monkeypatch):
        monkeypatch.setattr(operators, "_nothing_intervenes", lambda: False)
        lstm, before = lstmx.torch.LSTM(INPUTS, HIDDEN), len(operators._tapes)
        y, _ = lstm(make_input())
        assert len(operators._tapes) == before + 1
        del y, _
        assert len(operators._tapes) == before

    def test_a_negated_gradient(self, path):
        """A view that changes the sign: what is in memory is not what the gradient is."""
        theirs, ours = twins(INPUTS, HIDDEN)
        x, grads = make_input(), []
        for module in (theirs, ours):
            y, _ = module(x)
            y.register_hook(lambda g: torch._neg_view(g.neg()))
            y.square().sum().backward()
            grads.append([p.grad for p in module.parameters()])
        assert_all_close(*reversed(grads))

    @pytest.mark.parametrize("backward", [False, True])
    def test_memory_is_given_back(self, backward, path):
        """Results with the tensors, a tape with its graph; packed weights with the weights."""
        resource = pytest.importorskip("resource")
        x, cells = torch.randn(200, 20, INPUTS), len(operators._cells)
        lstm = lstmx.torch.LSTM(INPUTS, 64)
        peaks = []
        for _ in range(2):
            for _ in range(60):  # a call's results, gates and states are 6 MB
                y, _ = lstm(x)
                if backward:
                    y.sum().backward()
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        assert peaks[1] - peaks[0] < 50_000  # KB
        assert len(operators._cells) == cells + 1
        lstm = y = _ = None
        assert len(operators._cells) == cells

    def test_in_threads(self):
        """Each trains a module of its own while all of them read a common one."""
        shared, x = lstmx.torch.LSTM(INPUTS, HIDDEN), make_input()
        own = [copy.deepcopy(shared) for _ in range(4)]
        expected, outcome = results_and_gradients(shared, x), {}

        def work(k):
            outcome[k] = [results_and_gradients(m, x) for _ in range(20) for m in (own[k], shared)]

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcome) == [0, 1, 2, 3]
        for got in (result for results in outcome.values() for result in results):
            for mine, true in zip(got, expected, strict=True):
                assert_close(mine, true, rtol=0, atol=0)


@dtypes
class TestWhatPyTorchShips:
    """Inputs and wrong inputs that PyTorch tests its own modules with."""

    @pytest.fixture
    def info(self, request):
        pytest.importorskip("expecttest")  # which these need
        from torch.testing._internal import common_modules

        return {info.module_cls: info for info in common_modules.module_db}

    @pytest.mark.parametrize("training", [False, True])
    @pytest.mark.parametrize(("module", "number"), [("LSTM", 32), ("LSTMCell", 2)])
    def test_inputs(self, info, module, number, training, torch_dtype, path):
        about, options = info[getattr(nn, module)], {"device": "cpu", "dtype": torch_dtype}
        samples = about.module_inputs_func(about, requires_grad=True, training=training, **options)
        assert len(samples) == number
        for sample in samples:
            made = sample.constructor_input
            theirs, ours = twins(*made.args, **made.kwargs, module=module, dtype=torch_dtype)
            x, *hx = sample.forward_input.args
            expected, got = (results_and_gradients(m.train(training), x, *hx) for m in (theirs, ours))
            assert_all_close(got, expected)
            assert_close(ours(x, *hx), sample.reference_fn(ours, x, *hx))

    @pytest.mark.parametrize(("module", "number"), [("LSTM", 14), ("LSTMCell", 4)])
    def test_errors(self, info, module, number, torch_dtype):
        about = info[getattr(nn, module)]
        options = {"device": "cpu", "dtype": torch_dtype, "requires_grad": False, "training": False}
        samples = about.module_error_inputs_func(about, **options)
        assert len(samples) == number
        for sample in samples:
            made, call = sample.module_error_input.constructor_input, sample.module_error_input.forward_input

            def construct(made=made):
                return getattr(lstmx.torch, module)(*made.args, **{"dtype": torch_dtype} | made.kwargs)

            if sample.error_on.name == "CONSTRUCTION_ERROR":
                with pytest.raises(sample.error_type):
                    construct()
            else:
                ours = construct()
                with pytest.raises(sample.error_type):
                    ours(*call.args)


class _Function(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class _Dispatch(torch.utils._python_dispatch.TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


CONTEXTS = {
    "autocast": lambda: torch.autocast("cpu"),
    "function mode": _Function,
    "dispatch mode": _Dispatch,
    "saved tensors' hooks": lambda: torch.autograd.graph.save_on_cpu(),
}


class TestWays:
    """Who would see a call of the operator, sees it."""

    def test_a_plain_call_is_none(self, operator_calls):
        lstm, x = lstmx.torch.LSTM(INPUTS, HIDDEN), make_input()
        lstm(x), lstm(x.requires_grad_()), lstmx.torch.LSTMCell(INPUTS, HIDDEN)(x[0])
        with torch.no_grad():
            lstm(x)
        with torch.inference_mode():
            lstm(make_input())
        assert operator_calls == []

    @pytest.mark.parametrize("context", CONTEXTS)
    def test_within(self, context, operator_calls):
        lstm, x = lstmx.torch.LSTM(INPUTS, HIDDEN, 2), make_input()
        expected = results_and_gradients(lstm, x)
        with CONTEXTS[context]():
            got = results_and_gradients(lstm, x)
        assert operator_calls
        for mine, true in zip(got, expected, strict=True):
            assert_close(mine, true, rtol=0, atol=0)

    @pytest.mark.parametrize("which", ["input", "state", "weight"])
    def test_tensors_of_other_classes(self, which, operator_calls):
        lstm, x = lstmx.torch.LSTM(INPUTS, HIDDEN), make_input()
        hx = make_states(lstm)
        expected = lstm(x, hx)
        if which == "input":
            x = x.as_subclass(_Tensor)
        elif which == "state":
            hx = hx[0].as_subclass(_Tensor), hx[1]
        else:
            lstm.weight_hh_l0 = nn.Parameter(lstm.weight_hh_l0.detach().as_subclass(_Tensor))
        y, _ = lstm(x, hx)
        assert type(y) is _Tensor
        assert operator_calls
        assert_close(y.as_subclass(torch.Tensor), expected[0], rtol=0, atol=0)

    def test_fake_tensors(self, operator_calls):
        from torch._subclasses import FakeTensorMode

        with FakeTensorMode():
            y, (h_n, _) = lstmx.torch.LSTM(INPUTS, HIDDEN)(make_input())
        assert (y.shape, h_n.shape) == ((STEPS, BATCH, HIDDEN), (1, BATCH, HIDDEN))
        assert operator_calls

    def test_a_negated_view(self, operator_calls):
        lstm, z = lstmx.torch.LSTM(INPUTS, HIDDEN), torch.randn(STEPS, BATCH, INPUTS, dtype=torch.complex64)
        x = z.conj().imag
        assert x.is_neg()
        assert_close(lstm(x), lstm(x.resolve_neg()))
        assert operator_calls


class TestExchange:
    """The table of functions by which the core reads and makes tensors."""

    def test_is_pytorchs(self):
        expected = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 10)
        assert (operators._exchange is not None) == expected

    @pytest.mark.parametrize(
        ("versions", "known"), [([1], True), ([2, 1], True), ([3, 2, 1], True), ([2], False), ([0], False)]
    )
    def test_versions(self, versions, known):
        """Of a table that is too new, the library's older one is taken, if it has one."""
        if operators._exchange is None:
            pytest.skip("this PyTorch exports no table: versions of it NOT tested")
        tables, last = [], None
        for version in reversed(versions):
            functions = _capsule_pointer(torch.Tensor.__dlpack_c_exchange_api__)
            table = (ctypes.c_char * TABLE_SIZE)()
            ctypes.memmove(table, functions if version == 1 else bytes(TABLE_SIZE), TABLE_SIZE)
            ctypes.c_uint32.from_buffer(table).value = version
            ctypes.c_void_p.from_buffer(table, 8).value = None if last is None else ctypes.addressof(last)
            tables.append(last := table)
        kind = type(
            "Kind", (torch.Tensor,), {"__dlpack_c_exchange_api__": _new_capsule(ctypes.addressof(last))}
        )
        exchange = _core.dlpack_exchange(kind)
        assert (exchange is not None) == known
        if exchange is not None:
            lstm, x = lstmx.torch.LSTM(INPUTS, HIDDEN), make_input()
            tensors = (t.detach().as_subclass(kind) for t in (x, *lstm.parameters()))
            x_kind, *weights = tensors
            given = x_kind, None, None, *weights, None
            y, *_ = _core.TensorLstm(exchange).forward(given, None, None, False, False)
            assert_close(y, lstm(x)[0].detach(), rtol=0, atol=0)

    @pytest.mark.parametrize(
        "kind", [type("Plain", (), {}), type("Odd", (), {"__dlpack_c_exchange_api__": 1})]
    )
    def test_other_classes_have_none(self, kind):
        assert _core.dlpack_exchange(kind) is None

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                (torch.tensor([2, 3]), None),
                "batch_sizes: expected numbers above 0, none greater than the one before",
            ),
            ((torch.tensor([3, 0]), None), "batch_sizes: expected numbers above 0"),
            ((torch.tensor([3, 1]), None), "batch_sizes: expected a sum of 5"),
            ((torch.tensor([3, 2], dtype=torch.int32), None), "batch_sizes: expected int64"),
            ((torch.tensor([3, 2]), torch.tensor([0, 1])), "order: expected each row once"),
            ((torch.tensor([3, 2]), torch.tensor([0, 1, 1])), "order: expected each row once"),
            ((torch.tensor([3, 2]), torch.tensor([0, 1, 3])), "order: expected each row once"),
            ((None, None), "input: expected 3 dimensions"),
        ],
    )
    def test_packings_that_are_none(self, options, message):
        exchange = operators._exchange or pytest.skip("this PyTorch exports no table: NOT tested")
        given = zeros(5, 3), None, None, zeros(24, 3), zeros(24, 6), None, None, None
        with pytest.raises(ValueError, match=message):
            _core.TensorLstm(exchange).forward(given, *options, False, True)

    @pytest.mark.parametrize(
        ("number", "value", "message"),
        [
            (0, None, "input: expected an array"),
            (0, zeros(5, 2, 4), r"input: expected shape \(5, 2, 3\), got \(5, 2, 4\)"),
            (0, zeros(5, 2, 3).to_sparse(), "input: expected an array on the CPU"),
            (0, zeros(5, 2, 3, device="meta"), "input: expected an array on the CPU"),
            (1, zeros(1, 3, 6), r"h_0: expected shape \(1, 2, 6\), got \(1, 3, 6\)"),
            (2, zeros(1, 2, 6, dtype=torch.float64), "c_0: expected float32"),
            (3, zeros(26, 3), r"weight_ih: expected shape \(24, 3\), got \(26, 3\)"),
            (5, zeros(23), r"bias_ih: expected shape \(24,\), got \(23,\)"),
            (5, zeros(24, dtype=torch.int32), "bias_ih: expected float32"),
            (7, zeros(6, 6), "weight_hr: expected fewer rows"),
        ],
    )
    def test_arguments_that_do_not_fit(self, number, value, message):
        exchange = operators._exchange or pytest.skip("this PyTorch exports no table: NOT tested")
        given = [zeros(5, 2, 3), None, None, zeros(24, 3), zeros(24, 6), None, None, None]
        given[number] = value
        with pytest.raises(ValueError, match=message):
            _core.TensorLstm(exchange).forward(tuple(given), None, None, False, True)

    @pytest.mark.parametrize("absent", [0, 3, 4, 8])
    def test_backward_without_what_it_reads(self, absent):
        exchange = operators._exchange or pytest.skip("this PyTorch exports no table: NOT tested")
        given = zeros(5, 2, 3), None, None, zeros(24, 3), zeros(24, 6), None, None, None
        y, _, _, tape = _core.TensorLstm(exchange).forward(given, None, None, False, True)
        given = [*given, y, y, None, None]
        given[absent] = None
        with pytest.raises(ValueError, match="expected an array"):
            tape.backward(tuple(given), False, False)

    def test_results_too_large_for_memory(self):
        lstm = lstmx.torch.LSTM(INPUTS, HIDDEN)
        x = zeros(1, 1, INPUTS).expand(2**30, 2**31, INPUTS)
        with pytest.raises(MemoryError):
            lstm(x)

    def test_what_has_to_be_copied_is_named(self):
        exchange = operators._exchange or pytest.skip("this PyTorch exports no table: NOT tested")
        given = zeros(5, 2, 3), None, None, zeros(3, 24).t(), zeros(24, 6), None, None, None
        assert _core.TensorLstm(exchange).forward(given, None, None, False, True) == 3


TABLE_SIZE = 16 + 5 * ctypes.sizeof(ctypes.c_void_p)


def _capsule_pointer(capsule):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, b"dlpack_exchange_api")


def _new_capsule(address):
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(address, b"dlpack_exchange_api", None)


class _Tensor(torch.Tensor):
    pass


WRITES = {
    "in place": lambda p: p.detach().add_(1),
    ".data in place": lambda p: p.data.add_(1),
    ".data replaced": lambda p: setattr(p, "data", p.data + 1),
    "through NumPy": lambda p: p.detach().numpy().__iadd__(1),
}


class TestParameters:
    @layers
    @ways
    @pytest.mark.parametrize("bias", [False, True])
    @cells
    def test_are_pytorchs(self, num_layers, bidirectional, bias, options):
        theirs, ours = twins(INPUTS, HIDDEN, num_layers, bias, bidirectional=bidirectional, **options)
        assert repr(ours) == repr(theirs)
        pairs = list(zip(theirs.state_dict().items(), ours.state_dict().items(), strict=True))
        for (name, true), (mine, value) in pairs:
            assert mine == name
            assert torch.equal(value, true)
        for source, target in ((ours, theirs), (theirs, ours)):
            with torch.no_grad():
                for p in source.parameters():
                    p.add_(1)
            target.load_state_dict(source.state_dict())
            assert all(map(torch.equal, target.parameters(), source.parameters()))

    @pytest.mark.parametrize("write", WRITES)
    @pytest.mark.parametrize("calls", [1, 2, 3])
    @cells
    def test_packed_weights_are_never_stale(self, write, calls, options):
        theirs, ours = twins(INPUTS, HIDDEN, **options)
        x = make_input(dtype=options.get("dtype"))
        for k, _ in enumerate(ours.parameters()):
            for _ in range(calls):
                assert_close(ours(x), theirs(x))
            for module in (theirs, ours):
                WRITES[write](list(module.parameters())[k])
            assert_close(ours(x), theirs(x))

    @pytest.mark.parametrize("kind", ["foreach", "fused"])
    def test_optimizers_make_nothing_stale(self, kind):
        """Fused ones leave a parameter's version as it was."""
        theirs, ours = twins(INPUTS, HIDDEN)
        optimizers = [torch.optim.SGD(m.parameters(), lr=0.5, **{kind: True}) for m in (theirs, ours)]
        x = make_input()
        for _ in range(4):
            assert_close(ours(x), theirs(x))
            for module, optimizer in zip((theirs, ours), optimizers, strict=True):
                optimizer.zero_grad()
                module(x)[0].square().mean().backward()
                optimizer.step()

    def test_transposed_in_place(self):
        """The same memory, read in another order."""
        theirs, ours = twins(4 * HIDDEN, HIDDEN)
        x = torch.randn(STEPS, BATCH, 4 * HIDDEN)
        for _ in range(3):
            for module in (theirs, ours):
                module.weight_ih_l0.data = module.weight_ih_l0.data.t()
            assert_close(ours(x), theirs(x))
            for module in (theirs, ours):
                module.weight_ih_l0.data.mul_(0.5)
            assert_close(ours(x), theirs(x))

    def test_parametrized(self):
        theirs, ours = twins(INPUTS, HIDDEN)
        for module in (theirs, ours):
            nn.utils.parametrize.register_parametrization(module, "weight_hh_l0", _Halved())
        x = make_input()
        got, expected = (results_and_gradients(m, x) for m in (ours, theirs))
        for mine, true in zip(got, expected, strict=True):
            assert_close(mine, true)

    def test_in_inference_mode(self):
        with torch.inference_mode():
            theirs, ours = twins(INPUTS, HIDDEN)
            x = make_input()
            for _ in range(4):
                assert_close(ours(x), theirs(x))
                for module in (theirs, ours):
                    module.weight_hh_l0.add_(0.1)

    def test_functional_call(self):
        theirs, ours = twins(INPUTS, HIDDEN)
        weights = {n: torch.randn_like(p) for n, p in ours.named_parameters()}
        x = make_input()
        expected, got = (torch.func.functional_call(m, weights, (x,)) for m in (theirs, ours))
        assert_close(got, expected)

    def test_shared_weights_of_two_shapes(self):
        """Weights in the place of others, of another width, get a plan of their own."""
        ours = lstmx.torch.LSTM(INPUTS, HIDDEN)
        ours(make_input())
        theirs = nn.LSTM(INPUTS + 1, HIDDEN)
        ours.input_size += 1
        for mine, true in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.data = true.data.clone()
        x = torch.randn(STEPS, BATCH, INPUTS + 1)
        assert_close(ours(x), theirs(x))

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
    @pytest.mark.parametrize(
        ("module", "options"),
        [("LSTM", {}), ("LSTM", {"proj_size": 2, "dtype": torch.float64}), ("LSTMCell", {})],
    )
    def test_copies(self, copied, module, options):
        original = getattr(lstmx.torch, module)(INPUTS, HIDDEN, **options)
        x = torch.randn(BATCH, INPUTS, dtype=options.get("dtype"))
        before = original(x)
        other = copied(original)
        assert type(other) is type(original)
        assert_close(other(x), before)
        with torch.no_grad():
            for p in other.parameters():
                p.add_(1)
        assert_close(original(x), before)
        assert not torch.equal(other(x)[0], before[0])


class _Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


class TestLSTMCell:
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("rows", [(), (BATCH,)], ids=["unbatched", "batch"])
    @pytest.mark.parametrize("states", [False, True])
    @dtypes
    def test_agrees_with_pytorch(self, bias, rows, states, torch_dtype, path):
        theirs, ours = twins(INPUTS, HIDDEN, bias, module="LSTMCell", dtype=torch_dtype)
        assert repr(ours) == repr(theirs)
        x = torch.randn(*rows, INPUTS, dtype=torch_dtype)
        hx = tuple(torch.randn(*rows, HIDDEN, dtype=torch_dtype) for _ in range(2)) if states else None
        expected, got = (results_and_gradients(m, x, hx) for m in (theirs, ours))
        for mine, true in zip(got, expected, strict=True):
            assert_close(mine, true)

    @pytest.mark.parametrize("rows", [(), (2,)], ids=["unbatched", "batch"])
    def test_gradcheck(self, rows, path):
        cell = lstmx.torch.LSTMCell(2, 3, dtype=torch.float64)
        names, parameters = zip(*cell.named_parameters(), strict=True)

        def call(x, h_0, c_0, *weights):
            return torch.func.functional_call(cell, dict(zip(names, weights, strict=True)), (x, (h_0, c_0)))

        given = [torch.randn(*rows, width, dtype=torch.float64) for width in (2, 3, 3)]
        assert torch.autograd.gradcheck(call, [t.detach().requires_grad_() for t in (*given, *parameters)])

    def test_over_a_sequence(self):
        cell, lstm = lstmx.torch.LSTMCell(INPUTS, HIDDEN), lstmx.torch.LSTM(INPUTS, HIDDEN)
        lstm.load_state_dict({f"{name}_l0": p for name, p in cell.state_dict().items()})
        x, hx, hidden = make_input(), None, []
        for step in x:
            hx = cell(step, hx)
            hidden.append(hx[0])
        y, (_, c_n) = lstm(x)
        assert_close(torch.stack(hidden), y, rtol=0, atol=0)
        assert_close(hx[1], c_n[0], rtol=0, atol=0)


class TestCompilers:
    @pytest.fixture(autouse=True)
    def _nothing_compiled_before(self):
        torch.compiler.reset()

    @pytest.mark.parametrize("complete", [False, True])  # with biases and states
    @pytest.mark.parametrize("batch_sizes", [None, [4, 3, 3, 1, 1]])
    @pytest.mark.parametrize("reverse", [False, True])
    @cells
    def test_operator(self, complete, batch_sizes, reverse, options):
        def leaf(*shape):
            return torch.randn(*shape, requires_grad=True, dtype=options.get("dtype"))

        projection = options.get("proj_size")
        width = projection or HIDDEN
        state = (leaf(1, BATCH, width), leaf(1, BATCH, HIDDEN)) if complete else (None, None)
        biases = (leaf(4 * HIDDEN), leaf(4 * HIDDEN)) if complete else (None, None)
        weights = leaf(4 * HIDDEN, INPUTS), leaf(4 * HIDDEN, width), *biases
        weights = *weights, leaf(width, HIDDEN) if projection else None
        x = leaf(STEPS, BATCH, INPUTS) if batch_sizes is None else leaf(sum(batch_sizes), INPUTS)
        batch_sizes = None if batch_sizes is None else torch.tensor(batch_sizes)
        arguments = x, *state, *weights, batch_sizes, BATCH, reverse
        torch.library.opcheck(torch.ops.lstmx.lstm, (*arguments, True))
        with torch.no_grad():
            torch.library.opcheck(torch.ops.lstmx.lstm, (*arguments, False))

    @pytest.mark.parametrize("backend", ["eager", "aot_eager"])
    @pytest.mark.parametrize("batch_first", [False, True])
    @cells
    def test_compile(self, backend, batch_first, options):
        lstm = lstmx.torch.LSTM(INPUTS, HIDDEN, 2, batch_first=batch_first, bidirectional=True, **options)
        compiled = torch.compile(lstm, fullgraph=True, backend=backend)
        dtype = options.get("dtype")
        x, hx = make_input(batch_first, dtype=dtype), make_states(lstm)
        for case in ((x,), (x, hx), (make_input(unbatched=True, dtype=dtype),)):
            expected = results_and_gradients(lstm, *case)
            got = results_and_gradients(_Call(lstm, compiled), *case)
            for mine, true in zip(got, expected, strict=True):
                assert_close(mine, true)
            with torch.no_grad():
                assert_close(compiled(*case), lstm(*case))

    def test_compiled_training_sees_new_weights(self):
        lstm = lstmx.torch.LSTM(INPUTS, HIDDEN)
        compiled = torch.compile(lstm, fullgraph=True, backend="aot_eager")
        optimizer = torch.optim.SGD(lstm.parameters(), lr=1.0)
        for _ in range(3):
            x = make_input()
            y, _ = compiled(x)
            assert_close(y, lstm(x)[0])
            optimizer.zero_grad()
            y.square().sum().backward()
            optimizer.step()

    @ways
    @cells
    def test_export(self, bidirectional, options):
        lstm = lstmx.torch.LSTM(INPUTS, HIDDEN, 2, bidirectional=bidirectional, **options).eval()
        dynamic = {"input": {0: torch.export.Dim("steps", min=2), 1: torch.export.Dim("batch", min=2)}}
        dtype = options.get("dtype")
        program = torch.export.export(lstm, (make_input(dtype=dtype),), dynamic_shapes=dynamic)
        x = torch.randn(STEPS + 4, BATCH + 3, INPUTS, dtype=dtype)
        assert_close(program.module()(x), lstm(x))


class _Call(nn.Module):
    """The parameters of a module, called in another way."""

    def __init__(self, module, call):
        super().__init__()
        self.module, self.call = module, call

    def forward(self, x, hx=None):
        return self.call(x) if hx is None else self.call(x, hx)


class TestConvert:
    def test_changes_what_it_can(self):
        model = nn.ModuleDict(
            {
                "plain": nn.LSTM(INPUTS, HIDDEN, 2, bidirectional=True),
                "deep": nn.ModuleList([nn.LSTM(INPUTS, HIDDEN, batch_first=True)]),
                "projected": nn.LSTM(INPUTS, HIDDEN, proj_size=2),
                "float64": nn.LSTM(INPUTS, HIDDEN, dtype=torch.float64),
                "16 bits": nn.LSTM(INPUTS, HIDDEN, dtype=torch.bfloat16),
                "elsewhere": nn.LSTM(INPUTS, HIDDEN, device="meta"),
                "derived": type("Derived", (nn.LSTM,), {})(INPUTS, HIDDEN),
                "other": nn.GRU(INPUTS, HIDDEN),
            }
        )
        kinds = {name: type(module) for name, module in model.named_modules()}
        parameters = list(map(id, model.parameters()))
        calls = []
        model["plain"].register_forward_hook(lambda *_: calls.append(1))
        x = make_input()
        inputs = {"plain": x, "projected": x, "float64": x.double()}
        expected = {name: model[name](given) for name, given in inputs.items()}

        names = lstmx.torch.convert(model)

        assert names == ["plain", "deep.0", "projected", "float64"]
        for name, module in model.named_modules():
            assert type(module) is (lstmx.torch.LSTM if name in names else kinds[name])
        assert list(map(id, model.parameters())) == parameters
        for name, given in inputs.items():
            assert_close(model[name](given), expected[name])
            assert_close(copy.deepcopy(model)[name](given), expected[name])
        assert len(calls) == 3
        assert lstmx.torch.convert(model) == []
        assert_close(pickle.loads(pickle.dumps(model["deep"]))[0](x), model["deep"][0](x))

    def test_of_an_lstm_itself(self):
        lstm = nn.LSTM(INPUTS, HIDDEN)
        assert lstmx.torch.convert(lstm) == [""]
        assert type(lstm) is lstmx.torch.LSTM

    def test_trains_on_with_the_same_optimizer(self):
        theirs = nn.LSTM(INPUTS, HIDDEN)
        ours = copy.deepcopy(theirs)
        optimizers = [torch.optim.Adam(m.parameters(), lr=0.1) for m in (theirs, ours)]
        lstmx.torch.convert(ours)
        for _ in range(5):
            x = make_input()
            for module, optimizer in zip((theirs, ours), optimizers, strict=True):
                optimizer.zero_grad()
                (module(x)[0] - 1).square().sum().backward()
                optimizer.step()
        for mine, true in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_close(mine, true, rtol=1e-4, atol=1e-4)

    def test_refuses_what_is_no_module(self):
        with pytest.raises(TypeError, match=r"module: expected a torch\.nn\.Module, got dict"):
            lstmx.torch.convert({})


class TestFromTorch:
    @layers
    @ways
    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("package", [nn, lstmx.torch], ids=["nn", "lstmx"])
    def test_lstm(self, num_layers, bidirectional, bias, package):
        module = package.LSTM(INPUTS, HIDDEN, num_layers, bias, True, bidirectional=bidirectional)
        layer = lstmx.torch.from_torch(module)
        x = make_input(batch_first=True)
        for mine, true in zip(flat_arrays(layer(x.numpy())), flat(module(x)), strict=True):
            assert_close(torch.from_numpy(mine), true.detach())

    @pytest.mark.parametrize("container", [nn.Sequential, lambda *m: nn.ModuleList(m), lambda *m: list(m)])
    def test_models(self, container):
        modules = (
            nn.Linear(INPUTS, 4),
            nn.LSTM(4, HIDDEN, 2, batch_first=True, dropout=0.5),
            nn.Dropout(0.3),
            nn.Linear(HIDDEN, 2, bias=False),
        )
        model = lstmx.torch.from_torch(container(*modules))
        assert isinstance(model, lstmx.Sequential)
        assert (model[1].dropout, model[2].p) == (0.5, 0.3)
        assert model.batch_first
        x = expected = make_input(batch_first=True)
        for module in modules:
            expected = module.eval()(expected)
            expected = expected[0] if isinstance(module, nn.LSTM) else expected
        assert_close(torch.from_numpy(model(x.numpy())[0]), expected.detach())

    @pytest.mark.parametrize("module", [nn.LSTM(INPUTS, HIDDEN, proj_size=2), nn.GRU(INPUTS, HIDDEN)])
    def test_float64(self, module):
        module = module.double()
        layer = lstmx.torch.from_torch(module)
        x = make_input(dtype=torch.float64)
        y, _ = layer(x.numpy())
        assert y.dtype == np.float64
        assert_close(torch.from_numpy(y), module(x)[0].detach())

    def test_a_model_of_float64(self):
        module = nn.Sequential(nn.Linear(INPUTS, 4), nn.Dropout(0.5), nn.Linear(4, 2)).double().eval()
        x = make_input(dtype=torch.float64)
        y = lstmx.torch.from_torch(module)(x.numpy())[0]
        assert_close(torch.from_numpy(y), module(x).detach())

    def test_weights_are_a_copy_as_floats(self):
        module = nn.Linear(2, 1, dtype=torch.bfloat16)
        layer = lstmx.torch.from_torch(module)
        before = layer.params["weight"].copy()
        np.testing.assert_array_equal(before, module.weight.detach().float().numpy())
        nn.init.zeros_(module.weight)
        np.testing.assert_array_equal(layer.params["weight"], before)

    @pytest.mark.filterwarnings("ignore:dropout option")
    def test_dropout_of_one_layer_is_none(self):
        assert lstmx.torch.from_torch(nn.LSTM(INPUTS, HIDDEN, dropout=0.5)).dropout == 0

    @ways
    @pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
    @pytest.mark.parametrize(
        ("kind", "options"),
        [
            (nn.LSTM, {"proj_size": 2}),
            (lstmx.torch.LSTM, {"proj_size": 2}),
            (nn.GRU, {}),
            (nn.RNN, {"nonlinearity": "relu"}),
        ],
    )
    def test_projections_and_other_cells(self, kind, options, bidirectional):
        module = kind(INPUTS, HIDDEN, 2, dropout=0.5, bidirectional=bidirectional, **options).eval()
        layer = lstmx.torch.from_torch(module)
        assert layer.dropout == 0.5
        x = make_input(batch_first=False)
        y, final = layer(x.numpy())
        y_true, final_true = module(x)
        assert_close(torch.from_numpy(y), y_true.detach())
        if not isinstance(final, tuple):  # a state of one array
            final, final_true = (final,), (final_true,)
        for mine, true in zip(final, final_true, strict=True):
            assert_close(torch.from_numpy(mine), true.detach())

    @pytest.mark.parametrize("precision", [torch.float32, torch.float64])
    @pytest.mark.parametrize(
        "function",
        [
            nn.ReLU(),
            nn.ReLU(inplace=True),
            nn.LeakyReLU(0.3),
            nn.ELU(0.7),
            nn.Sigmoid(),
            nn.Hardsigmoid(),
            nn.Tanh(),
            nn.Softsign(),
            nn.Softplus(),
            nn.Softmax(dim=-1),
        ],
        ids=repr,
    )
    def test_activations(self, function, precision):
        """Alone and in a model, whose gradients are compared, too."""
        x = 3 * make_input(batch_first=True, dtype=precision)
        alone = lstmx.torch.from_torch(function)
        assert_close(torch.from_numpy(alone(x.numpy())[0]), function(x.clone()).float())
        module = nn.Sequential(nn.Linear(INPUTS, 6), function, nn.Linear(6, 2), nn.Softmax(-1)).to(precision)
        model = lstmx.torch.from_torch(module)
        x.requires_grad_()
        y_true = module(x)
        dy = torch.randn_like(y_true)
        y_true.backward(dy)
        y, _, backward = model.forward(x.detach().numpy())
        dx, _ = backward(dy.numpy())
        assert_close(torch.tensor(y), y_true.detach())
        assert_close(torch.from_numpy(dx), x.grad)
        for name, parameter in module.named_parameters():
            assert_close(torch.from_numpy(model.grads[name]), parameter.grad)

    @pytest.mark.parametrize(
        ("module", "match"),
        [
            (nn.Softmax(1), "module: expected nn.Softmax with dim=-1, got 1"),
            (nn.Softmax(), "module: expected nn.Softmax with dim=-1, got None"),
            (nn.Softplus(2), "module: expected nn.Softplus with beta=1.0, got 2"),
            (nn.Softplus(threshold=5), "module: expected nn.Softplus with threshold=20.0, got 5"),
            (nn.LeakyReLU(-0.1), "alpha: expected a number >= 0 for leaky_relu, got -0.1"),
        ],
    )
    def test_refuses_other_options_of_activations(self, module, match):
        with pytest.raises(ValueError, match=match):
            lstmx.torch.from_torch(module)

    @pytest.mark.parametrize("module", [nn.RNNCell(2, 3), nn.Identity(), nn.Linear, None, [nn.GELU()]])
    def test_refuses_others_by_name(self, module):
        culprit = module[0] if isinstance(module, list) else module
        name = type(culprit).__name__
        with pytest.raises(TypeError, match=rf"module: expected nn\.LSTM, .* got {name}$"):
            lstmx.torch.from_torch(module)


def flat_arrays(result):
    y, state = result
    return [y, *state]


PACKED = pack_sequence([zeros(3, 3), zeros(2, 3)])

CALLS = {
    "1 axis": (zeros(3),),
    "4 axes": (zeros(2, 2, 2, 3),),
    "width": (zeros(5, 2, 4),),
    "dtype": (zeros(5, 2, 3, dtype=torch.float64),),
    "no steps": (zeros(0, 2, 3),),
    "axes of states": (zeros(5, 2, 3), (zeros(2, 6), zeros(2, 6))),
    "axes of states, unbatched": (zeros(5, 3), (zeros(1, 1, 6), zeros(1, 1, 6))),
    "h_0": (zeros(5, 2, 3), (zeros(1, 3, 6), zeros(1, 2, 6))),
    "c_0": (zeros(5, 2, 3), (zeros(1, 2, 6), zeros(1, 2, 5))),
    "dtype of both states": (zeros(5, 2, 3), (zeros(1, 2, 6, dtype=torch.float64),) * 2),
    "dtype of a state": (zeros(5, 2, 3), (zeros(1, 2, 6), zeros(1, 2, 6, dtype=torch.float64))),
    "three states": (zeros(5, 2, 3), (zeros(1, 2, 6),) * 3),
    "a tensor for states": (zeros(5, 2, 3), zeros(2, 1, 2, 6)),
    "no tensor": (np.zeros((5, 2, 3), np.float32),),
    "packed, states": (PACKED, (zeros(1, 3, 6), zeros(1, 3, 6))),
    "packed, width": (pack_sequence([zeros(3, 4), zeros(2, 4)]),),
}

CELL_CALLS = {
    "3 axes": (zeros(1, 1, 3),),
    "width": (zeros(2, 4),),
    "axes of a state": (zeros(2, 3), (zeros(2, 6), zeros(1, 2, 6))),
    "h_0": (zeros(2, 3), (zeros(3, 6), zeros(2, 6))),
    "c_0": (zeros(2, 3), (zeros(2, 6), zeros(2, 5))),
    "one state": (zeros(2, 3), (zeros(2, 6),)),
    "a tensor for states": (zeros(2, 3), zeros(2, 2, 6)),
    "dtype": (zeros(2, 3, dtype=torch.float64),),
}


PROJECTED_CALLS = {
    "h_0 as wide as c_0": (zeros(5, 2, 3), (zeros(1, 2, 6), zeros(1, 2, 6))),
    "c_0 as wide as h_0": (zeros(5, 2, 3), (zeros(1, 2, 2), zeros(1, 2, 2))),
    "packed, h_0": (PACKED, (zeros(1, 2, 6), zeros(1, 2, 6))),
}


class TestRefusals:
    @pytest.mark.parametrize("case", CALLS)
    def test_of_calls_as_pytorchs(self, case):
        assert_same_refusal(lambda package: package.LSTM(INPUTS, HIDDEN)(*CALLS[case]))

    @pytest.mark.parametrize("case", PROJECTED_CALLS)
    def test_of_calls_with_a_projection(self, case):
        assert_same_refusal(lambda package: package.LSTM(INPUTS, HIDDEN, proj_size=2)(*PROJECTED_CALLS[case]))

    @pytest.mark.parametrize(
        "arguments",
        [
            {"input_size": 0},
            {"input_size": 3.0},
            {"hidden_size": 0},
            {"num_layers": 0},
            {"bias": 1},
            {"batch_first": None},
            {"dropout": 2},
            {"dropout": True},
            {"proj_size": -1},
            {"proj_size": 9},
        ],
        ids=str,
    )
    def test_of_arguments_as_pytorchs(self, arguments):
        arguments = {"input_size": INPUTS, "hidden_size": HIDDEN} | arguments
        assert_same_refusal(lambda package: package.LSTM(**arguments))

    @pytest.mark.parametrize("case", CELL_CALLS)
    def test_of_the_cells_calls_as_pytorchs(self, case):
        assert_same_refusal(lambda package: package.LSTMCell(INPUTS, HIDDEN)(*CELL_CALLS[case]))

    @pytest.mark.parametrize("module", ["LSTM", "LSTMCell"])
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"device": "meta"}, "device: expected cpu, got meta"),
            (
                {"dtype": torch.bfloat16},
                r"dtype: expected torch\.float32 or torch\.float64, got torch\.bfloat16",
            ),
        ],
    )
    def test_of_what_the_core_lacks(self, module, arguments, message):
        with pytest.raises(ValueError, match=message):
            getattr(lstmx.torch, module)(INPUTS, HIDDEN, **arguments)

    def test_of_a_module_made_another_dtype(self):
        lstm = lstmx.torch.LSTM(INPUTS, HIDDEN).bfloat16()
        with pytest.raises(RuntimeError, match=r"input: expected torch\.float32 on cpu, got torch\.bfloat16"):
            lstm(make_input().bfloat16())

    @pytest.mark.parametrize("name", ["weight_hh_l0", "bias_ih_l0", "weight_hr_l0"])
    def test_of_a_weight_of_another_dtype(self, name):
        theirs, ours = twins(INPUTS, HIDDEN, proj_size=2)
        for module in (theirs, ours):
            module.get_parameter(name).data = module.get_parameter(name).data.double()
            with pytest.raises(RuntimeError):
                module(make_input())

    def test_of_a_projection_that_does_not_fit(self):
        weights = zeros(24, 3), zeros(24, 2), None, None, zeros(3, 6)
        with pytest.raises(ValueError, match=r"weight_hh: expected shape \(24, 3\), got \(24, 2\)"):
            operators.recur(zeros(5, 4, 3), (None, None), weights)

    def test_without_pytorch(self, monkeypatch):
        real = builtins.__import__

        def missing(name, *args, **kwargs):
            if name == "torch":
                raise ModuleNotFoundError("No module named 'torch'")
            return real(name, *args, **kwargs)

        monkeypatch.delitem(sys.modules, "lstmx.torch")
        monkeypatch.setattr(builtins, "__import__", missing)
        with pytest.raises(ImportError, match=r"lstmx\.torch: expected PyTorch .* No module named 'torch'"):
            importlib.import_module("lstmx.torch")


def assert_same_refusal(call):
    with pytest.raises(Exception) as theirs:  # noqa: PT011 (whatever PyTorch raises)
        call(nn)
    with pytest.raises(theirs.type):
        call(lstmx.torch)


def test_import_lstmx_does_not_load_pytorch():
    import subprocess

    code = "import sys, lstmx; lstmx.LSTM(1, 1); print('torch' in sys.modules, 'torch' in dir(lstmx))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
