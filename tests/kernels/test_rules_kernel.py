"""The rules about flags against the running kernel, a reason at a time; many at once are in test_rules_random.py."""

from __future__ import annotations

import itertools
import subprocess

import pytest
from kernel_oracle import Oracle, Question, hold_against, no_task_is_left_of, thinned

from taskclone.flags import THREAD, Call, CloneFlags

F = CloneFlags
SINGLES = [F(0), *F]
PAIRS = [first | second for first, second in itertools.combinations(F, 2)]


@pytest.mark.parametrize("call", ["clone3", "unshare"])
def test_single_bits_named_or_not(user: Oracle, call: Call) -> None:
    hold_against(user, (Question(call, 1 << bit) for bit in range(64)))


@pytest.mark.parametrize("call", ["clone3", "clone"])
def test_exit_signals_with_every_flag(user: Oracle, call: Call) -> None:
    signals = [1, 9, 17, 19, 64, 65, 127, 128, 255] + ([256, 1 << 31, 1 << 32] if call == "clone3" else [])
    questions = [Question(call, int(flags), signal) for flags in SINGLES for signal in signals]
    hold_against(user, thinned(questions))


@pytest.mark.parametrize("situation", ["unshared-pid", "unshared-time", "init"])
def test_namespaces_that_the_caller_has_left_or_heads(user: Oracle, situation: str) -> None:
    if not (user.privileged or user.makes_user_namespaces()):
        pytest.skip("this user may make no namespace to be in")
    sets = [*thinned(SINGLES), F.VM, F.NEWPID, F.VM | F.SIGHAND, F.VM | F.SIGHAND | F.THREAD]
    # Without uid maps the oracle's own user namespace allows no second one, which is not a matter of flags.
    calls: tuple[Call, ...] = ("clone3", "clone", "unshare")
    questions = (Question(call, int(s), 0, situation) for call in calls for s in sets if not s & F.NEWUSER)
    hold_against(user, questions)


@pytest.mark.parametrize("situation", ["thread", "vm", "sighand"])
def test_unshare_where_something_is_shared(user: Oracle, situation: str) -> None:
    questions = (Question("unshare", int(flags), 0, situation) for flags in [*SINGLES, *thinned(PAIRS)])
    hold_against(user, questions)


@pytest.mark.parametrize("situation", ["no-stack", "no-stack_size", "no-pidfd"])
def test_arguments_that_are_left_out(user: Oracle, situation: str) -> None:
    questions = (Question("clone3", int(flags), 0, situation) for flags in [*thinned(SINGLES), F(0), F.PIDFD])
    hold_against(user, questions)


def test_clone_drops_the_upper_half_without_a_word(user: Oracle) -> None:
    """Why cannot-say-to-clone exists although the kernel never refuses: the flag is simply gone."""
    wide = [Question("clone", 1 << bit) for bit in range(32, 64)]
    assert user.ask(wide) == [0] * 32
    assert all("cannot-say-to-clone" in [rule.id for rule in user.rules_against(question)] for question in wide)


def test_the_oracle_leaves_no_task_behind(user: Oracle) -> None:
    """Not even after an exit signal that ends or stops who asked; ``ask`` looks for what is left."""
    sets = [0, F.VM, F.VM | F.VFORK, F.PARENT, F.PARENT | F.VM, THREAD, F.VM | F.SIGHAND]
    questions = [Question("clone3", int(flags)) for flags in sets]
    questions += [Question("unshare", F.FS, 0, situation) for situation in ("vm", "sighand", "thread", "init")]
    questions += [Question("clone3", flags, signal) for flags in (0, F.VM, F.VM | F.VFORK) for signal in (9, 19)]
    questions += [Question("clone", int(flags), signal) for flags in (F.PARENT, THREAD) for signal in (9, 19)]
    assert user.ask(questions) == [0] * len(questions)


def test_what_is_left_behind_is_seen() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, start_new_session=True) as process:
        with pytest.raises(AssertionError, match=r"\(cat\)"):
            no_task_is_left_of(process.pid)
        process.communicate()
    no_task_is_left_of(process.pid)
