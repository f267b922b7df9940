"""The instruction sets that the kernels are built for, and the one in use.

At the first import the best target that the processor and the operating system grant becomes active; the
environment variable LSTMX_TARGET names another one. All targets agree with the float64 reference within the
published bounds; results are the same bits only within one target.

Some targets have an engine, a unit that multiplies bf16 numbers faster than the multiply-add units multiply
float32 ones: `engines` says for which of the precisions (`lstmx.set_float32_precision`) it is used. Whether a
layer uses it depends on its shape, too: `layer.products(rows)`. `emulated` makes the arithmetic of `amx` in
plain C++, slowly, for tests and for looking at its errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lstmx import _core


def compiled() -> tuple[str, ...]:
    """Names of the targets in this build, slowest first but for `emulated`, which is the slowest.

    Example:
        >>> import lstmx
        >>> "portable" in lstmx.targets.compiled()
        True
    """
    return tuple(_core.compiled_targets())


def supported() -> tuple[str, ...]:
    """Names of the compiled targets that this machine can run, in the order of `compiled`."""
    return tuple(_core.supported_targets())


def active() -> str:
    """The name of the target that the next call will run on."""
    return _core.active_target()


def engines() -> dict[str, str]:
    """What makes products at each precision on the active target, where a shape fills its tiles.

    Returns:
        For each precision the name of the engine, or "fma" for the multiply-add units, whose products are
        "highest" at all precisions.

    Example:
        >>> import lstmx
        >>> with lstmx.targets.use("portable"):
        ...     lstmx.targets.engines()
        {'highest': 'fma', 'high': 'fma', 'medium': 'fma'}
    """
    from lstmx.precision import PRECISIONS

    return {
        precision: _core.LinearPlan(16, 16, precision=precision, engine="tiles").products(16)[0]
        for precision in PRECISIONS
    }


@contextlib.contextmanager
def use(name: str) -> Iterator[str]:
    """Make `name` the active target inside a `with` block, for the whole process.

    Raises:
        ValueError: There is no such target, or this machine cannot run it; the message names the valid ones.

    Example:
        >>> import lstmx
        >>> with lstmx.targets.use("portable"):
        ...     lstmx.targets.active()
        'portable'
    """
    before = active()
    _core.set_active_target(name)
    try:
        yield name
    finally:
        _core.set_active_target(before)


def show_config() -> str:
    """A few lines on this build and machine: version, targets, precision of float32, threads, OpenMP.

    Example:
        >>> import lstmx
        >>> print(lstmx.show_config())
        lstmx ...
    """
    from lstmx._version import __version__

    lines = [
        f"lstmx {__version__}",
        f"targets compiled:  {', '.join(compiled())}",
        f"targets supported: {', '.join(supported())}",
        f"target active:     {active()}",
        f"products made by:  {_describe_engines()}",
        f"float32 precision: {_core.get_float32_precision()}",
        f"threads:           {_core.get_num_threads()}",
        f"OpenMP:            {'yes' if _core.has_openmp() else 'no'}",
    ]
    return "\n".join(lines)


def _describe_engines() -> str:
    """What makes products, each with its precisions."""
    named: dict[str, list[str]] = {}
    for precision, engine in engines().items():
        named.setdefault("multiply-add units" if engine == "fma" else engine, []).append(precision)
    return "; ".join(f"{engine} for {', '.join(precisions)}" for engine, precisions in named.items())
