"""Model files: what was saved comes back, a crash loses nothing, a bad file is refused whatever is in it."""

from __future__ import annotations

import json
import os
import pickle
import random
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import lstmx
from lstmx import files

MODELS = {
    "LSTM": lambda: lstmx.LSTM(3, 4, num_layers=2, bidirectional=True, dropout=0.1, rng=1),
    "LSTM without bias": lambda: lstmx.LSTM(3, 4, bias=False, rng=1),
    "Linear": lambda: lstmx.Linear(3, 2, init="normal", bias_init=0.1, rng=1),
    "Dropout": lambda: lstmx.Dropout(0.25),
    "LastStep": lambda: lstmx.LastStep(),
    "Activation": lambda: lstmx.Activation("hard_sigmoid", 1 / 6),
    "Softmax": lambda: lstmx.Softmax(),
    "Sequential": lambda: lstmx.Sequential(
        lstmx.Linear(3, 4, rng=1),
        lstmx.Sequential(lstmx.LSTM(4, 5, batch_first=True, forget_bias=1.0, rng=2), lstmx.Dropout(0.5)),
        lstmx.LastStep(),
        lstmx.Linear(5, 1, bias=False, rng=3),
    ),
}


def small_model() -> lstmx.Sequential:
    return lstmx.Sequential(
        lstmx.LSTM(1, 2, batch_first=True, rng=1), lstmx.LastStep(), lstmx.Linear(2, 1, rng=2)
    )


