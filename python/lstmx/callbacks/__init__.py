"""What happens around training: hooks under Keras's names, and the callbacks that come with the library.

Nothing here changes what is learnt, `EarlyStopping` aside. Optional packages are imported when a training
that uses them begins.
"""

from lstmx.callbacks.base import Callback
from lstmx.callbacks.checkpoint import Checkpoint
from lstmx.callbacks.csvlogger import CSVLogger
from lstmx.callbacks.earlystopping import EarlyStopping
from lstmx.callbacks.liveplot import LivePlot
from lstmx.callbacks.progress import Progress
from lstmx.callbacks.tensorboard import TensorBoard

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LivePlot",
    "Progress",
    "TensorBoard",
]
