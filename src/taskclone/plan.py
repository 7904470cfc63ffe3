"""A plan: the flags and everything else that describes a start, checked before anything is started."""

from __future__ import annotations

import os
import signal as _signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeAlias, TypedDict, TypeVar, cast

from taskclone import forms, rules
from taskclone.childsetup import NOTHING, ChildSetup
from taskclone.errors import UnsupportedOperation
from taskclone.flags import PROCESS, SHARED, THREAD, CloneFlags, flag_names, parse_flags
from taskclone.rule import running_kernel

if TYPE_CHECKING:
    from taskclone.task import Task

__all__ = ["EMULATED", "PROCESS", "SHARED", "THREAD", "Plan", "PlanFields", "as_argv"]

P = ParamSpec("P")
R = TypeVar("R")

Argument: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Program: TypeAlias = Sequence[Argument]
Stream: TypeAlias = Any  # None, a descriptor, subprocess.DEVNULL or STDOUT, CAPTURE, or an object with fileno()
Buffer: TypeAlias = Any  # an object with the buffer protocol
Cgroup: TypeAlias = int | str | bytes | os.PathLike[str] | os.PathLike[bytes] | None

_NO_GROUP: tuple[rules.Argument, ...] = ("cgroup",)
EMULATED: Final = CloneFlags.NNP
"""What a task does itself where the kernel is too old for it."""
_EMULATED_BEFORE: Final = (7, 1)
_STREAMS: Final = ("stdin", "stdout", "stderr")
_PID_LEVELS: Final = 32  # MAX_PID_NS_LEVEL of the kernel
_MAX_PID: Final = 1 << 22  # pid_namespaces(7): the limit of kernel.pid_max
MIN_STACK = 64 << 10
MAX_STACK = 1 << 40

Starter: TypeAlias = Callable[["Plan", Any, tuple[Any, ...], dict[str, Any] | None], "Task[Any]"]
_starter: Starter | None = None


def set_starter(starter: Starter) -> None:
    """Fills the seam through which a plan starts tasks; launch does this at its import."""
    global _starter
    _starter = starter


class PlanFields(TypedDict, total=False):
    """The fields of a plan as keyword arguments, without ``flags``."""

    name: str | None
    setup: ChildSetup
    stack_size: int | None
    exit_signal: int | None
    daemon: bool
    stdin: Stream
    stdout: Stream
    stderr: Stream
    bare: bool
    leave_out: Sequence[Buffer]
    cgroup: Cgroup
    set_tid: int | Sequence[int] | None


