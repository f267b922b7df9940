"""Learn to keep a number until the next one is marked, and draw the gates: at marks it forgets, and reads.

Run: python examples/gates_of_a_memory.py [FOLDER]     (needs matplotlib; writes FOLDER/gates_of_a_memory.png)
"""

import sys
from pathlib import Path

import numpy as np

import lstmx
from lstmx.plotting import plot_gates


def main(folder: Path) -> None:
    """Train on random sequences, then look at the gates over a new one."""
    rng = np.random.default_rng(0)
    rows, steps = 512, 40
    number, marked = rng.uniform(-1, 1, (rows, steps)), rng.random((rows, steps)) < 0.1
    marked[:, 0] = True
    # The target at each step: the number at the last mark, which is at most that step.
    last = np.maximum.accumulate(np.where(marked, np.arange(steps), 0), axis=1)
    x = np.stack([number, marked], axis=2).astype(np.float32)
    y = np.take_along_axis(number, last, axis=1)[:, :, None].astype(np.float32)

    lstm = lstmx.LSTM(2, 12, batch_first=True, rng=0)
    model = lstmx.Sequential(lstm, lstmx.Linear(12, 1, rng=1))
    trainer = lstmx.Trainer(model, loss="mse", optimizer=lstmx.optim.Adam(lr=0.01), clip_norm=1.0)
    trainer.fit(lstmx.data.Arrays(x[1:], y[1:], batch_size=32, shuffle=True, rng=2), epochs=60)

    prediction, _ = model(x[:1])
    print(f"mean absolute error over a new sequence: {np.abs(prediction - y[:1]).mean():.3f}")
    _, _, trace = lstm(x[:1], trace=True)
    shut, opened = (trace["f"][0][0, marked[0] == mark].mean() for mark in (False, True))
    print(f"forget gate, mean over the units: {opened:.2f} at marks, {shut:.2f} elsewhere")
    marks = ", ".join(map(str, np.flatnonzero(marked[0])))
    picture = plot_gates(
        folder / "gates_of_a_memory.png", trace, batch_first=True, title=f"A number to keep at steps {marks}"
    )
    print(f"picture: {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
