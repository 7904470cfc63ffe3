"""Shared memory under a pid of its own: a host lends the task its thread-local storage.

With VFORK in the set the caller clones in place and sleeps in the kernel until the task ends.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import signal as _signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from taskclone import _core
from taskclone._core import DONE, ENDED, Bell, Shared, flush_streams, shared_start
from taskclone.damage import examine
from taskclone.errors import StartError, TaskTerminated, UnsupportedOperation
from taskclone.flags import CloneFlags, flag_names
from taskclone.leftovers import looked_for
from taskclone.outcome import ExitStatus, Outcome, died, exit_message, signal_name, status_from
from taskclone.plan import Plan, unsupported
from taskclone.routes import fallback, setup
from taskclone.task import END_TIMEOUT, GRACE, Granted, Task

NAME = "shared"

_F = CloneFlags
_PLAIN = int(_F.VM | _F.FILES | _F.FS | _F.SYSVSEM | _F.SIGHAND)
"""Sets within this one are started without waiting for the kernel's answer."""
_CARRIED = _PLAIN | int(
    _F.VFORK | _F.IO | _F.UNTRACED | _F.PTRACE | _F.CLEAR_SIGHAND | _F.PIDFD | _F.PARENT_SETTID | _F.CHILD_SETTID
    | _F.CHILD_CLEARTID | _F.SETTLS | _F.INTO_CGROUP | _F.NNP | _F.AUTOREAP | _F.NEWNS | _F.EMPTY_MNTNS | _F.NEWUTS
    | _F.NEWIPC | _F.NEWUSER | _F.NEWPID | _F.NEWNET | _F.NEWCGROUP | _F.NEWTIME
)  # fmt: skip
_VFORK = int(_F.VFORK)
_FATAL = frozenset(map(int, (
    _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGABRT, _signal.SIGTRAP, _signal.SIGSYS,
    _signal.SIGQUIT, _signal.SIGXCPU, _signal.SIGXFSZ,
)))  # fmt: skip
"""The signals that the task handles itself, so that its death is not the creator's (fatal_signals in child.c)."""
_SPARES = frozenset(map(int, (
    _signal.SIGCHLD, _signal.SIGCONT, _signal.SIGURG, _signal.SIGWINCH, _signal.SIGTSTP, _signal.SIGTTIN,
    _signal.SIGTTOU,
)))  # fmt: skip
"""The signals whose default action ends nobody (signal(7))."""

_LINGERS = 2
"""What wait_end() says of a task whose body has ended and who does not."""
LINGER = 1.0
"""Seconds that threads which a C library started in a task may go on after its body, once somebody waits."""
_SAME_FUTEX = 5
"""Looks in a row at the same futex before a wait is taken for one that nobody ends."""
_USER_AFTER = 0.5
"""Seconds of asking before C code outside the interpreter and libc is killed where it runs."""


def check(plan: Plan) -> None:
    if plan.bits & _F.PARENT:
        raise unsupported(
            NAME,
            "PARENT: the parent-death signal would be about the creator's parent, and the task could outlive the owner "
            "of its memory",
            "leave it out, or VM",
        )
    if plan.bits & _F.PIDFD_AUTOKILL:
        raise unsupported(
            NAME,
            "PIDFD_AUTOKILL: the kill would come wherever the task is, and may leave the interpreter lock taken",
            "copied memory and programs have it",
        )
    if plan.bits & ~_CARRIED:
        raise unsupported(NAME, f"{flag_names(plan.bits & ~_CARRIED)} in this version", "leave it out")
    setup.require(NAME, plan)
    if plan.setup.parent_death_signal not in (None, _signal.SIGKILL):
        raise unsupported(NAME, "a parent_death_signal but SIGKILL: no task may outlive the owner of its memory")
    fatal = _FATAL & dict(plan.setup.signals).keys()
    if fatal:
        names = " ".join(map(signal_name, sorted(fatal)))
        raise unsupported(NAME, f"{names} in signals: its handler saves the creator", "see ChildSetup.core")
    # One that dies where it waits for the interpreter lock is counted by the lock's condition variable for ever.
    ends = {number for number, how in dict(plan.setup.signals).items() if how == "default"} - _SPARES
    if ends:
        names = " ".join(map(signal_name, sorted(ends)))
        raise unsupported(
            NAME,
            f"{names} by default: it would end the task at once, wherever it is",
            "left out of signals, SIGTERM and its like end a task politely; or ignore it",
        )
    if plan.setup.core and plan.bits & _F.SIGHAND:
        raise unsupported(NAME, "core=True with SIGHAND: there are no handlers of the task's own", "leave one out")


