"""Tasks that are ordinary children of this process: what the copied and the program route have in common."""

from __future__ import annotations

import contextlib
import os
import signal

from taskclone._core import Child, children_forget, children_running
from taskclone.flags import CloneFlags
from taskclone.outcome import ExitStatus, Outcome, died, status_from
from taskclone.routes import fallback
from taskclone.task import Granted

__all__ = ["ChildHandle", "end_all"]


class ChildHandle(Child):
    """A child, in the words of ``task.Handle``. The core keeps a list of those that were not seen to end, and reaps
    the ones that nobody holds any more."""

    __slots__ = ()

    @property
    def granted(self) -> Granted:
        return Granted(CloneFlags(self.flags), self.exit_signal)

    @property
    def emulated(self) -> dict[str, str]:
        return fallback.emulated(self.replaced)

    def status(self) -> ExitStatus | None:
        if self.cached is None:
            raw = self.raw_status()
            self.cached = None if raw is None else status_from(raw)
        status: ExitStatus | None = self.cached
        return status

    def signal(self, number: int) -> None:
        if self.done():
            raise ProcessLookupError(f"task {self.pid} has ended")
        self.send_signal(number)

    def end(self, grace: float | None, timeout: float) -> None:
        if grace is not None and not self.done():
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                self.send_signal(signal.SIGTERM)
            self.wait(min(grace, timeout))
        if self.done():
            return
        with contextlib.suppress(ProcessLookupError):
            self.send_signal(signal.SIGKILL)
        if not self.wait(timeout):
            raise TimeoutError(f"task {self.pid} is still there {timeout:g} s after SIGKILL: it waits in the kernel")


class ExitCodeHandle(ChildHandle):
    """One that leaves an exit code and nothing else."""

    __slots__ = ()

    def who(self) -> str:
        return f"task {self.pid}"

    def plain(self) -> Outcome | None:
        status = self.status()
        return None if status is None or status.code is None else ("value", status.code)

    def outcome(self) -> Outcome:
        status = self.status()
        assert status is not None, "outcome() before the end"
        raise died(self.who(), status)


def end_all() -> None:
    """At the interpreter's exit: waits for the children, ends those that are daemons."""
    for child in children_running():
        assert isinstance(child, ChildHandle)
        if child.daemon:
            child.end(None, 10.0)
        else:
            child.wait(None)


# The core's own function, not one of Python's: a copied task pays for each page that it writes to.
os.register_at_fork(after_in_child=children_forget)
