"""What a task that shared memory has left behind by dying, as far as it can be known.

Whoever first notices the death looks, once. A lock knows its holder by thread identity, and the dead's is never
another's: its host is not used again. So a lock that says that it is held by that identity will never be released.

What guards only Python objects that stay whole is released here: a module's import lock (the half-made module is thrown
away, and imported anew by whoever wants it next), logging's locks. Everything else is reported and stays as it is.
"""

from __future__ import annotations

import _imp
import _thread
import functools
import gc
import io
import sys
import time
from collections.abc import Callable
from typing import Any

from taskclone import _core

__all__ = ["examine"]

_PATIENCE = 1.0
"""Seconds that a live thread has to end its collection, or a step of its import, before the dead is taken for who did
not."""
_RLOCK = type(_thread.RLock())
_BUFFERED = (io.BufferedWriter, io.BufferedReader, io.BufferedRandom)
_lost: set[str] = set()
"""What an earlier death has taken for good: it is not a later one's damage."""


def examine(ident: int, threads: int, malloc: int) -> tuple[str, ...]:
    """The damage, in words of which the first says the kind: see ``TaskDied.damage``."""
    found = ["malloc"] if malloc else []
    if threads:
        found.append(f"threads: {threads} that died with it")
    if not _for_good("collector", _collector_works):
        found.append("collector: it was running, and stays off")
    if not _for_good("import", lambda: not _imp.lock_held()):
        found.append("import: the lock of all imports stays locked")
    found += _free_modules(ident)
    found += _free_logging(ident)
    found += _held_for_good(ident)
    return tuple(found)


def _for_good(what: str, works: Callable[[], bool]) -> bool:
    """False when something has stopped to work, and did not before."""
    deadline = time.monotonic() + (0 if what in _lost else _PATIENCE)
    while not works():
        if time.monotonic() >= deadline:
            known = what in _lost
            _lost.add(what)
            return known
        time.sleep(0.001)
    _lost.discard(what)
    return True


def _collector_works() -> bool:
    """A collection does nothing at all while another one runs, in whichever thread.

    Trap: a finalizer that a collection calls, and that is the first to ask for a death, is told that it does not work.
    """

    def collections() -> int:
        return int(gc.get_stats()[0]["collections"])

    before = collections()
    gc.collect(0)
    return collections() != before


# ---- what is released -----------------------------------------------------------------------------------------------


def _free_modules(ident: int) -> list[str]:
    found = []
    bootstrap: Any = sys.modules["_frozen_importlib"]
    for name, reference in list(bootstrap._module_locks.items()):
        lock = reference()
        if lock is None or getattr(lock, "owner", None) != ident:
            continue
        if not lock.lock.acquire(timeout=_PATIENCE):
            found.append(f"import: the lock of {name} stays locked")
            continue
        lock.lock.release()
        module = sys.modules.get(name)
        if getattr(getattr(module, "__spec__", None), "_initializing", False):
            del sys.modules[name]
        lock.owner = _thread.get_ident()
        while lock.owner == _thread.get_ident():
            lock.release()
        found.append(f"import: {name} was half made, and thrown away")
    return found


def _free_logging(ident: int) -> list[str]:
    """Only logging's own: it keeps a list of all handlers."""
    logging: Any = sys.modules.get("logging")
    if logging is None:
        return []
    found = []
    if _free(logging, "_lock", ident):
        found.append("logging: the module's lock was released")
    for reference in list(logging._handlerList):
        handler = reference()
        if handler is not None and _free(handler, "lock", ident):
            found.append(f"logging: the lock of {type(handler).__name__} was released; a record may be half written")
    return found


def _owner(lock: Any) -> int:
    """Who holds an RLock: only its repr says that of another thread."""
    _, found, rest = _RLOCK.__repr__(lock).partition(" owner=")
    return int(rest.split()[0]) if found else 0


def _free(thing: Any, name: str, ident: int) -> bool:
    """Releases the RLock that is an attribute of ``thing``, if the dead held it. True when it did."""
    lock: Any = getattr(thing, name)
    if type(lock) is not _RLOCK or _owner(lock) != ident:
        return False
    try:
        lock._release_save()  # type: ignore[attr-defined]  # what Condition.wait() calls: whoever holds it
    except RuntimeError:  # from 3.14 on it must be the holder
        at = _owner_at()
        if at is None:  # a new one then, which whoever waits already does not see
            setattr(thing, name, _RLOCK())
        else:
            _core.set_word(lock, at, _thread.get_ident())
            lock._release_save()  # type: ignore[attr-defined]
    return True