class SharedHandle:
    """The core's object, in the words of ``task.Handle``."""

    __slots__ = ("_exit_signal", "core")

    def __init__(self, core: Shared, exit_signal: int = 0) -> None:
        self.core = core
        self._exit_signal = exit_signal

    @property
    def pid(self) -> int:
        return self.core.pid or self.core.started()

    tid = pid

    @property
    def granted(self) -> Granted:
        self.core.started()  # which call it was is known then
        return Granted(CloneFlags(self.core.flags), self._exit_signal)

    @property
    def emulated(self) -> dict[str, str]:
        self.core.started()
        return fallback.emulated(self.core.replaced)

    def fileno(self) -> int:
        self.core.started()
        return self.core.fileno()

    def done(self) -> bool:
        return self.core.state >= DONE

    def wait_done(self, timeout: float | None) -> bool:
        return self.core.wait(DONE, timeout)

    def wait(self, timeout: float | None) -> bool:
        core = self.core
        deadline = None if timeout is None else time.monotonic() + timeout
        how = core.wait_end(timeout, LINGER)
        if how == _LINGERS:
            self._end_foreign_threads()
            how = core.wait(ENDED, None if deadline is None else _left(deadline))
        if how:
            core.started()  # a start that failed is said by every use
        return bool(how)

    def _end_foreign_threads(self) -> None:
        """Threads that a C library started lazily keep the dead task's process; nobody else can end them."""
        pid = self.core.pid
        try:
            threads = [int(name) for name in os.listdir(f"/proc/{pid}/task")]
        except FileNotFoundError:
            return
        if any(_core.thread_known(tid) for tid in threads):
            return
        with contextlib.suppress(ProcessLookupError):
            self.core.send_signal(9)
            warnings.warn(
                f"task {pid} left {len(threads) - 1} threads that no Python code started; they were ended with it. "
                "Initialise the library that makes them in the creator",
                ResourceWarning,
                stacklevel=4,
            )

    def status(self) -> ExitStatus | None:
        raw = self.core.status()
        if raw is None:
            return None
        status = status_from(raw)
        kind, _, code = self.core.outcome()
        if kind == "died":
            crash = self.core.death()[0]
            if crash is None:
                return status
            return status._replace(code=None, signal=crash[0], source="record" if status.lost else status.source)
        if status.lost or status.signal is not None:
            # Taken by somebody else; or its body had ended, and threads that outlived it were killed.
            return ExitStatus(code, None, rusage=status.rusage, source="record")
        return status

    def bell(self) -> Bell:
        return self.core.bell()

    def plain(self) -> Outcome | None:
        return self.core.plain()

    def outcome(self) -> Outcome:
        core = self.core
        kind, value, code = core.outcome()
        if kind == "exception":
            if not isinstance(value, SystemExit | KeyboardInterrupt):
                return "exception", value
            status = self.status() if core.wait(ENDED, LINGER) else None
            raise died(f"task {core.pid}", status or ExitStatus(code, None, source="record"), how=exit_message(value))
        status = self.status()
        assert status is not None, "outcome() before the end"
        crash, stack, left_behind, killed = core.death()
        raise died(
            f"task {core.pid}",
            status,
            how="ended by terminate() or kill()" if killed else "",
            stack=stack,
            address=crash[2] if crash is not None and crash[0] in _WITH_ADDRESS else None,
            damage=left_behind,
        )

    def signal(self, number: int) -> None:
        self.core.started()
        if self.core.state >= ENDED:
            raise ProcessLookupError(f"task {self.pid} has ended")
        self.core.send_signal(number)

    def abandon(self) -> None:
        """Nothing to let go of: the core's object closes what is open."""

    # ---- ending it ----

    def end(self, grace: float | None, timeout: float) -> None:
        core = self.core
        deadline = time.monotonic() + timeout
        try:
            core.started()
        except StartError:
            return  # there is nothing to end; the Task's next use says so
        core.interrupt()
        if grace is None or not core.wait(DONE, min(grace, timeout)):
            self._look_until_done(deadline)
        if not self.wait(max(_left(deadline), LINGER)):
            raise TimeoutError(f"task {core.pid} has ended its body, but threads of it go on")

    def _look_until_done(self, deadline: float) -> None:
        core, began = self.core, time.monotonic()
        futex, same, write_fd, pause = 0, 0, -1, 0.0002
        while not core.wait(DONE, pause):
            core.interrupt()
            late = time.monotonic() - began > _USER_AFTER
            verdict, number, first, _ = core.look(futex if same >= _SAME_FUTEX else 0, write_fd, late)
            if verdict in ("gone", "killed"):
                core.wait(ENDED, _left(deadline))
            if verdict == "futex":
                same = same + 1 if first == futex else 0
                futex = first
            else:
                same = 0
            if verdict == "write" and late:
                write_fd = -1 if _is_buffered(first) else first
            if core.state < DONE and not _left(deadline):
                raise TimeoutError(f"task {core.pid} does not end: {self._stuck_in(verdict, number)}")
            pause = min(pause * 2, 0.005)

    def _stuck_in(self, verdict: str, number: int) -> str:
        where = {
            "lock": "it waits for the interpreter lock",
            "unstopped": "it cannot be stopped (it sleeps uninterruptibly in the kernel)",
            "write": "it is in write(), and may hold the lock of a buffered file",
        }.get(verdict, f"it is in system call {number}")
        if number == -1:
            where = "it runs C code"
        elif number == -2 and verdict == "go_on":
            where = f"/proc/{self.core.pid}/syscall cannot be read (no descriptor left, perhaps)"
        frame = sys._current_frames().get(self.core.ident)
        return where + (", called from\n" + "".join(traceback.format_stack(frame)).rstrip() if frame else "")


