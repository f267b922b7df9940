"""The precision of float32 products: the settings of process, thread and layer, and that they change results.

Results are those of the target `emulated`, which makes the arithmetic of AMX on any machine with AVX-512.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import lstmx
from lstmx.layers import from_config

PRECISIONS = ("highest", "high", "medium")
X, DY = (np.random.default_rng(n).normal(size=(12, 16, 32 + 64 * n)).astype(np.float32) for n in (0, 1))


@pytest.fixture(autouse=True)
def settings():
    """Settings as at the start, whatever a test does."""
    before = lstmx.get_float32_precision()
    lstmx.set_float32_precision("highest")
    yield
    lstmx.set_float32_precision(before)


@pytest.fixture
def emulated():
    if "emulated" not in lstmx.targets.supported():
        pytest.skip("the target emulated needs AVX-512")
    with lstmx.targets.use("emulated"), lstmx.float32_precision(engine="tiles"):  # small shapes, too
        yield


LAYERS = {
    "LSTM": lambda **options: lstmx.LSTM(32, 48, rng=0, **options),
    "LSTM of several": lambda **options: lstmx.LSTM(
        32, [48, 40], bidirectional=True, connection="highway", rng=0, **options
    ),
    "LSTM with options": lambda **options: lstmx.LSTM(
        32, 48, proj_size=40, peephole=True, layer_norm=True, rng=0, **options
    ),
    "LSTM with checkpoints": lambda **options: lstmx.LSTM(32, 48, checkpoint_steps=5, rng=0, **options),
    "GRU": lambda **options: lstmx.GRU(32, 48, rng=0, **options),
    "RNN": lambda **options: lstmx.RNN(32, 48, rng=0, **options),
    "Linear": lambda **options: lstmx.Linear(32, 48, rng=0, **options),
}


def results(layer, x=X):
    """y, dx and all gradients of parameters."""
    layer.zero_grad()
    y, _, backward = layer.forward(x)
    dx, _ = backward(DY[..., : y.shape[-1]])
    return {"y": y, "dx": dx} | {name: grad.copy() for name, grad in layer.grads.items()}


def assert_same(got, expected):
    for name in expected:
        np.testing.assert_array_equal(got[name], expected[name], err_msg=name)


def errors(make, **options):
    """The root mean square of each result's error, in that of the result itself."""
    layer, exact = make(**options), make(dtype="float64")
    exact.load_state_dict(layer.state_dict())
    truth = results(exact)
    return {
        name: np.sqrt(np.mean((got - truth[name]) ** 2) / np.mean(truth[name] ** 2))
        for name, got in results(layer).items()
    }


