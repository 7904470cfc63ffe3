"""The handle of one task."""

from __future__ import annotations

import time
import warnings
from _thread import RLock
from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar, cast

from taskclone.awaiting import Bell, until_done
from taskclone.capture import Captured
from taskclone.errors import StartError, TaskDied, TaskError
from taskclone.flags import CloneFlags, flag_names
from taskclone.outcome import ExitStatus, Outcome, signal_name

if TYPE_CHECKING:
    from taskclone.plan import Plan

__all__ = ["Granted", "Handle", "Task", "check_timeout"]

R = TypeVar("R", covariant=True)

GRACE = 1.0
"""Seconds that ``terminate`` gives to ``finally`` blocks."""
END_TIMEOUT = 10.0
"""Seconds after which ``terminate`` and ``kill`` give up with TimeoutError."""


class Granted(NamedTuple):
    """What the kernel was asked for in the end."""

    flags: CloneFlags
    exit_signal: int

    def __str__(self) -> str:
        text = flag_names(self.flags)
        return f"{text} exit {signal_name(self.exit_signal)}" if self.exit_signal else text


class Handle(Protocol):
    """What each route supplies for a task that it has started."""

    @property
    def pid(self) -> int: ...
    @property
    def tid(self) -> int: ...
    @property
    def granted(self) -> Granted: ...
    @property
    def emulated(self) -> dict[str, str]: ...
    def fileno(self) -> int: ...
    def done(self) -> bool:
        """The outcome is there, or the task has ended."""

    def wait_done(self, timeout: float | None) -> bool: ...
    def wait(self, timeout: float | None) -> bool:
        """Until it has ended and is reaped."""

    def bell(self) -> Bell: ...
    def plain(self) -> Outcome | None:
        """Once done: the outcome, where that is a value and at hand. Any number of times, from any thread."""

    def outcome(self) -> Outcome:
        """Once done, and by one thread at a time; nobody asks again for what it has returned or raised.

        Raises StartError, TaskDied or OutcomeError where there is none.
        """

    def status(self) -> ExitStatus | None:
        """None while it runs."""

    def signal(self, number: int) -> None: ...
    def end(self, grace: float | None, timeout: float) -> None:
        """``grace`` None: at once, without a chance for ``finally`` blocks. TimeoutError after ``timeout`` seconds."""

    def abandon(self) -> None:
        """Nobody will ask for the outcome any more."""


def check_timeout(timeout: float | None, *, may_be_none: bool = True) -> None:
    """Raises ValueError or TypeError for what is no number of seconds from 0 on."""
    if timeout is None and may_be_none:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds or None, not {type(timeout).__name__}")
    if not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")


