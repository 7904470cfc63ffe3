"""Every legal set of sharing flags and namespaces, and every door of the public interface at which it can be asked for.

Nothing here is listed by hand: which flags there are says the table (``flags.ROWS``), which sets are legal say the
rules, which tests/kernels holds against the running kernel.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple, TypeAlias

from taskclone.flags import ROWS, CloneFlags, flag_names
from taskclone.forms import form_of
from taskclone.rule import flags_with
from taskclone.rules import Context, broken

F = CloneFlags
Door: TypeAlias = Literal["clone", "bare", "fork", "program"]
"""clone(function), the same with bare=True, fork(), clone(argv)."""

BEHAVIOURS: Final = F.VFORK | F.CLEAR_SIGHAND
"""Flags about what a task does, not what it shares, whose effect is observed here as well."""
SHARING: Final = flags_with(lambda row: row.kind == "share") | BEHAVIOURS
NAMESPACES: Final = flags_with(lambda row: row.kind == "namespace")
NOT_OBSERVED: Final = {
    F.PIDFD: "a report", F.PARENT_SETTID: "a report", F.CHILD_SETTID: "a report", F.CHILD_CLEARTID: "a report",
    F.SETTLS: "the routes' own", F.PTRACE: "needs a tracer", F.UNTRACED: "needs a tracer",
    F.INTO_CGROUP: "needs a group", F.AUTOREAP: "about the end", F.NNP: "no sharing", F.PIDFD_AUTOKILL: "about the end",
    F.DETACHED: "means nothing",
}  # fmt: skip
"""The other flags, and why they are in no set."""


class Case(NamedTuple):
    """One set through one door."""

    flags: int
    door: Door

    @property
    def route(self) -> str:
        """The way that carries it, as counted and as named in the list of refusals."""
        if self.door == "program":
            return "program"
        if self.door == "fork":
            return f"fork() by {form_of(self.flags)}"
        if not self.flags & F.VM:
            return f"copied by {form_of(self.flags, self.door == 'bare')}"
        if self.flags & F.THREAD:
            return "thread"
        return "shared in place" if self.flags & F.VFORK else "shared"

    def __str__(self) -> str:
        return f"{flag_names(self.flags)} by {self.door} ({self.route})"


def subsets(flags: int) -> Iterator[int]:
    """Of a set of flags: all of its subsets, smaller ones first."""
    single = [int(member) for member in ROWS if member & flags]
    for size in range(len(single) + 1):
        yield from map(sum, itertools.combinations(single, size))


@functools.cache
def legal(flags: int) -> bool:
    """Whether clone3 takes the set from who has every privilege."""
    return not broken(F(flags), Context(privileged=True))


def needs_no_privilege(case: Case) -> bool:
    """Whether an ordinary user may ask for it."""
    return not broken(F(case.flags), Context(privileged=False))


@functools.cache
def bases() -> tuple[int, ...]:
    """Every legal set without a namespace."""
    return tuple(filter(legal, subsets(SHARING)))


def doors(flags: int) -> Iterator[Door]:
    """The doors at which the set means something: ``bare`` and fork() are about copies of memory, and an empty mount
    namespace has no program to start."""
    yield "clone"
    if not flags & F.VM:
        if form_of(flags) != "bare":
            yield "bare"
        if not flags & F.VFORK:
            yield "fork"
    if not flags & F.EMPTY_MNTNS:
        yield "program"


def cases(sets: Iterable[int]) -> list[Case]:
    return [Case(flags, door) for flags in sets for door in doors(flags)]


def with_one_namespace() -> list[int]:
    """Each namespace on every base that may have it."""
    return [int(new) | base for new in ROWS if new & NAMESPACES for base in bases() if legal(new | base)]


def with_more_namespaces() -> list[int]:
    """Every pair and triple of namespaces on so many bases that any two flags are there in all four ways in which the
    rules let them be: both, one, the other, none. The same on every run."""
    new = [int(member) for member in ROWS if member & NAMESPACES]
    found = []
    for size in (2, 3):
        for chosen in itertools.combinations(new, size):
            together = sum(chosen)
            takes = tuple(base for base in bases() if legal(together | base))
            found += [together | base for base in _pairwise(takes)]
    return found


@functools.cache
def _pairwise(takes: tuple[int, ...]) -> tuple[int, ...]:
    """A few of the bases that cover what any two flags are in all of them; greedy, the first of the best."""
    reached = [(base, _pairs_in(base)) for base in takes]
    wanted = functools.reduce(int.__or__, (pairs for _, pairs in reached), 0)
    chosen = []
    while wanted:
        base, pairs = max(reached, key=lambda one: (one[1] & wanted).bit_count())
        chosen.append(base)
        wanted &= ~pairs
    return tuple(chosen)


@functools.cache
def _pairs_in(base: int) -> int:
    """A bit for each (flag is there or not, other flag is there or not)."""
    pairs = itertools.combinations([int(member) for member in ROWS if member & SHARING], 2)
    return sum(
        1 << (4 * number + 2 * bool(base & first) + bool(base & second)) for number, (first, second) in enumerate(pairs)
    )
