"""Code built for a newer processor stays in its own file.

The object of a target or an engine must define its tables as global symbols, and no weak one: the linker
merges weak definitions of the same inline function from different files, and might keep the one that only the
newest processor can run. Optimised builds inline such functions away, so a debug build is examined.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for folder in ("targets", "engines") for path in (ROOT / "cpp/src/kernels" / folder).glob("*.cpp")
)
# What a target may call: C's memory functions and mathematics, the OpenMP runtime, and this one of the
# library.
MAY_CALL = (
    *("memcpy", "memset", "memmove", "sched_yield", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"),
    *("sqrtf", "fmaf", "GOMP_", "omp_get_", "__kmpc_", "lstmx::is_forked_child()"),
)


def tool(name: str) -> str:
    """The path of a program, beside the interpreter or on the PATH; without it the test is skipped."""
    beside = Path(sysconfig.get_path("scripts")) / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: the symbols of the targets' objects were NOT checked")
    return found


def check_output(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> dict[str, dict]:
    """The compiler call of each target file in a debug build, as CMake makes it."""
    build = tmp_path_factory.mktemp("debug")
    check_output(
        *(tool("cmake"), "-S", str(ROOT), "-B", str(build), "-DCMAKE_BUILD_TYPE=Debug"),
        *("-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", "-DLSTMX_PYTHON=OFF", "-DLSTMX_TESTS=OFF"),
        *(["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}"] if not shutil.which("make") else []),
    )
    entries = json.loads((build / "compile_commands.json").read_text())
    return {key_of(Path(entry["file"])): entry for entry in entries if Path(entry["file"]) in SOURCES}


def key_of(source: Path) -> str:
    """`targets/avx2`"""
    return f"{source.parent.name}/{source.stem}"


@pytest.fixture(scope="module", params=[key_of(source) for source in SOURCES])
def target_object(request, commands, tmp_path_factory) -> tuple[str, Path]:
    """The key of a target or an engine, and its unoptimised object."""
    name = request.param
    if name not in commands:
        pytest.skip(f"{name}: not built on this architecture, its symbols were NOT checked")
    entry = commands[name]
    words = entry["command"].split()
    assert not any(word.startswith("-O") and word != "-O0" for word in words), entry["command"]
    made = tmp_path_factory.mktemp("object") / f"{Path(name).name}.o"
    words[words.index("-o") + 1] = str(made)
    check_output(*words, "-O0", cwd=Path(entry["directory"]))
    return name, made


def symbols(made: Path, *options: str) -> list[tuple[str, str]]:
    """(type, demangled name) of each symbol."""
    lines = check_output(tool("nm"), "-C", "--format=posix", *options, str(made)).splitlines()
    return [(kind, name) for line in lines for name, kind in [_split(line)]]


def _split(line: str) -> tuple[str, str]:
    """Name and type from `name type value size`, where a demangled name has spaces of its own."""
    words = line.split(" ")
    at = max(i for i, word in enumerate(words) if len(word) == 1 and word.isalpha() and i > 0)
    return " ".join(words[:at]), words[at]


def test_every_file_was_looked_at(commands):
    built = {name for name in commands if name.startswith("targets/")}
    assert built == {"targets/portable"} or built == {
        key_of(path) for path in SOURCES if path.parent.name == "targets"
    }
    assert len(commands) in (1, len(SOURCES))


def test_only_the_tables_are_global(target_object):
    key, made = target_object
    folder, name = key.split("/")
    names = [f"engine_{name}"] if folder == "engines" else [f"float32_{name}", f"float64_{name}"]
    found = symbols(made, "--defined-only", "--extern-only")
    assert sorted(symbol for _, symbol in found) == [f"lstmx::{table}" for table in names]
    assert {kind for kind, _ in found} <= {"R", "D"}


def test_nothing_is_weak(target_object):
    key, made = target_object
    found = symbols(made)
    assert len(found) > (50 if key.startswith("targets/") else 5), (
        "an unoptimised object has many local functions"
    )
    assert not [name for kind, name in found if kind in "WwVvu"]


def test_nothing_is_called_that_other_files_may_define_inline(target_object):
    _, made = target_object
    called = [name for kind, name in symbols(made, "--undefined-only")]
    assert not [name for name in called if not name.startswith(MAY_CALL)]


def test_the_check_sees_an_inline_function(tmp_path):
    """The same look at an object with an inline function of external linkage finds it."""
    source = tmp_path / "leak.cpp"
    source.write_text("inline float twice(float x) { return 2 * x; }\nfloat (*entry)(float) = twice;\n")
    made = tmp_path / "leak.o"
    check_output(tool("c++"), "-O0", "-c", str(source), "-o", str(made))
    assert ("W", "twice(float)") in symbols(made)
