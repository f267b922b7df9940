"""The gate against regressions: the rows of two result files, before and after a change.

    python benchmarks/compare.py before.json after.json    # exit status 1: some ratio fell by more than 10 %

Compared are the ratios to a peer (PyTorch), never times: a slower machine or hour slows the peer as well.
Rows that only one file has are counted, not judged. Exit status 2: the files cannot be compared. Measures
nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from harness import KEY, Row, key


class Unusable(Exception):
    """A file that holds no rows of results."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument(
        "--threshold", type=float, default=0.1, help="largest loss that passes (default 0.1: 10 %%)"
    )
    parser.add_argument("--peer", default="torch", help="whose ratios to compare (default torch)")
    options = parser.parse_args(argv)
    if not 0 <= options.threshold < 1:
        parser.error(f"--threshold: expected a number from 0 to 1, got {options.threshold}")
    try:
        before, after = (_read(path) for path in (options.before, options.after))
        return _compare(before, after, options.peer, options.threshold)
    except Unusable as error:
        print(f"compare: error: {error}", file=sys.stderr)
        return 2


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        for row in content["rows"]:
            for ratio in row["ratio"].values():
                if not ratio["median"] > 0:
                    raise ValueError(f"a ratio of {ratio['median']}")
            key(row)
        content["machine"]["processor"]
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(f"{path}: expected a file of benchmarks/results, got {error!r}") from None
    return content


def _compare(before: dict[str, Any], after: dict[str, Any], peer: str, threshold: float) -> int:
    old, new = _ratios(before["rows"], peer), _ratios(after["rows"], peer)
    common = [name for name in old if name in new]
    if not common:
        raise Unusable(f"the files have no measurement against {peer!r} in common")
    if before["machine"]["processor"] != after["machine"]["processor"]:
        print("note: different processors; a ratio may differ for that reason alone")
    changes = sorted((new[name] / old[name], name) for name in common)
    for change, name in changes:
        verdict = "  REGRESSION" if change < 1 - threshold else ""
        print(f"{_describe(name):<52}{old[name]:8.2f} -> {new[name]:8.2f}  {change - 1:+7.1%}{verdict}")
    lost = sum(change < 1 - threshold for change, _ in changes)
    only = (len(old) - len(common), len(new) - len(common))
    print(
        f"{len(common)} ratios against {peer}: {lost} fell by more than {threshold:.0%}; "
        f"only before: {only[0]}, only after: {only[1]}"
    )
    return 1 if lost else 0


def _ratios(rows: list[Row], peer: str) -> dict[tuple[Any, ...], float]:
    return {key(row): row["ratio"][peer]["median"] for row in rows if peer in row["ratio"]}


def _describe(name: tuple[Any, ...]) -> str:
    row = dict(zip(KEY, name, strict=True))
    lengths = ", lengths" if row["lengths"] else ""
    return f"{row['shape']}, {row['mode']}{lengths}, {row['isa']}, {row['threads']} thread(s)"


if __name__ == "__main__":
    sys.exit(main())