# --- what is computed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_each_precision_has_its_error(emulated, kind):
    made = {precision: errors(LAYERS[kind], precision=precision) for precision in PRECISIONS}
    of_units = errors(LAYERS[kind], engine="fma")
    for name in of_units:
        if kind == "Linear" and name == "bias":  # a sum of what no product has touched
            assert {error[name] for error in made.values()} == {of_units[name]}
            continue
        assert made["highest"][name] < 3e-6, name
        assert made["highest"][name] != of_units[name], name
        assert 3 * made["highest"][name] < made["high"][name] < 1e-4, name
        assert 100 * made["high"][name] < made["medium"][name] < 0.1, name


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_all_ways_to_say_it_give_the_same_bits(emulated, kind, precision):
    expected = results(LAYERS[kind](precision=precision))
    layer = LAYERS[kind]()
    lstmx.set_float32_precision(precision)
    assert_same(results(layer), expected)
    lstmx.set_float32_precision("highest")
    with lstmx.float32_precision(precision):
        assert_same(results(layer), expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_fma_keeps_the_engine_off(emulated, kind):
    with lstmx.targets.use("avx512"):
        expected = results(LAYERS[kind](precision="medium"))
    assert_same(results(LAYERS[kind](precision="medium", engine="fma")), expected)
    with lstmx.float32_precision("medium", engine="fma"):
        assert_same(results(LAYERS[kind]()), expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_setting_acts_on_the_next_call(emulated, kind):
    layer = LAYERS[kind]()
    first = layer(X)[0].copy()
    lstmx.set_float32_precision("medium")
    assert np.any(layer(X)[0] != first)
    lstmx.set_float32_precision("highest")
    np.testing.assert_array_equal(layer(X)[0], first)


@pytest.mark.parametrize("kind", LAYERS)
def test_backward_computes_as_forward_did(emulated, kind):
    expected = results(LAYERS[kind](precision="medium"))
    layer = LAYERS[kind]()
    with lstmx.float32_precision("medium"):
        y, _, backward = layer.forward(X)
    with lstmx.float32_precision(engine="fma"):
        dx, _ = backward(DY[..., : y.shape[-1]])
    assert_same({"dx": dx, **layer.grads}, {name: expected[name] for name in ("dx", *layer.grads)})


def test_the_connection_of_layers_follows_the_settings(emulated):
    values = lstmx.LSTM(32, [48, 40], connection="residual", rng=0).state_dict()
    for name, value in values.items():  # y is weight_res x, and the x of that a function of biases alone
        if not name.startswith(("weight_res", "bias_ih_l0")):
            value[...] = 0

    def connected(**options):
        layer = lstmx.LSTM(32, [48, 40], connection="residual", **options)
        layer.load_state_dict(values)
        return layer(X)[0]

    exact = connected(dtype="float64")
    error = {p: np.abs(connected(precision=p) - exact).max() for p in PRECISIONS}
    assert 10 * error["highest"] < error["high"] < 0.1 * error["medium"]


def test_a_layer_comes_before_a_block_and_a_block_before_the_process(emulated):
    own = lstmx.LSTM(32, 48, precision="high", engine="tiles")
    plain = lstmx.LSTM(32, 48)
    lstmx.set_float32_precision("medium")
    assert plain.products(16) == [("emulated", "medium")]
    assert own.products(16) == [("emulated", "high")]
    with lstmx.float32_precision("highest"):
        assert plain.products(16) == [("emulated", "highest")]
        with lstmx.float32_precision(engine="fma"):
            assert plain.products(16) == [("fma", "highest")]
            assert lstmx.get_float32_precision() == "highest"
            assert own.products(16) == [("emulated", "high")]
            with lstmx.float32_precision("high", engine="auto"):
                assert plain.products(16) == [("emulated", "high")]
        assert plain.products(16) == [("emulated", "highest")]
    assert plain.products(16) == [("emulated", "medium")]


@pytest.mark.parametrize("kind", LAYERS)
def test_float64_is_never_touched(emulated, kind):
    layer = LAYERS[kind](dtype="float64")
    before = results(layer)
    with lstmx.float32_precision("medium", engine="tiles"):
        assert_same(results(layer), before)
    made = layer.products(16)
    assert set(made if isinstance(made, list) else [made]) == {("fma", "highest")}


@pytest.mark.parametrize("name", [name for name in lstmx.targets.supported() if "amx" not in name])
def test_without_an_engine_all_precisions_are_the_highest(name):
    with lstmx.targets.use(name):
        expected = results(lstmx.LSTM(32, 48, rng=0, engine="fma"))
        for precision, engine in lstmx.targets.engines().items():
            made = lstmx.LSTM(32, 48, rng=0, precision=precision, engine="tiles")
            assert made.products(16)[0].precision == ("highest" if engine == "fma" else precision)
            if engine == "fma":
                assert_same(results(made), expected)
    if name in ("portable", "avx2", "avx512"):
        with lstmx.targets.use(name):
            assert set(lstmx.targets.engines().values()) == {"fma"}


def test_products_are_those_of_each_layer(emulated):
    assert lstmx.LSTM(32, [48, 40]).products(3) == [("emulated", "highest")] * 2
    assert lstmx.Linear(32, 48).products(3) == ("emulated", "highest")
    with lstmx.float32_precision(engine="auto"):
        assert lstmx.Linear(32, 48).products(1) == ("emulated", "highest")  # for tests, whatever it costs
    with lstmx.float32_precision(engine="fma"):
        assert lstmx.Linear(32, 48).products(3) == ("fma", "highest")
    for layer, name in ((lstmx.GRU(3, 4), "batch_size"), (lstmx.Linear(3, 4), "rows")):
        with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
            layer.products(0)
        with pytest.raises(TypeError, match=f"{name}: expected an integer, got 1.5"):
            layer.products(1.5)


def test_the_operator_for_pytorch_follows_the_settings(emulated):
    torch = pytest.importorskip("torch")
    import lstmx.torch

    ours = lstmx.LSTM(32, 48, rng=0)
    theirs = lstmx.torch.LSTM(32, 48)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    seen = []
    for precision in PRECISIONS:
        with lstmx.float32_precision(precision):
            expected = results(ours)
            theirs.zero_grad()
            x = torch.from_numpy(X).requires_grad_()
            y, _ = theirs(x)
            y.backward(torch.from_numpy(DY[..., : y.shape[-1]]))
        got = {"y": y.detach().numpy(), "dx": x.grad.numpy()}
        got |= {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
        assert_same(got, expected)
        seen.append(got["y"])
    assert np.any(seen[0] != seen[1])
    assert np.any(seen[1] != seen[2])


# --- settings -----------------------------------------------------------------------------------------------


def test_set_and_get():
    for precision in PRECISIONS:
        lstmx.set_float32_precision(precision)
        assert lstmx.get_float32_precision() == precision


def test_a_block_ends_with_an_exception_too():
    with pytest.raises(KeyError, match="medium"), lstmx.float32_precision("medium", engine="fma"):
        raise KeyError(lstmx.get_float32_precision())
    assert lstmx.get_float32_precision() == "highest"
    assert lstmx._core.get_thread_products() == (None, "auto")


def test_blocks_of_threads_do_not_meet():
    inside, go_on = threading.Barrier(2), threading.Barrier(2)
    seen = {}

    def other():
        with lstmx.float32_precision("medium"):
            inside.wait(10)
            seen["inside"] = lstmx.get_float32_precision()
            go_on.wait(10)
        seen["after"] = lstmx.get_float32_precision()

    thread = threading.Thread(target=other)
    thread.start()
    with lstmx.float32_precision("high"):  # which ends while the other has not
        inside.wait(10)
        assert lstmx.get_float32_precision() == "high"
    assert lstmx.get_float32_precision() == "highest"
    lstmx.set_float32_precision("high")  # the other's block goes on
    go_on.wait(10)
    thread.join()
    assert seen == {"inside": "medium", "after": "high"}


@pytest.mark.parametrize("value", ["lowest", "HIGH", ""])
def test_unknown_names_are_refused(value):
    expected = "expected one of 'highest', 'high', 'medium', got "
    engines = "engine: expected one of 'auto', 'fma', 'tiles', got "
    for call in (lstmx.set_float32_precision, lambda p: lstmx.float32_precision(p).__enter__()):
        with pytest.raises(ValueError, match=f"precision: {expected}{value!r}"):
            call(value)
    with pytest.raises(ValueError, match=f"{engines}{value!r}"):
        lstmx.float32_precision(engine=value).__enter__()
    for layer in (lstmx.LSTM, lstmx.GRU, lstmx.RNN, lstmx.Linear):
        with pytest.raises(ValueError, match=f"precision: {expected}{value!r}"):
            layer(3, 4, precision=value)
        with pytest.raises(ValueError, match=f"{engines}{value!r}"):
            layer(3, 4, engine=value)
    assert lstmx.get_float32_precision() == "highest"
    assert lstmx._core.get_thread_products() == (None, "auto")


def test_names_that_are_no_text_are_refused():
    for call in (
        lambda: lstmx.set_float32_precision(3),
        lambda: lstmx.set_float32_precision(None),
        lambda: lstmx.LSTM(3, 4, precision=1),
        lambda: lstmx.float32_precision(1).__enter__(),
    ):
        with pytest.raises(TypeError, match="precision: expected one of 'highest', 'high', 'medium', got"):
            call()
    with pytest.raises(TypeError, match="engine: expected one of 'auto', 'fma', 'tiles', got None"):
        lstmx.Linear(3, 4, engine=None)


def test_the_core_refuses_unknown_names():
    core = lstmx._core
    for plan in (core.LstmPlan, core.LinearPlan):
        with pytest.raises(ValueError, match="precision: expected one of highest, high, medium, got 'low'"):
            plan(3, 4, precision="low")
        with pytest.raises(ValueError, match="engine: expected one of auto, fma, tiles, got 'amx'"):
            plan(3, 4, engine="amx")
    with pytest.raises(ValueError, match="precision: expected one of highest, high, medium, got 'low'"):
        core.set_float32_precision("low")
    with pytest.raises(ValueError, match="engine: expected one of auto, fma, tiles, got 'amx'"):
        core.set_thread_products("high", "amx")
    assert core.get_thread_products() == (None, "auto")


@pytest.mark.parametrize("layer", [lstmx.LSTM, lstmx.GRU, lstmx.RNN, lstmx.Linear])
def test_float64_layers_have_neither(layer):
    with pytest.raises(ValueError, match="precision: expected None with dtype='float64', got 'high'"):
        layer(3, 4, precision="high", dtype="float64")
    with pytest.raises(
        ValueError, match="engine: expected 'auto' or 'fma' with dtype='float64', got 'tiles'"
    ):
        layer(3, 4, engine="tiles", dtype="float64")
    assert layer(3, 4, engine="fma", dtype="float64").engine == "fma"


def run_python(code, precision):
    environment = {name: value for name, value in os.environ.items() if name != "LSTMX_PRECISION"}
    if precision is not None:
        environment["LSTMX_PRECISION"] = precision
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("precision", [None, "", *PRECISIONS])
def test_the_environment_gives_the_precision(precision):
    answer = run_python("import lstmx; print(lstmx.get_float32_precision())", precision)
    assert answer.stdout.strip() == (precision or "highest"), answer.stderr


def test_a_wrong_environment_is_told_at_import():
    answer = run_python("import lstmx", "low")
    assert answer.returncode != 0
    assert "LSTMX_PRECISION: expected one of highest, high, medium, got 'low'" in answer.stderr


def test_show_config_says_what_is_used():
    lstmx.set_float32_precision("high")
    assert "float32 precision: high" in lstmx.show_config().splitlines()
    with lstmx.targets.use("portable"):
        line = "products made by:  multiply-add units for highest, high, medium"
        assert line in lstmx.show_config().splitlines()


def test_show_config_names_the_engine(emulated):
    assert "products made by:  emulated for highest, high, medium" in lstmx.show_config().splitlines()


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [lstmx.LSTM, lstmx.GRU, lstmx.RNN, lstmx.Linear])
def test_files_keep_a_layers_settings(layer, tmp_path):
    path = tmp_path / "model.safetensors"
    lstmx.save(path, layer(3, 4, precision="high", engine="tiles"))
    made = lstmx.load(path)
    assert (made.precision, made.engine) == ("high", "tiles")
    assert repr(made).endswith("(3, 4, precision='high', engine='tiles')")
    lstmx.save(path, layer(3, 4))
    made = lstmx.load(path)
    assert (made.precision, made.engine) == (None, "auto")


@pytest.mark.parametrize("layer", [lstmx.LSTM, lstmx.GRU, lstmx.RNN, lstmx.Linear])
def test_a_file_without_settings_needs_no_reader_that_knows_them(layer):
    assert not {"precision", "engine"} & set(layer(3, 4).config())
    assert layer(3, 4, engine="fma").config() == layer(3, 4).config() | {"engine": "fma"}


def test_a_config_with_a_wrong_setting_is_refused():
    config = lstmx.LSTM(3, 4).config()
    with pytest.raises(ValueError, match="precision: expected one of 'highest', 'high', 'medium', got 'low'"):
        from_config(config | {"precision": "low"})
    with pytest.raises(ValueError, match="engine: expected one of 'auto', 'fma', 'tiles', got 3"):
        from_config(config | {"engine": 3})
