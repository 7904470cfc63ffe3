"""Tasks that are ordinary children of this process: what the copied and the program route have in common."""

from __future__ import annotations

import contextlib
import os
import signal

from taskclone._core import Child, in_task
from taskclone.flags import CloneFlags
from taskclone.outcome import ExitStatus, status_from
from taskclone.task import Granted

__all__ = ["ChildHandle", "end_all", "running"]

running: set[ChildHandle] = set()
"""Children that were not seen to end. Those that nobody holds any more are reaped by ``sweep``."""

_sweep_at = 64


class ChildHandle:
    """Waiting for, signalling and ending a child through its pidfd."""

    __slots__ = ("_flags", "_status", "child", "daemon")

    def __init__(self, child: Child, flags: int, daemon: bool) -> None:
        self.child = child
        self._flags = flags
        self.daemon = daemon
        self._status: ExitStatus | None = None

    def started(self) -> None:
        """From now on there is something to wait for."""
        if in_task():
            return  # the task's own child, which the creator, whose memory this is, cannot wait for
        running.add(self)
        if len(running) >= _sweep_at:
            sweep()

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def tid(self) -> int:
        return self.child.pid

    @property
    def granted(self) -> Granted:
        """The exit signal is SIGCHLD: by fork's own word, or because execve sets it."""
        return Granted(CloneFlags(self._flags), signal.SIGCHLD)

    def fileno(self) -> int:
        if self.child.pidfd < 0:
            raise ValueError(f"task {self.pid} has no pidfd: somebody else reaped it before one could be opened")
        return self.child.pidfd

    def done(self) -> bool:
        return self.wait(0)

    def wait_done(self, timeout: float | None) -> bool:
        return self.wait(timeout)

    def wait(self, timeout: float | None) -> bool:
        if self.child.pid and not self.child.wait(timeout):  # 0: the fork has failed
            return False
        running.discard(self)
        return True

    def status(self) -> ExitStatus | None:
        if self._status is None:
            raw = self.child.status()
            self._status = None if raw is None else status_from(raw)
        return self._status

    def signal(self, number: int) -> None:
        if self.wait(0):
            raise ProcessLookupError(f"task {self.pid} has ended")
        self.child.send_signal(number)

    def end(self, grace: float | None, timeout: float) -> None:
        if grace is not None and not self.wait(0):
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                self.child.send_signal(signal.SIGTERM)
            self.wait(min(grace, timeout))
        if self.wait(0):
            return
        with contextlib.suppress(ProcessLookupError):
            self.child.send_signal(signal.SIGKILL)
        if not self.wait(timeout):
            raise TimeoutError(f"task {self.pid} is still there {timeout:g} s after SIGKILL: it waits in the kernel")

    def abandon(self) -> None:
        """Nothing to let go of: a child that still runs stays in ``running`` until it has been reaped."""
        if self.child.owner not in (0, os.getpid()):
            self.child.close()  # our copy of the descriptor, in the child of a fork
        elif self.wait(0):
            self.child.close()


def sweep() -> None:
    """Reaps those that have ended. Called now and then, so that forgotten tasks leave no zombies for long."""
    global _sweep_at
    for handle in list(running):
        handle.wait(0)
    _sweep_at = max(64, 2 * len(running))


def end_all() -> None:
    """At the interpreter's exit: waits for the children, ends those that are daemons."""
    for handle in list(running):
        if handle.daemon:
            handle.end(None, 10.0)
        else:
            handle.wait(None)


def forget_all() -> None:
    """In the child of a fork: they are the parent's."""
    running.clear()


os.register_at_fork(after_in_child=forget_all)
