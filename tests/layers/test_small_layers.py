"""Dropout and LastStep."""

from __future__ import annotations

import numpy as np
import pytest

import lstmx


class TestDropout:
    @pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
    def test_share_scale_and_mean(self, p):
        n = 200_000
        y = lstmx.Dropout(p, rng=0).forward(np.ones(n, np.float32))[0]
        assert set(np.unique(y).tolist()) == {0.0, float(np.float32(1 / (1 - p)))}
        deviation = np.sqrt(p * (1 - p) / n)
        assert abs(np.mean(y == 0) - p) < 5 * deviation
        assert abs(y.mean() - 1) < 5 * deviation / (1 - p)

    def test_the_bounds_of_p(self, rng):
        x = rng.standard_normal((3, 4)).astype(np.float32)
        np.testing.assert_array_equal(lstmx.Dropout(0).forward(x)[0], x)
        y, _, backward = lstmx.Dropout(1).forward(x)
        assert not y.any()
        assert not backward(x)[0].any()

    def test_backward_passes_what_forward_passed(self, rng):
        layer = lstmx.Dropout(0.3, rng=1)
        x, dy = rng.standard_normal((2, 5, 6, 7)).astype(np.float32)
        y, state, backward = layer.forward(x)
        other = layer.forward(x)[0]
        assert np.any(other != y)
        dx, dstate = backward(dy)
        assert state is dstate is None
        np.testing.assert_array_equal(dx == 0, y == 0)
        np.testing.assert_allclose(dx, dy * (y / x), rtol=1e-6)
        with pytest.raises(RuntimeError, match="already called"):
            backward(dy)
        assert layer.forward(x)[2](dy, need_dx=False) == (None, None)

    def test_is_absent_in_inference_and_draws_nothing_there(self, rng):
        layer = lstmx.Dropout(0.5, rng=1)
        x = rng.standard_normal((5, 6)).astype(np.float32)
        before = layer.rngs()[0].bit_generator.state
        np.testing.assert_array_equal(layer(x)[0], x)
        assert layer.rngs()[0].bit_generator.state == before

    def test_repeats_with_its_generator_and_leaves_the_global_one_alone(self):
        x = np.ones(100, np.float32)
        np.random.seed(3)  # noqa: NPY002 - the global generator is what must not move
        expected = np.random.random()  # noqa: NPY002
        np.random.seed(3)  # noqa: NPY002
        a, b = lstmx.Dropout(0.5, rng=5), lstmx.Dropout(0.5, rng=np.random.default_rng(5))
        np.testing.assert_array_equal(a.forward(x)[0], b.forward(x)[0])
        assert np.random.random() == expected  # noqa: NPY002

    def test_restoring_the_state_of_rngs_repeats_the_masks(self):
        model = lstmx.Sequential(
            lstmx.Dropout(0.5), lstmx.LSTM(3, 4, 2, dropout=0.5), lstmx.Dropout(0.5), lstmx.Linear(4, 1)
        )
        assert len(model.rngs()) == 3
        x = np.ones((5, 6, 3), np.float32)
        states = [g.bit_generator.state for g in model.rngs()]
        y = model.forward(x)[0]
        assert np.any(model.forward(x)[0] != y)
        for generator, state in zip(model.rngs(), states, strict=True):
            generator.bit_generator.state = state
        np.testing.assert_array_equal(model.forward(x)[0], y)

    def test_a_shared_generator_is_listed_once(self):
        shared = np.random.default_rng(0)
        model = lstmx.Sequential(lstmx.Dropout(0.5, rng=shared), lstmx.Dropout(0.5, rng=shared))
        assert model.rngs() == [shared]


class TestLastStep:
    def test_takes_the_last_step_and_gives_its_gradient_back(self, rng):
        layer = lstmx.LastStep()
        x = rng.standard_normal((4, 5, 3)).astype(np.float32)
        dy = rng.standard_normal((4, 3)).astype(np.float32)
        y, state, backward = layer.forward(x)
        np.testing.assert_array_equal(y, x[:, -1])
        np.testing.assert_array_equal(layer(x)[0], y)
        dx, dstate = backward(dy)
        assert state is dstate is None
        np.testing.assert_array_equal(dx[:, -1], dy)
        assert not dx[:, :-1].any()
        with pytest.raises(RuntimeError, match="already called"):
            backward(dy)
        assert layer.forward(x)[2](dy, need_dx=False) == (None, None)

    @pytest.mark.parametrize("steps", [1, 5])
    @pytest.mark.parametrize("some", [False, True], ids=["all steps", "lengths"])
    def test_both_directions_are_the_final_h(self, rng, steps, some):
        lstm = lstmx.LSTM(2, 3, batch_first=True, bidirectional=True, rng=rng)
        model = lstmx.Sequential(lstm, lstmx.LastStep(bidirectional=True))
        x = rng.standard_normal((4, steps, 2)).astype(np.float32)
        lengths = np.array([steps, 0, 1, steps]) if some else None
        y, state, backward = model.forward(x, lengths=lengths)
        h_n = state[0][0]
        np.testing.assert_array_equal(y, np.concatenate([h_n[0], h_n[1]], axis=1))
        np.testing.assert_array_equal(model(x, lengths=lengths)[0], y)
        dy = rng.standard_normal(y.shape).astype(np.float32)
        dx, _ = backward(dy)
        grads = model.arena.grads.copy()
        model.zero_grad()
        _, _, backward = lstm.forward(x, lengths=lengths)
        dx_of_state, _ = backward(None, (np.stack([dy[:, :3], dy[:, 3:]]), None))
        np.testing.assert_allclose(dx, dx_of_state, rtol=0, atol=1e-6)
        np.testing.assert_allclose(grads, model.arena.grads, rtol=0, atol=1e-6)
        assert grads.any()

    def test_refuses_an_odd_width_for_both_directions(self):
        with pytest.raises(ValueError, match=r"x: expected shape \(B, T, F\) with F even, got \(2, 4, 3\)"):
            lstmx.LastStep(bidirectional=True)(np.zeros((2, 4, 3)))
        with pytest.raises(TypeError, match="bidirectional: expected True or False, got 1"):
            lstmx.LastStep(1)

    def test_an_empty_batch(self):
        y, _, backward = lstmx.LastStep().forward(np.empty((0, 5, 3), np.float32))
        assert backward(y)[0].shape == (0, 5, 3)
