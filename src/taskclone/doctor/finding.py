"""One thing that was looked at, and how files of the system are read."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Finding", "Read", "State", "finding", "read_file", "word"]

State = Literal["ok", "limited", "missing"]
"""ok: all of it is to be had; limited: some is not, or is done another way; missing: it is not to be had."""

Read = Callable[[str], str | None]
"""A file's text without the white space around it, or None: it is not there, or may not be read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one thing.

    Attributes:
        topic: the group that it is shown in.
        name: what was looked at.
        value: what is there, as the system words it.
        state: how taskclone fares with that.
        meaning: what it means for taskclone, one sentence.
        needed: without it taskclone cannot do what it is there for: start a function or a program and wait for it.
    """

    topic: str
    name: str
    value: str
    state: State
    meaning: str
    needed: bool = False

    @property
    def fails(self) -> bool:
        """Something that is needed is missing."""
        return self.needed and self.state == "missing"


def finding(topic: str, name: str, value: object, state: State, meaning: str, needed: bool = False) -> Finding:
    """A Finding of any value."""
    return Finding(topic, name, str(value), state, meaning, needed)


def read_file(path: str) -> str | None:
    """The real ``Read``."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def word(number: int) -> str:
    """``EPERM`` for 1."""
    return errno.errorcode.get(number, f"errno {number}")
