"""The exceptions of taskclone; ``TaskError`` is their root.

Every one of them can be pickled: an error often has to cross from a task to its creator.
A timeout is the builtin ``TimeoutError``.
"""

from __future__ import annotations

import errno as _errno
import os
import signal as _signal
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskclone.outcome import ExitStatus

__all__ = [
    "FlagError",
    "OutcomeError",
    "StartError",
    "TaskDied",
    "TaskError",
    "TaskTerminated",
    "UnsupportedOperation",
]


class TaskError(Exception):
    """Root of everything that taskclone raises on its own account."""


class UnsupportedOperation(TaskError):
    """A legal request that this route, kernel or version of taskclone does not carry."""


class FlagError(TaskError, OSError):
    """The set of flags is one that the kernel refuses, or contradicts the rest of the plan; nothing was started.

    ``errno`` is the one that the kernel would give (EINVAL where it would not refuse), ``rule`` the identifier of the
    rule in ``taskclone.rules``, and the message says the rule in words (clone(2), unshare(2)).
    """

    def __init__(self, number: int, message: str, rule: str = "") -> None:
        super().__init__(number, message)
        self.rule = rule

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errno, self.strerror, self.rule)


class StartError(TaskError, OSError):
    """The task was not started: a system call or a step of the child setup failed.

    ``step`` names what failed ("clone3", "chdir", "execve", ...), ``errno`` says how;
    the creator has already reaped whatever had been made. The body never ran.
    """

    def __init__(self, number: int, step: str, advice: str = "", filename: str | None = None) -> None:
        text = f"{step}: {os.strerror(number)}"
        if advice:
            text += f"; {advice}"
        if filename is None:
            super().__init__(number, text)
        else:
            super().__init__(number, text, filename)
        self.step = step
        self.advice = advice

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.errno or _errno.EINVAL, self.step, self.advice, self.filename)


class OutcomeError(TaskError):
    """An argument, a result or an exception could not be pickled or unpickled."""


