"""The optimisers against the reference and PyTorch: decay and groups, clipping, state, refusals."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import lstmx
from lstmx import optim, reference

EPS = float(np.finfo(np.float32).eps)

# A few roundings a step, relative to the parameter and to the size of the steps (lr, in Adam).
ROUNDINGS_A_STEP = 8.0

MAKERS = {
    "sgd": lambda **k: optim.SGD(lr=0.05, **k),
    "momentum": lambda **k: optim.SGD(lr=0.05, momentum=0.9, **k),
    "nesterov": lambda **k: optim.SGD(lr=0.05, momentum=0.9, nesterov=True, **k),
    "adam": lambda **k: optim.Adam(lr=0.01, **k),
    "adamw": lambda **k: optim.AdamW(lr=0.01, **k),
}


def new_model(seed=0):
    rng = np.random.default_rng(seed)
    return lstmx.Sequential(
        lstmx.Linear(2, 5, rng=rng), lstmx.LSTM(5, 3, batch_first=True, rng=rng), lstmx.Linear(3, 1, rng=rng)
    )


def set_gradients(model, rng):
    """The same random gradients in the model and, by name, returned."""
    model.zero_grad()
    gradients = {}
    for name, gradient in model.grads.items():
        gradient[...] = gradients[name] = rng.standard_normal(gradient.shape).astype(np.float32)
    return gradients


def reference_steps(kind, params, gradients, decay):
    """What the reference makes of one parameter, given its gradients step by step."""
    params = params.astype(np.float64)
    state = [np.zeros_like(params), np.zeros_like(params)]
    for step, gradient in enumerate(gradients, 1):
        if kind in ("adam", "adamw"):
            params, *state = reference.adam_step(
                params, gradient, *state, lr=0.01, step=step, weight_decay=decay, decoupled=kind == "adamw"
            )
        else:
            momentum = 0.0 if kind == "sgd" else 0.9
            params, state[0] = reference.sgd_step(
                params,
                gradient,
                state[0],
                lr=0.05,
                momentum=momentum,
                nesterov=kind == "nesterov",
                weight_decay=decay,
            )
    return params


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("decay_biases", [False, True])
def test_agrees_with_the_reference(rng, kind, decay_biases):
    model = new_model()
    before = model.state_dict()
    optimizer = MAKERS[kind](weight_decay=0.1, decay_biases=decay_biases)
    steps = []
    for _ in range(5):
        steps.append(set_gradients(model, rng))
        optimizer.step(model)
    for name, value in before.items():
        decay = 0.1 if decay_biases or "bias" not in name else 0.0
        expected = reference_steps(kind, value, [gradients[name] for gradients in steps], decay)
        tolerance = ROUNDINGS_A_STEP * len(steps) * EPS
        np.testing.assert_allclose(model.params[name], expected, rtol=tolerance, atol=tolerance, err_msg=name)
    assert optimizer.steps == 5


@pytest.mark.parametrize("kind", MAKERS)
def test_agrees_with_pytorch(rng, kind):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.1),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1),
        "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    }
    model = new_model()
    leaves = {
        name: torch.tensor(v.astype(np.float64), requires_grad=True) for name, v in model.params.items()
    }
    theirs = makers[kind](list(leaves.values()))
    ours = MAKERS[kind](weight_decay=0.1, decay_biases=True)
    for _ in range(5):
        for name, gradient in set_gradients(model, rng).items():
            leaves[name].grad = torch.tensor(gradient.astype(np.float64))
        theirs.step()
        ours.step(model)
    tolerance = ROUNDINGS_A_STEP * 5 * EPS
    for name, leaf in leaves.items():
        np.testing.assert_allclose(model.params[name], leaf.detach().numpy(), rtol=tolerance, atol=tolerance)


def test_groups_freeze_scale_and_decay(rng):
    model = new_model()
    before = model.state_dict()
    groups = {
        "0.*": {"lr_scale": 0.0},
        "*.weight_hh_*": {"lr_scale": 0.5, "weight_decay": 0.0},
        "2.*": {"weight_decay": 0.2, "decay_biases": True},
    }
    optimizer = optim.SGD(lr=0.1, weight_decay=0.1, groups=groups)
    gradients = set_gradients(model, rng)
    optimizer.step(model)
    settings = {
        "0.weight": (0.0, 0.0),
        "0.bias": (0.0, 0.0),
        "1.weight_ih_l0": (0.1, 0.1),
        "1.weight_hh_l0": (0.05, 0.0),
        "1.bias_ih_l0": (0.1, 0.0),
        "1.bias_hh_l0": (0.1, 0.0),
        "2.weight": (0.1, 0.2),
        "2.bias": (0.1, 0.2),
    }
    assert settings.keys() == before.keys()
    for name, (lr, decay) in settings.items():
        expected = before[name] - lr * (gradients[name] + decay * before[name].astype(np.float64))
        np.testing.assert_allclose(model.params[name], expected, rtol=4 * EPS, atol=4 * EPS, err_msg=name)
        if lr == 0.0:
            np.testing.assert_array_equal(model.params[name], before[name])


def test_learning_rate_is_read_at_every_step(rng):
    model = new_model()
    optimizer = optim.SGD(lr=0.1)
    for lr in (0.1, 0.025):
        optimizer.lr = lr
        before = model.state_dict()
        gradients = set_gradients(model, rng)
        optimizer.step(model)
        for name, value in before.items():
            np.testing.assert_allclose(model.params[name], value - lr * gradients[name], rtol=1e-6, atol=1e-7)
    with pytest.raises(ValueError, match=r"lr: expected at least 0.0, got -1.0"):
        optimizer.lr = -1.0
    assert optimizer.lr == 0.025


def test_the_model_computes_with_the_new_parameters(rng):
    model = new_model()
    x = rng.standard_normal((2, 4, 2)).astype(np.float32)
    model(x)
    set_gradients(model, rng)
    optim.SGD(lr=0.1).step(model)
    fresh = new_model()
    fresh.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model(x)[0], fresh(x)[0])


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("way", ["state_dict", "before the first step", "pickle", "deepcopy"])
def test_state_goes_on_bit_for_bit(rng, kind, way):
    model = new_model()
    optimizer = MAKERS[kind](weight_decay=0.01)
    for _ in range(3):
        set_gradients(model, rng)
        optimizer.step(model)
    optimizer.lr = 0.003
    other_model = copy.deepcopy(model)
    if way == "pickle":
        other = pickle.loads(pickle.dumps(optimizer))
    elif way == "deepcopy":
        other = copy.deepcopy(optimizer)
    else:
        other = MAKERS[kind](weight_decay=0.01)
        if way == "state_dict":
            other.bind(other_model)
        other.load_state_dict(optimizer.state_dict())
    assert other.lr == 0.003
    assert other.steps == 3
    for _ in range(2):
        for name, gradient in set_gradients(model, rng).items():
            other_model.grads[name][...] = gradient
        optimizer.step(model)
        other.step(other_model)
    np.testing.assert_array_equal(model.arena.params, other_model.arena.params)
    for key, value in optimizer.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], value, err_msg=key)


def test_state_dict_is_a_copy(rng):
    model = new_model()
    optimizer = optim.Adam()
    set_gradients(model, rng)
    optimizer.step(model)
    state = optimizer.state_dict()
    assert set(state) == {"lr", "steps"} | {f"{slot}/{name}" for slot in "mv" for name in model.params}
    state["m/0.weight"][...] = 99
    assert not (optimizer.state_dict()["m/0.weight"] == 99).any()
    assert set(optim.SGD().state_dict()) == {"lr", "steps"}


def test_another_model_is_refused(rng):
    model, other = new_model(), new_model()
    before = other.arena.params.copy()
    optimizer = optim.Adam()
    set_gradients(model, rng)
    optimizer.step(model)
    with pytest.raises(ValueError, match="model: expected the model of this optimiser's first step"):
        optimizer.step(other)
    with pytest.raises(ValueError, match="model: expected the model"):
        optimizer.bind(other)
    np.testing.assert_array_equal(other.arena.params, before)
    assert optimizer.steps == 1


def test_bad_state_is_refused_and_changes_nothing(rng):
    model = new_model()
    optimizer = optim.Adam(lr=0.5)
    set_gradients(model, rng)
    optimizer.step(model)
    good = optimizer.state_dict()

    def without(key):
        return {name: value for name, value in good.items() if name != key}

    bad = [
        (without("lr"), r"state\['lr'\]: expected a number"),
        (without("v/2.bias"), r"state: expected 'v/2.bias' \(1 names missing\)"),
        ({**good, "m/2.bias": np.zeros(2)}, r"state\['m/2.bias'\]: expected shape \(1,\), got \(2,\)"),
        ({**good, "m/3.bias": np.zeros(1)}, "state: the model has no parameter for 'm/3.bias'"),
        ({**good, "velocity/2.bias": np.zeros(1)}, "state: expected names of Adam, got 'velocity/2.bias'"),
        ({**good, "lr": np.array(-1.0)}, "lr"),
    ]
    for state, message in bad:
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict({**state, "steps": np.array(7)})
    assert optimizer.steps == 1
    assert optimizer.lr == 0.5
    for key, value in good.items():
        np.testing.assert_array_equal(optimizer.state_dict()[key], value)
    unbound = optim.Adam()
    unbound.load_state_dict({**good, "m/2.bias": np.zeros(2)})
    before = model.arena.params.copy()
    with pytest.raises(ValueError, match=r"state\['m/2.bias'\]"):
        unbound.step(model)
    np.testing.assert_array_equal(model.arena.params, before)


@pytest.mark.parametrize("max_norm", [0.1, 1e3])
def test_clipping(rng, max_norm):
    model = new_model()
    gradients = set_gradients(model, rng)
    expected_norm = reference.global_norm(gradients.values())
    scale = reference.clip_scale(expected_norm, max_norm)
    assert optim.clip_grad_norm(model, max_norm) == pytest.approx(expected_norm, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(model.grads[name], gradient * scale, rtol=2 * EPS)


def test_clipping_agrees_with_pytorch(rng):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: NOT compared with it")
    model = new_model()
    leaves = []
    for gradient in set_gradients(model, rng).values():
        leaf = torch.zeros(gradient.shape, dtype=torch.float64)
        leaf.grad = torch.tensor(gradient.astype(np.float64))
        leaves.append(leaf)
    norm = torch.nn.utils.clip_grad_norm_(leaves, 0.5)
    assert optim.clip_grad_norm(model, 0.5) == pytest.approx(float(norm), rel=1e-12)
    for leaf, gradient in zip(leaves, model.grads.values(), strict=True):
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=2 * EPS)


def test_clipping_inside_the_step_is_clipping_before_it(rng):
    model, other = new_model(), new_model()
    for name, gradient in set_gradients(model, rng).items():
        other.grads[name][...] = gradient
    optim.SGD(lr=0.1).step(model, grad_scale=optim.clip_scale(optim.grad_norm(model), 0.5))
    optim.clip_grad_norm(other, 0.5)
    optim.SGD(lr=0.1).step(other)
    np.testing.assert_allclose(model.arena.params, other.arena.params, rtol=4 * EPS, atol=EPS)


def test_infinite_gradients_are_not_clipped_to_nan():
    model = new_model()
    model.grads["0.weight"][0, 0] = np.inf
    assert optim.clip_grad_norm(model, 1.0) == np.inf
    assert not np.isnan(model.arena.grads).any()


@pytest.mark.parametrize("kind", MAKERS)
def test_repr_makes_it(kind):
    optimizer = MAKERS[kind](groups={"2.*": {"lr_scale": 0.5}})
    assert repr(eval(repr(optimizer), vars(optim))) == repr(optimizer)


def test_get():
    assert isinstance(optim.get("adamw"), optim.AdamW)
    own = optim.SGD()
    assert optim.get(own) is own
    with pytest.raises(ValueError, match="optimizer: expected one of 'sgd', 'adam', 'adamw', got 'rmsprop'"):
        optim.get("rmsprop")
    with pytest.raises(TypeError, match="optimizer: expected a name or an Optimizer"):
        optim.get(optim.Adam)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.SGD(lr=-1), ValueError, "lr: expected at least 0.0, got -1.0"),
        (lambda: optim.SGD(lr=float("nan")), ValueError, "lr: expected a finite number"),
        (lambda: optim.SGD(lr="big"), TypeError, "lr: expected a number"),
        (lambda: optim.SGD(nesterov=True), ValueError, "nesterov: expected False without a momentum"),
        (lambda: optim.SGD(momentum=-0.1), ValueError, "momentum"),
        (lambda: optim.Adam(betas=0.9), TypeError, "betas: expected two numbers"),
        (lambda: optim.Adam(betas=(0.9, 1.0)), ValueError, r"betas\[1\]: expected less than 1, got 1.0"),
        (lambda: optim.Adam(eps=-1.0), ValueError, "eps"),
        (lambda: optim.Adam(weight_decay=-1.0), ValueError, "weight_decay"),
        (lambda: optim.Adam(decay_biases=1), TypeError, "decay_biases: expected True or False"),
        (lambda: optim.Adam(groups=[("a", {})]), TypeError, "groups: expected a mapping"),
        (
            lambda: optim.Adam(groups={"*": {"lr": 1.0}}),
            ValueError,
            r"groups\['\*'\]: expected one of 'weight_decay'",
        ),
        (lambda: optim.Adam(groups={"*": {"lr_scale": -1}}), ValueError, "lr_scale"),
        (
            lambda: optim.Adam(groups={"9.*": {}}).bind(new_model()),
            ValueError,
            r"groups: expected patterns of 0.weight, .* got '9.\*'",
        ),
        (lambda: optim.clip_grad_norm(new_model(), 0.0), ValueError, "max_norm: expected more than 0.0"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
