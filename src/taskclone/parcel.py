"""How an outcome leaves copied memory: by pickle protocol 5, large buffers beside it."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple, Protocol

from taskclone.culprit import describe, shown, why_not
from taskclone.errors import OutcomeError
from taskclone.outcome import Kind, Outcome
from taskclone.salvage import salvage, why_broken
from taskclone.traces import Row, rows_of, traceback_from

__all__ = ["LARGE", "NONE", "Record", "leave", "take"]

_KINDS: tuple[Kind, ...] = ("value", "exception", "exit")
NONE = len(_KINDS)
"""The kind that stands for ("value", None) without a payload; the core knows it too."""

LARGE = 256 << 10
"""Bytes from which a buffer stands beside the payload and is mapped. Below it a copy costs no more than the mapping."""
_MOST_BUFFERS = 4096
"""Large buffers of one outcome that get a mapping each: a process may have 65,530 (vm.max_map_count)."""


class Record(Protocol):
    """The task's end of the memory in which an outcome is left."""

    def reset(self) -> None: ...
    def write(self, data: Any, /) -> Any: ...
    def finish(self, kind: int, code: int, buffers: list[Any], /) -> None: ...


# ---- in the task ----------------------------------------------------------------------------------------------------


def leave(record: Record, outcome: Outcome, code: int) -> int:
    """Leaves an outcome, and returns the exit status that goes with it.

    What cannot be pickled, or has no room, becomes an OutcomeError.
    """
    kind, value = outcome
    if kind == "exception":
        return _leave_exception(record, value, code)
    try:
        _pack(record, kind, code, value)
    except OutcomeError as no_room:
        return _leave_exception(record, no_room.with_traceback(None), code or 1)
    except Exception as reason:
        error = OutcomeError(f"the result cannot be pickled: {why_not(value, 'result', reason)}")
        error.__cause__ = _of_the_body(reason)
        return _leave_exception(record, error, code or 1)
    return code


def _pack(record: Record, kind: Kind, code: int, value: object) -> None:
    buffers: list[memoryview] = []

    def in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < LARGE or len(buffers) >= _MOST_BUFFERS:
            return True
        buffers.append(raw)
        return False

    record.reset()
    pickle.Pickler(record, protocol=5, buffer_callback=in_band).dump(value)
    record.finish(_KINDS.index(kind), code, buffers)


def _of_the_body(reason: BaseException) -> BaseException | None:
    """The reason, when it came out of code that is not ours (a __reduce__, say), with the traceback from there."""
    trace = reason.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__") == __name__:
        trace = trace.tb_next
    return reason.with_traceback(trace) if trace is not None else None


class _Node(NamedTuple):
    """What pickle drops of an exception; cause and context by number. ``text`` is for the one that cannot be made."""

    text: str
    rows: list[Row]
    cause: int | None
    context: int | None
    suppress: bool
    notes: list[str] | None


def _leave_exception(record: Record, exception: BaseException, code: int) -> int:
    chain = _reachable(exception)
    number = {id(one): index for index, one in enumerate(chain)}
    nodes = [
        _Node(
            describe(one),
            rows_of(one.__traceback__),
            number.get(id(one.__cause__)),
            number.get(id(one.__context__)),
            one.__suppress_context__,
            _notes(one),
        )
        for one in chain
    ]
    try:
        objects = pickle.dumps(chain, protocol=5)
    except Exception:
        objects = pickle.dumps(_that_can_be_pickled(chain), protocol=5)
    try:
        _pack(record, "exception", code, (nodes, objects))
    except OutcomeError as no_room:
        alone = nodes[0]._replace(rows=nodes[0].rows[-10:], cause=None, context=None, notes=None)  # the page has room
        _pack(record, "exception", code, ([alone], pickle.dumps([no_room])))
    return code


def _reachable(exception: BaseException) -> list[BaseException]:
    """The exception, and all that hang on it: causes, contexts, the members of groups."""
    chain, seen = [exception], {id(exception)}
    for one in chain:  # grows as it is walked
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        for other in (one.__cause__, one.__context__, *members):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                chain.append(other)
    return chain


def _notes(exception: BaseException) -> list[str] | None:
    notes = getattr(exception, "__notes__", None)
    return [note if type(note) is str else shown(note) for note in notes] if isinstance(notes, list | tuple) else None


def _that_can_be_pickled(chain: list[BaseException]) -> list[BaseException]:
    """The same list with OutcomeErrors in the places of those that cannot be."""
    instead: dict[int, BaseException] = {}
    for one in reversed(chain):  # a group comes before its members
        try:
            pickle.dumps(one, protocol=5)
        except Exception as reason:
            instead[id(one)] = _instead_of(one, reason, instead)
    return [instead.get(id(one), one) for one in chain]


def _instead_of(one: BaseException, reason: Exception, instead: dict[int, BaseException]) -> BaseException:
    if isinstance(one, BaseExceptionGroup) and any(id(member) in instead for member in one.exceptions):
        try:
            group: BaseException = one.derive([instead.get(id(member), member) for member in one.exceptions])
            pickle.dumps(group, protocol=5)
            return group
        except Exception as other:
            reason = other
    return OutcomeError(f"the exception {shown(one)} cannot be pickled: {why_not(one, 'exception', reason)}")


# ---- in the creator -------------------------------------------------------------------------------------------------


def take(kind: int, payload: Any, buffers: list[memoryview]) -> Outcome:
    """The outcome that ``leave`` has left. Objects with large buffers are made from ``buffers``, which they keep.

    Raises:
        OutcomeError: it cannot be unpickled here; says which part of it, and why.
    """
    if kind == NONE:
        return "value", None
    name = _KINDS[kind]
    if name == "exception":
        return name, _take_exception(*pickle.loads(payload, buffers=buffers))
    try:
        return name, pickle.loads(payload, buffers=buffers)
    except Exception as reason:
        where = why_broken(salvage(payload, buffers), "result") or f"{type(reason).__name__}: {reason}"
        raise OutcomeError(f"the result cannot be unpickled: {where}") from reason


def _take_exception(nodes: list[_Node], objects: bytes) -> BaseException:
    try:
        chain = pickle.loads(objects)
    except Exception as reason:
        chain = _what_can_be_unpickled(nodes, objects, reason)
    for node, one in zip(nodes, chain, strict=True):
        one.__cause__ = None if node.cause is None else chain[node.cause]
        one.__context__ = None if node.context is None else chain[node.context]
        one.__suppress_context__ = node.suppress
        if node.notes is not None:
            one.__notes__ = node.notes
        one.__traceback__ = traceback_from(node.rows)
    exception: BaseException = chain[0]
    return exception


def _what_can_be_unpickled(nodes: list[_Node], objects: bytes, reason: Exception) -> list[BaseException]:
    """With OutcomeErrors in the places of those that cannot be."""
    chain = salvage(objects, [])
    if not isinstance(chain, list) or len(chain) != len(nodes):
        chain = [None] * len(nodes)
    for index, (node, one) in enumerate(zip(nodes, chain, strict=True)):
        where = why_broken(one, "exception")
        if where or not isinstance(one, BaseException):
            where = where or f"{type(reason).__name__}: {reason}"
            chain[index] = OutcomeError(f"the exception {node.text} cannot be unpickled: {where}")
    return chain