def file_bytes(header: object, data: bytes = b"") -> bytes:
    """A safetensors file with this header, valid or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def model_bytes(config: object, tensors: dict[str, np.ndarray], /, **metadata: str) -> bytes:
    fields = {
        "format": "lstmx",
        "format_version": "1",
        "config": json.dumps(config),
        "extra": "{}",
        **metadata,
    }
    return safetensors.numpy.save(tensors, fields)


@pytest.fixture
def write(tmp_path):
    def write_bytes(data: bytes) -> Path:
        path = tmp_path / "file.safetensors"
        path.write_bytes(data)
        return path

    return write_bytes


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_bit_for_bit(tmp_path, rng, name):
    model = MODELS[name]()
    extra = {"columns": ["a", "ö"], "scale": [0.1, 1e-300], "none": None}
    lstmx.save(tmp_path / "m", model, extra=extra)
    again = lstmx.load(tmp_path / "m")
    assert repr(again) == repr(model)
    assert again.config() == model.config()
    x = rng.standard_normal((2, 7, 3)).astype(np.float32)
    assert again(x)[0].tobytes() == model(x)[0].tobytes()
    header = files.read_header(tmp_path / "m")
    assert header == {"format_version": "1", "config": model.config(), "extra": extra}
    assert files.load_with_extra(tmp_path / "m")[1] == extra


def test_a_loaded_model_trains_on_as_the_original(tmp_path, rng):
    model = small_model()
    lstmx.save(tmp_path / "m", model)
    again = lstmx.load(tmp_path / "m")
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((4, 5, 1), (4, 1)))
    for each in (model, again):
        lstmx.Trainer(each).fit((x, y), epochs=3)
    assert model.arena.params.tobytes() == again.arena.params.tobytes()


def test_the_file_is_plain_safetensors_with_pytorch_names(tmp_path):
    model = small_model()
    lstmx.save(tmp_path / "m", model)
    tensors = safetensors.numpy.load_file(tmp_path / "m")
    assert set(tensors) == set(model.params)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, model.params[name])
    with safetensors.safe_open(tmp_path / "m", "numpy") as file:
        metadata = file.metadata()
    assert metadata["format"] == "lstmx"
    assert metadata["format_version"] == "1"
    assert json.loads(metadata["config"])["type"] == "Sequential"


def test_tensors_of_every_kind_come_back(tmp_path):
    tensors = {
        "strided": np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
        "big-endian": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 4), np.float16),
        "scalar": np.array(3.5),
        "number": np.float64(0.1),
        "bool": np.array([True, False]),
        **{kind: np.array([1, 2, 3], kind) for kind in ("i1", "i2", "i8", "u1", "u2", "u4", "u8", "f8")},
    }
    files.write_tensors(tmp_path / "t", tensors, {"a": "ü", "": "x" * 10_000})
    again, metadata = files.read_tensors(tmp_path / "t")
    assert metadata == {"a": "ü", "": "x" * 10_000}
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert again[name].shape == tensor.shape
        assert again[name].dtype == tensor.dtype.newbyteorder("=")
        np.testing.assert_array_equal(again[name], tensor)


def test_a_new_file_has_the_mode_that_the_umask_grants(tmp_path):
    before = os.umask(0o027)
    try:
        lstmx.save(tmp_path / "m", small_model())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "m")
    lstmx.save(tmp_path / "link", small_model())
    assert (tmp_path / "link").is_symlink()
    lstmx.load(tmp_path / "real" / "m")


# ---------------------------------------------------------------- wrong calls


@pytest.mark.parametrize(
    ("model", "extra", "error", "message"),
    [
        ("model", None, TypeError, "model: expected an lstmx layer, got str"),
        (small_model(), [1], TypeError, "extra: expected a dict"),
        (small_model(), {1: 2}, TypeError, "extra: expected a dict with text keys"),
        (small_model(), {"a": np.float32(1)}, TypeError, "extra: expected what JSON can hold"),
        (small_model(), {"a": float("nan")}, ValueError, "extra: expected what JSON can hold"),
        (small_model(), {"a": "x" * (1 << 20)}, ValueError, "extra: expected a header of at most"),
    ],
)
def test_save_refuses_before_it_writes(tmp_path, model, extra, error, message):
    with pytest.raises(error, match=message):
        lstmx.save(tmp_path / "m", model, extra=extra)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tensors", "metadata", "error", "message"),
    [
        (
            {"a": np.array(["x"])},
            {},
            TypeError,
            r"tensors\['a'\]: expected an array of float, .* got dtype <U1",
        ),
        ({"a": np.array([1j])}, {}, TypeError, "got dtype complex128"),
        ({"a": np.array([None])}, {}, TypeError, "got dtype object"),
        ({"a": [1.0]}, {}, TypeError, "got list"),
        ({1: np.zeros(1)}, {}, TypeError, "expected text as names, got 1"),
        ({"__metadata__": np.zeros(1)}, {}, ValueError, "is the name of the metadata"),
        ({}, {"a": 1}, TypeError, "metadata: expected text, got 'a': 1"),
    ],
)
def test_write_tensors_refuses_before_it_writes(tmp_path, tensors, metadata, error, message):
    with pytest.raises(error, match=message):
        files.write_tensors(tmp_path / "m", tensors, metadata)
    assert list(tmp_path.iterdir()) == []


def test_paths_that_cannot_be(tmp_path):
    for read in (lstmx.load, files.read_header, files.read_tensors):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none")
        with pytest.raises(IsADirectoryError):
            read(tmp_path)
        with pytest.raises(TypeError):
            read(3)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        lstmx.save(tmp_path / "none" / "m", small_model())
    with pytest.raises(IsADirectoryError):
        lstmx.save(tmp_path, small_model())


# ---------------------------------------------------------------- malformed files

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
NESTED = b'{"a":' * 20_000 + b"1" + b"}" * 20_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected at least 8 bytes, got 0"),
        (b"1234567", "expected at least 8 bytes, got 7"),
        (struct.pack("<Q", 9) + b"{}", "header of 9 bytes in a file of 10"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "header of 18446744073709551615 bytes"),
        (struct.pack("<Q", 0), "expected a JSON object, got b''"),
        (pickle.dumps(print), "truncated or not a safetensors file"),
        (file_bytes(b"[]"), r"expected a JSON object, got b'\[\]'"),
        (file_bytes(b' {"a": 1}'), "expected a JSON object"),
        (file_bytes(b"\xff\xfe{"), "expected a JSON object"),
        (file_bytes(b'{"\xff": 1}'), "not valid JSON .*utf-8"),
        (file_bytes(b"{"), "not valid JSON"),
        (file_bytes(b"{} x"), "not valid JSON"),
        (file_bytes(b'{"a": NaN}'), "NaN is not JSON"),
        (file_bytes(b'{"a": 1, "a": 1}'), "the same key twice"),
        (file_bytes(b'{"a": ' + b"9" * 5000 + b"}"), "not valid JSON"),
        (file_bytes(NESTED), "nested too deeply"),
        (file_bytes({"__metadata__": []}), "expected text by name"),
        (file_bytes({"__metadata__": {"a": 1}}), "expected text by name"),
        (file_bytes({"a": []}), "tensor 'a': expected dtype, shape and data_offsets"),
        (
            file_bytes({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
            "expected dtype, shape and data_offsets",
        ),
        (file_bytes({"a": {**F32, "more": 1}}, bytes(8)), "expected dtype, shape and data_offsets"),
        (file_bytes({"a": {**F32, "dtype": "F33"}}, bytes(8)), "unknown dtype 'F33'"),
        (file_bytes({"a": {**F32, "dtype": ["F32"]}}, bytes(8)), "unknown dtype"),
        (file_bytes({"a": {**F32, "shape": 2}}, bytes(8)), "expected a shape"),
        (file_bytes({"a": {**F32, "shape": [-2]}}, bytes(8)), "expected a shape"),
        (file_bytes({"a": {**F32, "shape": [2.0]}}, bytes(8)), "expected a shape"),
        (file_bytes({"a": {**F32, "shape": [True, 2]}}, bytes(8)), "expected a shape"),
        (file_bytes({"a": {**F32, "shape": [1] * 1000 + [2]}}, bytes(8)), "a shape of at most 32 sizes"),
        (file_bytes({"a": {**F32, "shape": [2**64]}}, bytes(8)), "expected a shape"),
        (file_bytes({"a": {**F32, "shape": [2**62, 2**62]}}, bytes(8)), "expected .* bytes, got 8"),
        (
            file_bytes({"a": {**F32, "shape": [3]}}, bytes(8)),
            r"F32 of shape \(3,\): expected 12 bytes, got 8",
        ),
        (file_bytes({"a": {**F32, "data_offsets": [0]}}, bytes(8)), "expected data_offsets"),
        (file_bytes({"a": {**F32, "data_offsets": [8, 0]}}, bytes(8)), "expected 8 bytes, got -8"),
        (file_bytes({"a": {**F32, "data_offsets": [-8, 0]}}, bytes(8)), "expected data_offsets"),
        (file_bytes({"a": {**F32, "data_offsets": [8, 16]}}, bytes(16)), "leaves a hole before it"),
        (file_bytes({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, bytes(12)), "overlaps the one before"),
        (file_bytes({"a": F32, "b": F32}, bytes(8)), "overlaps the one before"),
        (
            file_bytes({"a": F32, "b": {**F32, "data_offsets": [12, 20]}}, bytes(20)),
            "leaves a hole before it",
        ),
        (
            file_bytes({"a": F32}, bytes(7)),
            "truncated: the header describes 8 bytes of tensors, the file has 7",
        ),
        (file_bytes({"a": F32}, bytes(9)), "bytes that belong to no tensor"),
        (file_bytes({}, bytes(1)), "bytes that belong to no tensor"),
        (
            file_bytes({"a": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\x02"),
            "expected 0 or 1 in a BOOL, got 2",
        ),
    ],
)
def test_malformed_files_are_refused_with_the_reason(write, data, message):
    path = write(data)
    with pytest.raises(ValueError, match=r"file\.safetensors: .*" + message):
        files.read_tensors(path)
    with pytest.raises(ValueError, match=r"file\.safetensors: "):
        lstmx.load(path)


LINEAR = {
    "type": "Linear",
    "in_features": 2,
    "out_features": 1,
    "bias": True,
    "init": "pytorch",
    "bias_init": None,
}
WEIGHTS = {"weight": np.zeros((1, 2), np.float32), "bias": np.zeros(1, np.float32)}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (safetensors.numpy.save(WEIGHTS), "not an lstmx model: metadata 'format' is None"),
        (model_bytes(LINEAR, WEIGHTS, format="pt"), "not an lstmx model: metadata 'format' is 'pt'"),
        (model_bytes(LINEAR, WEIGHTS, format_version="2"), "format_version: expected '1', got '2'"),
        (safetensors.numpy.save(WEIGHTS, {"format": "lstmx"}), "format_version: expected '1', got None"),
        (
            safetensors.numpy.save(WEIGHTS, {"format": "lstmx", "format_version": "1", "extra": "{}"}),
            "metadata: 'config' is missing",
        ),
        (model_bytes(LINEAR, WEIGHTS, config="{"), "config: not valid JSON"),
        (model_bytes(LINEAR, WEIGHTS, config="[]"), "config: expected a JSON object, got list"),
        (model_bytes(LINEAR, WEIGHTS, config=NESTED.decode()), "config: JSON nested too deeply"),
        (model_bytes(LINEAR, WEIGHTS, extra="1"), "extra: expected a JSON object, got int"),
        (model_bytes({**LINEAR, "type": "os.system"}, WEIGHTS), "config: .* got 'os.system'"),
        (model_bytes({}, WEIGHTS), "config: "),
        (model_bytes({**LINEAR, "in_features": "2"}, WEIGHTS), "config: .*in_features"),
        (model_bytes({**LINEAR, "in_features": 2.0}, WEIGHTS), "config: .*in_features"),
        (model_bytes({**LINEAR, "in_features": 0}, WEIGHTS), "in_features"),
        (model_bytes({**LINEAR, "rng": 1}, WEIGHTS), "config: "),
        (model_bytes({**LINEAR, "init": "exec"}, WEIGHTS), "init"),
        (
            model_bytes({"type": "Sequential", "layers": [LINEAR, 3]}, WEIGHTS),
            "tensor '0.weight': .* missing",
        ),
        (model_bytes({"type": "Sequential", "layers": []}, {}), "layer"),
        (model_bytes({"type": "Sequential", "layers": {"a": 1}}, {}), "config: "),
        (
            model_bytes(LINEAR, {"weight": WEIGHTS["weight"]}),
            r"tensor 'bias': expected shape \(1,\), .* missing",
        ),
        (model_bytes(LINEAR, {**WEIGHTS, "more": WEIGHTS["bias"]}), r"unexpected tensors \['more'\]"),
        (
            model_bytes(LINEAR, {**WEIGHTS, "weight": np.zeros((2, 1), np.float32)}),
            r"tensor 'weight': expected shape \(1, 2\), got \(2, 1\)",
        ),
        (
            model_bytes(LINEAR, {**WEIGHTS, "weight": np.zeros((1, 2))}),
            "tensor 'weight': expected dtype F32, got F64",
        ),
    ],
)
def test_files_that_hold_no_valid_model(write, data, message):
    with pytest.raises(ValueError, match=r"file\.safetensors: .*" + message):
        lstmx.load(write(data))


LSTM = lstmx.LSTM(1, 1).config()


@pytest.mark.parametrize(
    "config",
    [
        {**LSTM, "hidden_size": 10**9},
        {**LSTM, "input_size": 10**18},
        {**LSTM, "num_layers": 10**9},
        {**LINEAR, "in_features": 10**9, "out_features": 10**9},
        {**LINEAR, "in_features": 10**400},
        {"type": "Sequential", "layers": [{**LINEAR, "out_features": 10**9}]},
    ],
)
def test_absurd_sizes_allocate_nothing(write, config):
    path = write(model_bytes(config, lstmx.LSTM(1, 1).state_dict()))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"file\.safetensors: "):
            lstmx.load(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "header",
    [
        b'{"__metadata__":{"config":"' + b"[{}," * 200_000 + b'0]"}}',
        b'{"a":[' + b"{}," * 300_000 + b"0]}",
        b'{"a":"' + "\U0001f600".encode() * 250_000 + b'"}',
        b"{" + b",".join(b'"%d":{}' % n for n in range(90_000)) + b"}",
        b'{"__metadata__":{"a":"' + b"a" * 90_000_000 + b'"}}',
    ],
    ids=["config of objects", "objects", "wide text", "names", "long text"],
)
def test_a_hostile_header_takes_little_memory(write, header):
    path = write(file_bytes(header))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"file\.safetensors: "):
            lstmx.load(path)
        assert tracemalloc.get_traced_memory()[1] < 64_000_000 + len(header)
    finally:
        tracemalloc.stop()


def test_truncated_anywhere(write, tmp_path):
    lstmx.save(tmp_path / "whole", small_model(), extra={"a": 1})
    whole = (tmp_path / "whole").read_bytes()
    for length in range(len(whole)):
        path = write(whole[:length])
        for read in (lstmx.load, files.read_tensors):
            with pytest.raises(ValueError, match=r"file\.safetensors: "):
                read(path)
    with pytest.raises(ValueError, match="bytes that belong to no tensor"):
        lstmx.load(write(whole + b"\0"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "m"
    lstmx.save(path, small_model(), extra={"a": [1, 2]})
    return path.read_bytes()


@given(data=st.data())
def test_changed_bytes_give_a_valid_model_or_a_value_error(whole, tmp_path_factory, data):
    """And what our reader takes, safetensors' own takes too, with the same arrays."""
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4), label="changes")):
        place = data.draw(st.integers(0, len(whole) - 1), label="place")
        changed[place] = data.draw(st.integers(0, 255), label="byte")
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(changed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a changed dropout may warn that it has no effect
        try:
            model = lstmx.load(path)
        except ValueError:
            pass
        else:
            assert set(model.params) == set(small_model().params)
            model(np.zeros((1, 3, 1), np.float32))
    try:
        tensors, metadata = files.read_tensors(path)
    except ValueError:
        return
    theirs = safetensors.numpy.load(bytes(changed))
    assert set(theirs) == set(tensors)
    assert all(tensors[name].tobytes() == theirs[name].tobytes() for name in tensors)
    with safetensors.safe_open(path, "numpy") as file:
        assert (file.metadata() or {}) == metadata


# ---------------------------------------------------------------- memory and code


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc: peak memory NOT tested")
def test_loading_takes_the_memory_of_the_file_and_64_mb(tmp_path):
    path = tmp_path / "m"
    model = lstmx.Sequential(lstmx.LSTM(1024, 2048, rng=0), lstmx.Linear(2048, 1024, rng=0))
    lstmx.save(path, model)
    code = """
        import sys
        import lstmx.layers
        from lstmx import files
        def peak():
            lines = open("/proc/self/status").read().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        before = peak()
        model = files.load(sys.argv[1])
        print(peak() - before)
    """
    done = run_python(code, str(path))
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout) * 1024
    size = path.stat().st_size
    assert size > 100_000_000
    assert grown < size + 64_000_000


