"""What runs on a version of CPython whose thread states the core does not know, and on a free-threaded one."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "csrc" / "core"

AS_IF_UNKNOWN = """
import importlib.machinery, importlib.util, sys
spec = importlib.util.spec_from_file_location("taskclone._core", sys.argv[1])
sys.modules["taskclone._core"] = core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, UnsupportedOperation, call, clone
assert sys.modules["taskclone._core"] is core
for flags in (SHARED, SHARED | CloneFlags.VFORK, CloneFlags.VM, THREAD, THREAD & ~CloneFlags.FS):
    try:
        clone(int, flags=flags)
    except UnsupportedOperation as error:
        assert "does not know its thread states" in str(error), error
    else:
        raise AssertionError(flags)
for flags in (PROCESS, CloneFlags.FILES, CloneFlags.UNTRACED):
    print(call(sorted, [2, 1], flags=flags))
print(call(["/bin/true"]))
"""


def test_what_a_version_that_is_not_known_gets(build: Path) -> None:
    """Copies and programs; what needs a fresh thread state is refused by name."""
    core = build / "csrc" / "testing" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    done = subprocess.run(
        [sys.executable, "-c", AS_IF_UNKNOWN, os.fspath(core)], capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("[1, 2]\n[1, 2]\n[1, 2]\n0\n", "")


@pytest.mark.parametrize(("define", "word"), [("Py_GIL_DISABLED", "interpreter lock"), ("X", "")])
def test_a_free_threaded_build_is_a_clear_error(define: str, word: str) -> None:
    """By the define that such a build has; any other define compiles, so it is that one which is refused."""
    include = sysconfig.get_path("include")
    done = subprocess.run(
        ["cc", "-fsyntax-only", "-D_GNU_SOURCE", f"-D{define}", f"-I{include}", os.fspath(SOURCES / "interp.c")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode != 0) == bool(word), done.stderr
    assert f'#error "taskclone needs the {word}' in done.stderr or not word
