"""Learn a cosine from a sine over one long stream, and draw what the model makes of it.

Run: python examples/sine_to_cosine.py [FOLDER]     (needs matplotlib; writes FOLDER/sine_to_cosine.png)
"""

import sys
from pathlib import Path

import numpy as np

import lstmx
from lstmx.plotting import plot_prediction


def main(folder: Path) -> None:
    """Train for a few passes over the stream, then predict it from the beginning."""
    t = np.arange(4000)
    x, y = np.sin(t / 30), np.cos(t / 30)

    # 10 rows side by side, 50 steps a batch; the state goes on from batch to batch, the gradients do not.
    stream = lstmx.data.Stream(x, y, steps=50, batch_size=10)
    model = lstmx.Sequential(
        lstmx.LSTM(1, 16, batch_first=True, forget_bias=1.0, rng=0),
        lstmx.Linear(16, 1, rng=1),
    )
    trainer = lstmx.Trainer(model, loss="mse", optimizer=lstmx.optim.Adam(lr=0.01), clip_norm=1.0)
    trainer.fit(stream, epochs=60)

    # Until it has seen a part of the wave, the model cannot know whether the sine is on its way up or down.
    prediction, _ = model(x[None, :600, None].astype(np.float32))
    error = np.abs(prediction[0, 100:, 0] - y[100:600]).mean()
    print(f"mean absolute error after the first 100 steps: {error:.3f}")
    picture = plot_prediction(
        folder / "sine_to_cosine.png", y[:600], prediction, title="cosine from sine", xlabel="t"
    )
    print(f"picture: {picture}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
