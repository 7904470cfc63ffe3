"""The forms of a copy, for tests that hold in each of them."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from taskclone import CloneFlags

F = CloneFlags
FORMS: dict[str, dict[str, Any]] = {
    "fork": {},
    "relay": {"flags": F.UNTRACED},
    "namespaces": {"flags": F.NEWUSER | F.NEWPID | F.NEWUTS},
    "bare": {"bare": True},
    "bare-FILES": {"bare": True, "flags": F.FILES},
    "bare-NEWPID": {"bare": True, "flags": F.NEWUSER | F.NEWPID},
}
"""bare=True throughout: the process that runs the tests may have other threads."""


def _user_namespaces() -> bool:
    """The one gate: whether this user may make a user namespace at all, asked of a tool that is not ours."""
    return subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode == 0


IN_NAMESPACES = pytest.mark.skipif(not _user_namespaces(), reason="this user may not make user namespaces here")


def by_form(*names: str) -> pytest.MarkDecorator:
    params = [
        pytest.param(name, marks=IN_NAMESPACES if F.NEWUSER & FORMS[name].get("flags", 0) else ())
        for name in names or FORMS
    ]
    return pytest.mark.parametrize("form", params)
