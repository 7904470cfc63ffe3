"""A thread: any set with THREAD that the kernel takes.

The exact set that pthread_create passes is left to pthread_create. What the flags leave out of it (FS, FILES, SYSVSEM)
is unshared in the thread before its body; so are new namespaces. A set with something else beside it (IO, UNTRACED,
PIDFD...) is one clone by the caller, which takes the place of a thread's own task: csrc/core/exchange.c.

Python sees it as it sees any other thread: threading.enumerate, current_thread, settrace, setprofile, and shutdown,
which waits for it unless it is a daemon.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from taskclone import _core, forms
from taskclone._core import DONE, ENDED, Bell, Shared, thread_start
from taskclone.errors import StartError, TaskTerminated, UnsupportedOperation
from taskclone.flags import THREAD, CloneFlags
from taskclone.leftovers import looked_for
from taskclone.outcome import ExitStatus, Outcome, died, exit_message, signal_name
from taskclone.plan import Plan
from taskclone.routes import fallback, setup
from taskclone.task import GRACE, Granted, Task

NAME = "thread"

_F = CloneFlags
_THREAD = int(THREAD)


def check(plan: Plan) -> None:
    setup.require(NAME, plan)


# ---- what the module threading sees ---------------------------------------------------------------------------------


class TaskThread(threading.Thread):
    """The entry of a task in ``threading.enumerate()``. Thread's own constructor, which makes locks that nobody would
    use, is passed by; every public member is answered from the task."""

    core: Shared | None = None  # set before it starts
    _daemonic = False
    _forked: tuple[int, int] | None = None

    def __init__(self, name: str | None, daemon: bool) -> None:
        self._given = name
        self._daemonic = daemon

    @property
    def name(self) -> str:
        return self._given or f"task {self.native_id or 0}"

    @name.setter
    def name(self, value: str) -> None:
        self._given = str(value)

    @property
    def ident(self) -> int | None:
        if self._forked:
            return self._forked[0]
        return (self.core.ident or None) if self.core else None

    @property
    def native_id(self) -> int | None:
        if self._forked:
            return self._forked[1]
        return (self.core.pid or None) if self.core else None

    @property
    def daemon(self) -> bool:
        return self._daemonic

    @daemon.setter
    def daemon(self, value: bool) -> None:
        raise RuntimeError("cannot set daemon status of active thread")

    def is_alive(self) -> bool:
        return bool(self._forked) or self.core is None or self.core.state < ENDED

    def join(self, timeout: float | None = None) -> None:
        if threading.current_thread() is self:
            raise RuntimeError("cannot join current thread")
        if self.core is not None:
            self.core.wait(ENDED, None if timeout is None else max(0.0, timeout))

    def start(self) -> None:
        raise RuntimeError("threads can only be started once")

    def run(self) -> None:
        raise RuntimeError("this thread runs a task's body")

    def __repr__(self) -> str:
        state = "started" if self.is_alive() else "stopped"
        return f"<TaskThread({self.name}, {state}{' daemon' if self._daemonic else ''} {self.ident})>"

    # In the child of a fork that the body made, this entry is threading's main thread, and gets what it asks of one at
    # the interpreter's exit. (3.11 and 3.12 call the first two, later ones the third.)

    def _reset_internal_locks(self, is_alive: bool) -> None:
        if is_alive:
            self._is_stopped = False
            self._tstate_lock = _thread._set_sentinel()  # type: ignore[attr-defined]
            self._tstate_lock.acquire()
            self._forked = threading.get_ident(), threading.get_native_id()

    def _stop(self) -> None:
        self._is_stopped = True

    def _after_fork(self, new_ident: int | None = None) -> None:
        if new_ident is not None:
            # The name on 3.13, and from 3.14 on.
            self._handle = self._os_thread_handle = threading._make_thread_handle(new_ident)  # type: ignore[attr-defined]
            self._forked = new_ident, threading.get_native_id()


class EndedThread(TaskThread):
    """Stands for a thread that has ended, where somebody is told of its exception later."""

    def __init__(self, name: str | None, ident: int, native_id: int) -> None:
        super().__init__(name, daemon=False)
        self._forked = ident, native_id

    def is_alive(self) -> bool:
        return False


def _on_uncaught(
    error: BaseException, thread: threading.Thread | None, name: str | None, ident: int, native_id: int
) -> None:
    """For an exception that nobody has asked for, and nobody can: the task was let go of."""
    if isinstance(error, TaskTerminated):  # which somebody has
        return
    thread = thread or EndedThread(name, ident, native_id)
    threading.excepthook(threading.ExceptHookArgs((type(error), error, error.__traceback__, thread)))


_core.set_uncaught_hook(_on_uncaught)


# ---- the handle -----------------------------------------------------------------------------------------------------


class ThreadHandle:
    """The core's object for a thread, in the words of ``task.Handle``."""

    __slots__ = ("_unshared", "core")

    pid = property(lambda self: os.getpid())

    def __init__(self, core: Shared, unshared: int | None) -> None:
        """``unshared``: what unshare(2) has done after pthread_create; None: a clone has done it all."""
        self.core = core
        self._unshared = unshared

    @property
    def granted(self) -> Granted:
        return Granted(CloneFlags(self.core.flags if self._unshared is None else _THREAD ^ self._unshared), 0)

    @property
    def emulated(self) -> dict[str, str]:
        if self._unshared is None:
            return fallback.emulated(self.core.replaced)
        own = CloneFlags(self._unshared & _THREAD)
        new = CloneFlags(self._unshared & ~_THREAD)
        return {str(flag.name): "left out by unshare(2) in the thread: pthread_create shares it" for flag in own} | {
            str(flag.name): "made by unshare(2) in the thread: pthread_create makes none" for flag in new
        }

    @property
    def tid(self) -> int:
        return self.core.pid or self.core.started()

    def fileno(self) -> int:
        self.core.started()
        return self.core.fileno()

    def done(self) -> bool:
        return self.core.state >= DONE

    def wait_done(self, timeout: float | None) -> bool:
        return self.core.wait(DONE, timeout)

    def wait(self, timeout: float | None) -> bool:
        if not self.core.wait(ENDED, timeout):
            return False
        self.core.started()  # a start that failed is said by every use
        return True

    def status(self) -> ExitStatus | None:
        if self.core.state < ENDED:
            return None
        return ExitStatus(self.core.exit_code, None, source="record")

    def bell(self) -> Bell:
        return self.core.bell()

    def plain(self) -> Outcome | None:
        return self.core.plain()

    def outcome(self) -> Outcome:
        _, value, code = self.core.outcome()
        if not isinstance(value, SystemExit | KeyboardInterrupt):
            return "exception", value
        raise died(f"thread {self.tid}", ExitStatus(code, None, source="record"), how=exit_message(value))

    def signal(self, number: int) -> None:
        """To the thread alone; what it does to the process is the disposition's, which is everybody's."""
        self.core.started()
        if self.done():
            raise ProcessLookupError(f"thread {self.tid} has ended")
        fatal = number in (signal.SIGKILL, signal.SIGSTOP) or (
            number and signal.getsignal(number) is signal.SIG_DFL and number not in _HARMLESS
        )
        if fatal:
            raise UnsupportedOperation(
                f"{signal_name(number)} would end or stop the whole process: a thread has no death of its own; "
                "terminate() raises an exception in it, flags=SHARED gives it a pid"
            )
        self.core.send_signal(number)

    def end(self, grace: float | None, timeout: float) -> None:
        if grace is None:
            raise UnsupportedOperation(
                "a thread cannot be killed: SIGKILL would end the whole process; terminate() raises an exception in "
                "it, flags=SHARED makes a task that can be killed"
            )
        try:
            self.core.started()
        except StartError:
            return  # there is nothing to end; the Task's next use says so
        deadline = time.monotonic() + timeout
        pause = min(grace, timeout)
        self.core.interrupt()
        while not self.core.wait(ENDED, pause):
            if time.monotonic() > deadline:
                raise TimeoutError(f"thread {self.tid} does not end: it is in\n{self._where()}")
            self.core.interrupt()
            pause = 0.05

    def _where(self) -> str:
        frame = sys._current_frames().get(self.core.ident)
        return "".join(traceback.format_stack(frame)) if frame else "  (no Python frame)"

    def abandon(self) -> None:
        """Nothing to let go of: the core's object closes what is open."""