# ---------------------------------------------------------------- crashes


def test_the_file_reaches_the_disk_before_its_name_does(tmp_path, monkeypatch):
    calls = []
    sync, replace = os.fsync, os.replace

    def recorded_sync(descriptor):
        calls.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def recorded_replace(source, target):
        assert Path(source).parent == Path(target).parent
        assert Path(source).read_bytes() == b"new"
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    files.write_atomic(tmp_path / "f", b"new")
    assert calls == ["file", "rename", "folder"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    """The operating system refuses to let the file grow, as a full disk would."""
    path = tmp_path / "f"
    path.write_bytes(b"old")
    code = """
        import resource, signal, sys
        from lstmx import files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            files.write_atomic(sys.argv[1], bytes(100_000))
        except OSError as error:
            print("refused", error.errno)
    """
    done = run_python(code, str(path))
    assert done.stdout.startswith("refused"), done.stderr
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_save_killed_at_any_instant_leaves_a_whole_file(tmp_path, seed):
    code = """
        import sys
        import numpy as np
        import lstmx
        models = [lstmx.Linear(300, 300), lstmx.Linear(300, 300)]
        for number, model in enumerate(models):
            with model.editing() as params:
                params["weight"][...] = number
                params["bias"][...] = number
        lstmx.save(sys.argv[1], models[0])
        print("ready", flush=True)
        while True:
            for model in models:
                lstmx.save(sys.argv[1], model)
    """
    path = tmp_path / "m"
    delays = random.Random(seed)
    for _ in range(12):
        command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as saver:
            assert saver.stdout is not None
            assert saver.stdout.readline() == "ready\n"
            time.sleep(delays.uniform(0.0, 0.05))
            saver.send_signal(signal.SIGKILL)
        model = lstmx.load(path)
        values = np.unique(model.arena.params)
        assert len(values) == 1
        assert values[0] in (0.0, 1.0)
    assert all(entry == path or entry.name.startswith(".lstmx-") for entry in tmp_path.iterdir())


def test_the_same_model_is_the_same_file(tmp_path):
    model = lstmx.Sequential(lstmx.LSTM(2, 3, rng=0), lstmx.Linear(3, 1, rng=1))
    contents = set()
    for number in range(8):  # safetensors itself orders metadata at random
        lstmx.save(tmp_path / str(number), model, extra={"columns": ["ä", "b"], "season": 52})
        contents.add((tmp_path / str(number)).read_bytes())
    assert len(contents) == 1
    assert lstmx.files.read_header(tmp_path / "0")["extra"] == {"columns": ["ä", "b"], "season": 52}
