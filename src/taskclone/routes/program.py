"""A program: clone with VM|VFORK, the child setup in C, execve. Costs the same whatever the creator's heap."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from taskclone._core import program_start
from taskclone.errors import StartError
from taskclone.flags import CloneFlags, flag_names
from taskclone.outcome import Outcome, died
from taskclone.plan import Plan, unsupported
from taskclone.routes.children import ChildHandle
from taskclone.task import Task

NAME = "program"

_F = CloneFlags
_CARRIED = int(
    _F.VM | _F.VFORK | _F.FS | _F.FILES | _F.SYSVSEM | _F.IO | _F.SIGHAND | _F.CLEAR_SIGHAND | _F.UNTRACED | _F.PIDFD
    | _F.PARENT_SETTID | _F.NEWNS | _F.NEWUTS | _F.NEWIPC | _F.NEWUSER | _F.NEWPID | _F.NEWNET | _F.NEWCGROUP
)  # fmt: skip


def check(plan: Plan) -> None:
    if plan.bits & ~_CARRIED:
        raise unsupported(NAME, flag_names(plan.bits & ~_CARRIED), "leave it out for a program")
    if plan.exit_signal not in (None, signal.SIGCHLD):
        raise unsupported(NAME, "an exit signal other than SIGCHLD: execve sets it back to that")
    if plan.stack_size is not None:
        raise unsupported(NAME, "stack_size: execve makes the program's stack")
    if plan.setup.core:
        raise unsupported(NAME, "ChildSetup(core=True)", "it is about functions that share memory")
    if plan.bits & _F.SIGHAND:
        raise unsupported(NAME, "SIGHAND: the program's setup would change the creator's handlers", "leave it out")


class ProgramHandle(ChildHandle):
    """A child that has become a program."""

    __slots__ = ("program",)
    program: str

    def outcome(self) -> Outcome:
        status = self.status()
        assert status is not None, "outcome() before the end"
        if status.code is None:
            raise died(f"program {self.program!r}, task {self.pid},", status)
        return "value", status.code


def start(plan: Plan, argv: tuple[bytes, ...], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Task[int]:
    if args or kwargs:
        raise TypeError("a program takes its arguments in its argv")
    sys.audit("subprocess.Popen", argv[0], list(argv), plan.setup.cwd, plan.setup.environment)
    environment = plan.setup.environment_bytes()
    if environment is None:
        # A copy: another thread's os.putenv moves the C array while the child reads it.
        environment = tuple(name + b"=" + value for name, value in os.environb.items())
    cwd = plan.setup.cwd
    assert cwd is None or isinstance(cwd, bytes)
    opened: list[int] = []
    try:
        streams = _descriptors(plan, opened)
        handle = program_start(
            ProgramHandle,
            plan.daemon,
            _candidates(argv[0], environment),
            argv,
            environment,
            cwd,
            streams,
            plan.bits,
            signal.SIGCHLD,
        )
    except StartError as error:
        error.filename = os.fsdecode(cwd if error.step == "chdir" and cwd is not None else argv[0])
        raise
    finally:
        for fd in opened:
            os.close(fd)
    handle.program = os.fsdecode(argv[0])
    return Task(handle, plan, NAME)


def _candidates(program: bytes, environment: tuple[bytes, ...]) -> list[bytes]:
    """The paths to try, as execvp(3): PATH of the program's own environment, unless there is a slash in the name."""
    if not program or b"/" in program:
        return [program]
    path = next((item[5:] for item in environment if item.startswith(b"PATH=")), None)
    folders = (path if path is not None else os.fsencode(os.defpath)).split(b":")
    return [os.path.join(folder, program) for folder in folders]


def _checked(name: str, number: int) -> int:
    if not 0 <= number < 1 << 31:
        raise ValueError(f"{name} must be a descriptor, an open file or subprocess.DEVNULL, not {number}")
    return number


def _descriptors(plan: Plan, opened: list[int]) -> tuple[int, int, int]:
    def number(name: str, stream: Any, flags: int) -> int:
        if stream is None:
            return -1
        if stream is subprocess.DEVNULL or (isinstance(stream, int) and stream == subprocess.DEVNULL):
            opened.append(os.open(os.devnull, flags | os.O_CLOEXEC))
            return opened[-1]
        if isinstance(stream, int) and not isinstance(stream, bool):
            return _checked(name, stream)
        fileno = getattr(stream, "fileno", None)
        if fileno is None:
            raise TypeError(f"{name} must be a descriptor, an open file or None, not {type(stream).__name__}")
        return _checked(name, fileno())

    stdin = number("stdin", plan.stdin, os.O_RDONLY)
    stdout = number("stdout", plan.stdout, os.O_WRONLY)
    if isinstance(plan.stderr, int) and plan.stderr == subprocess.STDOUT:
        return stdin, stdout, stdout if stdout >= 0 else 1
    return stdin, stdout, number("stderr", plan.stderr, os.O_WRONLY)
