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
from taskclone.childsetup import IdMap, Range
from taskclone.errors import StartError, UnsupportedOperation
from taskclone.flags import CloneFlags
from taskclone.plan import Plan, unsupported
from taskclone.routes.ownthreads import Place, own_threads
from taskclone.rule import has_capability

__all__ = ["Maps", "maps_of"]

CAP_SETGID: Final = 6
CAP_SETUID: Final = 7
Ranges = tuple[Range, ...]
HELPER_TIMEOUT = 10.0
"""Seconds that newuidmap or newgidmap may take."""
_HELPERS: Final = {"uid_map": "newuidmap", "gid_map": "newgidmap"}


@dataclass(frozen=True, slots=True)
class Maps:
    """What the core is given: the maps that the task writes by itself, or who writes them."""

    uid: bytes | None = None
    gid: bytes | None = None
    mapper: Mapper | None = None


@contextlib.contextmanager
def maps_of(plan: Plan) -> Iterator[Maps]:
    """For the block that starts the task.

    Raises:
        UnsupportedOperation: a map that only newuidmap or newgidmap could write, and that is not installed.
    """
    setup = plan.setup
    wanted = {
        name: _ranges(value, own)
        for name, value, own in (("uid_map", setup.uid_map, os.geteuid()), ("gid_map", setup.gid_map, os.getegid()))
        if value is not None
    }
    if _may_write_itself(wanted):
        uid, gid = (_text(wanted[name]) if name in wanted else None for name in _HELPERS)
        yield Maps(uid, gid)
        return
    if plan.form == "bare" and plan.bits & CloneFlags.VFORK and not plan.bits & CloneFlags.VM:
        raise unsupported(
            "copied",
            "VFORK in a bare copy whose maps another thread must write: the creator sleeps with the interpreter lock",
            "leave VFORK out",
        )
    writer = _Writer(wanted, _commands(wanted))
    thread = threading.Thread(target=writer.serve, name="taskclone id maps", daemon=True)
    own_threads[thread] = writer.place
    try:
        thread.start()
        yield Maps(mapper=writer.mapper)
    except StartError as error:
        if error.step == "id_maps" and writer.said:
            error.add_note(writer.said)
        raise
    finally:
        writer.mapper.end()
        writer.give_up()
        if thread.ident is not None:
            thread.join()


def _ranges(value: IdMap, own: int) -> Ranges:
    return ((value, own, 1),) if isinstance(value, int) else tuple(value)


def _may_write_itself(wanted: dict[str, Ranges]) -> bool:
    own = {"uid_map": os.geteuid(), "gid_map": os.getegid()}
    return all(len(ranges) == 1 and ranges[0][1:] == (own[name], 1) for name, ranges in wanted.items())


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
    place: Place = field(default_factory=Place)
    helper: subprocess.Popen[str] | None = None
    said: str = ""
    """By a helper, where it has failed."""
    given_up: bool = False

    def give_up(self) -> None:
        """The start is over, or a handler's exception has ended it: nothing is waited for any more."""
        self.given_up = True  # before the look: one that is just being started is killed by its own thread
        if (helper := self.helper) is not None:
            helper.kill()

    def serve(self) -> None:
        self.place.ids.append(threading.get_native_id())  # it waits in the core until it is asked
        pid = self.mapper.wanted()
        if not pid:
            return
        number = errno.EIO
        try:
            with self.place.foreign():
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
        command = [program, str(pid), *numbers]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as self.helper:
            if self.given_up:
                self.helper.kill()
            try:
                said, _ = self.helper.communicate(timeout=HELPER_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.said = f"{program} did not end within {HELPER_TIMEOUT:g} s"
                self.helper.kill()
                raise OSError(errno.ETIMEDOUT, self.said) from None
        self.helper = None
        # Not its exit status: somebody else may have taken it, and then Popen says 0.
        with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
            written = file.read().split()
        if written != numbers:
            self.said = said.strip() or f"{program} has not written {name}"
            raise OSError(errno.EPERM, self.said)