_HARMLESS = {signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT}


def start(plan: Plan, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Task[Any]:
    if _ending:
        raise UnsupportedOperation("the interpreter is ending: no thread can be started")
    bits, name = plan.bits, plan.name
    if not bits & _F.FILES:
        fn = looked_for(fn)
    own = 0 if bits == _THREAD else forms.thread_own(bits)
    flags = bits if plan.set_tid or (bits != _THREAD and forms.thread_by_clone(bits)) else 0
    entry = TaskThread(name, plan.daemon)
    set_tid = plan.set_tid or ()
    assert isinstance(set_tid, tuple)
    core = thread_start(
        fn,
        args,
        kwargs,
        flags,
        own,
        plan.stack_size or threading.stack_size(),
        None if name is None else os.fsencode(name),
        TaskTerminated,
        plan.daemon,
        entry,
        set_tid,
    )
    if own or flags:
        try:
            core.started()
        except StartError:
            entry.core = None  # no body will let go of it, and it holds the core's record
            raise
    return Task(ThreadHandle(core, None if flags else own), plan, NAME)


# ---- the interpreter's exit -----------------------------------------------------------------------------------------


_ending = False


def wait_all() -> None:
    """Waits for the threads that are no daemons."""
    for core in _core.shared_live():
        if core.thread and not core.daemon:
            core.wait(ENDED, None)


def end_all() -> None:
    """Asks daemons to end, and gives them a moment. One that does not end is left to the interpreter, which stops it
    where it asks for the lock the next time, as it does with every daemon thread."""
    global _ending
    wait_all()  # what atexit functions have started
    _ending = True
    deadline = time.monotonic() + GRACE
    daemons = [core for core in _core.shared_live() if core.thread]
    for core in daemons:
        core.interrupt()
    for core in daemons:
        core.wait(ENDED, max(0.0, deadline - time.monotonic()))


# When the module threading waits for its own, so before any atexit function. (Imported later still: end_all waits.)
with contextlib.suppress(RuntimeError):
    threading._register_atexit(wait_all)  # type: ignore[attr-defined]
atexit.register(end_all)
