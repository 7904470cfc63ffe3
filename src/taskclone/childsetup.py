"""What is done in the child before its body, as data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["NOTHING", "ChildSetup"]

PathLike = str | bytes | os.PathLike[str] | os.PathLike[bytes]


@dataclass(frozen=True, slots=True)
class ChildSetup:
    """What is done in the child before its body. A value: frozen, hashable, equal by content.

    Attributes:
        cwd: working directory of a program (chdir(2)); None: the creator's.
        environment: environment of a program; None: the creator's. Given as a mapping, kept as sorted pairs.
        core: leave fatal signals in a body that shares memory to the kernel: a core dump of the creator's whole
            heap is possible, and before Linux 5.16 the creator dies too (coredump: "Limit coredumps to a single
            thread group"). The default reports the signal and dies without a core.
    """

    cwd: PathLike | None = None
    environment: Mapping[str, str] | tuple[tuple[bytes, bytes], ...] | None = None
    core: bool = False

    def __post_init__(self) -> None:
        if self.cwd is not None:
            cwd = os.fsencode(self.cwd)
            if b"\0" in cwd:
                raise ValueError("cwd has a NUL byte in it")
            object.__setattr__(self, "cwd", cwd)
        if isinstance(self.environment, Mapping):
            object.__setattr__(self, "environment", tuple(sorted(map(_pair, self.environment.items()))))
        elif self.environment is not None and not _is_pairs(self.environment):
            raise TypeError(f"environment must be a mapping or None, not {type(self.environment).__name__}")

    def environment_bytes(self) -> tuple[bytes, ...] | None:
        """The environment as execve(2) takes it, or None for the creator's."""
        if self.environment is None:
            return None
        assert isinstance(self.environment, tuple)
        return tuple(name + b"=" + value for name, value in self.environment)


NOTHING = ChildSetup()
"""The default: the child is what the flags make it."""


def _is_pairs(value: object) -> bool:
    """What __post_init__ has made of a mapping: dataclasses.replace() and unpickling hand it back."""
    return isinstance(value, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(item, bytes) for item in pair) for pair in value
    )


def _pair(item: tuple[str, str]) -> tuple[bytes, bytes]:
    name, value = os.fsencode(item[0]), os.fsencode(item[1])
    if not name or b"=" in name or b"\0" in name + value:
        raise ValueError(f"not an environment variable: {item[0]!r}={item[1]!r}")
    return name, value
