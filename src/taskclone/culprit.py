"""Which part of an object cannot be pickled, by its path: ``result['a'][3]``."""

from __future__ import annotations

import copyreg
import functools
import pickle
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["describe", "find_path", "kind_of", "shown", "why_not"]

_MOST_OBJECTS = 1_000_000
"""Objects that are looked at in search of a path."""
_LONGEST_PATH = 200
_LAST = 200
"""Objects before the failure that are taken for its neighbourhood."""
_LONGEST_SEARCH = 2.0
"""Seconds after which no further object is looked for."""
_ATOMS = (type(None), bool, int, float, complex, str, bytes, type, types.BuiltinFunctionType)


class _Tracer(pickle.Pickler):
    """Remembers what it came to last. It holds these objects: many are made only for the pickle."""

    def __init__(self) -> None:
        super().__init__(_Nowhere(), protocol=5, buffer_callback=lambda buffer: None)
        self.last: deque[object] = deque(maxlen=_LAST)

    def persistent_id(self, thing: object) -> None:
        self.last.append(thing)


class _Nowhere:
    def write(self, data: object) -> None: ...


def why_not(value: object, name: str, reason: Exception) -> str:
    """The sentence about a ``value`` that pickle refused for a ``reason``: "result['a'][3] is a _thread.lock (...)"."""
    path, culprit = _find_culprit(value, name)
    return f"{path or 'something in it'} is {kind_of(culprit)} ({describe(reason)})"


def _find_culprit(value: object, name: str) -> tuple[str | None, object]:
    """The object at which pickling fails, and its path; where it is one that only its owner makes for the pickle, the
    owner. None for a path that was not found."""
    tracer = _Tracer()
    try:
        tracer.dump(value)
    except Exception:
        tried = list(tracer.last)
    else:
        return name, value  # it fails now and then
    deadline = time.monotonic() + _LONGEST_SEARCH
    for thing in reversed(tried):
        if thing is not tried[-1] and (isinstance(thing, _ATOMS) or _can_be_pickled(thing)):
            continue
        found = find_path(value, name, lambda other, thing=thing: other is thing)  # type: ignore[misc]
        if found:
            return found
        if time.monotonic() > deadline:
            break
    return None, tried[-1] if tried else value


def _can_be_pickled(value: object) -> bool:
    try:
        _Tracer().dump(value)
    except Exception:
        return False
    return True


def find_path(value: object, name: str, wanted: Callable[[object], bool]) -> tuple[str, Any] | None:
    """The first object within ``value`` that is ``wanted``, with the shortest path to it; or None."""
    reached: list[tuple[object, int, str]] = [(value, -1, name)]  # the object, from where, by which step
    seen: set[int] = set()
    for index, (thing, _, _) in enumerate(reached):  # the list grows as it is walked
        if wanted(thing):
            return _path(reached, index), thing
        if isinstance(thing, _ATOMS) or id(thing) in seen:
            continue
        seen.add(id(thing))
        if len(reached) < _MOST_OBJECTS:
            reached.extend((part, index, step) for step, part in _parts(thing))
    return None


def _path(reached: list[tuple[object, int, str]], index: int) -> str:
    steps = []
    while index >= 0:
        _, index, step = reached[index]
        steps.append(step)
    text = "".join(reversed(steps))
    half = _LONGEST_PATH // 2
    return text if len(text) <= _LONGEST_PATH else f"{text[:half]} ... {text[-half:]}"


def _parts(thing: Any) -> Iterator[tuple[str, object]]:
    """What an object consists of, and how one writes the way to it. Only by means that run none of its code."""
    kind = type(thing)
    if issubclass(kind, dict):
        for key, part in dict.items(thing):
            yield f"[{shown(key)}]", part
        for key in dict.keys(thing):
            yield f".key({shown(key)})", key
    elif issubclass(kind, list | tuple | deque):
        own: Any = next(base for base in (list, tuple, deque) if issubclass(kind, base))
        for index, part in enumerate(own.__iter__(thing)):
            yield f"[{index}]", part
    elif issubclass(kind, set | frozenset):
        own = set if issubclass(kind, set) else frozenset
        for part in own.__iter__(thing):
            yield f".element({shown(part)})", part
    elif issubclass(kind, functools.partial):
        yield from ((".func", thing.func), (".args", thing.args), (".keywords", thing.keywords))
    elif issubclass(kind, types.MethodType):
        yield from ((".__self__", thing.__self__), (".__func__", thing.__func__))
    elif issubclass(kind, BaseException):
        yield ".args", thing.args
    for attribute in _slots(kind):
        try:
            yield f".{attribute}", object.__getattribute__(thing, attribute)
        except AttributeError:
            continue  # an empty slot
    try:
        attributes = object.__getattribute__(thing, "__dict__")
    except AttributeError:
        return
    if isinstance(attributes, dict):
        for attribute, part in attributes.items():
            yield f".{attribute}", part


def _slots(kind: type) -> list[str]:
    return copyreg._slotnames(kind)  # type: ignore[attr-defined, no-any-return]  # what pickle goes by


def kind_of(value: object) -> str:
    """``a _thread.lock``; for a function or a class also which."""
    if isinstance(value, types.FunctionType | type):
        kind = "the class" if isinstance(value, type) else "the function"
        return f"{kind} {value.__module__}.{value.__qualname__}"
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")


def shown(value: object) -> str:
    """A repr that is short and raises nothing."""
    try:
        text = repr(value)
    except Exception as reason:
        return f"<{kind_of(value)} whose repr raises {type(reason).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."


def describe(error: BaseException) -> str:
    """``TypeError: its text``, whatever the text raises."""
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        text = str(error)
    except Exception as reason:
        text = f"<its text raises {type(reason).__name__}>"
    return f"{name}: {text}" if text else name
