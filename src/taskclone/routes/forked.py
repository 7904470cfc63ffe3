"""The raw form of the copied route: a copy that goes on where its creator is, and ends as it likes."""

from __future__ import annotations

import errno

from taskclone._core import fork_start
from taskclone.errors import FlagError
from taskclone.flags import CloneFlags, flag_names
from taskclone.plan import Plan
from taskclone.routes import copying, setup
from taskclone.routes.children import ExitCodeHandle
from taskclone.task import Task

NAME = "copied"

_NEVER = int(CloneFlags.VM | CloneFlags.THREAD | CloneFlags.VFORK)


def check(plan: Plan) -> None:
    never = plan.bits & _NEVER
    if never:
        raise FlagError(
            errno.EINVAL,
            f"fork() cannot have {flag_names(never)}: both go on from the same call, each on a stack of its own, so "
            "memory must be copied and the creator must not sleep; clone() runs a function with these flags",
            "fork-goes-on-in-both",
        )
    copying.check(NAME, plan)


def start(plan: Plan) -> Task[int] | None:
    with setup.steps(plan) as (steps, _):
        harmless = copying.look_at_threads(plan)
        handle = fork_start(ExitCodeHandle, steps, copying.prepare_of(plan), plan.how, harmless)
    return None if handle is None else Task(handle, plan, NAME)
