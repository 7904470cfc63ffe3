"""One program, traced from its start to the end of all that it has made."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from taskclone.errors import StartError, TaskDied, start_error
from taskclone.outcome import ExitStatus, signal_name
from taskclone.tracer import _ptrace
from taskclone.tracer.records import End, Exec, Record, record
from taskclone.tracer.refusal import why_refused

__all__ = ["Trace"]

CHUNK: Final = 400 * _ptrace.RECORD_SIZE
WALL: Final = 0x40000000
"""__WALL of waitid(2), which Python does not name: the tracer has no exit signal."""
ENDING: Final = 2.0
"""Seconds that the tracer has to kill and reap what it traces; then it is killed itself, and the kernel kills that."""


class Trace:
    """A program under ptrace; a context manager, at whose end nothing that was traced is left alive.

    The tracer is a process between the caller and the program, so the program is not the caller's child; orphans among
    its tasks get the tracer for a parent, not process 1. Whatever ends the tracer, or the thread that has started it,
    the kernel kills all that is traced. Each stop costs the program some 10 us, and there are two for each of its
    system calls.

    Args:
        argv: the program's arguments; the first is also its path, PATH is not searched.
        streams: descriptors for its 0, 1 and 2. It gets no other descriptor.
        environment: None: the caller's.
        timeout: seconds for all of it; then everything is killed, and ``records`` raises TimeoutError.
        linger: seconds that other tasks may outlive the program; then they are killed.

    Entering the block starts it. Raises:
        OSError: no process for the tracer (EAGAIN), or no descriptor (EMFILE).
    """

    def __init__(
        self,
        argv: Sequence[str | bytes | os.PathLike[str]],
        *,
        streams: tuple[int, int, int] = (0, 1, 2),
        environment: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        linger: float = 2.0,
    ) -> None:
        given = os.environb if environment is None else {os.fsencode(k): os.fsencode(v) for k, v in environment.items()}
        self.argv = tuple(os.fsencode(item) for item in argv)
        self.timeout, self.linger = timeout, linger
        self.program: int | None = None
        """Its process id, once it runs."""
        self.status: int | None = None
        """Its wait status (wait(2)), once it has ended."""
        self._environment = [name + b"=" + value for name, value in given.items()]
        self._streams = streams
        self._pid = self._pidfd = self._pipe = -1

    def __enter__(self) -> Self:
        self._deadline = time.monotonic() + self.timeout
        started = _ptrace.start(self.argv[0], self.argv, self._environment, self._streams)
        self._pid, self._pidfd, self._pipe = started
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def records(self) -> Iterator[Record]:
        """What is seen, as it comes.

        Raises:
            StartError: ptrace was refused (the message says by whom, as far as it can be known), or the program could
                not be started; ``step`` is what failed.
            TimeoutError: the time was up; everything was killed.
            TaskDied: the tracer was killed by somebody else.
        """
        deadline, data, lingers = self._deadline, b"", False
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while True:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                if self.status is not None:
                    return
                self.close()
                raise TimeoutError(f"the traced program had not ended after {self.timeout:g} s; it was killed")
            more = os.read(self._pipe, CHUNK)
            if not more:
                break
            data += more
            whole = len(data) - len(data) % _ptrace.RECORD_SIZE
            yield from self._parse(data[:whole])
            data = data[whole:]
            if self.status is not None and not lingers:
                lingers, deadline = True, min(deadline, time.monotonic() + self.linger)
        self._check_tracer()

    def _parse(self, data: bytes) -> Iterator[Record]:
        for raw in _ptrace.parse(data):
            if raw[0] == "failed":
                _, step, error = raw
                advice = why_refused(error) if step == "PTRACE_SEIZE" else ""
                raise StartError(error, step, advice) if advice else start_error(error, step)
            item = record(raw)
            if isinstance(item, Exec) and self.program is None:
                self.program = item.tid
            elif isinstance(item, End) and item.tid == self.program:
                self.status = item.status
            yield item

    def _check_tracer(self) -> None:
        """After the end of its records: it has seen the program's end, unless somebody has ended it."""
        status = self._reap(os.WEXITED)
        if self.status is None or (status is not None and status.signal is not None):
            what = f"the tracer, process {self._pid},"
            if status is None:
                raise TaskDied(f"{what} ended before the program, and its exit status was taken by somebody else")
            how = f"of {signal_name(status.signal)}" if status.signal is not None else f"with status {status.code}"
            filtered = ": a seccomp filter kills whoever calls ptrace" if status.signal == signal.SIGSYS else ""
            raise TaskDied(f"{what} ended {how}{filtered}; what it traced was killed with it", status)

    def _reap(self, options: int) -> ExitStatus | None:
        """None: it runs (WNOHANG), or somebody else has reaped it."""
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, options | WALL)
        except ChildProcessError:
            return None
        if result is None:
            return None
        exited = result.si_code == os.CLD_EXITED
        return ExitStatus(result.si_status if exited else None, None if exited else result.si_status)

    def close(self) -> None:
        """Kills what is still traced, ends and reaps the tracer. A second time does nothing."""
        if self._pidfd < 0:
            return
        pidfd = self._pidfd
        os.close(self._pipe)  # before the signal: the tracer may sleep in its write
        self._pipe = -1
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if self._ended(0):
                    break
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
                if self._ended(ENDING):
                    break
            self._reap(os.WEXITED | os.WNOHANG)
        finally:
            self._pidfd = -1
            os.close(pidfd)

    def _ended(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
