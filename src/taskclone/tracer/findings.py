"""What an API was seen to pass: every call in order, who made it, and which of them runs the body."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import taskclone
from taskclone.errors import TaskDied
from taskclone.flags import CloneFlags, members
from taskclone.outcome import signal_name
from taskclone.tracer.apis import Api
from taskclone.tracer.records import Call, Exec, Record
from taskclone.tracer.trace import Trace

__all__ = ["Finding", "Seen", "as_json", "look", "machine", "tell"]

TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One call.

    Attributes:
        number: its place among the calls of the API, from 1.
        call: the call.
        maker: the number of the call whose task made it; 0 for the program itself.
        programs: short names of the programs that its task has become, in order.
        is_body: its task runs the body: it is the call that the API is for.
    """

    number: int
    call: Call
    maker: int
    programs: tuple[str, ...]
    is_body: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one API. ``failure`` says why that is not all; "" when it is."""

    api: Api
    calls: tuple[Seen, ...]
    failure: str = ""

    @property
    def body(self) -> Seen | None:
        """The call that runs the body; None only beside a failure."""
        return next((seen for seen in self.calls if seen.is_body), None)

    @property
    def also(self) -> tuple[Seen, ...]:
        """The others."""
        return tuple(seen for seen in self.calls if not seen.is_body)


def look(api: Api, timeout: float = TIMEOUT) -> Finding:
    """Calls the API once, in a process of its own under ptrace.

    Raises:
        StartError: ptrace is refused here, by whom stands in the message; or the program that calls the API could not
            be started.
    """
    records: list[Record] = []
    with ExitStack() as stack:
        nothing, said, errors = os.open(os.devnull, os.O_RDONLY), os.memfd_create("said"), os.memfd_create("errors")
        for fd in (nothing, said, errors):
            stack.callback(os.close, fd)
        failure = ""
        with Trace(api.argv, streams=(nothing, said, errors), timeout=timeout) as trace:
            try:
                records.extend(trace.records())
            except (TimeoutError, TaskDied) as error:
                failure = str(error)
        bodies = _bodies(os.pread(said, 1 << 16, 0))
        if not failure and trace.status:
            words = os.pread(errors, 1 << 16, 0).decode(errors="replace").strip().splitlines()
            failure = f"the program that calls it {_ending(trace.status)}{': ' + words[-1] if words else ''}"
    calls = tell(records, bodies[-1] if bodies else 0)
    return Finding(api, calls, failure or _what_is_missing(calls, bodies))


def _what_is_missing(calls: Sequence[Seen], bodies: Sequence[int]) -> str:
    body = next((seen for seen in calls if seen.is_body), None)
    if len(bodies) != 1 or body is None:
        return f"no call was seen to make the body (thread ids that reported: {list(bodies)})"
    return f"its arguments could not be read: {body.call.unread_name}" if body.call.unread else ""


def _bodies(said: bytes) -> list[int]:
    """Thread ids of the bodies that reported."""
    words = (line.split() for line in said.decode(errors="replace").splitlines())
    return [int(line[2]) for line in words if len(line) == 3 and line[0] == "body"]


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"ended with status {code}" if code >= 0 else f"died of {signal_name(-code)}"


def tell(records: Sequence[Record], body: int) -> tuple[Seen, ...]:
    """The calls among the records; ``body`` is the thread id of the task that ran the body.

    In two passes, because what a new task does may be told before the call that has made it.
    """
    calls = [item for item in records if isinstance(item, Call)]
    number_of = {call.child: number for number, call in enumerate(calls, 1) if call.child}
    programs: dict[int, list[str]] = {}
    for item in records:
        if isinstance(item, Exec):
            programs.setdefault(number_of.get(item.tid, 0), []).append(item.name)
    return tuple(
        Seen(number, call, number_of.get(call.tid, 0), tuple(programs.get(number, ())), number == number_of.get(body))
        for number, call in enumerate(calls, 1)
    )


# ---- for machines ---------------------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    """What the answers depend on."""
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": libc or "unknown",
        "python": platform.python_version(),
        "taskclone": taskclone.__version__,
    }


def as_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """All that was seen, in plain values. Flags are a number and names; bits without a name are a number apart."""
    return {"format": 1, "machine": machine(), "apis": [_api(finding) for finding in findings]}


def _api(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.api.name,
        "group": finding.api.group,
        "call": finding.api.call,
        "program": finding.api.argv,
        "failure": finding.failure or None,
        "calls": [_seen(seen) for seen in finding.calls],
    }


def _seen(seen: Seen) -> dict[str, Any]:
    call = seen.call
    names = members(call.flags)
    return {
        "number": seen.number,
        "runs_the_body": seen.is_body,
        "made_by_task_of_call": seen.maker or None,
        "tid": call.tid,
        "system_call": call.system_call,
        "flags": int(call.flags),
        "flag_names": [member.name for member in names],
        "unknown_bits": int(call.flags) & ~sum(int(member) for member in names),
        "exit_signal": call.exit_signal,
        "exit_signal_name": signal_name(call.exit_signal) if call.exit_signal else None,
        "given": list(call.given),
        "stack_size": call.args.stack_size,
        "set_tid_size": call.args.set_tid_size,
        "cgroup": call.args.cgroup if call.flags & CloneFlags.INTO_CGROUP else None,
        "clone_args_size": call.size or None,
        "arguments_unread": call.unread_name or None,
        "child": call.child or None,
        "error": call.error_name or None,
        "followed": call.followed,
        "programs": list(seen.programs),
    }