class TaskTerminated(SystemExit):
    """Raised *inside* a body by ``Task.terminate()`` and ``Task.kill()``: let it pass.

    A subclass of SystemExit, so that ``except Exception`` does not hold it up and ``finally``
    blocks run. Its exit status is 143, what a shell shows for SIGTERM.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(args or (128 + _signal.SIGTERM,)))


class TaskDied(TaskError):
    """The task ended without an outcome: by a signal, by ``exit``, or by being ended.

    Attributes:
        status: the ``ExitStatus``; ``code``, ``signal`` and ``rusage`` are taken from it.
        stack: the Python stack at the death, oldest call first (``traceback.StackSummary``);
            empty where it could not be read (copied memory, a program).
        address: the address of a memory fault, else None.
        damage: what the death left behind in shared memory, as far as it can be known: a text for each, which begins
            with one of these words. "malloc": one of its arenas stays locked. "collector": it was running and stays
            off. "import": a module was half made and is imported anew, or a lock stays locked. "logging": a lock was
            released. "RLock", "buffered file": stay locked. "threads": of a C library, that died with it.
        last_words: the end of what it wrote to stderr, where the plan has captured that (``CAPTURE``); else "".
    """

    def __init__(
        self,
        message: str,
        status: ExitStatus | None = None,
        stack: traceback.StackSummary | None = None,
        address: int | None = None,
        damage: tuple[str, ...] = (),
        last_words: str = "",
    ) -> None:
        super().__init__(message, status, stack, address, damage, last_words)
        self.message = message
        self.status = status
        self.stack = stack if stack is not None else traceback.StackSummary()
        self.address = address
        self.damage = damage
        self.last_words = last_words

    @property
    def code(self) -> int | None:
        """The exit code, or None when a signal ended the task."""
        return self.status.code if self.status else None

    @property
    def signal(self) -> int | None:
        """The signal that ended the task, or None."""
        return self.status.signal if self.status else None

    @property
    def rusage(self) -> Any:
        """Resources used (``resource.struct_rusage``), or None when they are lost."""
        return self.status.rusage if self.status else None

    def __str__(self) -> str:
        text = self.message
        if self.stack:
            text += "\nPython stack of the task (most recent call last):\n"
            text += "".join(self.stack.format()).rstrip("\n")
        if self.damage:
            text += f"\nleft behind: {', '.join(self.damage)}"
        if self.last_words:
            text += "\nlast words on stderr:\n" + self.last_words.rstrip("\n")
        return text


_PRIVILEGE = (
    "namespaces other than user need CAP_SYS_ADMIN (or NEWUSER beside them); where NEWUSER itself is refused, a filter,"
    " kernel.unprivileged_userns_clone or AppArmor lets this user make none: see taskclone doctor"
)
_NO_THREADS = (
    "libc makes threads by clone3, and by clone(2) only where that says ENOSYS: a seccomp profile that answers EPERM "
    "leaves no way to make one. Copied tasks and programs can be started"
)

_ADVICE: dict[tuple[str, int], str] = {
    (
        "clone3",
        _errno.ENOSYS,
    ): "clone3 is missing or filtered here (a container's seccomp profile), and clone(2) cannot do its work: NEWTIME, "
    "INTO_CGROUP, set_tid and the flags of Linux 7.1 need clone3; taskclone doctor says what there is",
    (
        "clone3",
        _errno.EPERM,
    ): _PRIVILEGE,
    (
        "clone",
        _errno.EPERM,
    ): "clone3 is missing or filtered here, so clone(2) was asked: a seccomp profile may refuse it "
    f"new namespaces, too; {_PRIVILEGE}",
    ("clone3", _errno.EEXIST): "an id of set_tid is another task's",
    ("clone3", _errno.EBADF): "cgroup is not a descriptor of a directory in the cgroup v2 tree",
    ("clone3", _errno.EACCES): "this user may not move tasks to that control group: cgroup.procs of it and of the "
    "common ancestor of both groups must be writable (cgroups(7), delegation)",
    ("clone3", _errno.EBUSY): "a control group that gives controllers to its children holds no tasks itself "
    "(cgroups(7), no internal processes)",
    ("clone3", _errno.EOPNOTSUPP): "the control group is of a threaded domain, or its domain is invalid",
    ("clone3", _errno.ENODEV): "the control group was removed",
    ("clone3", _errno.ENOENT): "the control group was removed",
    (
        "id_maps",
        _errno.EPERM,
    ): "the maps were refused: ranges of /etc/subuid and /etc/subgid, or ids that the creator's "
    "own namespace does not have (user_namespaces(7))",
    ("uid_map", _errno.EPERM): "see user_namespaces(7); AppArmor may keep a namespace of an ordinary user powerless "
    "(kernel.apparmor_restrict_unprivileged_userns)",
    ("fork", _errno.EAGAIN): "the limit of tasks is reached: see RLIMIT_NPROC, pids.max and kernel.threads-max",
    ("fork", _errno.ENOMEM): "the kernel will not promise memory for the copy: see vm.overcommit_memory",
    ("pidfd_open", _errno.ENOSYS): "pidfd_open is filtered here (a container's seccomp profile)",
    ("pidfd_open", _errno.EPERM): "pidfd_open is filtered here (a container's seccomp profile)",
    ("host", _errno.EPERM): _NO_THREADS,
    ("pthread_create", _errno.EPERM): _NO_THREADS,
    ("relay", _errno.ESRCH): "the creator's children go to another PID namespace than its own (unshare or setns), in "
    "which they cannot be told its ids: only plain fork and bare=True start them; or the creator ended meanwhile",
    ("relay", _errno.ECHILD): "the process between creator and task was killed",
    (
        "libc_tid",
        _errno.ENOSYS,
    ): "neither the kernel (PR_GET_TID_ADDRESS) nor the C library says where the latter keeps "
    "a thread's id, which a copy without fork() must set: only plain fork is possible here",
    ("leave_out", _errno.ENOMEM): "a buffer's memory is not mapped (any more)",
    ("leave_out", _errno.EINVAL): "a buffer is memory of a device",
    ("host", _errno.EAGAIN): "no thread could be made: see RLIMIT_NPROC, pids.max and kernel.threads-max",
    ("pidfd_open", _errno.EMFILE): "too many open files: see RLIMIT_NOFILE",
    **{
        (call, number): text
        for call in ("clone3", "clone")
        for number, text in (
            (_errno.EAGAIN, "the limit of tasks is reached: see RLIMIT_NPROC, pids.max and kernel.threads-max"),
            (_errno.ENOSPC, "the limit of nested namespaces is reached: see user.max_*_namespaces"),
            (
                _errno.EINVAL,
                "this kernel does not know one of the flags, or refuses their combination; or set_tid has "
                "more ids than the task has PID namespaces, one above kernel.pid_max, or not 1 for an init",
            ),
            (_errno.EMFILE, "too many open files: see RLIMIT_NOFILE"),
        )
    },
    ("execve", _errno.ENOENT): "no such program on PATH, or its interpreter (the #! line) is missing",
    ("execve", _errno.EACCES): "the file is not executable, or lies on a noexec mount",
    ("execve", _errno.ENOEXEC): "not a program: a script needs a #! line",
    ("execve", _errno.E2BIG): "arguments and environment together are too long",
    ("chdir", _errno.ENOENT): "the working directory is not there",
    ("chdir", _errno.ENOTDIR): "the working directory is not a directory",
    ("chdir", _errno.EACCES): "the working directory, or one above it, may not be searched by this user",
    ("close_fds", _errno.ENOSYS): "close_range is filtered here (a container's seccomp profile)",
    ("parent_death", _errno.ESRCH): "the creator ended while the task started",
    ("streams", _errno.EBADF): "a descriptor given as stdin, stdout or stderr is not open",
}


def start_error(number: int, step: str) -> StartError:
    """The StartError for a failed step, with the likely cause and cure where they are known."""
    return StartError(number, step, _ADVICE.get((step, number), ""))
