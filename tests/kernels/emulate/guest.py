"""What is in an emulated machine: this interpreter, the package as it is installed here, pytest, and the tests.

All of it is copied from the machine that this runs on: what is tested is the very build that ``make test`` tests.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cpio import Archive
from lacks import Lacking, need

ROOT = Path(__file__).parents[3]
SITE, TREE = "/site", "/tree"

DISTRIBUTIONS = ("pytest", "click")
PROGRAMS = {
    "sh": "dash", "cat": "coreutils", "env": "coreutils", "kill": "procps", "ls": "coreutils", "sleep": "coreutils",
    "true": "coreutils", "unshare": "util-linux",
}  # fmt: skip
"""What the tests start besides Python, and the Debian packages that have it."""
UNUSED = {
    "site-packages", "dist-packages", "test", "tests", "idlelib", "idle_test", "tkinter", "turtledemo", "ensurepip",
    "lib2to3", "pydoc_data", "distutils", "venv", "_tkinter", "_ssl", "_hashlib", "_sqlite3", "_curses",
    "_curses_panel", "_dbm", "_gdbm", "readline", "nis", "_testcapi", "_testclinic", "_ctypes_test", "_xxtestfuzz",
}  # fmt: skip
"""Folders and extensions of the standard library that no test imports from."""


def write(file: BinaryIO, build: Path, runs: dict[str, list[str]], slowness: float, timeout: float) -> None:
    """The initramfs of a machine that makes these runs.

    Args:
        build: meson's folder of the testing build.
        runs: argv by name; in the source tree. ``pytest`` alone is pytest, others are paths of programs.
        slowness: what TASKCLONE_TEST_SLOWNESS is to say.
        timeout: seconds that each run has.
    """
    archive = Archive(file)
    for folder, mode in (("/tmp", 0o1777), ("/root", 0o700), ("/run", 0o755)):
        archive.add_folder(folder, mode)
    archive.add_text("/etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    archive.add_text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
    _add_interpreter(archive)
    _add_programs(archive)
    _add_packages(archive)
    _add_source_tree(archive, build)
    job = {
        "runs": runs,
        "folder": TREE,
        "timeout": timeout,
        "environment": {
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": SITE,
            "TASKCLONE_BUILD": f"{TREE}/build",
            "TASKCLONE_TEST_SLOWNESS": f"{slowness:g}",
        },
    }
    archive.add_text("/job.json", json.dumps(job))
    init = (Path(__file__).parent / "init.py").read_text()
    archive.add_text("/init", f"#!{interpreter()}\n{init}", 0o755)
    archive.close()


def interpreter() -> str:
    """The interpreter itself, where this one is a virtual environment's."""
    return os.path.realpath(sys.executable)


def _add_interpreter(archive: Archive) -> None:
    binaries = [Path(interpreter())]
    archive.add_own(interpreter())
    for path in _standard_library(Path(sysconfig.get_path("stdlib"))):
        archive.add_own(path)
        if path.suffix == ".so":
            binaries.append(path)
    _add_libraries_of(archive, binaries)


def _standard_library(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.partition(".")[0] in UNUSED or path.name.startswith("config-"):
            continue
        if path.is_dir():
            yield from _standard_library(path)
        elif path.suffix != ".pyc" or path.name.endswith(f"{sys.implementation.cache_tag}.pyc"):
            yield path


def _add_libraries_of(archive: Archive, binaries: list[Path]) -> None:
    """All that the loader loads for these."""
    done = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False)
    found = re.findall(r"^\s+(?:\S+ => )?(?:(/\S+) \(0x|(\S.*not found))", done.stdout, re.MULTILINE)
    for library, missing in sorted(set(found)):
        if missing:
            raise Lacking(f"a library is missing here: {missing.strip()}")
        archive.add_own(library)
        if library.endswith("/libc.so.6"):
            # Loaded when a thread is cancelled, and named by nobody.
            archive.add_own(Path(library).with_name("libgcc_s.so.1"))


def _add_programs(archive: Archive) -> None:
    need(PROGRAMS)
    paths = [Path(str(shutil.which(name))) for name in PROGRAMS]
    paths += [Path("/bin", name) for name in PROGRAMS]  # tests name some of them so
    paths = [path for path in paths if path.exists()]
    for path in paths:
        archive.add_own(path)
    _add_libraries_of(archive, paths)


def _add_packages(archive: Archive) -> None:
    import taskclone
    from taskclone import _core

    extension = Path(_core.__file__)
    archive.add_copy(f"{SITE}/taskclone", Path(taskclone.__file__).parent)
    archive.add_copy(f"{SITE}/taskclone/{extension.name}", extension)  # an editable install keeps it elsewhere
    _add_libraries_of(archive, [extension])
    for name in sorted(_with_requirements(DISTRIBUTIONS)):
        for path in importlib.metadata.files(name) or []:
            if ".." not in path.parts:
                archive.add_copy(f"{SITE}/{path}", Path(str(path.locate())))


def _with_requirements(names: tuple[str, ...]) -> set[str]:
    """Distributions and all that they require here."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)
    return found


def _add_source_tree(archive: Archive, build: Path) -> None:
    archive.add_copy(f"{TREE}/pyproject.toml", ROOT / "pyproject.toml")
    for path in (ROOT / "tests").rglob("*.py"):
        archive.add_copy(f"{TREE}/{path.relative_to(ROOT)}", path)
    testing = build / "csrc" / "testing"
    programs = [path for path in testing.iterdir() if path.is_file() and os.access(path, os.X_OK)]
    for path in programs:
        archive.add_copy(f"{TREE}/build/csrc/testing/{path.name}", path)
    _add_libraries_of(archive, programs)
