"""Forecast half a year of carbon dioxide at Mauna Loa, in the unit of the series, beside two baselines.

Run: python examples/forecast_co2.py [FOLDER]
Needs matplotlib; writes FOLDER/co2.safetensors and FOLDER/forecast_co2.png.
"""

import sys
from pathlib import Path

import lstmx
from lstmx.tabular import read_csv


def main(folder: Path) -> None:
    """Fit, judge, save, load, forecast, draw."""
    table = read_csv(Path(__file__).parent / "data" / "co2_weekly.csv", ["co2"])
    forecaster = lstmx.Forecaster(
        table.columns, window=104, horizon=26, step=table.step, time_column=table.time_column, rng=0
    )
    forecaster.fit(table.values, val=0.2)
    for name in ("lstm", "persistence", "seasonal_naive"):
        print(f"{name:<15}mean absolute error {forecaster.metrics[name]['mae']:.2f} ppm")

    forecaster.save(folder / "co2.safetensors")
    again = lstmx.Forecaster.load(folder / "co2.safetensors")
    last = table.times[-1]
    for time, value in zip(again.step.after(last, again.horizon), again.predict(table.values), strict=True):
        print(f"{time:%Y-%m-%d}  {value:.1f} ppm")
    print(f"picture: {again.plot(folder / 'forecast_co2.png', table.values, times=table.times)}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
