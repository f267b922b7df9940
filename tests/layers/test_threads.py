"""Several Python threads infer with one model, also while its weights change now and then."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import lstmx


def model_and_inputs(rng):
    model = lstmx.Sequential(
        lstmx.Linear(2, 8, rng=rng),
        lstmx.LSTM(8, 16, 2, bidirectional=True, rng=rng),
        lstmx.Linear(32, 1, rng=rng),
    )
    shapes = [(20, 4, 2), (7, 3, 2), (1, 1, 2), (33, 9, 2)]
    return model, [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def test_inference_from_many_threads_is_bit_for_bit_that_of_one(rng):
    model, inputs = model_and_inputs(rng)
    expected = [model(x)[0] for x in inputs]
    barrier = threading.Barrier(4)

    def work(shift):
        barrier.wait()
        return [(k := (n + shift) % 4, model(inputs[k])[0]) for n in range(60)]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(work, range(4)):
            for k, y in results:
                np.testing.assert_array_equal(y, expected[k])


def test_the_first_call_after_a_change_may_come_from_many_threads(rng):
    model, inputs = model_and_inputs(rng)
    x = inputs[0]
    with ThreadPoolExecutor(4) as pool:
        for n in range(20):
            with model.editing() as params:
                params["1.bias_ih_l0"][...] = 0.1 * n
            barrier = threading.Barrier(4)

            def work(_, barrier=barrier):
                barrier.wait()
                return model(x)[0]

            results = list(pool.map(work, range(4)))
            fresh = lstmx.layers.from_config(model.config())
            fresh.load_state_dict(model.state_dict())
            for y in results:
                np.testing.assert_array_equal(y, fresh(x)[0])


def test_two_threads_train_their_own_models(rng):
    model, inputs = model_and_inputs(rng)

    def train(model):
        for x in inputs * 5:
            y, _, backward = model.forward(x)
            backward(np.ones_like(y))
        return model.arena.grads.copy()

    import copy

    twins = [copy.deepcopy(model) for _ in range(2)]
    expected = train(model)
    with ThreadPoolExecutor(2) as pool:
        for grads in pool.map(train, twins):
            np.testing.assert_array_equal(grads, expected)
