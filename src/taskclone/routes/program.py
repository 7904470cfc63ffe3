"""A program: clone with VM|VFORK, the child setup in C, execve. Costs the same whatever the creator's heap."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from taskclone._core import program_start
from taskclone.flags import CloneFlags, flag_names
from taskclone.plan import Plan, unsupported
from taskclone.routes import setup
from taskclone.routes.children import ExitCodeHandle
from taskclone.task import Task

NAME = "program"

_F = CloneFlags
_CARRIED = int(
    _F.VM | _F.VFORK | _F.FS | _F.FILES | _F.SYSVSEM | _F.IO | _F.SIGHAND | _F.CLEAR_SIGHAND | _F.UNTRACED | _F.PIDFD
    | _F.PARENT_SETTID | _F.CHILD_SETTID | _F.CHILD_CLEARTID | _F.SETTLS | _F.PTRACE | _F.PARENT | _F.INTO_CGROUP
    | _F.NNP | _F.AUTOREAP | _F.PIDFD_AUTOKILL | _F.NEWNS | _F.EMPTY_MNTNS | _F.NEWUTS | _F.NEWIPC | _F.NEWUSER
    | _F.NEWPID | _F.NEWNET | _F.NEWCGROUP | _F.NEWTIME
)  # fmt: skip
_NO_SIGNAL = int(_F.PARENT | _F.AUTOREAP)


def check(plan: Plan) -> None:
    if plan.bits & ~_CARRIED:
        raise unsupported(NAME, flag_names(plan.bits & ~_CARRIED), "leave it out for a program")
    if plan.exit_signal not in (None, signal.SIGCHLD):
        raise unsupported(NAME, "an exit signal other than SIGCHLD: execve sets it back to that")
    if plan.stack_size is not None:
        raise unsupported(NAME, "stack_size: execve makes the program's stack")
    setup.require(NAME, plan)
    if plan.bits & _F.SIGHAND:
        raise unsupported(NAME, "SIGHAND: the program's setup would change the creator's handlers", "leave it out")


class ProgramHandle(ExitCodeHandle):
    """A child that has become a program."""

    __slots__ = ("program",)
    program: str

    def who(self) -> str:
        return f"program {self.program!r}, task {self.pid},"


def start(plan: Plan, argv: tuple[bytes, ...], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Task[int]:
    if args or kwargs:
        raise TypeError("a program takes its arguments in its argv")
    sys.audit("subprocess.Popen", argv[0], list(argv), plan.setup.cwd, plan.setup.environment)
    environment = plan.setup.environment_bytes()
    if environment is None:
        # A copy: another thread's os.putenv moves the C array while the child reads it.
        environment = tuple(name + b"=" + value for name, value in os.environb.items())
    candidates = _candidates(argv[0], environment)
    exit_signal = 0 if plan.bits & _NO_SIGNAL else signal.SIGCHLD  # until execve, which sets the latter
    with setup.steps(plan, argv[0]) as (steps, captured):
        handle = program_start(ProgramHandle, plan.daemon, candidates, argv, environment, steps, plan.bits, exit_signal)
    handle.program = os.fsdecode(argv[0])
    return setup.capturing(Task(handle, plan, NAME), captured)


def _candidates(program: bytes, environment: tuple[bytes, ...]) -> list[bytes]:
    """The paths to try, as execvp(3): PATH of the program's own environment, unless there is a slash in the name."""
    if not program or b"/" in program:
        return [program]
    path = next((item[5:] for item in environment if item.startswith(b"PATH=")), None)
    folders = (path if path is not None else os.fsencode(os.defpath)).split(b":")
    return [os.path.join(folder, program) for folder in folders]