@functools.lru_cache(maxsize=1)
def _owner_at() -> int | None:
    """Where in an RLock's memory its holder stands, or None: seen on one that this thread holds, and holds no more."""
    lock = _RLOCK()
    with lock:
        held = _words(lock)
    places = [at for at, word in enumerate(held) if word == _thread.get_ident() and not _words(lock)[at]]
    return places[0] if len(places) == 1 else None


# ---- what stays locked ----------------------------------------------------------------------------------------------


def _held_for_good(ident: int) -> list[str]:
    things = _things()
    rlocks = [thing for thing in things if type(thing) is _RLOCK and _owner(thing) == ident]
    files = [thing for thing in things if isinstance(thing, _BUFFERED) and _holder(thing) == ident]
    for thing in things:
        # Whoever let go of the last reference would wait for the lock, and the interpreter's end be a fatal error.
        if any(thing is file or _buffer(thing) is file for file in files):
            _core.keep(thing)
    found = [f"RLock: {len(rlocks)} of the dead's stay locked"] if rlocks else []
    for file in files:
        again = "".join(f"; {name} is a new one on the same descriptor" for name in _renew_streams(file))
        found.append(f"buffered file: {_name(file)} stays locked{again}")
    return found


def _things() -> list[Any]:
    if "collector" not in _lost:
        return _core.of_types(gc.get_objects(), (_RLOCK, io.TextIOWrapper, *_BUFFERED))
    streams = sys.stdout, sys.stderr  # the collector's lists may lead nowhere
    return [*streams, *map(_buffer, streams)]


def _buffer(text: object) -> Any:
    """The buffered file below a text file, or None."""
    try:
        return getattr(text, "buffer", None)
    except ValueError:  # detached
        return None


def _name(file: Any) -> str:
    try:
        return str(file.name)
    except Exception:  # of the file that is below, which may be anybody's
        return type(file).__name__


@functools.lru_cache(maxsize=1)
def _holder_at() -> int | None:
    """Where in a buffered file's memory its lock's holder stands, or None.

    Python does not show it; so a file is looked at whose lock is held by this very thread, and again when it is not.
    """
    raw = _Raw()
    file = io.BufferedWriter(raw)
    raw.look = lambda: _words(file)
    file.write(b"x")
    file.flush()
    raw.look = None
    me, after = _thread.get_ident(), _words(file)
    places = [at for at, word in enumerate(raw.seen) if word == me and not after[at]]
    return places[0] if len(places) == 1 else None


class _Raw(io.RawIOBase):
    look: Callable[[], tuple[int, ...]] | None = None
    seen: tuple[int, ...] = ()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self.look is not None:
            self.seen = self.look()
        return len(data)


def _words(thing: object) -> tuple[int, ...]:
    return tuple(memoryview(_core.memory_of(thing)).cast("L"))


def _holder(file: object) -> int:
    at = _holder_at()
    return 0 if at is None else _words(file)[at]


def _renew_streams(file: Any) -> list[str]:
    """Streams of sys that write through such a file: the interpreter flushes them at its end, and would wait for ever.

    What the old one still held is lost. The names of those that are new.
    """
    renewed = []
    for name in ("stdout", "stderr"):
        old: Any = getattr(sys, name, None)
        if _buffer(old) is not file:
            continue
        new = None
        try:
            raw = io.FileIO(file.raw.fileno(), "w", closefd=False)
        except (OSError, ValueError):  # not a file of the system's: nothing to write to
            pass
        else:
            raw.name = _name(file)
            new = io.TextIOWrapper(io.BufferedWriter(raw), old.encoding, old.errors, "\n", old.line_buffering)
            new.mode = old.mode  # type: ignore[misc]  # as the interpreter does
        setattr(sys, name, new)
        if getattr(sys, f"__{name}__") is old:
            setattr(sys, f"__{name}__", new)
        renewed.append(f"sys.{name}")
    return renewed
