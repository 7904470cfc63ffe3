"""The maps of a new user namespace on their way to it: see user_namespaces(7), "User and group ID mappings".

A task may write a map of one id, its creator's own, by itself. All others are written by a process outside that has
CAP_SETUID and CAP_SETGID there: this one, or newuidmap(1) and newgidmap(1), which ask /etc/subuid and /etc/subgid.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from taskclone._core import Mapper
from taskclone.childsetup import ChildSetup, IdMap, Range
from taskclone.errors import StartError, UnsupportedOperation
from taskclone.routes.ownthreads import Place, own_threads
from taskclone.rule import has_capability

__all__ = ["Maps", "maps_of"]

CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
Ranges = tuple[Range, ...]
_HELPERS: Final = {"uid_map": "newuidmap", "gid_map": "newgidmap"}


@dataclass(frozen=True, slots=True)
class Maps:
    """What the core is given: the maps that the task writes by itself, or who writes them."""

    uid: bytes | None = None
    gid: bytes | None = None
    mapper: Mapper | None = None


@contextlib.contextmanager
def maps_of(setup: ChildSetup) -> Iterator[Maps]:
    """For the block that starts the task.

    Raises:
        UnsupportedOperation: a map that only newuidmap or newgidmap could write, and that is not installed.
    """
    wanted = {
        name: _ranges(value, own)
        for name, value, own in (("uid_map", setup.uid_map, os.geteuid()), ("gid_map", setup.gid_map, os.getegid()))
        if value is not None
    }
    own = {"uid_map": os.geteuid(), "gid_map": os.getegid()}
    if all(len(ranges) == 1 and ranges[0][1:] == (own[name], 1) for name, ranges in wanted.items()):
        uid, gid = (_text(wanted[name]) if name in wanted else None for name in _HELPERS)
        yield Maps(uid, gid)
        return
    writer = _Writer(wanted, _commands(wanted))
    thread = threading.Thread(target=writer.serve, name="taskclone id maps", daemon=True)
    own_threads[thread] = place = Place()
    thread.start()
    assert thread.native_id is not None
    place.ids.append(thread.native_id)  # it waits in the core until it is asked, by the task that is started now
    try:
        yield Maps(mapper=writer.mapper)
    except StartError as error:
        if error.step == "id_maps" and writer.said:
            error.add_note(writer.said)
        raise
    finally:
        writer.mapper.end()
        thread.join()


def _ranges(value: IdMap, own: int) -> Ranges:
    return ((value, own, 1),) if isinstance(value, int) else tuple(value)


def _text(ranges: Ranges) -> bytes:
    return "".join(f"{inside} {outside} {count}\n" for inside, outside, count in ranges).encode()


def _commands(wanted: dict[str, Ranges]) -> dict[str, str | None]:
    """The program that writes each map; None: this process may."""
    if has_capability(CAP_SETUID) and has_capability(CAP_SETGID):
        return dict.fromkeys(wanted)
    programs = {name: shutil.which(_HELPERS[name]) for name in wanted}
    for name, program in programs.items():
        if program is None:
            raise UnsupportedOperation(
                f"{name}: more than the one id that is one's own is mapped by who has CAP_SETUID and CAP_SETGID, or by "
                f"{_HELPERS[name]}(1), which is not installed (Debian's package uidmap)"
            )
    return programs


@dataclass(slots=True)
class _Writer:
    wanted: dict[str, Ranges]
    commands: dict[str, str | None]
    mapper: Mapper = field(default_factory=Mapper)
    said: str = ""
    """By a helper, where it has failed."""

    def serve(self) -> None:
        pid = self.mapper.wanted()
        if not pid:
            return
        number = errno.EIO
        try:
            for name, ranges in self.wanted.items():
                self._write(pid, name, ranges)
            number = 0
        except OSError as error:
            number = error.errno or errno.EIO
        finally:
            self.mapper.answer(number)

    def _write(self, pid: int, name: str, ranges: Ranges) -> None:
        program = self.commands[name]
        if program is None:
            with open(f"/proc/{pid}/{name}", "wb", buffering=0) as file:
                file.write(_text(ranges))
            return
        numbers = [str(number) for one in ranges for number in one]
        done = subprocess.run([program, str(pid), *numbers], capture_output=True, text=True, check=False)
        if done.returncode:
            self.said = done.stderr.strip()
            raise OSError(errno.EPERM, self.said)
