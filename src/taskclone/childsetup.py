"""What is done in the child before its body, as data."""

from __future__ import annotations

import itertools
import os
import signal as _signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["NOTHING", "ChildSetup", "Disposition", "IdMap", "Range"]

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Disposition: TypeAlias = Literal["default", "ignore"]
Range: TypeAlias = tuple[int, int, int]
IdMap: TypeAlias = int | Sequence[Range]

MAX_ID = (1 << 32) - 2
MAX_RANGES = 340  # user_namespaces(7), since Linux 4.15

_SIGNALS = frozenset(map(int, _signal.valid_signals()))
"""Without 32 and 33, which are libc's own."""
_FREE = _SIGNALS - {_signal.SIGKILL, _signal.SIGSTOP}


@dataclass(frozen=True, slots=True)
class ChildSetup:
    """What is done in the child before its body. A value: frozen, hashable, equal by content.

    A step that fails is a StartError that names it, and the body does not run. Not every route carries every field;
    the others are refused by name before anything is started.

    Attributes:
        cwd: working directory (chdir(2)); None: the creator's. The plan's flags must not have FS.
        environment: the whole environment of a program, or of a function in copied memory, where it is ``os.environ``;
            None: the creator's. A mapping of str or bytes, kept as sorted pairs.
        signals: what signals do, by number: "default" or "ignore"; others as the route has them. A program inherits
            what is ignored. A mapping, kept as sorted pairs. In copied memory it also holds for ``signal.getsignal``;
            "default" or "ignore" for SIGTERM takes the place of the exception with which ``terminate()`` ends a body.
        sigmask: the signals that are blocked; None: those that the creator's thread blocks. Kept as a sorted tuple.
        parent_death_signal: sent to the child when its creator ends (PR_SET_PDEATHSIG of prctl(2)): when the *thread*
            ends that started the child. None: none; a task that shares memory always has SIGKILL. A program that is
            set-user-id or set-group-id does not keep it.
        close_fds: close every descriptor from 3 on. What Python opens is closed by execve in any case. In copied memory
            the copies of the creator's file objects are then without descriptors: they must not be used, nor closed
            once new files have their numbers.
        uid_map, gid_map: what users and groups of a new user namespace (NEWUSER) are outside, as user_namespaces(7) has
            it: a number N stands for one id, N inside, which is the creator's own (effective) outside; else a sequence
            of (first inside, first outside, count). None: no map, so every id is the overflow id. One id that is the
            creator's own needs no privilege; for it setgroups(2) is denied in the namespace. Others are written by the
            creator if it has CAP_SETUID and CAP_SETGID, else by newuidmap(1) and newgidmap(1). They are there before
            any other step; the task's own ids stay the same outside.
        core: leave fatal signals in a body that shares memory to the kernel: a core dump of the creator's whole
            heap is possible, and before Linux 5.16 the creator dies too (coredump: "Limit coredumps to a single
            thread group"). The default reports the signal and dies without a core.

    Raises:
        TypeError, ValueError: a field is not what it should be.
    """

    cwd: PathLike | None = None
    environment: Mapping[str, str] | Mapping[bytes, bytes] | tuple[tuple[bytes, bytes], ...] | None = None
    signals: Mapping[int, Disposition] | tuple[tuple[int, Disposition], ...] = ()
    sigmask: Iterable[int] | None = None
    parent_death_signal: int | None = None
    close_fds: bool = False
    uid_map: IdMap | None = None
    gid_map: IdMap | None = None
    core: bool = False

    def __post_init__(self) -> None:
        if self.cwd is not None:
            object.__setattr__(self, "cwd", _path(self.cwd))
        if isinstance(self.environment, Mapping):
            object.__setattr__(self, "environment", tuple(sorted(map(_pair, self.environment.items()))))
        elif self.environment is not None and not _is_pairs(self.environment):
            raise TypeError(f"environment must be a mapping or None, not {type(self.environment).__name__}")
        object.__setattr__(self, "signals", _dispositions(self.signals))
        if self.sigmask is not None:
            if isinstance(self.sigmask, str | bytes) or not isinstance(self.sigmask, Iterable):
                raise TypeError(f"sigmask must be a set of signals or None, not {type(self.sigmask).__name__}")
            mask = {_number("sigmask", number, "blocked") for number in self.sigmask}
            object.__setattr__(self, "sigmask", tuple(sorted(mask)))
        if self.parent_death_signal is not None:
            number = _number("parent_death_signal", self.parent_death_signal)
            object.__setattr__(self, "parent_death_signal", number)
        for name in ("uid_map", "gid_map"):
            object.__setattr__(self, name, _id_map(name, getattr(self, name)))
        for name in ("close_fds", "core"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False, not {getattr(self, name)!r}")

    def environment_bytes(self) -> tuple[bytes, ...] | None:
        """The environment as execve(2) takes it, or None for the creator's."""
        if self.environment is None:
            return None
        assert isinstance(self.environment, tuple)
        return tuple(name + b"=" + value for name, value in self.environment)

    def disposed(self, how: Disposition) -> int:
        """The signals that are to be defaulted, or ignored, as the kernel's mask."""
        assert isinstance(self.signals, tuple)
        return _mask(number for number, disposition in self.signals if disposition == how)

    def blocked(self) -> int | None:
        """``sigmask`` as the kernel's mask."""
        return None if self.sigmask is None else _mask(self.sigmask)


def _mask(numbers: Iterable[int]) -> int:
    return sum(1 << (number - 1) for number in numbers)


def _path(value: PathLike) -> bytes:
    try:
        path = os.fsencode(value)
    except TypeError:
        raise TypeError(f"cwd must be a path or None, not {type(value).__name__}") from None
    if not path:
        raise ValueError("cwd is empty; None keeps the creator's directory")
    if b"\0" in path:
        raise ValueError("cwd has a NUL byte in it")
    return path


def _id(field: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field} must hold ids as numbers, not {type(value).__name__}: {value!r}")
    if not 0 <= value <= MAX_ID:
        raise ValueError(f"{field}: {value} is not in 0 to {MAX_ID}")
    return int(value)


def _id_map(field: str, value: object) -> IdMap | None:
    if value is None:
        return None
    if isinstance(value, int):
        return _id(field, value)
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{field} must be an id or a sequence of (inside, outside, count), not {type(value).__name__}")
    if not 1 <= len(value) <= MAX_RANGES:
        raise ValueError(f"{field} must have 1 to {MAX_RANGES} ranges, not {len(value)}")
    ranges = []
    for one in value:
        if not isinstance(one, Sequence) or len(one) != 3:
            raise TypeError(f"{field}: a range is (first inside, first outside, count), not {one!r}")
        inside, outside, count = _id(field, one[0]), _id(field, one[1]), one[2]
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{field}: a range has 1 id or more, not {count!r}")
        if max(inside, outside) + count - 1 > MAX_ID:
            raise ValueError(f"{field}: the range {inside, outside, count} goes beyond {MAX_ID}")
        ranges.append((inside, outside, count))
    for side, name in enumerate(("inside", "outside")):
        taken = sorted((one[side], one[2]) for one in ranges)
        if any(first + count > later for (first, count), (later, _) in itertools.pairwise(taken)):
            raise ValueError(f"{field}: two ranges have the same ids {name}")
    return tuple(ranges)


def _number(field: str, value: object, verb: str = "") -> int:
    """A signal's number; with ``verb``, of one that a process has a say in."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{field} must hold signal numbers, not {type(value).__name__}: {value!r}")
    if value not in _SIGNALS:
        raise ValueError(f"{field}: {value} is no signal that a program may use (signal.valid_signals())")
    if verb and value not in _FREE:
        raise ValueError(f"{field}: {_signal.Signals(value).name} cannot be {verb}")
    return int(value)


def _dispositions(value: object) -> tuple[tuple[int, Disposition], ...]:
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        pairs = list(value)  # what this has made of a mapping: dataclasses.replace() and unpickling hand it back
    else:
        raise TypeError(f"signals must be a mapping of numbers to dispositions, not {type(value).__name__}")
    for number, how in pairs:
        _number("signals", number, "handled in any other way")
        if how not in ("default", "ignore"):
            raise ValueError(f"signals: a signal is set to 'default' or 'ignore', not {how!r}")
    return tuple(sorted((int(number), how) for number, how in pairs))


def _is_pairs(value: object) -> bool:
    """What __post_init__ has made of a mapping: dataclasses.replace() and unpickling hand it back."""
    return isinstance(value, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(item, bytes) for item in pair) for pair in value
    )


def _pair(item: tuple[str, str] | tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    for text in item:
        if not isinstance(text, str | bytes):
            raise TypeError(f"environment must map str to str, not {item[0]!r} to {item[1]!r}")
    name, value = os.fsencode(item[0]), os.fsencode(item[1])
    if not name or b"=" in name or b"\0" in name + value:
        raise ValueError(f"not an environment variable: {item[0]!r}={item[1]!r}")
    return name, value


NOTHING = ChildSetup()
"""The default: the child is what the flags make it."""
