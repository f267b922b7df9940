"""What lstmx costs before it computes: the wheel, the installation, the import.

    python benchmarks/footprint.py                     # builds the wheel
    python benchmarks/footprint.py --wheel dist/lstmx-...whl

Installs the wheel with its needs into a fresh virtual environment; there it measures the size on disk without
NumPy and the time of imports, each in fresh processes that alternate (medians). As parts of lstmx load when
they are first used, the import is also measured with the layers and the trainer loaded; no limit was set for
that. Exit status 1 where a limit is passed.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from harness import Row, write_results

CHECKOUT = Path(__file__).parents[1]
WHEEL_LIMIT_MB, INSTALLED_LIMIT_MB, IMPORT_LIMIT_MS = 2.0, 10.0, 30.0
PROCESSES = 25

_BARE = "import numpy"
_IMPORT = "import numpy, lstmx"
_USE = "import numpy; from lstmx import LSTM, Trainer"
_TIMED = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--wheel", type=Path, help="use this wheel instead of building one")
    parser.add_argument("--processes", type=int, default=PROCESSES, help=f"a side (default {PROCESSES})")
    options = parser.parse_args()
    if options.wheel is not None and not options.wheel.is_file():
        parser.error(f"--wheel: no file {options.wheel}")
    if options.processes < 1:
        parser.error(f"--processes: expected at least 1, got {options.processes}")
    with tempfile.TemporaryDirectory() as folder:
        wheel = options.wheel or _build(Path(folder))
        python, packages = _install(wheel, Path(folder) / "venv")
        rows = [
            {"what": "wheel", "unit": "MB", "value": wheel.stat().st_size / 1e6, "at_most": WHEEL_LIMIT_MB},
            {
                "what": "installed with its needs, NumPy aside",
                "unit": "MB",
                "value": _size_without_numpy(packages) / 1e6,
                "at_most": INSTALLED_LIMIT_MB,
            },
            *_import_costs(python, options.processes),
        ]
    for row in rows:
        print(f"{row['what']}: {row['value']:.2f} {row['unit']}{_verdict(row)}")
    print(write_results("footprint", {"rows": rows}))
    return 1 if any(map(_passes_limit, rows)) else 0


def _passes_limit(row: Row) -> bool:
    return row["at_most"] is not None and row["value"] > row["at_most"]


def _verdict(row: Row) -> str:
    if row["at_most"] is None:
        return ""
    return f" (at most {row['at_most']:g}): {'FAIL' if _passes_limit(row) else 'pass'}"


def _build(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(CHECKOUT)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def _install(wheel: Path, folder: Path) -> tuple[Path, Path]:
    """Interpreter and site-packages of a new environment that holds the wheel and its needs, not even pip."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", str(wheel)]
    subprocess.run(command, check=True)
    return python, next((folder / "lib").glob("python*")) / "site-packages"


def _size_without_numpy(packages: Path) -> int:
    return sum(
        path.stat().st_size
        for top in packages.iterdir()
        if not top.name.startswith("numpy")
        for path in (top, *top.rglob("*"))
        if path.is_file()
    )


def _import_costs(python: Path, processes: int) -> list[Row]:
    """What `import lstmx`, and its use, cost over `import numpy`."""
    times: dict[str, list[float]] = {_BARE: [], _IMPORT: [], _USE: []}
    for number in range(processes + 1):
        for statement, values in times.items():
            # -P: the folder that this was called from does not count
            command = [python, "-P", "-c", _TIMED.format(statement)]
            result = subprocess.run(command, capture_output=True, text=True, check=True)
            if number:  # the first of each warms the disk cache
                values.append(1e3 * float(result.stdout))
    bare = statistics.median(times[_BARE])
    return [
        {"what": what, "unit": "ms", "value": statistics.median(times[statement]) - bare, "at_most": limit}
        for what, statement, limit in (
            ("import lstmx over import numpy", _IMPORT, IMPORT_LIMIT_MS),
            ("from lstmx import LSTM, Trainer over import numpy", _USE, None),
        )
    ]


if __name__ == "__main__":
    sys.exit(main())
