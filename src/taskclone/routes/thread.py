"""A thread: exactly the set that pthread_create passes, by a ``threading.Thread`` underneath.

So the interpreter sees it as it sees any other: threading.enumerate, excepthook for what goes wrong in the machinery,
and shutdown, which waits for it unless it is a daemon.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import errno
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from taskclone.errors import TaskTerminated, UnsupportedOperation, start_error
from taskclone.flags import THREAD, CloneFlags, flag_names
from taskclone.outcome import ExitStatus, Outcome, died, exit_code_of, exit_message, signal_name
from taskclone.plan import Plan, unsupported
from taskclone.routes import setup
from taskclone.task import Granted, Task

NAME = "thread"

PIDFD_THREAD = os.O_EXCL  # linux/pidfd.h, Linux 6.9
_stack_size_lock = threading.Lock()


def check(plan: Plan) -> None:
    if plan.bits != THREAD:
        left_out, more = CloneFlags(THREAD & ~plan.bits), CloneFlags(plan.bits & ~THREAD)
        what = " ".join(
            ([f"sets without {flag_names(left_out)}"] if left_out else [])
            + ([f"{flag_names(more)} beside THREAD"] if more else [])
        )
        raise unsupported(NAME, f"{what} in this version", "use flags=taskclone.THREAD")
    if plan.exit_signal:
        raise unsupported(NAME, "an exit signal: the kernel sends none for a thread")
    setup.require(NAME, plan)


class ThreadHandle:
    """A thread, and what its body left."""

    __slots__ = (
        "_abandoned",
        "_code",
        "_ending",
        "_fd",
        "_finished",
        "_lock",
        "_open",
        "_outcome",
        "_signal",
        "ended",
        "failed",
        "thread",
    )

    granted = Granted(THREAD, 0)
    pid = property(lambda self: os.getpid())

    def __init__(self) -> None:
        self.thread: threading.Thread
        self._outcome: Outcome | None = None
        self._code = 0
        self._fd = -1
        self._signal = self._abandoned = self._ending = self._open = False
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self.ended = self.failed = False

    def run(self, context: contextvars.Context, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> None:
        outcome: Outcome
        try:
            try:
                self._open = True
                if self._ending:
                    raise TaskTerminated
                outcome = "value", context.run(fn, *args, **(kwargs or {}))
            except (SystemExit, KeyboardInterrupt) as stop:
                outcome, self._code = ("exit", exit_message(stop)), exit_code_of(stop)
            except BaseException as exception:
                outcome, self._code = ("exception", exception), 1
            self._outcome = outcome
        finally:
            self._close()

    def _close(self) -> None:
        """After this no exception is set in the thread any more; one that is on its way may rise in here."""
        while True:
            try:
                with self._lock:
                    self._open = False
                    _set_exception(self.thread, None)
                break
            except TaskTerminated:
                continue
        if self._outcome is None:  # it rose between the body and the store
            self._outcome, self._code = ("exit", ""), 128 + signal.SIGTERM
        if self._signal:
            os.eventfd_write(self._fd, 1)
            if self._abandoned:
                os.close(self._fd)
        self._finished.set()

    @property
    def tid(self) -> int:
        return self.thread.native_id or 0

    def open(self) -> None:
        """The pidfd of the thread, or an eventfd that the thread writes to. Before the body runs."""
        try:
            self._fd = os.pidfd_open(self.tid, PIDFD_THREAD)
        except OSError:  # before Linux 6.9
            self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._signal = True

    def fileno(self) -> int:
        return self._fd

    def done(self) -> bool:
        return self._outcome is not None

    def wait_done(self, timeout: float | None) -> bool:
        return self.wait(timeout)

    def wait(self, timeout: float | None) -> bool:
        # Not join() alone: on 3.11 a join that Ctrl-C interrupts takes the thread for ended.
        deadline = None if timeout is None else time.monotonic() + min(timeout, threading.TIMEOUT_MAX)
        while not self._finished.wait(1.0 if deadline is None else max(0.0, min(1.0, deadline - time.monotonic()))):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            if not self.thread.is_alive():  # terminated in the moment in which it was finishing
                self._outcome, self._code = ("exit", ""), 128 + signal.SIGTERM
                self._finished.set()
        self.thread.join()
        self.ended = True
        return True

    def status(self) -> ExitStatus | None:
        return ExitStatus(self._code, None, source="record") if self.ended else None

    def outcome(self) -> Outcome:
        assert self._outcome is not None, "outcome() before the end"
        if self._outcome[0] == "exit":
            self.wait(None)
            raise died(f"thread {self.tid}", ExitStatus(self._code, None, source="record"), how=self._outcome[1])
        return self._outcome

    def signal(self, number: int) -> None:
        """To the thread alone; what it does to the process is the disposition's, which is everybody's."""
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
        signal.pthread_kill(self.thread.ident or 0, number)

    def end(self, grace: float | None, timeout: float) -> None:
        if grace is None:
            raise UnsupportedOperation(
                "a thread cannot be killed: SIGKILL would end the whole process; terminate() raises an exception in "
                "it, flags=SHARED makes a task that can be killed"
            )
        deadline = time.monotonic() + timeout
        pause = min(grace, timeout)
        self._ending = True
        while not self.done():
            with self._lock:
                if self._open:
                    _set_exception(self.thread, TaskTerminated)
            self._finished.wait(pause)
            if time.monotonic() > deadline and not self.done():
                raise TimeoutError(f"thread {self.tid} does not end: it is in\n{_where(self.thread)}")
            pause = 0.05
        self.wait(None)

    def abandon(self) -> None:
        if self._signal and not self.done():
            self._abandoned = True  # the thread will write to it yet, and closes it then
        elif self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


_HARMLESS = {signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH, signal.SIGCONT}


def _set_exception(thread: threading.Thread, exception: type[BaseException] | None) -> None:
    """Sets the asynchronous exception of a thread, or takes it back."""
    value = ctypes.py_object() if exception is None else ctypes.py_object(exception)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), value)


def _where(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame else "  (no Python frame)"


def start(plan: Plan, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Task[Any]:
    handle = ThreadHandle()
    go = threading.Event()
    context = contextvars.copy_context()

    def body() -> None:
        go.wait()
        if handle.failed:
            return
        if plan.name is not None:  # as for the other routes: the kernel's name too, 15 bytes of it
            with contextlib.suppress(OSError):  # no /proc: then it is a label only
                Path("/proc/thread-self/comm").write_bytes(os.fsencode(plan.name)[:15])
        handle.run(context, fn, args, kwargs)

    handle.thread = threading.Thread(target=body, name=plan.name, daemon=plan.daemon)
    if plan.stack_size is None:
        handle.thread.start()
    else:
        with _stack_size_lock:  # the size is the interpreter's, for all threads that start now
            before = threading.stack_size(plan.stack_size)
            try:
                handle.thread.start()
            finally:
                threading.stack_size(before)
    try:
        handle.open()
    except OSError as error:
        handle.failed = True
        go.set()
        handle.thread.join()
        raise start_error(error.errno or errno.EMFILE, "pidfd_open") from None
    go.set()
    return Task(handle, plan, NAME)
