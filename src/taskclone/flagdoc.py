"""Writes docs/flags.md from the table: ``python -m taskclone.flags --write`` (or ``--check``), from the project's root.

The document is derived; what is wrong in it is wrong in taskclone.flags. A test fails when it is stale.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, get_args

from taskclone.flags import PRESET_MEANINGS, PRESETS, ROWS, Call, CloneFlags, Kind, Row, call_note, flag_names

__all__ = ["main", "render"]

DOCUMENT: Final = Path("docs/flags.md")

_HEAD: Final = """\
# The flags

<!-- Derived from src/taskclone/flags.py by `python -m taskclone.flags --write`: change that, not this. -->

Every `CLONE_*` flag of Linux through 7.1, by the kernel's name without the prefix. Bits belong to a system call: the
notes say where one call reads a bit differently. Which combinations are refused, and with which errno, is said by
`taskclone explain "VM|FILES"`, for the set and the running kernel.
"""

_KIND_HEADINGS: Final[dict[Kind, str]] = {
    "share": "What is shared",
    "namespace": "Namespaces",
    "report": "How the start and the end are reported",
    "behaviour": "Behaviour",
    "obsolete": "Obsolete",
}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table without its empty columns; a bar inside a cell is escaped."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    filled = [column for column in range(len(head)) if any(row[column] for row in cells)]
    lines = [head, ["---"] * len(head), *cells]
    return "".join(f"| {' | '.join(line[column] for column in filled)} |\n" for line in lines)


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _set(flags: CloneFlags) -> str:
    return flag_names(flags).replace("|", ", ") if flags else ""


def _privilege(row: Row) -> str:
    return row.privilege + (f" (not with {_set(row.spared_by)})" if row.spared_by else "")


def _kind_section(kind: Kind) -> str:
    """Meaning, state and traces of the flags of one kind."""
    head = ["flag", "bit", "meaning", "since", "with it", "without", "seen in /proc/PID", "kcmp", "see"]
    lines = [
        [
            f"`{member.name}`",
            f"`{int(member):#x}`",
            row.full_meaning,
            ".".join(map(str, row.since)),
            row.effect if row.default else "",
            row.default,
            _codes(row.proc),
            row.kcmp,
            row.man,
        ]
        for member, row in ROWS.items()
        if row.kind == kind
    ]
    return f"## {_KIND_HEADINGS[kind]}\n\n{_table(head, lines)}"


def _conditions() -> str:
    """Who takes a flag, and what it asks for."""
    head = ["flag", "taken by", "requires", "excludes", "privilege", "clone_args field"]
    lines = [
        [
            f"`{member.name}`",
            ", ".join(row.accepted_by),
            _set(row.requires),
            _set(row.excludes),
            _privilege(row),
            f"`{row.clone_args}`" if row.clone_args else "",
        ]
        for member, row in ROWS.items()
    ]
    return f"## Conditions\n\n{_table(head, lines)}"


def _presets() -> str:
    lines = [
        [f"`{name}`", f"`{int(flags):#x}`", f"`{flag_names(flags)}`", PRESET_MEANINGS[name]]
        for name, flags in PRESETS.items()
    ]
    return f"## Presets\n\n{_table(['preset', 'number', 'flags', 'meaning'], lines)}"


def _notes() -> str:
    """Where a call reads a bit in a way of its own; what follows from the columns is not repeated."""
    lines = [
        f"- `{member.name}`: {note}.\n"
        for member in CloneFlags
        for call in get_args(Call)
        if (note := call_note(member, call, special_only=True))
    ]
    return "## Notes\n\n" + "".join(lines)


def render() -> str:
    """The whole document."""
    kinds = [_kind_section(kind) for kind in get_args(Kind)]
    return "\n".join([_HEAD, _presets(), *kinds, _conditions(), _notes()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the document; the exit status is 1 when --check finds it stale or missing."""
    parser = argparse.ArgumentParser(prog="python -m taskclone.flags", description="docs/flags.md from the flag table")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="bring the document up to date")
    action.add_argument("--check", action="store_true", help="exit with 1 when it is stale")
    parser.add_argument("path", nargs="?", type=Path, default=DOCUMENT, help=f"the document ({DOCUMENT})")
    options = parser.parse_args(arguments)
    path: Path = options.path
    if options.write:
        path.write_text(render(), encoding="utf-8")
        return 0
    if path.is_file() and path.read_text(encoding="utf-8") == render():
        return 0
    print(f"{path} is stale: run python -m taskclone.flags --write")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
