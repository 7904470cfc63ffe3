"""The enumeration leaves nothing out."""

from __future__ import annotations

import itertools

from sets import NAMESPACES, NOT_OBSERVED, SHARING, bases, cases, legal, with_more_namespaces, with_one_namespace

from taskclone.flags import ROWS, CloneFlags
from taskclone.rule import running_kernel

F = CloneFlags


def test_every_flag_is_in_the_sets_or_has_a_reason_not_to_be() -> None:
    named = [*NOT_OBSERVED, *(member for member in ROWS if member & (SHARING | NAMESPACES))]
    assert sorted(named) == sorted(ROWS)


def test_every_legal_set_of_sharing_flags_is_there() -> None:
    """Ten flags: seven are free without VM or with it, SIGHAND takes CLEAR_SIGHAND's place, THREAD needs SIGHAND."""
    assert SHARING.bit_count() == 10
    assert len(set(bases())) == len(bases()) == 2**7 + 2**7 + 2**6 + 2**6
    assert {case.route for case in cases(bases())} == {
        "copied by fork", "copied by relay", "copied by bare", "fork() by fork", "fork() by relay", "fork() by bare",
        "shared", "shared in place", "thread", "program",
    }  # fmt: skip


def test_each_namespace_is_on_every_base() -> None:
    found = set(with_one_namespace())
    for new in (member for member in ROWS if member & NAMESPACES):
        taking = [base for base in bases() if legal(new | base)]
        assert taking or running_kernel() < ROWS[new].since, "a namespace of a newer kernel only"
        assert {new | base for base in taking} <= found


def test_pairs_and_triples_cover_what_two_flags_are_to_each_other() -> None:
    found: dict[int, list[int]] = {}
    for flags in with_more_namespaces():
        found.setdefault(flags & int(NAMESPACES), []).append(flags)
    new = [int(member) for member in ROWS if member & NAMESPACES]
    combinations = [sum(chosen) for size in (2, 3) for chosen in itertools.combinations(new, size)]
    assert set(found) == set(filter(legal, combinations))
    pairs = [int(one | other) for one, other in itertools.combinations([f for f in ROWS if f & SHARING], 2)]
    for together, chosen in found.items():
        takes = [base for base in bases() if legal(base | together)]
        for either in pairs:
            assert {base & either for base in takes} == {flags & either for flags in chosen}
