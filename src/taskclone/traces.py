"""Tracebacks as plain data, and tracebacks made from it: an exception that comes out of copied memory has none."""

from __future__ import annotations

import ast
import itertools
from types import CodeType, FrameType, FunctionType, TracebackType
from typing import Any, NamedTuple

__all__ = ["Row", "rows_of", "traceback_from"]

NO_COLUMN = -1
_LIMIT = 2000
"""Rows that are kept of a traceback: its newest."""


class Row(NamedTuple):
    """One entry of a traceback. ``module`` is the frame's ``__name__``."""

    file: str
    name: str
    qualname: str
    module: str
    line: int
    end_line: int
    column: int
    end_column: int


def rows_of(trace: TracebackType | None) -> list[Row]:
    """The rows of a traceback, oldest call first."""
    rows = []
    while trace is not None:
        rows.append(_row_of(trace))
        trace = trace.tb_next
    return rows[-_LIMIT:]


def _row_of(trace: TracebackType) -> Row:
    code = trace.tb_frame.f_code
    line: int | None = trace.tb_lineno
    place = next(itertools.islice(code.co_positions(), trace.tb_lasti // 2, None), (None,) * 4)
    if line is None or None in place or place[0] != line:  # -X no_debug_ranges, or an instruction without a line
        place = (line or code.co_firstlineno, line or code.co_firstlineno, NO_COLUMN, NO_COLUMN)
    module = trace.tb_frame.f_globals.get("__name__")
    return Row(
        str(code.co_filename),
        str(code.co_name),
        str(code.co_qualname),
        module if type(module) is str else "?",
        *place,  # type: ignore[arg-type]  # there is no None in it
    )


def traceback_from(rows: list[Row]) -> TracebackType | None:
    """A traceback with these rows.

    Its frames never ran and hold no variables. They are those of generators that were not started: such a frame has
    no caller, where any frame that ran would hold the one that made it, with all of its variables.
    """
    trace = None
    frames: dict[Row, tuple[FrameType, int]] = {}  # a recursion has the same row a thousand times
    for row in reversed(rows):
        if row not in frames:
            frames[row] = _frame_for(row)
        frame, instruction = frames[row]
        trace = TracebackType(trace, frame, instruction, row.line)
    return trace


def _frame_for(row: Row) -> tuple[FrameType, int]:
    """A frame with an instruction that stands where the row says."""
    tree = ast.parse("def f(): yield")
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt | ast.expr):
            node.lineno, node.end_lineno = row.line, row.end_line
            node.col_offset, node.end_col_offset = row.column, row.end_column
    made: Any = compile(tree, row.file, "exec")
    code = next(constant for constant in made.co_consts if isinstance(constant, CodeType))
    code = code.replace(co_name=row.name, co_qualname=row.qualname, co_firstlineno=row.line)
    generator = FunctionType(code, {"__name__": row.module, "__file__": row.file})()
    places = enumerate(code.co_positions())
    index = next((i for i, place in places if place == (row.line, row.end_line, row.column, row.end_column)), 0)
    return generator.gi_frame, 2 * index
