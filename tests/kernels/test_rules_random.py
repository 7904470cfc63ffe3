"""The rules about flags against the running kernel: some 16,000 sets, each put to clone3, clone and unshare."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from flag_sets import (
    BASES,
    BITS,
    SIGNALS,
    FlagSet,
    Generator,
    flag_sets,
    is_taken_from_root,
    pairs_on_every_base,
    put_to_each_call,
)
from kernel_oracle import Oracle, Question, hold_against

from proc import SLOWNESS
from taskclone.flags import Call, CloneFlags
from taskclone.rule import running_kernel
from taskclone.rules import RULES, Context, broken

F = CloneFlags
SEED = 20_260_711
NETWORKS = 200
"""Accepted sets with NEWNET: a network namespace takes long to go away."""
about_the_sets = pytest.mark.skipif(SLOWNESS > 1, reason="about the sets, of which an emulated machine asks a part")


@pytest.fixture(scope="module")
def sets() -> list[FlagSet]:
    return flag_sets(SEED, NETWORKS, parts=round(4 * SLOWNESS) if SLOWNESS > 1 else 1)


def of_call(sets: Iterable[FlagSet], call: Call) -> list[Question]:
    """What to ask that call, nothing twice."""
    return list(dict.fromkeys(q for asked in sets for q in put_to_each_call(asked) if q.call == call))


@pytest.mark.parametrize("call", ["clone3", "clone", "unshare"])
def test_kernel_and_rules_agree(user: Oracle, sets: list[FlagSet], call: Call) -> None:
    """The same errno, or both let it start; where several rules are broken, the kernel's first is the rules' first."""
    print(f"seed {SEED}")
    questions = of_call(sets, call)
    assert hold_against(user, questions, networks=NETWORKS) > 0.9 * len(questions)


@about_the_sets
def test_the_sets_are_what_they_claim_to_be(sets: list[FlagSet]) -> None:
    certain = set(pairs_on_every_base())
    chance = set(sets) - certain
    assert len(chance) >= 10_000
    assert certain - chance <= set(sets) | {FlagSet(s.flags & ~int(F.NEWNET)) for s in certain}
    assert {asked.exit_signal for asked in chance} == set(SIGNALS)
    for bit in BITS:
        assert 100 < sum(asked.flags >> bit & 1 for asked in chance) < len(chance) - 100
    legal = {asked.flags for asked in chance if not broken(F(asked.flags), Context())}
    assert len(legal) > 1000
    for bit in BITS:
        assert any(flags ^ 1 << bit in legal for flags in {asked.flags for asked in chance})
    assert all(any(asked.flags & base == base for asked in chance) for base in BASES)


@about_the_sets
def test_network_namespaces_are_few(sets: list[FlagSet]) -> None:
    taken = [
        asked for asked in sets if asked.flags & F.NEWNET and any(map(is_taken_from_root, put_to_each_call(asked)))
    ]
    assert 100 < len(taken) <= NETWORKS


@about_the_sets
def test_the_same_seed_makes_the_same_sets_and_another_makes_others() -> None:
    first, again, other = (list(Generator(seed).signals(1)) for seed in (SEED, SEED, SEED + 1))
    assert first == again
    assert len(set(other) - set(first)) > 200


OTHER_SITUATIONS = {
    "half-a-stack", "parent-of-init", "thread-after-unshare-pid", "vm-after-unshare-time", "unshare-in-thread",
    "unshare-handlers", "unshare-memory", "new-pid-after-unshare-pid", "pidfd-pointer", "thread-into-cgroup",
}  # fmt: skip
"""Rules that flags alone do not break: test_rules_kernel.py asks about them."""


@about_the_sets
@pytest.mark.parametrize("call", ["clone3", "clone", "unshare"])
def test_every_rule_decides_about_some_of_the_sets(sets: list[FlagSet], call: Call) -> None:
    """So that a rule that is missing or wrong would be seen: without it, the answer to these would be another."""
    deciding = set()
    for question in of_call(sets, call):
        for privileged in (True, False):
            first, *more = [*broken(F(question.flags), question.context(privileged)), None, None]
            if first and (not more[0] or more[0].errno != first.errno):
                deciding.add(first.id)
    kernel = running_kernel()
    known = {
        rule.id
        for rule in RULES
        if call in rule.calls
        and rule.kernel_refuses
        and (rule.since is None or kernel >= rule.since)
        and (rule.until is None or kernel < rule.until)
    }
    assert deciding & known == known - OTHER_SITUATIONS
