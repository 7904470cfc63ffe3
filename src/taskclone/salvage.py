"""Which part of a pickle cannot be made, and what can be made of the rest.

The interpreter's unpickler in Python, slow but open: what cannot be made is replaced by a ``Broken``, and found by its
path afterwards.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

from taskclone.culprit import describe, find_path, kind_of

__all__ = ["Broken", "salvage", "why_broken"]

_MOST_BYTES = 64 << 20
"""Larger pickles are not tried again: the search for a path is to take seconds, not minutes."""


class Broken:
    """Stands for what could not be made, and takes whatever a pickle puts into it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def _ignore(self, *args: object) -> None: ...

    __setstate__ = __setitem__ = append = extend = add = _ignore


def salvage(payload: Any, buffers: list[memoryview]) -> Any:
    """The object of a pickle that cannot be loaded, with ``Broken`` in it; None when nothing can be made."""
    if len(memoryview(payload)) > _MOST_BYTES:
        return None
    try:
        return _Salvager(io.BytesIO(payload), buffers=buffers).load()
    except Exception:
        return None  # no path then: the reason is known without it


def why_broken(value: object, name: str) -> str | None:
    """The sentence about the first ``Broken`` in what ``salvage`` gave, or None."""
    found = find_path(value, name, lambda thing: isinstance(thing, Broken))
    return f"{found[0]} {found[1].text}" if found else None


_InPython: Any = pickle._Unpickler


class _Salvager(_InPython):  # type: ignore[misc]
    dispatch: ClassVar = dict(_InPython.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except Exception as reason:
            return Broken(f"needs {module}.{name}, which is not to be had here ({describe(reason)})")

    def _make(self, maker: Any, arguments: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        for thing in (maker, *arguments):
            if isinstance(thing, Broken):
                return thing
        try:
            return make()
        except Exception as reason:
            return _by_its_arguments(maker, arguments) or Broken(f"is made by {kind_of(maker)} ({describe(reason)})")

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        maker = self.stack[-1]
        self.stack[-1] = self._make(maker, arguments, lambda: maker(*arguments))

    def load_newobj(self) -> None:
        arguments = self.stack.pop()
        maker = self.stack.pop()
        self.append(self._make(maker, arguments, lambda: maker.__new__(maker, *arguments)))

    def load_newobj_ex(self) -> None:
        keywords = self.stack.pop()
        arguments = self.stack.pop()
        maker = self.stack.pop()
        self.append(self._make(maker, arguments, lambda: maker.__new__(maker, *arguments, **keywords)))

    def load_build(self) -> None:
        inst = self.stack[-2]
        try:
            super().load_build()
        except Exception as reason:
            self.stack[-1] = Broken(f"is {kind_of(inst)}, whose state cannot be set ({describe(reason)})")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build


def _by_its_arguments(maker: Any, arguments: tuple[Any, ...]) -> BaseException | None:
    """An exception whose ``__init__`` does not take what is in ``args`` (a common slip), made without it."""
    if not (isinstance(maker, type) and issubclass(maker, BaseException)):
        return None
    try:
        made: BaseException = maker.__new__(maker, *arguments)
    except Exception:
        return None
    return made
