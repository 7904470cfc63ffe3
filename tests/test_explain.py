"""What explain says of flags and sets, as a function and as a command."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from taskclone.cli.explain import explain
from taskclone.explain import explain_flag, explain_set
from taskclone.flags import PRESET_MEANINGS, PRESETS, PROCESS, ROWS, SHARED, THREAD, CloneFlags
from taskclone.rules import Context, broken

F = CloneFlags
SHARERS = [member for member, row in ROWS.items() if row.kind == "share"]
NAMESPACES = [member for member, row in ROWS.items() if row.kind == "namespace"]
DOERS = [member for member, row in ROWS.items() if row.kind not in ("share", "namespace")]


def by_name(member: F) -> str:
    return str(member.name)


def picture(text: str) -> dict[str, tuple[str, str]]:
    """Resource -> (state, why): the lines of the picture, whose three columns are two spaces or more apart."""
    lines = (re.split(r" {2,}", line.strip()) for line in text.splitlines() if line.startswith("  "))
    return {line[0]: (line[1], line[2]) for line in lines if len(line) == 3}


def run(*arguments: str) -> tuple[int, str]:
    """Exit status and output of the command, stderr included."""
    result = CliRunner().invoke(explain, list(arguments))
    return result.exit_code, result.output


# --- one flag ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("member", F, ids=by_name)
def test_a_flag_is_explained_by_its_whole_row(member: F) -> None:
    row, text = ROWS[member], explain_flag(member)
    assert text.startswith(f"CLONE_{member.name}: {row.full_meaning}\n")
    for fact in (
        f"{int(member):#x}",
        f"Linux {'.'.join(map(str, row.since))}",
        ", ".join(row.accepted_by),
        row.privilege,
        row.clone_args,
        row.kcmp,
        row.man,
        *(f"/proc/PID/{place}" for place in row.proc),
        *(f"CLONE_{other.name}" for other in F if other & (row.requires | row.excludes | row.spared_by)),
    ):
        assert fact in text


def test_where_the_name_misleads_the_plain_meaning_stands_beside_it() -> None:
    assert "the name says clone, it means share" in explain_flag(F.VM)
    assert picture(explain_set(F.VM))["memory"] == ("shared", "CLONE_VM: the name says clone, it means share")


def test_a_bit_that_another_call_reads_differently_has_a_note() -> None:
    assert "UNSHARE_EMPTY_MNTNS" in explain_flag(F.PARENT_SETTID)
    assert "clone(2) cannot say it" in explain_flag(F.NEWTIME)


@pytest.mark.parametrize("flags", [F(0), F.VM | F.FS, F(1 << 50)])
def test_explain_flag_is_for_one_flag(flags: F) -> None:
    with pytest.raises(ValueError, match="explain_set explains sets"):
        explain_flag(flags)


# --- sets -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("member", SHARERS, ids=by_name)
def test_one_line_a_resource_says_whose_it_is_and_which_flag_decides(member: F) -> None:
    row = ROWS[member]
    state, why = picture(explain_set(member))[row.resource]
    assert state == row.effect
    assert why.split(":")[0] == f"CLONE_{member.name}"
    assert picture(explain_set(PROCESS))[row.resource] == (row.default, f"no CLONE_{member.name}")


def test_the_picture_has_every_resource_in_every_set() -> None:
    lines = {ROWS[member].resource for member in SHARERS} | {"namespaces"}
    assert [set(picture(explain_set(flags))) for flags in PRESETS.values()] == [lines] * 3


@pytest.mark.parametrize("member", NAMESPACES, ids=by_name)
def test_the_namespaces_are_one_line_unless_one_is_new(member: F) -> None:
    text = explain_set(member)
    kind = ROWS[member].resource.removesuffix(" namespace")
    assert picture(text)["namespaces"] == (f"new: {kind}", f"CLONE_{member.name}; the others are the creator's")
    assert f"  CLONE_{member.name}: " in text
    assert picture(explain_set(SHARED))["namespaces"][0] == "the creator's"


@pytest.mark.parametrize("member", DOERS, ids=by_name)
def test_reports_and_behaviour_are_told_with_the_owner_of_the_pointer(member: F) -> None:
    (line,) = [line for line in explain_set(member).splitlines() if line.startswith(f"  CLONE_{member.name}: ")][:1]
    owner = {"": "", "cgroup": "supplied by the plan"}.get(ROWS[member].clone_args, "supplied by the runtime")
    assert owner in line
    assert ("supplied" in line) == bool(owner)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_recognised(name: str) -> None:
    assert f"the preset {name}: {PRESET_MEANINGS[name]}" in explain_set(PRESETS[name])
    assert "the preset" not in explain_set(PRESETS[name] | F.IO)


def test_a_thread_has_its_groups_parent() -> None:
    assert picture(explain_set(THREAD))["parent"][0] == ROWS[F.PARENT].effect


@pytest.mark.parametrize(
    ("flags", "how"),
    [
        (THREAD, "by pthread_create"),
        (THREAD & ~F.SETTLS, "by pthread_create"),
        (
            THREAD & ~F.FS & ~F.FILES | F.NEWNS | F.NEWUTS,
            "by pthread_create, and before its body unshare(2) stops sharing what CLONE_FS, CLONE_FILES would share "
            "and makes CLONE_NEWNS, CLONE_NEWUTS",
        ),
        (
            THREAD & ~F.FS | F.IO | F.UNTRACED,
            "by clone3 of the creator itself, since pthread_create cannot say CLONE_UNTRACED, CLONE_IO; onto stack and "
            "storage of a thread that pthread_create has made for it",
        ),
    ],
)
def test_how_a_thread_is_made(flags: F, how: str) -> None:
    assert f"\nhow the thread is made: {how}\n" in explain_set(flags)


@pytest.mark.parametrize("flags", [SHARED, F.THREAD, THREAD & ~F.FS | F.NEWUSER], ids=by_name)
def test_of_what_is_no_thread_nothing_is_said_of_that(flags: F) -> None:
    assert "how the thread is made" not in explain_set(flags)


def test_cleared_handlers_are_the_tasks_own() -> None:
    assert picture(explain_set(F.CLEAR_SIGHAND))["signal handlers"][0] == ROWS[F.CLEAR_SIGHAND].effect


def test_unknown_bits_are_shown() -> None:
    text = explain_set(SHARED | F(1 << 50))
    assert text.startswith("VM|FILES|0x4000000000000  (0x4000000000500)\n")
    assert "bits that no flag of the table has:\n  0x4000000000000" in text


def test_every_broken_rule_is_named_with_its_errno() -> None:
    flags = F.SIGHAND | F.FS | F.NEWNS | F.CLEAR_SIGHAND
    text = explain_set(flags)
    ids = [rule.id for rule in broken(flags, Context())]
    assert ids == ["sighand-clear-sighand", "fs-new-mounts", "sighand-needs-vm"]
    assert [line.split(":")[0].strip() for line in text.splitlines()[-3:]] == [f"EINVAL {id}" for id in ids]
    assert "rules: none is broken (clone3, Linux " in explain_set(SHARED)


@pytest.mark.parametrize(
    ("flags", "exit_signal", "part"),
    [
        (SHARED, 0, "gets no signal"),
        (SHARED, 17, "gets SIGCHLD"),
        (SHARED, 10, "gets SIGUSR1; wait with __WALL"),
        (SHARED, 63, "gets signal 63"),
        (THREAD, 0, "nobody can wait"),
        (F.PARENT, 0, "creator's parent gets"),
        (F.AUTOREAP, 0, "nothing to wait for"),
    ],
)
def test_who_hears_of_the_end(flags: F, exit_signal: int, part: str) -> None:
    (line,) = [line for line in explain_set(flags, exit_signal=exit_signal).splitlines() if line.startswith("its end")]
    assert part in line


def test_an_exit_signal_takes_part_in_the_rules() -> None:
    assert "exit-signal-parent-thread" in explain_set(F.PARENT, exit_signal=17)
    assert "exit-signal-range" in explain_set(SHARED, exit_signal=99)


def test_privileges_are_named_unless_the_set_spares_them() -> None:
    assert "CLONE_NEWNET: CAP_SYS_ADMIN, unless CLONE_NEWUSER" in explain_set(F.NEWNET)
    assert "CAP_SYS_ADMIN" not in explain_set(F.NEWNET | F.NEWUSER)


# --- the command ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["CLONE_VM", "VM", "vm"])
def test_a_flag_by_name_gets_its_row_and_the_picture(name: str) -> None:
    assert run(name) == (0, f"{explain_flag(F.VM)}\n\nthe set with this flag alone:\n{explain_set(F.VM)}\n")


@pytest.mark.parametrize("what", ["0x500", "1280", "VM|FILES", "CLONE_FILES | CLONE_VM", "shared"])
def test_numbers_sets_and_presets_get_the_picture(what: str) -> None:
    assert run(what) == (0, explain_set(SHARED) + "\n")


def test_a_number_with_one_bit_is_a_set_of_one() -> None:
    assert run("0x100") == (0, explain_set(F.VM) + "\n")


def test_small_letters_are_the_preset_capitals_the_flag() -> None:
    assert run("thread") == (0, explain_set(THREAD) + "\nthis is the preset; for the flag ask for CLONE_THREAD\n")
    for name in ("THREAD", "CLONE_THREAD", "clone_thread"):
        status, text = run(name)
        assert status == 0
        assert text.startswith("CLONE_THREAD: ")
        assert "use the preset taskclone.THREAD" in text
        assert text.endswith("this is the flag; for the preset ask for thread\n")


def test_the_empty_set_is_the_preset_process() -> None:
    assert run("process") == run("") == run("0")


def test_a_set_that_breaks_rules_is_explained_with_success() -> None:
    status, text = run("SIGHAND")
    assert status == 0
    assert "EINVAL sighand-needs-vm" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["FILE"], "Error: unknown flag 'FILE'; did you mean FILES?; presets: process, shared, thread"),
        (["VM|"], "an empty name in the flags 'VM|'"),
        (["0x10000000000000000"], "flags have at most 64 bits"),
        ([], "Missing argument 'WHAT'"),
    ],
)
def test_bad_input_is_status_2_with_a_message(arguments: list[str], message: str) -> None:
    status, text = run(*arguments)
    assert status == 2
    assert message in text
