"""A plan's setup and streams on their way to the core, and which fields a route carries."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from taskclone.capture import CAPTURE, Captured
from taskclone.childsetup import NOTHING
from taskclone.errors import StartError
from taskclone.plan import Cgroup, Plan, unsupported
from taskclone.routes.idmaps import maps_of
from taskclone.task import Task

if TYPE_CHECKING:
    from taskclone._core import _Setup

__all__ = ["CALL", "CARRIES", "COPYING", "capturing", "require", "steps"]

STREAMS = ("stdin", "stdout", "stderr")
_SETUP = (
    "cwd", "environment", "signals", "sigmask", "parent_death_signal", "close_fds", "uid_map", "gid_map", "core",
)  # fmt: skip
CALL = ("cgroup", "set_tid")
"""Fields of a plan that the call itself takes."""
COPYING = ("bare", "leave_out")
"""Fields of a plan that are about the copy of memory."""

CARRIES: dict[str, frozenset[str]] = {
    "copied": frozenset({*_SETUP, *STREAMS, *CALL, *COPYING} - {"core"}),
    "shared": frozenset({*_SETUP, *STREAMS, *CALL} - {"environment", "close_fds"}),
    "thread": frozenset({"set_tid"}),
    "program": frozenset({*_SETUP, *STREAMS, *CALL} - {"core"}),
}
"""The fields that each route carries; all others are refused."""

_WHY = {
    ("shared", "environment"): "os.environ is memory, which the task shares; copied memory has its own",
    ("shared", "close_fds"): "the creator's file objects would close what the task opens; a program has its own",
    ("copied", "core"): "it is about functions that share memory (VM)",
    ("program", "core"): "it is about functions that share memory",
    ("thread", "core"): "it is about tasks with a death of their own",
    ("program", "bare"): "no memory is copied for a program",
    ("program", "leave_out"): "no memory is copied for a program",
}


def require(route: str, plan: Plan) -> None:
    """Raises UnsupportedOperation for the first field that the route does not carry. (What the flags exclude, the rules
    have refused.)"""
    given = [name for name in _SETUP if getattr(plan.setup, name) != getattr(NOTHING, name)]
    given += [name for name in STREAMS if getattr(plan, name) is not None]
    given += [name for name in CALL if getattr(plan, name) is not None]
    given += [name for name in COPYING if getattr(plan, name)]
    for name in given:
        if name not in CARRIES[route]:
            why = "it has the creator's; flags=SHARED gives it a process of its own" if route == "thread" else ""
            raise unsupported(route, name, _WHY.get((route, name), why))


_T = TypeVar("_T", bound=Task[Any])


def capturing(task: _T, captured: Captured | None) -> _T:
    """Gives a task the files of its captured streams."""
    if captured:
        task._captured = captured
    return task


@contextlib.contextmanager
def steps(plan: Plan, program: bytes | None = None) -> Iterator[tuple[_Setup | None, Captured | None]]:
    """For the block that starts the task: its setup as the core takes it, and its captured streams.

    Names the file in a StartError of the block: the directory, or the program.
    """
    if not plan.has_setup:
        with _naming_the_file(None, program):
            yield None, None
        return
    setup = plan.setup
    assert setup.cwd is None or isinstance(setup.cwd, bytes)
    captured = Captured() if plan.stdout is CAPTURE or plan.stderr is CAPTURE else None
    try:
        with contextlib.ExitStack() as opened, _naming_the_file(setup.cwd, program):
            maps = opened.enter_context(maps_of(plan))
            set_tid = plan.set_tid or ()
            assert isinstance(set_tid, tuple)
            yield (
                (
                    setup.cwd,
                    setup.disposed("ignore"),
                    setup.disposed("default"),
                    setup.blocked(),
                    setup.parent_death_signal or 0,
                    setup.close_fds,
                    _descriptors(plan, opened, captured),
                    (_group(plan.cgroup, opened), set_tid, maps.uid, maps.gid, maps.mapper, plan.no_new_privs),
                ),
                captured,
            )
    except BaseException:
        if captured:
            captured.close()
        raise


@contextlib.contextmanager
def _naming_the_file(cwd: bytes | None, program: bytes | None) -> Iterator[None]:
    try:
        yield
    except StartError as error:
        file = cwd if error.step == "chdir" else program
        if file is not None:
            error.filename = os.fsdecode(file)
        raise


def _group(cgroup: Cgroup, opened: contextlib.ExitStack) -> int:
    if cgroup is None or isinstance(cgroup, int):
        return -1 if cgroup is None else cgroup
    try:
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(error.errno or errno.ENOENT, "cgroup", "", os.fsdecode(cgroup)) from None
    opened.callback(os.close, fd)
    return fd


def _descriptors(plan: Plan, opened: contextlib.ExitStack, captured: Captured | None) -> tuple[int, int, int]:
    def number(name: str, flags: int) -> int:
        stream = getattr(plan, name)
        if stream is None:
            return -1
        if stream is CAPTURE:
            if captured is None or name == "stdin":
                raise TypeError("stdin cannot be CAPTURE: there is nothing to keep")
            return captured.open(name)
        if isinstance(stream, bool) or not (isinstance(stream, int) or hasattr(stream, "fileno")):
            raise TypeError(f"{name} must be a descriptor, an open file or None, not {type(stream).__name__}")
        if stream == subprocess.PIPE:
            raise ValueError(f"{name} cannot be subprocess.PIPE: give one end of os.pipe(), or taskclone.CAPTURE")
        if stream == subprocess.DEVNULL:
            fd = os.open(os.devnull, flags | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            return fd
        fd = stream if isinstance(stream, int) else stream.fileno()
        if not 0 <= fd < 1 << 31:
            raise ValueError(f"{name} must be a descriptor, an open file or subprocess.DEVNULL, not {fd}")
        return fd

    stdin = number("stdin", os.O_RDONLY)
    stdout = number("stdout", os.O_WRONLY)
    if isinstance(plan.stderr, int) and plan.stderr == subprocess.STDOUT:
        if captured:
            captured.words_in = "stdout"
        return stdin, stdout, stdout if stdout >= 0 else 1
    return stdin, stdout, number("stderr", os.O_WRONLY)
