"""Start a Python function or a program at any point between process and thread, by what it shares.

The layout; a file imports only from what stands further up, which tests/contracts/test_layers.py keeps so:

    errors      the exceptions
    flags       the table of CLONE_* flags, and the presets (flagdoc writes docs/flags.md from it)
    rule        one rule, and the context that it is held against
    setuprules  which flags do not go with what is done in the child
    rules       which sets of flags the kernel refuses
    forms       the three ways to copy memory, and which one a set takes
    explain     what a flag or a set means, in text
    childsetup  what is done in the child before its body, as data
    capture     what a task writes, kept
    awaiting    waiting for a task in an event loop
    plan        flags and everything else that describes a start
    outcome     exit status, results, exceptions
    damage      what a death in shared memory left behind
    leftovers   files that a body leaves open in a descriptor table of its own
    traces culprit salvage parcel  how an outcome crosses from copied memory, and what says why it cannot
    task        the handle of one task
    routes/     the ways to carry a start out, one file each
    launch      clone(), call() and fork()
    faces/      shaped like the stdlib: executor
    tracer/     what programs pass to clone, seen with ptrace
    bench/      what a launch costs
    doctor/     what this system lets taskclone do
    report/     draws and tabulates what these two have found
    cli/        the command

    _core       the C extension (csrc/core in the source tree)
"""

import typing as _typing

from taskclone.capture import CAPTURE
from taskclone.childsetup import ChildSetup
from taskclone.errors import (
    FlagError,
    OutcomeError,
    StartError,
    TaskDied,
    TaskError,
    TaskTerminated,
    UnsupportedOperation,
)
from taskclone.flags import PROCESS, SHARED, THREAD, CloneFlags
from taskclone.launch import call, clone, fork, stats
from taskclone.outcome import ExitStatus
from taskclone.plan import Plan
from taskclone.task import Task

__all__ = [
    "CAPTURE",
    "PROCESS",
    "SHARED",
    "THREAD",
    "ChildSetup",
    "CloneFlags",
    "Executor",
    "ExitStatus",
    "FlagError",
    "OutcomeError",
    "Plan",
    "StartError",
    "Task",
    "TaskDied",
    "TaskError",
    "TaskTerminated",
    "UnsupportedOperation",
    "call",
    "clone",
    "fork",
    "stats",
]

if _typing.TYPE_CHECKING:
    from taskclone.faces.executor import Executor


def __getattr__(name: str) -> _typing.Any:
    """The faces are loaded when they are first asked for: concurrent.futures alone makes each copied task slower."""
    if name == "Executor":
        from taskclone.faces.executor import Executor

        return Executor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"