_WITH_ADDRESS = (4, 5, 7, 8, 11)  # SIGILL SIGTRAP SIGBUS SIGFPE SIGSEGV: si_addr means something (sigaction(2))


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _is_buffered(fd: int) -> bool:
    """Whether a buffered file writes to the descriptor: a task killed in its write() would leave its lock locked."""
    for thing in gc.get_objects():
        if isinstance(thing, io.BufferedWriter | io.BufferedRandom):
            with contextlib.suppress(ValueError, OSError):  # closed, detached, or without a descriptor
                if thing.fileno() == fd:
                    return True
    return False


def _flushed(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A body with streams of its own: what print() still holds is written in the task, where it belongs."""
    try:
        return fn(*args, **kwargs)
    finally:
        flush_streams()


def _start_with_setup(
    plan: Plan, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> Task[Any]:
    if any(stream is not None for stream in (plan.stdin, plan.stdout, plan.stderr)):
        flush_streams()
        args, fn = (fn, *args), _flushed
    with setup.steps(plan) as (steps, captured):
        task = start(plan, fn, args, kwargs, steps)
    return setup.capturing(task, captured)


def start(
    plan: Plan,
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None,
    steps: Any = None,
) -> Task[Any]:
    if _ending:
        raise UnsupportedOperation("the interpreter is ending: no task that shares its memory can be started")
    if plan.has_setup and steps is None:
        return _start_with_setup(plan, fn, args, kwargs)
    if not plan.bits & _F.FILES:
        fn = looked_for(fn)
    signal = plan.exit_signal or 0
    name = None if plan.name is None else os.fsencode(plan.name)
    core = shared_start(
        fn,
        args,
        kwargs,
        plan.bits,
        signal,
        plan.stack_size or 0,
        name,
        plan.setup.core,
        TaskTerminated,
        plan.daemon,
        steps,
    )
    if signal or steps or plan.bits & ~_PLAIN:
        core.started()
    return Task(SharedHandle(core, signal), plan, NAME)


# ---- requests by signal, forks, the interpreter's exit --------------------------------------------------------------

_ending = False


def _on_end_request(core: Shared, number: int) -> None:
    """SIGTERM and its like, sent to the task by whomever. On the keeper's thread."""
    try:
        SharedHandle(core).end(GRACE, END_TIMEOUT)
    except TimeoutError as error:
        warnings.warn(f"{error} (asked for by signal {number})", ResourceWarning, stacklevel=1)


def end_all() -> None:
    """At the interpreter's exit: no task may outlive the memory that it shares."""
    global _ending
    if _core.in_task():
        return  # a copy made by os.fork() in a task has other exits
    try:
        for core in _core.shared_live():
            if not core.daemon and not core.thread:
                with contextlib.suppress(StartError):  # of a start that was given up, by a signal handler's exception
                    SharedHandle(core).wait(None)
    finally:
        _ending = True
        for core in _core.shared_live():
            if core.thread:
                continue
            try:
                SharedHandle(core).end(None, END_TIMEOUT)
            except TimeoutError as error:
                # Finalizing under it would wedge or crash; the kernel ends it with us.
                print(f"taskclone: {error}\nleaving without finalizing the interpreter", file=sys.stderr, flush=True)
                os._exit(1)
        _core.hosts_end()


_core.set_damage_hook(examine)
_core.set_end_hook(_on_end_request)
os.register_at_fork(before=_core.before_fork, after_in_parent=_core.after_fork)
atexit.register(end_all)
