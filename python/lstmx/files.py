"""Model files: one safetensors file with the weights and, as JSON in its metadata, what rebuilds the model.

Written so that a crash at any instant leaves the previous file whole, read so that nothing in a file is ever
executed and nothing is allocated that the file does not hold: every size is checked against the file before
the first array is made. The bytes are made by safetensors' own serializer; reading goes straight from the
file into the arrays, because a second copy of the weights would double the memory. No pickle.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from lstmx.layers import Module

PathLike: TypeAlias = str | os.PathLike[str]
Shape: TypeAlias = tuple[int, ...]

FORMAT = "lstmx"
FORMAT_VERSION = "1"

# safetensors' own limit, for files whose metadata may be long (a training history).
_MAX_HEADER = 100_000_000
# For models. Parsed JSON takes up to about 35 times its text, and loading may take 64 MB more than the file.
_MAX_MODEL_HEADER = 1 << 20

# safetensors' names of the element types that NumPy has too; all little-endian.
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
_ARRAY_DTYPES = {np.dtype(code) for code in _DTYPES.values()}


class _Entry(NamedTuple):
    """One tensor of a file: its element type, its shape and its bytes, counted from the end of the header."""

    dtype: str
    shape: Shape
    start: int
    stop: int


class _Header(NamedTuple):
    entries: dict[str, _Entry]  # in the order of their bytes, which follow one another without holes
    metadata: dict[str, str]


# ---------------------------------------------------------------- models


def save(path: PathLike, model: Module, *, extra: Mapping[str, Any] | None = None) -> None:
    """Write `model` to one safetensors file, replacing the file at `path` in one step.

    Weights stand under their `state_dict` names (PyTorch's), the model's configuration in the metadata, so
    that `load` needs nothing but the file. Whatever happens during the save, `path` holds the old file or the
    new one.

    Args:
        path: The file to write; its folder must exist.
        model: Any `lstmx` layer.
        extra: What else belongs to the model (column names, scaling, ...): a dict that JSON can hold.

    Raises:
        TypeError: `model` is not a layer, or `extra` is not a dict that JSON can hold.
        ValueError: `extra` holds NaN or infinity, or is larger than a model file may carry (about 1 MB).
        OSError: The file cannot be written; the file that was there is unharmed.

    >>> import lstmx, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> model = lstmx.Sequential(lstmx.LSTM(3, 8, batch_first=True), lstmx.Linear(8, 1))
    >>> lstmx.save(f"{folder.name}/model.safetensors", model, extra={"columns": ["a", "b", "c"]})
    >>> type(lstmx.load(f"{folder.name}/model.safetensors")).__name__
    'Sequential'
    >>> read_header(f"{folder.name}/model.safetensors")["extra"]
    {'columns': ['a', 'b', 'c']}
    >>> folder.cleanup()
    """
    from lstmx.layers import Module

    if not isinstance(model, Module):
        raise TypeError(f"model: expected an lstmx layer, got {type(model).__name__}")
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": json.dumps(model.config(), allow_nan=False),
        "extra": _dump_extra({} if extra is None else extra),
    }
    data = _serialize(model.state_dict(), metadata)
    header_length = int.from_bytes(data[:8], "little")
    if header_length > _MAX_MODEL_HEADER:
        raise ValueError(
            f"extra: expected a header of at most {_MAX_MODEL_HEADER} bytes, got {header_length}"
        )
    write_atomic(path, data)


def load(path: PathLike) -> Module:
    """Rebuild the model that `save` wrote; it gives the same outputs bit for bit.

    No code in the file is run, whatever it holds. Memory: the model, and at most 64 MB besides.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: The file is not a whole, valid lstmx model; the message says why.
    """
    return load_with_extra(path)[0]


def load_with_extra(path: PathLike) -> tuple[Module, dict[str, Any]]:
    """As `load`, with the `extra` that was saved beside the model, out of one reading of the file."""
    from lstmx.layers import from_config

    with _errors_name(path), open(path, "rb") as file:
        header = _read_file_header(file, _MAX_MODEL_HEADER)
        model_header = _model_header(header)
        _check_tensors(header.entries, model_header["config"])
        model = from_config(model_header["config"], initial_values=False)
        with model.editing() as views:
            for name, entry in header.entries.items():
                if views[name].dtype != np.dtype(_DTYPES[entry.dtype]):
                    wanted = "F64" if views[name].dtype == np.float64 else "F32"
                    raise ValueError(f"tensor {name!r}: expected dtype {wanted}, got {entry.dtype}")
            for name in header.entries:  # in the order of their bytes
                _read_into(file, name, views[name])
    return model, model_header["extra"]


def read_header(path: PathLike) -> dict[str, Any]:
    """What a model file says about itself, without its weights.

    Returns:
        `{"format_version": str, "config": dict, "extra": dict}`

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: The file is not an lstmx model.
    """
    with _errors_name(path), open(path, "rb") as file:
        return _model_header(_read_file_header(file, _MAX_MODEL_HEADER))


def _dump_extra(extra: Mapping[str, Any]) -> str:
    if not isinstance(extra, Mapping) or not all(isinstance(key, str) for key in extra):
        raise TypeError(f"extra: expected a dict with text keys, got {extra!r}")
    try:
        return json.dumps(dict(extra), allow_nan=False)
    except TypeError as error:
        raise TypeError(f"extra: expected what JSON can hold, got {error}") from None
    except ValueError as error:
        raise ValueError(f"extra: expected what JSON can hold, got {error}") from None


def _model_header(header: _Header) -> dict[str, Any]:
    metadata = header.metadata
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"not an lstmx model: metadata 'format' is {metadata.get('format')!r}, expected {FORMAT!r}"
        )
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"format_version: expected {FORMAT_VERSION!r}, got {version!r}")
    parsed: dict[str, Any] = {"format_version": version}
    for key in ("config", "extra"):
        if key not in metadata:
            raise ValueError(f"metadata: {key!r} is missing")
        parsed[key] = _parse_json_object(key, metadata[key])
    return parsed


def _check_tensors(entries: Mapping[str, _Entry], config: Mapping[str, Any]) -> None:
    """Compare a file's tensors with those that its config implies, before anything of that size exists."""
    from lstmx.layers import parameter_shapes

    expected_names = set()
    for name, shape in parameter_shapes(config):  # lazy: a billion layers end at the first that is missing
        entry = entries.get(name)
        if entry is None:
            raise ValueError(f"tensor {name!r}: expected shape {shape}, but it is missing")
        if entry.shape != shape:
            raise ValueError(f"tensor {name!r}: expected shape {shape}, got {entry.shape}")
        expected_names.add(name)
    unexpected = [name for name in entries if name not in expected_names]
    if unexpected:
        raise ValueError(f"unexpected tensors {unexpected[:5]}: the config has no place for them")


# ---------------------------------------------------------------- tensors


def write_tensors(path: PathLike, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
    """Write named arrays (float, integer or bool) and text metadata as one safetensors file, in one step.

    Raises:
        TypeError: A tensor is not an array of a type that safetensors has, or metadata is not text.
        ValueError: The header would be longer than safetensors allows (100 MB).
        OSError: The file cannot be written; the file that was there is unharmed.
    """
    write_atomic(path, _serialize(tensors, metadata))


def read_tensors(path: PathLike) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read any safetensors file: its arrays by name, and its metadata.

    Raises:
        FileNotFoundError: There is no file at `path`.
        ValueError: The file is not a whole, valid safetensors file; the message says why.
    """
    with _errors_name(path), open(path, "rb") as file:
        header = _read_file_header(file, _MAX_HEADER)
        tensors = {}
        for name, entry in header.entries.items():  # in the order of their bytes
            tensors[name] = np.empty(entry.shape, np.dtype(_DTYPES[entry.dtype]).newbyteorder("="))
            _read_into(file, name, tensors[name])
    return tensors, header.metadata


def write_atomic(path: PathLike, data: bytes) -> None:
    """Replace the file at `path` by `data` in one step: a crash leaves the old file or the new one.

    A temporary file in the same folder is written, brought to the disk, renamed over `path`, and the folder
    is brought to the disk too. The file gets the mode that the user's umask grants; a link is followed.

    Raises:
        OSError: The file cannot be written (no such folder, disk full, ...); what was at `path` is unharmed.
    """
    target = Path(os.path.realpath(os.fspath(path)))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file", str(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(target.parent))
    temporary = target.parent / f".lstmx-{secrets.token_hex(8)}.tmp"
    # Opened by hand, because tempfile's mode 0600 would replace the user's umask.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and the rename is journalled
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such call
            raise
    finally:
        os.close(descriptor)


def _serialize(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    import safetensors.numpy

    arrays = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise TypeError(f"tensors: expected text as names, got {name!r}")
        if name == "__metadata__":
            raise ValueError("tensors: '__metadata__' is the name of the metadata")
        is_array = isinstance(tensor, (np.ndarray, np.generic))
        if not is_array or tensor.dtype.newbyteorder("<") not in _ARRAY_DTYPES:
            got = f"dtype {tensor.dtype}" if is_array else type(tensor).__name__
            raise TypeError(f"tensors[{name!r}]: expected an array of float, integer or bool, got {got}")
        arrays[name] = np.asarray(tensor, dtype=tensor.dtype.newbyteorder("="), order="C")
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"metadata: expected text, got {key!r}: {text!r}")
    data = _with_sorted_metadata(safetensors.numpy.save(arrays, dict(metadata)))
    if int.from_bytes(data[:8], "little") > _MAX_HEADER:
        raise ValueError(f"metadata: expected a header of at most {_MAX_HEADER} bytes, got more")
    return data


def _with_sorted_metadata(data: bytes) -> bytes:
    """The same file with its metadata in order: safetensors' own order changes from call to call."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


# ---------------------------------------------------------------- reading, strictly


@contextlib.contextmanager
def _errors_name(path: PathLike) -> Iterator[None]:
    """Put the file's name in front of what is wrong with it."""
    name = os.fspath(path)
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read_file_header(file: BufferedReader, limit: int) -> _Header:
    """Read and check everything in front of the arrays; the file then stands at their first byte."""
    size = os.fstat(file.fileno()).st_size
    if size < 8:
        raise ValueError(f"not a safetensors file: expected at least 8 bytes, got {size}")
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise ValueError(f"truncated or not a safetensors file: header of {length} bytes in a file of {size}")
    if length > limit:
        raise ValueError(f"header: expected at most {limit} bytes, got {length}")
    text = file.read(length)
    if len(text) != length:
        raise ValueError(f"header: expected {length} bytes, got {len(text)}")
    if not text.startswith(b"{"):
        raise ValueError(f"header: expected a JSON object, got {text[:16]!r}")
    return _check_header(_parse_json_object("header", text), size - 8 - length)


def _parse_json_object(name: str, text: str | bytes) -> dict[str, Any]:
    def refuse_constant(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("the same key twice")
        return result

    try:
        # Decoded here: json would guess UTF-16 and UTF-32 too.
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=unique, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError(f"{name}: JSON nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{name}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a JSON object, got {type(value).__name__}")
    return value


def _check_header(header: dict[str, Any], data_size: int) -> _Header:
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("header: '__metadata__': expected text by name")
    parsed = {name: _check_entry(name, fields) for name, fields in header.items()}
    entries = dict(sorted(parsed.items(), key=lambda item: (item[1].start, item[1].stop)))
    position = 0
    for name, entry in entries.items():
        if entry.start != position:
            problem = "overlaps the one before" if entry.start < position else "leaves a hole before it"
            raise ValueError(
                f"tensor {name!r}: starts at byte {entry.start}, expected {position}: it {problem}"
            )
        position = entry.stop
    if position != data_size:
        problem = "truncated" if position > data_size else "bytes that belong to no tensor"
        raise ValueError(
            f"{problem}: the header describes {position} bytes of tensors, the file has {data_size}"
        )
    return _Header(entries, metadata)


def _check_entry(name: str, fields: Any) -> _Entry:
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"tensor {name!r}: unknown dtype {dtype!r}")
    if not _are_sizes(shape) or len(shape) > 32:
        raise ValueError(f"tensor {name!r}: expected a shape of at most 32 sizes, got {str(shape)[:200]}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name!r}: expected data_offsets [start, stop], got {str(offsets)[:200]}")
    start, stop = offsets
    expected = math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if stop - start != expected:
        raise ValueError(
            f"tensor {name!r}: {dtype} of shape {tuple(shape)}: expected {expected} bytes, got {stop - start}"
        )
    return _Entry(dtype, tuple(shape), start, stop)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _read_into(file: BufferedReader, name: str, array: NDArray[Any]) -> None:
    """Fill a C-contiguous array with the file's next bytes."""
    if array.nbytes == 0:
        return
    data = array.data.cast("B")
    got = file.readinto(data)
    if got != array.nbytes:
        raise ValueError(f"tensor {name!r}: expected {array.nbytes} bytes, got {got}")
    if array.dtype == np.bool_ and max(data) > 1:
        raise ValueError(f"tensor {name!r}: expected 0 or 1 in a BOOL, got {max(data)}")
    if sys.byteorder == "big":
        array.byteswap(inplace=True)