class _Buffers(tuple[Buffer, ...]):
    """Compared and hashed by identity: an array's own == compares, and answers with, arrays."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Buffers) and tuple(map(id, self)) == tuple(map(id, other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(map(id, self)))

    def __repr__(self) -> str:
        return f"[{', '.join(f'<{type(one).__name__} of {memoryview(one).nbytes} bytes>' for one in self)}]"


@dataclass(frozen=True, slots=True)
class Plan:
    """How a task is to be started. Frozen, hashable, equal by value (streams and ``leave_out`` by identity).

    Attributes:
        flags: what is shared and what is new: CloneFlags, a number, or text such as "VM|FILES".
        name: shown by repr; also the kernel's name of the task (15 bytes, PR_SET_NAME) where it runs a function.
        setup: what is done in the child before its body.
        stack_size: bytes of stack for a body that shares memory; None: the default of threads. Refused elsewhere.
        exit_signal: signal to the creator at the end, 0 for none; None: the route's default (SIGCHLD where fork
            or execve sets it, 0 where this package calls clone for a function).
        daemon: False: the interpreter's exit waits for the task; True: it is ended then.
        stdin, stdout, stderr: the task's descriptors 0, 1 and 2: None (the creator's), a descriptor, an object with
            ``fileno()``, ``subprocess.DEVNULL``; for the output also ``taskclone.CAPTURE`` (``Task.stdout``,
            ``Task.stderr``), for stderr also ``subprocess.STDOUT``. Not with FILES, nor for a thread. A function's
            ``print`` goes there if its ``sys.stdout`` writes to descriptor 1.
        bare: copied memory only, for functions: one clone3 in the place of fork(), the fastest copy. No handler that
            others have set for a fork runs, neither of the C library (pthread_atfork) nor, unless Python has other
            threads, of the interpreter (``os.register_at_fork``): what another thread has locked at that moment,
            malloc's locks included, is locked for ever in the task, and ``random`` gives the creator's next numbers.
            For bodies that touch no threads, locks or libraries. Without it a set that can be had in no other way
            (FILES, FS, SYSVSEM, IO) is refused while this process has other threads. (With FILES alone the task's
            objects are copies and its descriptors are not: a file that it closes, or drops, is closed here too.)
        leave_out: copied memory only, for functions: buffers (bytearray, mmap, arrays, ...) whose whole pages are not
            in the copy, so that a start does not cost more for them (MADV_DONTFORK of madvise(2), for the moment of
            the start; MADV_DOFORK afterwards, whatever was set before). The task must not touch such a buffer: that
            is SIGSEGV. What lies on the pages at its two ends is copied.
        cgroup: the control group (v2) that the task is in from birth (CLONE_INTO_CGROUP, which it adds to the flags):
            its directory, or a descriptor of that. The creator's process must be allowed to move tasks there: see
            cgroups(7), "Delegation containment". Not for a thread, whose group is its process's.
        set_tid: the ids that the task is to have: a number, or numbers from its innermost PID namespace outward
            (clone(2), "set_tid"). Needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN in the namespaces; an id that is taken
            is a StartError with EEXIST.

    Raises:
        FlagError: the kernel refuses the set of flags, or it does not go with the rest of the plan: what the flags
            share would change for the creator too.
        TypeError, ValueError: a field is not what it should be.
    """

    flags: CloneFlags | int | str = PROCESS
    name: str | None = None
    setup: ChildSetup = NOTHING
    stack_size: int | None = None
    exit_signal: int | None = None
    daemon: bool = False
    stdin: Stream = field(default=None, kw_only=True)
    stdout: Stream = field(default=None, kw_only=True)
    stderr: Stream = field(default=None, kw_only=True)
    bare: bool = field(default=False, kw_only=True)
    leave_out: Sequence[Buffer] = field(default=(), kw_only=True)
    """A list or tuple; kept as a tuple."""
    cgroup: Cgroup = field(default=None, kw_only=True)
    set_tid: int | Sequence[int] | None = field(default=None, kw_only=True)
    """Kept as a tuple."""
    bits: int = field(default=0, init=False, repr=False, compare=False)
    """The flags for the kernel, as a plain int: IntFlag's operators are too slow for the way of a start."""
    no_new_privs: bool = field(default=False, init=False, repr=False, compare=False)
    """NNP is asked for, and the kernel is too old: the task does it by prctl(2)."""
    has_setup: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether there are steps to take: a setup, or a stream."""
    plain: bool = field(default=False, init=False, repr=False, compare=False)
    """Neither flags nor setup, nor a word on how memory is copied."""
    how: Any = field(default=None, init=False, repr=False, compare=False)
    """What the copied route keeps of it, so that it is worked out once: see routes.copying."""
    routes: dict[bool, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What launch has chosen for functions (False) and programs (True)."""

    def __post_init__(self) -> None:
        flags = parse_flags(self.flags)
        if self.cgroup is not None:
            _check_cgroup(self.cgroup)
            flags |= CloneFlags.INTO_CGROUP
        if self.set_tid is not None:
            object.__setattr__(self, "set_tid", _check_ids(self.set_tid))
        emulated = flags & EMULATED if running_kernel() < _EMULATED_BEFORE else CloneFlags(0)
        object.__setattr__(self, "flags", flags)
        object.__setattr__(self, "bits", int(flags & ~emulated))
        object.__setattr__(self, "no_new_privs", bool(emulated))
        signal = _check_signal(self.exit_signal)
        object.__setattr__(self, "exit_signal", signal)
        if self.name is not None and not isinstance(self.name, str):
            raise TypeError(f"name must be a str or None, not {type(self.name).__name__}")
        if self.name is not None and b"\0" in _encoded(self.name):
            raise ValueError("name has a NUL character in it")
        if not isinstance(self.setup, ChildSetup):
            raise TypeError(f"setup must be a ChildSetup, not {type(self.setup).__name__}")
        if not isinstance(self.bare, bool):
            raise TypeError(f"bare must be True or False, not {self.bare!r}")
        if self.leave_out != ():
            object.__setattr__(self, "leave_out", _check_buffers(self.leave_out))
        context = rules.Context(
            exit_signal=signal or 0,
            other_domain=True,  # of a process of its own; a thread could only go to where it is
            missing=_NO_GROUP if self.cgroup is None else (),
            emulated=emulated,
            setup=self._setup_in_use(),
        )
        rules.require_legal(flags, context)
        if self.stack_size is not None and not (
            isinstance(self.stack_size, int) and MIN_STACK <= self.stack_size <= MAX_STACK
        ):
            raise ValueError(f"stack_size must be None or {MIN_STACK} to {MAX_STACK} bytes, not {self.stack_size!r}")
        if not isinstance(self.daemon, bool):
            raise TypeError(f"daemon must be True or False, not {self.daemon!r}")
        streams = self.stdin, self.stdout, self.stderr
        given = (*streams, self.cgroup, self.set_tid)
        has_setup = self.setup != NOTHING or self.no_new_privs or any(item is not None for item in given)
        object.__setattr__(self, "has_setup", has_setup)
        object.__setattr__(self, "plain", not (self.bits or self.has_setup or self.bare or self.leave_out))

    @property
    def flag_set(self) -> CloneFlags:
        """``flags``, which after the check is always a CloneFlags."""
        return cast(CloneFlags, self.flags)

    @property
    def form(self) -> forms.Form:
        """How a function comes to its copy of the memory, where the flags do not share it."""
        return forms.form_of(self.bits, self.bare, self.set_tid is not None)

    def _setup_in_use(self) -> frozenset[str]:
        """Names of the fields in use that the rules hold against the flags."""
        used = [item for item in _STREAMS if getattr(self, item) is not None]
        used += [item for item in ("bare", "leave_out") if getattr(self, item)]
        if self.setup is not NOTHING:
            names = (item.name for item in fields(self.setup))
            used += [name for name in names if getattr(self.setup, name) != getattr(NOTHING, name)]
        return frozenset(used)

    def start(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Task[R]:
        """Starts a task that calls ``fn(*args, **kwargs)``; ``fn`` may also be a program's argv, without arguments."""
        route = self.routes.get(False)
        if route is not None and callable(fn):  # the same, by fewer functions: see launch.clone
            return route.start(self, fn, args, kwargs or None)  # type: ignore[no-any-return]
        if _starter is None:
            raise RuntimeError("taskclone.launch is not imported")
        return _starter(self, fn, args, kwargs or None)

    def explain(self) -> str:
        """What a task of this plan shares, in text, one line a resource, and how its memory is copied, if it is."""
        from taskclone.explain import explain_set  # text that a start has no use for

        signal = self.exit_signal
        if signal is None:
            copied = not self.bits & (CloneFlags.VM | CloneFlags.PARENT)
            signal = forms.default_exit_signal(self.form) if copied else 0
        return explain_set(self.flag_set, exit_signal=signal, bare=self.bare, numbered=self.set_tid is not None)

    def __repr__(self) -> str:
        parts = [repr(flag_names(self.flag_set))]
        for item in fields(self)[1:]:
            if not item.init:
                continue
            value = getattr(self, item.name)
            if value != item.default:
                parts.append(f"{item.name}={value!r}")
        return f"Plan({', '.join(parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        for item in _STREAMS:
            if getattr(self, item) is not None:
                raise TypeError(f"cannot pickle a Plan with {item}: a stream belongs to this process")
        if self.leave_out:
            raise TypeError("cannot pickle a Plan with leave_out: a buffer belongs to this process")
        return _again, (type(self), {item.name: getattr(self, item.name) for item in fields(self) if item.init})


def _again(kind: type[Plan], values: dict[str, Any]) -> Plan:
    return kind(**values)


def _check_buffers(value: object) -> tuple[Buffer, ...]:
    if not isinstance(value, list | tuple):  # a bytearray is a sequence, too
        raise TypeError(f"leave_out must be a list of buffers, not {type(value).__name__}")
    for one in value:
        try:
            view = memoryview(one)
        except TypeError:
            raise TypeError(f"leave_out must hold buffers, not {type(one).__name__}") from None
        if not view.contiguous:
            raise ValueError(
                f"leave_out: a {type(one).__name__} in pieces cannot be left out; name what it is a part of"
            )
    return _Buffers(value) if value else ()


def _check_cgroup(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | str | bytes | os.PathLike):
        raise TypeError(f"cgroup must be a directory, a descriptor of one, or None, not {type(value).__name__}")
    if isinstance(value, int) and value < 0:
        raise ValueError(f"cgroup must be a directory or a descriptor of one, not {value}")
    if not isinstance(value, int) and b"\0" in os.fsencode(value):
        raise ValueError("cgroup has a NUL character in it")


def _check_ids(value: object) -> tuple[int, ...]:
    ids = tuple(value) if isinstance(value, list | tuple) else (value,)
    for one in ids:
        if isinstance(one, bool) or not isinstance(one, int):
            raise TypeError(f"set_tid must be an id or a list of ids, not {type(one).__name__}: {one!r}")
        if not 1 <= one <= _MAX_PID:
            raise ValueError(f"set_tid: {one} is not in 1 to {_MAX_PID}")
    if not 1 <= len(ids) <= _PID_LEVELS:
        raise ValueError(f"set_tid must have 1 to {_PID_LEVELS} ids, not {len(ids)}")
    return ids


def _encoded(name: str) -> bytes:
    try:
        return os.fsencode(name)
    except UnicodeEncodeError as error:
        raise ValueError(f"name cannot be given to the kernel: {error}") from None


def _check_signal(value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"exit_signal must be a signal number or None, not {type(value).__name__}")
    if not 0 <= value < _signal.NSIG:
        raise ValueError(f"exit_signal must be 0 or a signal from 1 to {_signal.NSIG - 1}, not {value}")
    return int(value)


def as_argv(body: object) -> tuple[bytes, ...] | None:
    """The argv of a program, or None when ``body`` is to be called.

    Raises:
        TypeError: neither; a lone string is refused because it would be taken for a sequence of letters.
        ValueError: an empty argv, or a NUL byte in it.
    """
    if callable(body):
        return None
    if isinstance(body, str | bytes | os.PathLike):
        raise TypeError(f"a program is a sequence such as [{body!r}, ...], not a lone {type(body).__name__}")
    if not isinstance(body, Sequence):
        raise TypeError(f"a task needs a callable or a program's argv, not {type(body).__name__}")
    if not body:
        raise ValueError("the program's argv is empty")
    argv = []
    for item in body:
        if not isinstance(item, str | bytes | os.PathLike):
            raise TypeError(f"argv must hold str or PathLike, not {type(item).__name__}: {item!r}")
        argv.append(os.fsencode(item))
    if any(b"\0" in item for item in argv):
        raise ValueError("argv has a NUL byte in it")
    return tuple(argv)


def unsupported(route: str, what: str, cure: str = "") -> UnsupportedOperation:
    """The refusal of something legal that a route does not carry (yet)."""
    return UnsupportedOperation(f"the {route} route does not carry {what}{'; ' + cure if cure else ''}")
