"""The instruction sets that the kernels are built for, and the one in use.

At the first import the best target that the processor and the operating system grant becomes active; the
environment variable LSTMX_TARGET names another one. All targets agree with the float64 reference within the
published bounds; results are the same bits only within one target.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lstmx import _core


def compiled() -> tuple[str, ...]:
    """Names of the targets in this build, slowest first.

    Example:
        >>> import lstmx
        >>> lstmx.targets.compiled()[0]
        'portable'
    """
    return tuple(_core.compiled_targets())


def supported() -> tuple[str, ...]:
    """Names of the compiled targets that this machine can run, slowest first."""
    return tuple(_core.supported_targets())


def active() -> str:
    """The name of the target that the next call will run on."""
    return _core.active_target()


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
    """A few lines on this build and machine: version, targets, threads, OpenMP.

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
        f"threads:           {_core.get_num_threads()}",
        f"OpenMP:            {'yes' if _core.has_openmp() else 'no'}",
    ]
    return "\n".join(lines)
