"""Make co2_weekly.csv from the series that the statsmodels package carries (run: python make_co2.py).

The source has one row a week and no value in 59 of the weeks. Those are filled by linear interpolation
between the neighbours and marked 1 in the column `filled`, so that nobody takes them for measurements.
"""

import csv
from pathlib import Path

import numpy as np
import statsmodels.api as sm


def main() -> None:
    """Write the CSV beside this script."""
    series = sm.datasets.co2.load_pandas().data["co2"]
    values = series.to_numpy()
    missing = np.isnan(values)
    week = np.arange(len(values))
    values = np.interp(week, week[~missing], values[~missing])
    path = Path(__file__).with_name("co2_weekly.csv")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["date", "co2", "filled"])
        for day, value, filled in zip(series.index, values, missing, strict=True):
            writer.writerow([day.date().isoformat(), f"{value:.2f}", int(filled)])
    print(f"{path.name}: {len(values)} weeks, {missing.sum()} of them filled")


if __name__ == "__main__":
    main()
