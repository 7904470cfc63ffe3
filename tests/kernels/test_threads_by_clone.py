"""Threads whose task the caller clones: the kernel's answer to each set, and what the thread shares."""

from __future__ import annotations

import os
import threading

import pytest
from kernel_oracle import Oracle, Question

from proc import PATIENCE, Kcmp, held, shared_between, something_to_share, threads, until
from taskclone import THREAD, CloneFlags, FlagError, call, clone

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
MORE = [F.IO, F.UNTRACED, F.PTRACE, F.PARENT, F.CHILD_SETTID, F.VFORK, F.PIDFD, F.IO | F.PIDFD]
OWN = [F(0), F.FS, F.FILES, F.SYSVSEM]
GLIBC = tuple(map(int, os.confstr("CS_GNU_LIBC_VERSION").split()[1].split(".")))  # type: ignore[union-attr]
BY_LIBC = F.CHILD_SETTID if GLIBC < (2, 43) else F(0)
"""What libc's thread needs besides: its id in the word that the kernel clears (later another word is cleared)."""


@pytest.fixture(scope="module")
def answers(oracle: Oracle) -> dict[F, int]:
    """The kernel's, by set: 0 or an errno."""
    sets = [(THREAD | more) & ~own for more in MORE for own in OWN]
    return dict(zip(sets, oracle.ask([Question("clone3", flags) for flags in sets]), strict=True))


@pytest.mark.parametrize("own", OWN, ids=str)
@pytest.mark.parametrize("more", MORE, ids=str)
def test_a_set_is_started_where_the_kernel_takes_it(more: F, own: F, answers: dict[F, int]) -> None:
    flags = (THREAD | more) & ~own
    answer, ran = answers[flags], list[int]()
    if answer:
        with pytest.raises(FlagError) as caught:
            clone(ran.append, 1, flags=flags)
        assert (caught.value.errno, ran) == (answer, [])
        return
    task = clone(lambda: ran.append(threading.get_native_id()), flags=flags)
    assert task.result(PATIENCE) is None
    assert ran == [task.tid]
    assert task.granted.flags == flags | BY_LIBC
    if not own & F.FILES:  # before Linux 6.9 it is an eventfd, which such a thread could not ring
        assert task.fileno() >= 0
    task.wait(PATIENCE)  # one with files of its own leaves its pidfd to the next start, if it is let go of before


def test_what_it_shares() -> None:
    with something_to_share(), held(THREAD & ~F.FS | F.IO) as task:
        assert shared_between(os.getpid(), task.tid) == {kind.name for kind in Kcmp} - {"FS"}


def test_it_is_one_task_and_gone_at_its_end() -> None:
    before = threads()
    with held(THREAD | F.IO) as task:
        until(lambda: task.tid and threads() - before == {task.tid}, "one task more")
    until(lambda: threads() == before, "it is gone")


@pytest.mark.root
def test_a_new_time_namespace_is_for_its_children(oracle: Oracle) -> None:
    """A kernel that refuses memory in common with whoever is to have other clocks puts a cloned thread there itself."""
    (refused,) = oracle.ask([Question("clone3", F.VM, 0, "unshared-time")])

    def links() -> tuple[str, str]:
        here = "/proc/thread-self/ns/"
        return os.readlink(here + "time"), os.readlink(here + "time_for_children")

    for more in (F(0), F.IO):
        time, for_children = call(links, flags=THREAD | F.NEWTIME | more)
        assert links()[0] == links()[1] != for_children
        assert time == (for_children if refused and more else links()[0])