class Task(Generic[R]):
    """A task that was started: one handle, whatever it shares.

    As a context manager it waits when the block is left normally; when the block raises it terminates, then kills.

    ``await task`` is ``task.result()`` that lets the event loop go on: under asyncio, with a loop that has add_reader
    (the standard ones on Linux, uvloop), and under trio, and so under anyio. Nothing is done to the task when the await
    is cancelled, and it may be awaited again, by several at once, and in several loops. No thread is needed for it.

    A Task may be used by any thread of the process that started it.
    """

    __slots__ = (
        "__weakref__",
        "_captured",
        "_handle",
        "_outcome",
        "_started_at",
        "_taking",
        "_traceback",
        "plan",
        "route",
    )

    plan: Plan
    """How it was started."""
    route: str
    """The way in which it was started: copied, shared, thread or program."""
    _captured: Captured
    """Set by the routes for a plan that captures a stream, and not there for others."""

    def __init__(self, handle: Handle, plan: Plan, route: str) -> None:
        self.plan = plan
        self.route = route
        self._outcome: Outcome | None = None
        # Reentrant: what is unpickled may ask for the very outcome.
        self._taking = RLock()
        self._started_at = time.monotonic()
        self._handle = handle  # the last: __del__ needs the others

    # ---- who it is ----

    @property
    def pid(self) -> int:
        """Process id (thread group id), as the creator sees it."""
        return self._handle.pid

    @property
    def tid(self) -> int:
        """Id of the task itself; differs from ``pid`` on the thread route only."""
        return self._handle.tid

    @property
    def name(self) -> str | None:
        """The plan's name."""
        return self.plan.name

    @property
    def flags(self) -> CloneFlags:
        """The flags that were asked for."""
        return self.plan.flag_set

    @property
    def granted(self) -> Granted:
        """The flags that the kernel was given in the end, and the exit signal."""
        return self._handle.granted

    @property
    def emulated(self) -> dict[str, str]:
        """What the call that made the task could not say and was done another way: how, and why, by name of the flag.

        Empty where the kernel was simply asked. Whatever stands here was done before the body began.
        """
        return self._handle.emulated

    def fileno(self) -> int:
        """The pidfd: readable when the task has ended (pidfd_open(2)). It belongs to the Task; dup it to keep it.

        On the thread route an eventfd where the kernel has no pidfd for a thread (before Linux 6.9). A task that shares
        memory gets its pidfd when it is first asked for; once it has been reaped that is an eventfd, readable too.

        Raises:
            ValueError: there is none: somebody else reaped the task before one could be opened.
            UnsupportedOperation: a seccomp filter keeps pidfd_open back, and the task has no pidfd from birth.
            OSError: EMFILE, ENFILE: no descriptor is to be had.
        """
        return self._handle.fileno()

    @property
    def stdout(self) -> bytes | None:
        """What it has written to standard output: all of it once it has ended. None unless the plan's is CAPTURE.

        Raises:
            UnsupportedOperation: the caller has a file table of its own, in which the file is not open.
        """
        return self._read_captured("stdout")

    @property
    def stderr(self) -> bytes | None:
        """The same for standard error. None also with ``stderr=subprocess.STDOUT``: then it is in ``stdout``."""
        return self._read_captured("stderr")

    def _read_captured(self, name: str) -> bytes | None:
        captured: Captured | None = getattr(self, "_captured", None)
        return captured.read(name) if captured else None

    # ---- how it stands ----

    def done(self) -> bool:
        """True when ``result()`` would not wait."""
        return self._outcome is not None or self._handle.done()

    def running(self) -> bool:
        """Not ``done()``."""
        return not self.done()

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Waits until the task has ended and is reaped, and returns its exit status.

        Raises:
            TimeoutError: it still runs after ``timeout`` seconds; nothing is done to it.
        """
        check_timeout(timeout)
        if not self._handle.wait(timeout):
            raise TimeoutError(f"{self._who()} still runs after {timeout:g} s")
        return cast(ExitStatus, self._handle.status())

    @property
    def status(self) -> ExitStatus | None:
        """The exit status, or None while the task runs. Does not wait."""
        if self._handle.wait(0):
            return self._handle.status()
        return None

    def result(self, timeout: float | None = None) -> R:
        """What the body returned (a program: its exit code); an exception of the body is raised here.

        Raises:
            TimeoutError: no outcome after ``timeout`` seconds; nothing is done to the task.
            TaskDied: it ended without one: a signal, ``sys.exit``, ``os._exit``, or it was ended.
            StartError: it could not be started, which plain flags learn only now.
            OutcomeError: the value could not be pickled or unpickled (copied memory).
        """
        kind, value = self._await_outcome(timeout)
        if kind != "exception":
            return cast(R, value)
        try:
            raise value.with_traceback(self._traceback)  # each time the same: it would grow by two frames a call
        finally:
            # The traceback holds this frame: without these it would be a cycle with the task in it.
            del self, value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What ``result()`` would raise, or None. TimeoutError as there."""
        kind, value = self._await_outcome(timeout)
        return value if kind == "exception" else None

    def _await_outcome(self, timeout: float | None) -> Outcome:
        if timeout is not None:
            check_timeout(timeout)
        if self._outcome is not None:
            return self._outcome
        if not self._handle.wait_done(timeout):
            raise TimeoutError(f"{self._who()} has no result after {timeout:g} s")
        outcome = self._handle.plain()
        if outcome is None:
            return self._take_outcome()
        self._outcome = outcome
        return outcome

    def _take_outcome(self) -> Outcome:
        """Once, whichever threads ask: a copied one is unpickled, and each death has one exception."""
        with self._taking:
            if self._outcome is not None:
                return self._outcome
            outcome: Outcome
            try:
                outcome = self._handle.outcome()
            except TaskError as error:
                captured: Captured | None = getattr(self, "_captured", None)
                if captured and isinstance(error, TaskDied):
                    error.last_words = captured.last_words()
                # Without the traceback, which leads through this frame to the task, and so in a circle.
                outcome = "exception", error.with_traceback(None)
            if outcome[0] == "exception":
                self._traceback: TracebackType | None = outcome[1].__traceback__
            self._outcome = outcome
            return outcome

    def __await__(self) -> Generator[Any, None, R]:
        yield from until_done(self._handle).__await__()
        try:
            return self.result()
        finally:
            del self  # as in result()

    # ---- ending it ----

    def send_signal(self, number: int) -> None:
        """Sends a signal through the pidfd. ProcessLookupError when the task has ended."""
        self._handle.signal(number)

    def terminate(self, grace: float = GRACE, *, timeout: float = END_TIMEOUT) -> None:
        """Ends the task; ``finally`` blocks have ``grace`` seconds. Returns when it has ended.

        Raises:
            TimeoutError: it could not be ended within ``timeout`` seconds; says in which system call and Python
                frames it is.
        """
        check_timeout(grace, may_be_none=False)
        check_timeout(timeout, may_be_none=False)
        self._handle.end(grace, timeout)

    def kill(self, *, timeout: float = END_TIMEOUT) -> None:
        """Ends the task at once. Returns when it has ended.

        A body that shares memory and computes is ended by an exception that is raised until it lets go; one that waits
        in the kernel by SIGKILL, where that can harm no lock.

        Raises:
            TimeoutError: as for ``terminate``.
            UnsupportedOperation: on the thread route: SIGKILL would end the whole process.
        """
        check_timeout(timeout, may_be_none=False)
        self._handle.end(None, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None or self._handle.done():
            self.wait()
        else:
            self.terminate()
            self._handle.status()  # takes the zombie where an exit signal has left it to us

    def __del__(self) -> None:
        handle = getattr(self, "_handle", None)
        if handle is None:
            return
        try:
            done = self._outcome is not None or handle.done()
        except ChildProcessError:  # in the child of a fork: it is the parent's
            done = True
        try:
            if not done and not self.plan.daemon:
                warnings.warn(f"{self!r} was forgotten while it runs", ResourceWarning, stacklevel=2, source=self)
        finally:  # a filter may turn the warning into an error
            handle.abandon()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"cannot pickle {self!r}: a Task belongs to the process that started it")

    def _who(self) -> str:
        return f"task {self.tid}" + (f" {self.name!r}" if self.name else "")

    def __repr__(self) -> str:
        label = f" {self.name!r}" if self.name else ""
        flags = f" {flag_names(self.flags)}" if self.plan.bits else ""
        handle = self._handle
        try:
            ended = handle.wait(0)
        except (StartError, ChildProcessError) as error:
            return f"<Task{label} {self.route}{flags} {type(error).__name__}>"
        if not ended:
            how = "done" if handle.done() else "running"
            return f"<Task {handle.tid}{label} {self.route}{flags} {how} {time.monotonic() - self._started_at:.1f} s>"
        status = handle.status()
        how = "?" if status is None or status.lost else str(status.code)
        if status is not None and status.signal is not None:
            how = signal_name(status.signal)
        return f"<Task {handle.tid}{label} {self.route}{flags} ended {how}>"
