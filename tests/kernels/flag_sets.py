"""Sets of flags to hold the rules against the kernel with: random, but the same for the same seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

from kernel_oracle import Question, is_taken

from taskclone.flags import PROCESS, SHARED, THREAD, CloneFlags
from taskclone.rules import Context, broken

F = CloneFlags
BITS = range(64)
SIGNALS = range(256)
LEGAL_SETS = 800
CLONE_HAS_ROOM = 0xFFFF_FF00
BASES = [PROCESS, F.VM, SHARED, F.VM | F.SIGHAND, F.VM | F.SIGHAND | F.THREAD, THREAD]


class FlagSet(NamedTuple):
    """What a caller of clone can choose: the flags, and the exit signal."""

    flags: int
    exit_signal: int = 0


def pairs_on_every_base() -> Iterator[FlagSet]:
    """Each base with no, one and two flags more; nothing random here."""
    for base in BASES:
        for first, second in itertools.combinations_with_replacement(F, 2):
            yield FlagSet(int(base))
            yield FlagSet(int(base | first | second))


class Generator:
    """The kinds of random sets. Legal means: by the rules of clone3, on this kernel, privileges apart."""

    def __init__(self, seed: int, legal_sets: int = LEGAL_SETS) -> None:
        self._random = random.Random(seed)
        self._legal = [self._make_legal() for _ in range(legal_sets)]

    def legal(self) -> int:
        """Any of the legal sets that were made at the beginning: making one takes long."""
        return self._random.choice(self._legal)

    def _make_legal(self) -> int:
        """A base, and flags in random order as far as the rules let them join, up to a random number."""
        flags = self._random.choice(BASES)
        more = self._random.sample(list(F), self._random.randrange(len(F)))
        for member in more:
            if not broken(flags | member, Context()):
                flags |= member
        return int(flags)

    def single_neighbours(self, sets: int) -> Iterator[FlagSet]:
        """Legal sets, and each with every one of the 64 bits turned over."""
        for flags in self._random.sample(self._legal, sets):
            yield FlagSet(flags)
            yield from (FlagSet(flags ^ 1 << bit) for bit in BITS)

    def double_neighbours(self, sets: int, each: int) -> Iterator[FlagSet]:
        """Legal sets with two bits turned over, the named ones more often than the others."""
        for _ in range(sets):
            flags = self.legal()
            for _ in range(each):
                first, second = self._random.choice([int(member) for member in F]), 1 << self._random.choice(BITS)
                if self._random.random() < 0.7:
                    second = int(self._random.choice(list(F)))
                yield FlagSet(flags ^ first ^ (second if second != first else 0))

    def signals(self, sets: int) -> Iterator[FlagSet]:
        """Every exit signal with legal sets and their neighbours by a named flag."""
        for _ in range(sets):
            for signal in SIGNALS:
                flags = self.legal()
                if self._random.random() < 0.3:
                    flags ^= int(self._random.choice(list(F)))
                yield FlagSet(flags, signal)

    def anything(self, sets: int) -> Iterator[FlagSet]:
        """Of all bits, or of all named bits, each with a probability of the set's own."""
        for number in range(sets):
            density = self._random.random()
            choice = [1 << bit for bit in BITS] if number % 2 else [int(member) for member in F]
            flags = sum(bit for bit in choice if self._random.random() < density)
            yield FlagSet(flags, self._random.choice([0, 0, 17, self._random.choice(SIGNALS)]))


def put_to_each_call(asked: FlagSet) -> list[Question]:
    """The set as clone3, clone and unshare take it: clone has no room for the upper half nor for NEWTIME (in its place
    is the exit signal), unshare has no exit signal.
    """
    return [
        Question("clone3", asked.flags, asked.exit_signal),
        Question("clone", asked.flags & CLONE_HAS_ROOM, asked.exit_signal),
        Question("unshare", asked.flags),
    ]


def flag_sets(seed: int, networks: int, parts: int = 1) -> list[FlagSet]:
    """More than 10,000 different random sets behind the pairs on every base, or one of so many ``parts`` of that.

    Of those that any call takes, as root, ``networks`` keep their NEWNET; the others lose it.
    """
    generator = Generator(seed, LEGAL_SETS // parts)
    networks //= parts
    found: dict[FlagSet, None] = {}
    for asked in itertools.chain(
        itertools.islice(pairs_on_every_base(), 0, None, parts),
        generator.single_neighbours(90 // parts),
        generator.double_neighbours(250 // parts, 15),
        generator.signals(-(-16 // parts)),
        generator.anything(2000 // parts),
    ):
        if asked in found:
            continue
        if asked.flags & F.NEWNET and any(map(is_taken_from_root, put_to_each_call(asked))):
            if not networks:
                found[FlagSet(asked.flags & ~int(F.NEWNET), asked.exit_signal)] = None
                continue
            networks -= 1
        found[asked] = None
    return list(found)


def is_taken_from_root(question: Question) -> bool:
    """Whether the rules let it start for root."""
    return is_taken(broken(F(question.flags), question.context(privileged=True)))
