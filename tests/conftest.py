"""What all tests share: the targets, seeded random numbers, and `--runslow`.

- `target`: a test that takes it runs once for every compiled target, with that target active. A target that
  the machine lacks is skipped; LSTMX_REQUIRE_TARGETS ("all", or names with commas) makes it a failure. Left
  out is what would be the same test twice: a target whose engine is for other precisions than the default,
  and engines in float64.
- `dtype`: a test that takes it runs once for float32 and once for float64.
- `rng`: a NumPy generator whose seed follows from the test's name; it is printed when the test fails.
  LSTMX_TEST_SEED=n changes all seeds.
- Tests marked `slow` run with `--runslow` only.
"""

from __future__ import annotations

import os
import zlib

import hypothesis
import numpy as np
import pytest

# print_blob: a failure prints what reproduces it. The target fixture may be function-scoped: its context
# manager stays entered for all examples of a test.
hypothesis.settings.register_profile(
    "lstmx",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("lstmx")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    unknown = required_targets() - set(compiled_targets()) if required_targets() else set()
    if unknown:
        raise pytest.UsageError(
            f"LSTMX_REQUIRE_TARGETS: expected 'all' or some of {', '.join(compiled_targets())}, "
            f"got {', '.join(sorted(unknown))}"
        )


# Targets that run the kernels of avx512, with an engine for products: at the default precision, and at lower
# ones only (tests/kernels/test_engines.py has those).
ENGINES = ("emulated", "amx")
ENGINES_OF_LOWER_PRECISION = ("avx512_bf16",)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = [item for item in items if not _is_twice(item)]
    if config.getoption("--runslow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: runs with --runslow"))


def _is_twice(item: pytest.Item) -> bool:
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    return given.get("target") in ENGINES and given.get("dtype") == np.float64


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        names = [name for name in compiled_targets() if name not in ENGINES_OF_LOWER_PRECISION]
        metafunc.parametrize("target", names, indirect=True)
    if "dtype" in metafunc.fixturenames:
        metafunc.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64)], ids=str)


def compiled_targets() -> list[str]:
    from lstmx import _core

    return _core.compiled_targets()


def required_targets() -> set[str]:
    """The targets that LSTMX_REQUIRE_TARGETS demands."""
    names = {name.strip() for name in os.environ.get("LSTMX_REQUIRE_TARGETS", "").split(",")} - {""}
    return set(compiled_targets()) if "all" in names else names


@pytest.fixture
def target(request: pytest.FixtureRequest):
    """The name of a compiled target, active while the test runs."""
    from lstmx import _core, targets

    name = request.param
    if name not in _core.supported_targets():
        missing = f"target {name}: this machine lacks it, so that its kernels were NOT tested"
        if name in required_targets():
            pytest.fail(f"{missing}, and LSTMX_REQUIRE_TARGETS demands it")
        pytest.skip(missing)
    with targets.use(name):
        assert _core.active_target() == name
        yield name
        assert _core.active_target() == name, "the test changed the active target"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number that follows from the test's name and LSTMX_TEST_SEED; shown when the test fails."""
    base = int(os.environ.get("LSTMX_TEST_SEED", "0"))
    number = zlib.crc32(request.node.nodeid.encode()) + base
    print(f"seed {number} (LSTMX_TEST_SEED={base})")
    return number


@pytest.fixture
def rng(seed: int) -> np.random.Generator:
    """A generator seeded by `seed`."""
    return np.random.default_rng(seed)
