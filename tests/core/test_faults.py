"""Every system call of every step of every list, made to fail in turn by seccomp: the record names the step."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

USER_NAMESPACES = subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False).returncode == 0
INJECTED = errno.ENOTRECOVERABLE


@pytest.mark.parametrize("steps", ["copied", "shared", "shared_pidfd", "program", "program_pidfd"])
def test_each_failed_call_is_recorded_with_its_step(build: Path, steps: str) -> None:
    program = build / "csrc" / "testing" / "faults"
    done = subprocess.run([program, steps], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    rows = [words[1] for words in lines if words[0] == "step"]
    faults = [words for words in lines if words[0] != "step"]
    assert [int(words[0]) for words in faults] == list(range(len(faults)))
    for _, made_by, recorded, number in faults:
        assert recorded == made_by
        # getppid() cannot fail: an answer that is not the creator means that the creator is gone.
        assert int(number) in ((INJECTED, errno.ESRCH) if made_by == "parent_death" else (INJECTED,))
    reached = list(dict.fromkeys(made_by for _, made_by, _, _ in faults))
    missing = set(rows) - set(reached)
    # Nothing to do where libc has not registered it, and where this user may have no user namespace.
    assert missing <= {"rseq", *({"setgroups", "uid_map", "gid_map"} if not USER_NAMESPACES else ())}
    assert reached == [row for row in rows if row not in missing], "in the order of the list"
