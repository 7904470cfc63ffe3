"""The flag table: whole, consistent with itself and with the installed kernel headers; names and sets both ways."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import taskclone.flags
from taskclone.flags import (
    PRESET_MEANINGS,
    PRESETS,
    PROCESS,
    ROWS,
    SHARED,
    THREAD,
    Call,
    CloneFlags,
    Kind,
    Row,
    call_note,
    flag_names,
    members,
    parse_flags,
)

HEADER = Path("/usr/include/linux/sched.h")

# 0x00000100, 0x100000000ULL or (1ULL << 34); CLONE_ARGS_SIZE_VER0 and its like are no flags.
_DEFINE = re.compile(r"^#define\s+CLONE_(?!ARGS_)(\w+)\s+\(?(0x[0-9a-fA-F]+|1)U?L*(?:\s*<<\s*(\d+)\))?", re.MULTILINE)


def header_flags(text: str) -> dict[str, int]:
    """The CLONE_* bits of a <linux/sched.h>."""
    return {name: int(number, 0) << int(shift or 0) for name, number, shift in _DEFINE.findall(text)}


def test_the_header_parser_reads_every_spelling() -> None:
    text = "#define CLONE_A 0x0080\t/* x */\n#define CLONE_B 0x100000000ULL\n#define CLONE_C (1ULL << 34)\n"
    assert header_flags(text + "#define CLONE_ARGS_SIZE_VER0 64\n") == {"A": 0x80, "B": 1 << 32, "C": 1 << 34}


def test_every_flag_of_the_installed_headers_is_in_the_table_with_its_bit() -> None:
    installed = header_flags(HEADER.read_text())
    assert len(installed) >= 27  # Linux 5.7 has so many; fewer means that the parser has missed some
    assert {name: int(CloneFlags.__members__.get(name, 0)) for name in installed} == installed


def test_what_the_installed_headers_lack_is_newer_than_all_that_they_have() -> None:
    installed = header_flags(HEADER.read_text())
    newest = max(ROWS[CloneFlags[name]].since for name in installed)
    missing = {member.name: ROWS[member].since for member in CloneFlags if member.name not in installed}
    assert {name: since for name, since in missing.items() if since <= newest} == {}


def test_every_member_has_a_row_and_one_bit_of_its_own() -> None:
    assert set(ROWS) == set(CloneFlags)
    assert [int(member) for member in CloneFlags] == sorted({1 << int(m).bit_length() - 1 for m in CloneFlags})


def test_the_flags_of_linux_7_1_have_bits_34_to_37() -> None:
    new = [member for member in CloneFlags if ROWS[member].since == (7, 1)]
    assert [(member.name, int(member).bit_length() - 1) for member in new] == [
        ("AUTOREAP", 34),
        ("NNP", 35),
        ("PIDFD_AUTOKILL", 36),
        ("EMPTY_MNTNS", 37),
    ]


@pytest.mark.parametrize(("member", "row"), ROWS.items(), ids=lambda value: getattr(value, "name", None))
def test_a_row_is_well_formed(member: CloneFlags, row: Row) -> None:
    assert row.kind in get_args(Kind)
    assert row.meaning[0].isupper()
    assert row.meaning.endswith(".")
    assert ". " not in row.full_meaning, "one sentence"
    assert row.accepted_by
    assert set(row.accepted_by) <= set(get_args(Call))
    assert re.fullmatch(r"\w+\([2-8]\)", row.man)
    assert not any(place.startswith("/") for place in row.proc)
    assert bool(row.default) == (row.kind in ("share", "namespace"))
    assert ("clone" in row.accepted_by) <= (int(member) < 1 << 32), "clone(2) has 32 bits"
    assert ("clone" in row.accepted_by) <= (int(member) > 0xFF), "the lowest byte is the exit signal's"


def test_exclusion_is_mutual_and_never_hits_what_is_required() -> None:
    one_sided = {
        (member.name, other.name)
        for member, row in ROWS.items()
        for other in members(row.excludes)
        if not ROWS[other].excludes & member
    }
    assert one_sided == set()
    assert not [member for member, row in ROWS.items() if row.requires & row.excludes]


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        ROWS[CloneFlags.VM] = ROWS[CloneFlags.FS]  # type: ignore[index]
    with pytest.raises(AttributeError):
        ROWS[CloneFlags.VM].meaning = "x"  # type: ignore[misc]


# --- names and sets ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("VM|FILES", 0x500),
        ("CLONE_VM | CLONE_FS", 0x300),
        ("vm", 0x100),
        ("clone_vm", 0x100),
        ("0x3d0f00", 0x3D0F00),
        ("4001536", 0x3D0F00),
        ("", 0),
        ("  ", 0),
        ("0", 0),
        ("VM|0x4000000000", 0x40_0000_0100),
        ("THREAD", 0x10000),
        (0x500, 0x500),
        (CloneFlags.VM, 0x100),
        (0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF),
    ],
)
def test_parse_flags_reads_names_and_numbers(value: int | str, expected: int) -> None:
    flags = parse_flags(value)
    assert isinstance(flags, CloneFlags)
    assert int(flags) == expected


@pytest.mark.parametrize(
    ("value", "part_of_message"),
    [
        ("FILE", "unknown flag 'FILE'; did you mean FILES?"),
        ("VM|NEWPIDS", "unknown flag 'NEWPIDS' in 'VM|NEWPIDS'; did you mean NEWPID"),
        ("VN", "did you mean VM?"),
        ("xyzzy", "the names are those of taskclone.CloneFlags"),
        ("VM,FS", "names are joined by '|'"),
        ("VM|", "an empty name in the flags 'VM|'"),
        ("0x", "unknown flag '0x'"),
        ("-1", "flags cannot be negative: -1"),
        (-1, "flags cannot be negative: -1"),
        (1 << 64, "flags have at most 64 bits: 0x10000000000000000"),
        ("0x10000000000000000", "flags have at most 64 bits"),
    ],
)
def test_parse_flags_says_what_is_wrong_with_a_value(value: int | str, part_of_message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part_of_message)):
        parse_flags(value)


@pytest.mark.parametrize("value", [True, False, None, 1.5, b"VM", ["VM"]])
def test_parse_flags_refuses_other_types_by_name(value: object) -> None:
    with pytest.raises(TypeError, match=f"not {type(value).__name__}$"):
        parse_flags(value)  # type: ignore[arg-type]


@given(st.integers(0, 2**64 - 1))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_decoding_loses_nothing(number: int) -> None:
    assert int(parse_flags(flag_names(number))) == number


def test_flag_names_keeps_unknown_bits_and_the_order_of_bits() -> None:
    assert flag_names(0x40_0000_0500) == "VM|FILES|0x4000000000"
    assert flag_names(0) == "0"
    assert flag_names(0x11) == "0x11"
    assert flag_names(CloneFlags.FILES | CloneFlags.NEWTIME) == "NEWTIME|FILES"
    with pytest.raises(ValueError, match="negative"):
        flag_names(-1)


def test_members_are_the_named_bits_in_order() -> None:
    assert members(0x40_0000_0500) == (CloneFlags.VM, CloneFlags.FILES)
    assert members(0) == ()


def test_an_unknown_bit_survives_in_a_set() -> None:
    flags = CloneFlags(1 << 60) | CloneFlags.VM
    assert int(flags) == 1 << 60 | 0x100
    assert int(flags & ~CloneFlags.VM) == 1 << 60


def test_presets() -> None:
    assert (int(PROCESS), int(SHARED), int(THREAD)) == (0, 0x500, 0x3D0F00)
    assert PRESETS == {"PROCESS": PROCESS, "SHARED": SHARED, "THREAD": THREAD}
    assert PRESET_MEANINGS.keys() == PRESETS.keys()


@pytest.mark.parametrize(
    ("member", "call", "part"),
    [
        (CloneFlags.PARENT_SETTID, "unshare", "UNSHARE_EMPTY_MNTNS"),
        (CloneFlags.PARENT_SETTID, "clone3", ""),
        (CloneFlags.NEWTIME, "clone", "exit signal"),
        (CloneFlags.AUTOREAP, "clone", "32 bits"),
        (CloneFlags.FILES, "unshare", "stop sharing"),
        (CloneFlags.FILES, "clone", ""),
        (CloneFlags.VFORK, "unshare", "unshare(2) does not take it"),
    ],
)
def test_a_bit_belongs_to_a_system_call(member: CloneFlags, call: Call, part: str) -> None:
    note = call_note(member, call)
    assert part in note
    assert bool(note) == bool(part)


def test_the_table_imports_neither_the_package_nor_anything_heavy() -> None:
    """Every user pays for this import."""
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='alone');"
        "print(sorted({'argparse', 'difflib', 'pathlib', 'click', 'taskclone'} & set(sys.modules)))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, str(taskclone.flags.__file__)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
