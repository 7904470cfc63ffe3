"""What a finished task leaves: an exit status, and a value or an exception."""

from __future__ import annotations

import os
import signal as _signal
import traceback
from typing import Any, Literal, NamedTuple, TypeAlias

from taskclone.errors import TaskDied

__all__ = ["ExitStatus", "Outcome", "died", "exit_code_of", "exit_message", "signal_name", "status_from"]

Source = Literal["wait", "pidfd", "proc", "record", "lost"]
_SOURCES: dict[int, Source] = {1: "wait", 2: "pidfd", 3: "lost", 4: "proc"}
_AROUND_BODIES = tuple(os.path.join(os.path.dirname(__file__), name) for name in ("leftovers.py", "routes/", "faces/"))
_CLD_EXITED, _CLD_DUMPED = 1, 3  # si_code, <asm-generic/siginfo.h>


class ExitStatus(NamedTuple):
    """How a task ended.

    Attributes:
        code: what it gave to ``exit``, or None when a signal ended it.
        signal: the signal that ended it, or None. For a task that shares memory this is the true one, from its own
            record: what the kernel saw is the SIGKILL that spares the creator a core dump.
        core_dumped: whether the kernel wrote a core.
        rusage: ``resource.struct_rusage`` of the task and its waited-for children, or None when it is lost.
        source: where the status comes from: "wait" (waitid), "pidfd" (reaped by somebody else; the pidfd kept it,
            Linux 6.15), "proc" (/proc/PID/stat of a zombie that another process is to reap: PARENT), "record" (the
            task's own word), or "lost" (reaped by somebody else: code and signal are None).
    """

    code: int | None
    signal: int | None
    core_dumped: bool = False
    rusage: Any = None
    source: Source = "wait"

    @property
    def lost(self) -> bool:
        """True when somebody else has reaped the task and nothing kept its status."""
        return self.source == "lost"

    def __str__(self) -> str:
        if self.lost:
            return "ended, but its exit status was taken by somebody else (a foreign wait, or SIGCHLD ignored)"
        if self.signal is not None:
            return f"died of {signal_name(self.signal)}" + (" (core dumped)" if self.core_dumped else "")
        return f"exited with status {self.code}"


def signal_name(number: int) -> str:
    """``SIGSEGV`` for 11; the number where it has no name."""
    try:
        return _signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def status_from(raw: tuple[int, int, int, tuple[Any, ...] | None]) -> ExitStatus:
    """The ExitStatus for what the core took from waitid or a pidfd."""
    source, kind, value, usage = raw
    name = _SOURCES[source]
    if name == "lost":
        return ExitStatus(None, None, source="lost")
    rusage = None
    if usage is not None:
        import resource  # not needed by those who only want a result

        rusage = resource.struct_rusage(usage)
    if kind == _CLD_EXITED:
        return ExitStatus(value, None, False, rusage, name)
    return ExitStatus(None, value, kind == _CLD_DUMPED, rusage, name)


# ---- outcomes -------------------------------------------------------------------------------------------------------

Kind = Literal["value", "exception", "exit"]
Outcome: TypeAlias = tuple[Kind, Any]
"""("value", v), ("exception", e) to be raised in the creator, or ("exit", message): the body ended itself."""


def exit_code_of(exception: BaseException) -> int:
    """The exit status that a body leaves by an exception: as the interpreter does for its main program."""
    if isinstance(exception, KeyboardInterrupt):
        return 128 + _signal.SIGINT
    if not isinstance(exception, SystemExit):
        return 1
    if exception.code is None:
        return 0
    return exception.code & 0xFF if isinstance(exception.code, int) else 1


def exit_message(exception: BaseException) -> str:
    """How TaskDied words a body that ended itself."""
    if isinstance(exception, SystemExit):
        return "" if exception.code is None or isinstance(exception.code, int) else str(exception.code)
    return f"by {type(exception).__name__}"


def died(
    who: str,
    status: ExitStatus,
    *,
    how: str = "",
    stack: list[tuple[str, int, str]] | None = None,
    address: int | None = None,
    damage: tuple[str, ...] = (),
) -> TaskDied:
    """The TaskDied for a task that left no outcome. ``stack`` is newest first, as the core reads it."""
    text = f"{who} {status}"
    if address is not None:
        text += f" at address {address:#x}"
    if how:
        text += f" ({how})"
    frames = [traceback.FrameSummary(file, line or 0, name) for file, line, name in reversed(stack or [])]
    whole = frames
    while frames and frames[0].filename.startswith(_AROUND_BODIES):
        frames = frames[1:]
    return TaskDied(text, status, traceback.StackSummary.from_list(frames or whole), address, damage)
