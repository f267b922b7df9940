"""CSV files: what is read, and that every defect is refused with its place."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstmx.tabular import TimeStep, find_step, read_csv

HOURLY = "date,a,b\n2024-01-01 00:00:00,1,10\n2024-01-01 01:00:00,2,20\n2024-01-01 02:00:00,3,30\n"


@pytest.fixture
def write(tmp_path):
    def write_text(text: str | bytes, name: str = "series.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_text


def times_text(times) -> str:
    return "t,a\n" + "".join(f"{time},{k}\n" for k, time in enumerate(times))


def test_reads_columns_in_the_order_asked_for(write):
    table = read_csv(write(HOURLY), ["b", "a"])
    assert table.columns == ("b", "a")
    np.testing.assert_array_equal(table.values, [[10, 1], [20, 2], [30, 3]])
    assert table.values.dtype == np.float64
    assert table.lines.tolist() == [2, 3, 4]
    assert table.time_column == "date"
    assert table.times[1] == datetime(2024, 1, 1, 1)
    assert table.step == TimeStep(microseconds=3_600_000_000)
    assert len(table) == 3
    assert table.format_time(datetime(2024, 1, 1, 3)) == "2024-01-01 03:00:00"


def test_without_a_time_column(write):
    table = read_csv(write("a,b\n1,2\n3,4\n"), ["a"])
    assert table.times is None
    assert table.step is None
    assert table.time_column is None


def test_a_number_is_not_taken_for_a_time(write):
    assert read_csv(write("year,a\n2001,1\n2002,2\n"), ["a"]).time_column is None
    assert read_csv(write("year,a\n2001,1\n2002,2\n2003,3\n"), ["a"], time="year").step.months == 12


def test_byte_order_mark_quotes_spaces_blank_lines_and_crlf(write):
    table = read_csv(write(b'\xef\xbb\xbf"date", a\r\n2024-01-01,"1.5"\r\n\r\n2024-01-02, 2e3 \r\n'), ["a"])
    assert table.time_column == "date"
    assert table.values.ravel().tolist() == [1.5, 2000.0]
    assert table.lines.tolist() == [2, 4]


def test_quoted_line_break_keeps_the_line_numbers(write):
    path = write('note,a\n"two\nlines",1\nx,oops\n')
    with pytest.raises(
        ValueError, match=r"series\.csv: line 4: column 'a': expected a finite number, got 'oops'"
    ):
        read_csv(path, ["a"])


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (HOURLY, ["c"], r"no column 'c'; the file has 'date', 'a', 'b'"),
        ("date;a\n2024-01-01;1\n", ["a"], r"no column 'a'; the file has 'date;a' \(expected commas"),
        ("", ["a"], r"expected a header line .* got an empty file"),
        ("\n1,2\n", ["a"], r"expected a header line"),
        ("a,b\n", ["a"], r"expected at least 1 rows, got 0"),
        ("a,b,a\n1,2,3\n", ["b"], r"line 1: the column name 'a' stands twice"),
        ("a,b\n1,2\n3\n", ["a"], r"line 3: expected 2 cells as in the header, got 1"),
        ("a,b\n1,2\n3,4,5\n", ["a"], r"line 3: expected 2 cells as in the header, got 3"),
        ("a,b\n1,2\nx,4\n", ["a"], r"line 3: column 'a': expected a finite number, got 'x'"),
        ("a,b\n1,2\n1_000,4\n", ["a"], r"line 3: column 'a': expected a finite number, got '1_000'"),
        ("a,b\n1,2\n1e999,4\n", ["a"], r"line 3: column 'a': expected a finite number, got '1e999'"),
        ("a,b\n1,2\n-inf,4\n", ["a"], r"line 3: column 'a': expected a finite number, got '-inf'"),
        ("a,b\n1,2\n,4\n", ["a"], r"line 3: column 'a': expected a number, got '': fill the gap"),
        ("a,b\n1,2\nNaN,4\n", ["a"], r"line 3: column 'a': expected a number, got 'NaN': fill the gap"),
        ("a,b\n1,2\nNA,4\n", ["a"], r"line 3: column 'a': expected a number, got 'NA': fill the gap"),
        ('a,b\n1,"2\n', ["a"], r"unexpected end of data"),
        (b"a,b\n1,\xff\n", ["a"], r"not UTF-8 text \(invalid start byte at byte 6\)"),
    ],
)
def test_defects_of_cells_are_refused(write, text, columns, message):
    with pytest.raises(ValueError, match=r"series\.csv: " + message):
        read_csv(write(text), columns)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["2024-01-01", "2024-01-02", "2024-01-02"], r"line 4: the same time twice: 2024-01-02"),
        (["2024-01-01", "2024-01-03", "2024-01-02"], r"line 4: times must ascend"),
        (
            ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-05", "2024-01-06"],
            r"line 5: expected 2024-01-04 00:00:00, one step \(1 day\) after line 4, got 2024-01-05",
        ),
        (
            ["2024-01", "2024-02", "2024-03", "2024-05", "2024-06"],
            r"line 5: expected 2024-04-01 00:00:00, one step \(1 month\) after line 4, got 2024-05-01",
        ),
        (["2024-01-01", "Tuesday"], r"line 3: column 't': expected a time such as"),
        (["2024-01-01", "2024-02-30"], r"line 3: column 't': expected a time such as"),
        (["2024-01-01", ""], r"line 3: column 't': expected a time such as"),
        (["2024-01-01T00:00:00+00:00", "2024-01-02T00:00:00"], r"line 3: times with and without UTC offset"),
    ],
)
def test_defects_of_times_are_refused(write, times, message):
    with pytest.raises(ValueError, match=message):
        read_csv(write(times_text(times)), ["a"])


def test_too_few_rows(write):
    with pytest.raises(ValueError, match=r"series\.csv: expected at least 120 rows, got 3"):
        read_csv(write(HOURLY), ["a"], minimum_rows=120)


def test_named_time_column_must_exist(write):
    with pytest.raises(ValueError, match=r"no column 'when'; the file has 'date', 'a', 'b'"):
        read_csv(write(HOURLY), ["a"], time="when")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_csv(tmp_path / "none.csv", ["a"])
    with pytest.raises(IsADirectoryError):
        read_csv(tmp_path, ["a"])


@pytest.mark.parametrize(
    ("times", "step", "season", "following"),
    [
        (["2024-01-01", "2024-01-08", "2024-01-15"], "1 week", 52, "2024-01-22"),
        (["2024-02-27", "2024-02-28"], "1 day", 7, "2024-02-29"),
        (["2024-01-31 22:00", "2024-01-31 23:00"], "1 hour", 24, "2024-02-01 00:00:00"),
        (["2024-01-01T00:00", "2024-01-01T00:15"], "15 minutes", 96, "2024-01-01T00:30:00"),
        (["2024-01", "2024-02", "2024-03"], "1 month", 12, "2024-04"),
        (["2023-12-31", "2024-01-31", "2024-02-29"], "1 month", 12, "2024-03-31"),
        (["2023-11-30", "2023-12-30", "2024-01-30", "2024-02-29"], "1 month", 12, "2024-03-30"),
        (["2023-01-01", "2023-04-01", "2023-07-01", "2023-10-01"], "3 months", 4, "2024-01-01"),
        (["2022", "2023", "2024"], "1 year", None, "2025"),
        (["2024-01-01 00:00:00.0", "2024-01-01 00:00:00.1"], "0.1 seconds", 864000, None),
        (["2024-01-01 00:00:07", "2024-01-01 00:00:14"], "7 seconds", None, "2024-01-01 00:00:21"),
        (["2024-03-31T00:00+01:00", "2024-03-31T03:00+02:00"], "2 hours", 12, "2024-03-31T03:00:00+00:00"),
    ],
)
def test_steps_seasons_and_the_next_time(write, times, step, season, following):
    table = read_csv(write(times_text(times)), ["a"], time="t")
    assert str(table.step) == step
    assert table.step.season == season
    if following is not None:
        assert table.format_time(table.step.after(table.times[-1], 1)[0]) == following


def test_times_with_offsets_are_in_utc(write):
    table = read_csv(write(times_text(["2024-01-01T00:00:00+01:00", "2024-01-01T01:00:00+01:00"])), ["a"])
    assert table.times[0] == datetime(2023, 12, 31, 23, tzinfo=UTC)


@given(
    start=st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)),
    microseconds=st.integers(1, 40 * 86_400_000_000),
    rows=st.integers(2, 30),
)
def test_any_fixed_step_is_found_again(start, microseconds, rows):
    step = timedelta(microseconds=microseconds)
    times = [start + step * k for k in range(rows)]
    found = find_step(times, range(rows))
    assert found.after(times[0], rows - 1) == times[1:]
    assert found.after(times[-1], 1) == [times[-1] + step] or found.months > 0


@given(start=st.dates(datetime(1900, 1, 1).date(), datetime(2100, 1, 1).date()), months=st.integers(1, 12))
def test_any_calendar_step_is_found_again(start, months):
    step = TimeStep(months=months, day=start.day)
    first = datetime(start.year, start.month, start.day)
    times = [first, *step.after(first, 30)]
    assert find_step(times, range(31)).after(times[-1], 40) == step.after(times[-1], 40)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, ValueError),
        ({"microseconds": 1, "months": 1}, ValueError),
        ({"microseconds": -1}, ValueError),
        ({"months": 1, "day": 32}, ValueError),
        ({"months": 1.0}, TypeError),
        ({"microseconds": True}, TypeError),
    ],
)
def test_impossible_time_steps_are_refused(arguments, error):
    with pytest.raises(error, match="time step: expected"):
        TimeStep(**arguments)


def test_the_end_of_the_calendar():
    with pytest.raises(ValueError, match="leave the calendar"):
        TimeStep(months=12).after(datetime(9999, 1, 1), 1)
    with pytest.raises(ValueError, match="leave the calendar"):
        TimeStep(microseconds=10**18).after(datetime(9999, 1, 1), 1)


def test_the_example_data_reads(request):
    path = request.config.rootpath / "examples" / "data" / "co2_weekly.csv"
    table = read_csv(path, ["co2", "filled"])
    assert len(table) == 2284
    assert str(table.step) == "1 week"
    assert table.values[:, 1].sum() == 59
    assert table.values[:, 0].min() > 300
