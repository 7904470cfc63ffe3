"""The rules about flags against the running kernel, a reason at a time; many at once are in test_rules_random.py."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from kernel_oracle import Oracle, Question, hold_against

from taskclone.flags import THREAD, Call, CloneFlags

F = CloneFlags
SINGLES = [F(0), *F]
PAIRS = [first | second for first, second in itertools.combinations(F, 2)]


@pytest.mark.parametrize("call", ["clone3", "unshare"])
def test_single_bits_named_or_not(oracle: Oracle, call: Call) -> None:
    hold_against(oracle, (Question(call, 1 << bit) for bit in range(64)))


@pytest.mark.parametrize("call", ["clone3", "clone"])
def test_exit_signals_with_every_flag(oracle: Oracle, call: Call) -> None:
    signals = [1, 9, 17, 19, 64, 65, 127, 128, 255] + ([256, 1 << 31, 1 << 32] if call == "clone3" else [])
    questions = (Question(call, int(flags), signal) for flags in SINGLES for signal in signals)
    hold_against(oracle, questions)


@pytest.mark.parametrize("situation", ["unshared-pid", "unshared-time", "init"])
def test_namespaces_that_the_caller_has_left_or_heads(oracle: Oracle, situation: str) -> None:
    if not (oracle.privileged or oracle.makes_user_namespaces()):
        pytest.skip("this user may make no namespace to be in")
    sets = [*SINGLES, F.VM | F.SIGHAND, F.VM | F.SIGHAND | F.THREAD]
    # Without uid maps the oracle's own user namespace allows no second one, which is not a matter of flags.
    calls: tuple[Call, ...] = ("clone3", "clone", "unshare")
    questions = (Question(call, int(s), 0, situation) for call in calls for s in sets if not s & F.NEWUSER)
    hold_against(oracle, questions)


@pytest.mark.parametrize("situation", ["thread", "vm", "sighand"])
def test_unshare_where_something_is_shared(oracle: Oracle, situation: str) -> None:
    questions = (Question("unshare", int(flags), 0, situation) for flags in SINGLES + PAIRS)
    hold_against(oracle, questions)


@pytest.mark.parametrize("situation", ["no-stack", "no-stack_size", "no-pidfd"])
def test_arguments_that_are_left_out(oracle: Oracle, situation: str) -> None:
    questions = (Question("clone3", int(flags), 0, situation) for flags in SINGLES)
    hold_against(oracle, questions)


def test_clone_drops_the_upper_half_without_a_word(oracle: Oracle) -> None:
    """Why cannot-say-to-clone exists although the kernel never refuses: the flag is simply gone."""
    wide = [Question("clone", 1 << bit) for bit in range(32, 64)]
    assert oracle.ask(wide) == [0] * 32
    assert all("cannot-say-to-clone" in [rule.id for rule in oracle.rules_against(question)] for question in wide)


def test_the_oracle_leaves_no_task_behind(oracle: Oracle) -> None:
    sets = [0, F.VM, F.VM | F.VFORK, F.PARENT, F.PARENT | F.VM, THREAD, F.VM | F.SIGHAND]
    lines = "".join(f"clone3 {int(flags):#x} 0\nunshare 0x200 0 {s}\n" for flags in sets for s in ("vm", "thread"))
    process = subprocess.Popen(
        oracle.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    answers, _ = process.communicate(lines, timeout=30)
    assert answers.split() == ["0"] * (4 * len(sets))
    assert _session_of(process.pid) == []


def _session_of(leader: int) -> list[str]:
    """Tasks of a session, the dead ones that nobody has reaped among them (/proc/PID/stat, field 6)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:  # ended meanwhile
            continue
        if int(text.rpartition(")")[2].split()[3]) == leader:
            found.append(text)
    return found
