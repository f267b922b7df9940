"""What a layer says of its products: the arguments `precision` and `engine`, and what follows from them.

The choice itself is the core's, at each call: by the active target, the settings and the shape.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lstmx import _core
from lstmx._checks import FLOAT32, check_choice
from lstmx.precision import ENGINES, PRECISIONS

_OF_PARTS = {0: "highest", 1: "medium", 2: "high", 3: "highest"}  # bf16 parts of a number; 0: all of it


class Products(NamedTuple):
    """What makes the products of a call.

    Attributes:
        engine: The name of the target's engine; "fma": the multiply-add units.
        precision: That of the result, "highest" of the multiply-add units whatever was asked for.
    """

    engine: str
    precision: str


class Settings(NamedTuple):
    """A layer's arguments, as the plans of the core take them."""

    precision: str | None = None
    engine: str = "auto"

    @classmethod
    def check(cls, precision: Any, engine: Any, dtype: np.dtype[Any]) -> Settings:
        """Return the arguments; those of a float64 layer must not ask for an engine, which it has not."""
        if precision is not None:
            check_choice("precision", precision, PRECISIONS)
        check_choice("engine", engine, ENGINES)
        if dtype != FLOAT32 and precision is not None:
            raise ValueError(f"precision: expected None with dtype={dtype.name!r}, got {precision!r}")
        if dtype != FLOAT32 and engine == "tiles":
            raise ValueError(f"engine: expected 'auto' or 'fma' with dtype={dtype.name!r}, got {engine!r}")
        return cls(precision, engine)

    def config(self) -> dict[str, Any]:
        """Those that are not the default: a file that needs none stays readable without knowing them."""
        usual = Settings._field_defaults
        return {name: value for name, value in self._asdict().items() if value != usual[name]}


class HasSettings:
    """What a layer with `_settings` shows of them."""

    _settings: Settings

    @property
    def precision(self) -> str | None:
        """How exact products have to be; None: as the process or the thread says."""
        return self._settings.precision

    @property
    def engine(self) -> str:
        """What makes products: "auto", "fma" or "tiles"."""
        return self._settings.engine


def new_linear_plan(
    in_features: int, out_features: int, dtype: np.dtype[Any], settings: Settings
) -> _core.LinearPlan:
    """A plan of the core for an affine map."""
    kind = _core.LinearPlan if dtype == FLOAT32 else _core.LinearPlan64
    return kind(in_features, out_features, **settings._asdict())


def products_of(plan: _core.LstmPlan | _core.LinearPlan, rows: int) -> Products:
    """What makes the products of `plan` with so many rows."""
    engine, parts = plan.products(rows)
    return Products(engine, _OF_PARTS[parts])
