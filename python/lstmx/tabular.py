"""Reading a series from a CSV file: number columns by name, a time column, and errors that name the line.

Strict on purpose: a gap, a text, an unsorted or missing time is refused with its line rather than guessed
over, because a forecaster trained on silently repaired data is wrong in ways nobody sees. Python's csv module
splits the cells; there is no resampling, no filling and no guessing of types.
"""

from __future__ import annotations

import calendar
import csv
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

PathLike: TypeAlias = str | os.PathLike[str]

_GAPS = frozenset(("", "na", "n/a", "nan", "null", "none", "-", "?"))
_SHORT_DATES = {4: ("%Y", r"\d{4}"), 7: ("%Y-%m", r"\d{4}-\d\d"), 10: ("%Y-%m-%d", r"\d{4}-\d\d-\d\d")}
_UNITS = (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


@dataclass(frozen=True)
class TimeStep:
    """The distance between two rows: a fixed time, or calendar months (whose lengths differ).

    Args:
        microseconds: The fixed distance; 0 for calendar months.
        months: The number of calendar months; 0 for a fixed distance.
        day: With months, the day of the month. 31 means month ends, whatever the month.

    >>> print(TimeStep(microseconds=3_600_000_000), TimeStep(microseconds=3_600_000_000).season)
    1 hour 24
    >>> TimeStep(months=1, day=31).after(datetime(2024, 1, 31), 2)
    [datetime.datetime(2024, 2, 29, 0, 0), datetime.datetime(2024, 3, 31, 0, 0)]
    """

    microseconds: int = 0
    months: int = 0
    day: int = 1

    def __post_init__(self) -> None:
        fields = (self.microseconds, self.months, self.day)
        if any(type(field) is not int for field in fields):
            raise TypeError(f"time step: expected integers, got {fields}")
        one_kind = (self.microseconds > 0) != (self.months > 0)
        if not one_kind or min(fields) < 0 or not 1 <= self.day <= 31:
            raise ValueError(f"time step: expected microseconds or months above 0, day 1 to 31, got {self!r}")

    def __str__(self) -> str:
        if self.months:
            years, rest = divmod(self.months, 12)
            return _plural(self.months, "month") if rest else _plural(years, "year")
        for unit, seconds in _UNITS:
            count, rest = divmod(self.microseconds, seconds * 1_000_000)
            if rest == 0:
                return _plural(count, unit)
        return f"{self.microseconds / 1e6:g} seconds"

    @property
    def season(self) -> int | None:
        """Steps in the natural season: a day of shorter steps, a week of days, a year of weeks or months."""
        if self.months:
            return 12 // self.months if self.months in (1, 2, 3, 4, 6) else None
        day = 86_400_000_000
        if self.microseconds == 7 * day:
            return 52
        if self.microseconds == day:
            return 7
        return day // self.microseconds if self.microseconds < day and day % self.microseconds == 0 else None

    def after(self, time: datetime, count: int) -> list[datetime]:
        """The next `count` times after `time`."""
        try:
            if not self.months:
                return [time + timedelta(microseconds=self.microseconds * k) for k in range(1, count + 1)]
            return [self._in_month(time, _month_index(time) + self.months * k) for k in range(1, count + 1)]
        except (OverflowError, ValueError):
            raise ValueError(f"time: {count} steps of {self} after {time} leave the calendar") from None

    def _in_month(self, time: datetime, month_index: int) -> datetime:
        year, month = divmod(month_index, 12)
        day = min(self.day, calendar.monthrange(year, month + 1)[1])
        return time.replace(year=year, month=month + 1, day=day)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of a CSV file.

    Attributes:
        path: The file, for messages.
        columns: The names of the number columns, in the order asked for.
        values: float64 [N, len(columns)], all finite.
        lines: int64 [N], the line of the file on which each row ends.
        time_column: The name of the time column, or None where the file has none.
        times: The N times (UTC where the file gives offsets), or None.
        step: The distance between rows, or None without times.
        time_format: How the file writes times: a `strftime` format, or the separator of ISO times.
    """

    path: str
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    lines: NDArray[np.int64]
    time_column: str | None = None
    times: list[datetime] | None = None
    step: TimeStep | None = None
    time_format: str = "%Y-%m-%d"

    def __len__(self) -> int:
        return len(self.values)

    def format_time(self, time: datetime) -> str:
        """`time` as the file writes its own times."""
        return (
            time.isoformat(self.time_format)
            if len(self.time_format) == 1
            else time.strftime(self.time_format)
        )


def read_csv(
    path: PathLike, columns: Sequence[str], *, time: str | None = None, minimum_rows: int = 1
) -> Table:
    r"""Read number columns, and the time column, of a CSV file with a header (UTF-8, comma-separated).

    Args:
        path: The file.
        columns: The number columns to read.
        time: The time column (ISO 8601 dates or times, or YYYY-MM, or YYYY). None takes the first column that
            begins with an ISO date; where there is none the table has no times.
        minimum_rows: How many rows are needed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Something in the file is not as expected; the message names file, line and column.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "level.csv")
    ...     _ = path.write_text("day,level\n2024-01-01,3.5\n2024-01-02,4\n2024-01-03,4.5\n")
    ...     table = read_csv(path, ["level"])
    >>> table.values.ravel(), table.time_column, str(table.step)
    (array([3.5, 4. , 4.5]), 'day', '1 day')
    """
    name = os.fspath(path)
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            return _read_table(name, csv.reader(file, strict=True), tuple(columns), time, minimum_rows)
        except UnicodeDecodeError as error:
            raise ValueError(f"{name}: not UTF-8 text ({error.reason} at byte {error.start})") from None
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{name}: {error}") from None


def _read_table(
    name: str, reader: Any, columns: tuple[str, ...], time: str | None, minimum_rows: int
) -> Table:
    header = _read_header(reader)
    places = [_place(header, column) for column in columns]
    rows = _rows(reader, len(header))
    first = next(rows, None)
    if first is None:
        raise ValueError(f"expected at least {minimum_rows} rows, got 0")
    time_place = _find_time(header, first[1]) if time is None else _place(header, time)

    values, lines, stamps = [], [], []
    for line, cells in chain([first], rows):
        values.append([_number(cells[place], line, header[place]) for place in places])
        lines.append(line)
        if time_place is not None:
            stamps.append(_parse_time(cells[time_place], line, header[time_place]))
    if len(values) < minimum_rows:
        raise ValueError(f"expected at least {minimum_rows} rows, got {len(values)}")

    array = np.array(values, np.float64).reshape(len(values), len(columns))
    line_array = np.array(lines, np.int64)
    if time_place is None:
        return Table(name, columns, array, line_array)
    times = _one_clock(stamps, lines)
    step = find_step(times, lines) if len(times) > 1 else None
    style = _time_format(first[1][time_place])
    return Table(name, columns, array, line_array, header[time_place], times, step, style)


def _read_header(reader: Any) -> list[str]:
    header = [cell.strip() for cell in next(reader, [])]
    if not any(header):
        raise ValueError("expected a header line with column names, got an empty file or line")
    twice = [column for column, count in Counter(header).items() if count > 1]
    if twice:
        raise ValueError(f"line 1: the column name {twice[0]!r} stands twice")
    return header


def _place(header: list[str], column: str) -> int:
    if column in header:
        return header.index(column)
    hint = ""
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        hint = " (expected commas between the columns)"
    raise ValueError(f"no column {column!r}; the file has {', '.join(map(repr, header))}{hint}")


def _rows(reader: Any, width: int) -> Iterator[tuple[int, list[str]]]:
    for cells in reader:
        if not cells:  # a blank line
            continue
        if len(cells) != width:
            raise ValueError(
                f"line {reader.line_num}: expected {width} cells as in the header, got {len(cells)}"
            )
        yield reader.line_num, cells


def _number(cell: str, line: int, column: str) -> float:
    text = cell.strip()
    if text.lower() in _GAPS:
        raise ValueError(
            f"line {line}: column {column!r}: expected a number, got {cell!r}: "
            "fill the gap or cut the file before it, nothing is guessed here"
        )
    try:
        number = math.nan if "_" in text else float(text)  # float() takes 1_000, tables do not mean it
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"line {line}: column {column!r}: expected a finite number, got {cell!r}")
    return number


# ---------------------------------------------------------------- times


def _find_time(header: list[str], cells: list[str]) -> int | None:
    for place in range(len(header)):
        text = cells[place].strip()
        if re.match(r"\d{4}-\d\d", text) and _iso_time(text) is not None:
            return place
    return None


def _iso_time(text: str) -> datetime | None:
    if len(text) in _SHORT_DATES:
        style, pattern = _SHORT_DATES[len(text)]
        if not re.fullmatch(pattern, text):
            return None
    try:
        return datetime.strptime(text, style) if len(text) in _SHORT_DATES else datetime.fromisoformat(text)
    except ValueError:
        return None


def _parse_time(cell: str, line: int, column: str) -> datetime:
    time = _iso_time(cell.strip())
    if time is None:
        expected = "a time such as 2024-01-31 or 2024-01-31 13:00:00"
        raise ValueError(f"line {line}: column {column!r}: expected {expected}, got {cell!r}")
    return time


def _time_format(cell: str) -> str:
    text = cell.strip()
    if len(text) in _SHORT_DATES:
        return _SHORT_DATES[len(text)][0]
    return "T" if "T" in text else " "


def _one_clock(times: list[datetime], lines: Sequence[int]) -> list[datetime]:
    """All without offset as they are, all with offset in UTC; a mixture is refused."""
    aware = times[0].tzinfo is not None
    for time, line in zip(times, lines, strict=True):
        if (time.tzinfo is not None) != aware:
            raise ValueError(f"line {line}: times with and without UTC offset are mixed in one column")
    return [time.astimezone(UTC) for time in times] if aware else times


def find_step(times: Sequence[datetime], lines: Sequence[int]) -> TimeStep:
    """The one distance between rows (at least two), or a ValueError with the first line that breaks it."""
    for k in range(1, len(times)):
        if times[k] <= times[k - 1]:
            problem = "the same time twice" if times[k] == times[k - 1] else "times must ascend"
            raise ValueError(f"line {lines[k]}: {problem}: {times[k]} after {times[k - 1]}")
    fixed = TimeStep(microseconds=_most_common(_microseconds(b - a) for a, b in pairwise(times)))
    step = fixed
    breaks = _breaks(times, fixed)
    months = _most_common(_month_index(b) - _month_index(a) for a, b in pairwise(times))
    if months > 0:  # of two that fit alike, 28 or 365 days mean a calendar
        # The latest day seen: 31 in a series of month ends, the day itself in any other.
        monthly = TimeStep(months=months, day=max(time.day for time in times))
        monthly_breaks = _breaks(times, monthly)
        if len(monthly_breaks) <= len(breaks):
            step, breaks = monthly, monthly_breaks
    if breaks:
        k = breaks[0]
        expected = step.after(times[k - 1], 1)[0]
        raise ValueError(
            f"line {lines[k]}: expected {expected}, one step ({step}) after line {lines[k - 1]}, "
            f"got {times[k]}: rows must be evenly spaced"
        )
    return step


def _breaks(times: Sequence[datetime], step: TimeStep) -> list[int]:
    return [k for k in range(1, len(times)) if step.after(times[k - 1], 1)[0] != times[k]]


def _most_common(numbers: Iterable[int]) -> int:
    return Counter(numbers).most_common(1)[0][0]


def _microseconds(difference: timedelta) -> int:
    return difference // timedelta(microseconds=1)


def _month_index(time: datetime) -> int:
    return time.year * 12 + time.month - 1


def _plural(count: int, unit: str) -> str:
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
