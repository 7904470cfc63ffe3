"""The proof as a command: every legal set, through every door. ``make conformance`` runs it.

It prints how many sets it proved by each route, what was refused and why, and what was wrong; its exit status says
whether anything was. An ordinary user is not given the namespaces without NEWUSER: those sets are tried in a user
namespace of his own, in which he has every capability.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from expectations import ALWAYS, part_of
from observer import Proof
from ordinary import IN_A_USER_NAMESPACE
from refusals import ALLOWED
from sets import bases, cases, needs_no_privilege, with_more_namespaces, with_one_namespace

from taskclone.rule import has_sys_admin

WORST = 40
"""Failures that are printed."""
PARTS = ("sharing", "namespaces")


def report(proof: Proof, where: str = "") -> str:
    """Counts by route and by reason, and the failures."""
    lines = [f"{proof.proved.total()} of {len(proof.cases)} sets proved{where} in {proof.seconds:.1f} s"]
    lines += [f"  {count:5} {route}" for route, count in sorted(proof.proved.items())]
    if proof.refused:
        lines += [f"{proof.refused.total()} legal sets refused, for reasons that are known"]
    lines += [f"  {count:5} {route}: {reason}" for (route, reason), count in sorted(proof.refused.items())]
    if proof.failures:
        lines += [f"{len(proof.failures)} wrong", *(f"  {failure}" for failure in proof.failures[:WORST])]
    return "\n".join(lines)


def one_sided(proof: Proof) -> set[str]:
    """The observations that have given the same answer for every set, and so might be unable to give another."""
    return {name for name, answers in proof.seen.items() if len(answers) < 2 and answers != {"as asked"}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="the sets without a namespace, or those with one or more")
    parser.add_argument("--privileged-only", action="store_true", help="only the sets that ask for a privilege")
    chosen = parser.parse_args()
    parts = [chosen.only] if chosen.only else PARTS
    # The empty set is the control for all others.
    found = cases(bases() if "sharing" in parts else bases()[:1])
    if "namespaces" in parts:
        found += cases(with_one_namespace() + with_more_namespaces())
    where, deaf, rest = "", set[str](), False
    if chosen.privileged_only:
        found = [case for case in found if not needs_no_privilege(case)]
        where = " in a user namespace"
    elif not has_sys_admin():
        rest = not all(map(needs_no_privilege, found))
        found = [case for case in found if needs_no_privilege(case)]
        where = " as an ordinary user"
    proof = Proof(found)
    proof.run()
    print(report(proof, where))
    unneeded = {one.reason for one in ALLOWED} - {reason for _, reason in proof.refused}
    if not chosen.only and not where and unneeded:
        print(f"refusals that no set needs on this kernel: {'; '.join(sorted(unneeded))}")
    if not chosen.privileged_only:
        deaf = {name for name in one_sided(proof) - ALWAYS if part_of(name) in parts}
        if deaf:
            print(f"always the same answer, so no proof: {', '.join(sorted(deaf))}")
    wrong = bool(proof.failures or deaf)
    if rest:
        sys.stdout.flush()
        command = [*IN_A_USER_NAMESPACE, sys.executable, __file__, "--privileged-only", *sys.argv[1:]]
        wrong |= subprocess.run(command, check=False).returncode != 0
    return int(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
