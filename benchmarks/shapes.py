"""The shapes that are measured by name, and the ratios that lstmx is to reach on them, as data.

`SHAPES` holds the names, `targets(...)` answers "at least" and "aim" (the peer's time by ours) for a
measurement. A shape without a line in the tables has no figure of its own: it shows whether others behave
alike. No code here measures.
"""

from __future__ import annotations

from typing import NamedTuple

from lstmx._bench import Case

SHAPES: dict[str, Case] = {
    "one call": Case(1, 1, 8, 16),
    "sine": Case(20, 50, 10, 10),
    "small": Case(48, 24, 12, 40),
    "medium": Case(64, 48, 96, 160),
    "100,64,128,256": Case(100, 64, 128, 256),
    "100,64,256,512": Case(100, 64, 256, 512),
    "50,64,512,1024": Case(50, 64, 512, 1024),
    "wide batch": Case(30, 256, 64, 96),
    "stream": Case(200, 1, 64, 192),
    "100,1,128,128": Case(100, 1, 128, 128),
    "100,1,256,512": Case(100, 1, 256, 512),
    "long": Case(1000, 8, 16, 64),
    "medium, two layers": Case(64, 48, 96, 160, layers=2),
    "medium, both directions": Case(64, 48, 96, 160, bidirectional=True),
    "tall": Case(5000, 1, 8, 32),
}


class Target(NamedTuple):
    """The ratio to reach and the one that the machine's limits leave room for (None: none was set)."""

    at_least: float
    aim: float | None = None


class Pair(NamedTuple):
    """Targets of both modes."""

    inference: Target
    training: Target


AGAINST_TORCH: dict[str, Pair] = {
    "one call": Pair(Target(20, 40), Target(20, 40)),
    "sine": Pair(Target(4, 6), Target(6, 9)),
    "small": Pair(Target(1.9, 2.5), Target(2.5, 3.5)),
    "long": Pair(Target(1.4, 2), Target(1.7, 2.5)),
    "medium": Pair(Target(1.05, 1.25), Target(1.15, 1.5)),
    "100,64,128,256": Pair(Target(1.05, 1.25), Target(1.15, 1.5)),
    "wide batch": Pair(Target(1.1, 1.3), Target(1.9, 2.4)),
    "100,64,256,512": Pair(Target(1.0, 1.2), Target(1.3, 1.5)),
    "50,64,512,1024": Pair(Target(1.0, 1.2), Target(1.3, 1.5)),
    "stream": Pair(Target(1.5, 2.5), Target(1.4, 2)),
    "100,1,128,128": Pair(Target(1.5, 2.5), Target(1.4, 2)),
}

# Random lengths T/4..T against PyTorch's packed sequences, in both modes.
SMALL_PACKED, LARGE_PACKED = Target(15, 30), Target(4, 6)
AGAINST_PACKED: dict[str, Target] = {
    **dict.fromkeys(("one call", "sine", "small", "long"), SMALL_PACKED),
    **dict.fromkeys(
        ("medium", "wide batch", "100,64,128,256", "100,64,256,512", "50,64,512,1024"), LARGE_PACKED
    ),
}

# A whole training step in PyTorch, with lstmx.torch.LSTM against nn.LSTM; the second packed.
AGAINST_TORCH_STEP: dict[str, Target] = {"sine": Target(2), "small": Target(2), "medium": Target(1.1)}
AGAINST_PACKED_STEP: dict[str, Target] = {"sine": Target(8), "small": Target(8)}

# lstmx by an engine against PyTorch: in float32, and at `medium` in bfloat16.
_BY_ENGINE = ("medium", "100,64,128,256", "100,64,256,512", "50,64,512,1024", "wide batch")
AGAINST_TORCH_BY_ENGINE: dict[str, dict[str, Pair]] = {
    "highest": dict.fromkeys(_BY_ENGINE, Pair(Target(1.8, 2.8), Target(1.8, 2.8)))
    | dict.fromkeys(("medium", "50,64,512,1024"), Pair(Target(1.7, 2.5), Target(1.4, 2.2))),
    "high": dict.fromkeys(_BY_ENGINE, Pair(Target(2.6, 4), Target(2.5, 4))),
    "medium": dict.fromkeys(_BY_ENGINE, Pair(Target(1.3, 2), Target(1.6, 2.5))),
}

# Both sides limited to AVX2.
LARGE = ("100,64,256,512", "50,64,512,1024")
MEDIUM = ("medium", "100,64,128,256", "medium, two layers", "medium, both directions")

ONE_CALL_AGAINST_ONNXRUNTIME, AGAINST_ONNXRUNTIME = Target(4), Target(1.1)
WORST_OF_SWEEP = Target(1.0)
SINE_JOB = Target(12)


def targets(name: str, *, peer: str, mode: str, lengths: bool, isa: str) -> Target | None:
    """The target of a measurement of shape `name`, None where none was set.

    Args:
        name: A key of `SHAPES` (or anything else: no target).
        peer: "torch" (the others but "onnxruntime" have no targets).
        mode: "inference", "training" or, of `torch_step.py`, "step".
        lengths: Whether rows have lengths (PyTorch packs them).
        isa: "native" or "avx2" (both sides limited).
    """
    if name not in SHAPES:
        return None
    if peer == "onnxruntime" and isa == "native" and mode == "inference" and not lengths:
        return ONE_CALL_AGAINST_ONNXRUNTIME if name == "one call" else AGAINST_ONNXRUNTIME
    if peer != "torch":
        return None
    if isa == "avx2":
        return None if lengths else _against_torch_avx2(name, mode)
    if mode == "step":
        return (AGAINST_PACKED_STEP if lengths else AGAINST_TORCH_STEP).get(name)
    if lengths:
        return AGAINST_PACKED.get(name)
    pair = AGAINST_TORCH.get(name)
    return None if pair is None else pair.inference if mode == "inference" else pair.training


def _against_torch_avx2(name: str, mode: str) -> Target:
    if name in LARGE:
        return Target(1.0 if mode == "inference" else 1.1)
    return Target(1.1 if name in MEDIUM else 1.4)


def parse_shape(text: str) -> tuple[str, Case]:
    """(name, case) for a name of `SHAPES` or for "T,B,I,H".

    Raises:
        ValueError: It is neither.
    """
    if text in SHAPES:
        return text, SHAPES[text]
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) != 4 or min(sizes) < 1:
        names = ", ".join(map(repr, SHAPES))
        raise ValueError(f"shape: expected T,B,I,H or one of {names}, got {text!r}")
    return text, Case(*sizes)
