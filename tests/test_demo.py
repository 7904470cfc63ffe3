"""``taskclone demo``: the sample of the article and its forms, with stdout a pipe."""

from __future__ import annotations

import os
import re
import shutil
import socket

import pytest

from creator import run


def demo(*form: str) -> tuple[int, str, str]:
    return run(f"sys.argv = ['taskclone', 'demo', *{form!r}]\nfrom taskclone.cli import main\nmain()")


def test_the_sample_of_the_article() -> None:
    assert demo() == (
        0,
        'Child sees buf = "hello from parent"\nChild exited with status 0. buf = "hello from parent"\n',
        "",
    )


def test_the_sample_with_shared_memory() -> None:
    assert demo("vm") == (
        0,
        'Child sees buf = "hello from parent"\nChild exited with status 0. buf = "hello from child"\n',
        "",
    )


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("ids", ["creator", "PROCESS", "SHARED", "THREAD"]),
        (
            "fd",
            [
                "SHARED: the descriptor that the task opened is in",
                "PROCESS: the descriptor that the task opened is not",
            ],
        ),
        ("stop", ["TimeoutError"]),
        ("crash", ["SIGSEGV", "ctypes.string_at(0)", "goes on"]),
    ],
)
def test_the_other_forms(form: str, words: list[str]) -> None:
    status, out, err = demo(form)
    assert (status, err) == (0, "")
    assert [word for word in words if word not in out] == []


def test_cow_counts_pages() -> None:
    """The 64 MB are private, then shared; when the task has written to 16 MB, both have those for themselves."""
    status, out, err = demo("cow")
    assert (status, err) == (0, "")
    lines = re.findall(r"^(.*?) +([0-9.]+) +([0-9.]+)$", out, re.MULTILINE)
    table = {what: (float(private), float(shared)) for what, private, shared in lines}
    alone, beside, written = (table[f"creator, {when}"] for when in ("before the start", "beside the task", "then"))
    task, task_written = table["task, before it writes"], table["task, 16 MB written"]
    assert alone[0] > 64 > 20 > alone[1]
    for private, shared in (beside, task):
        assert shared > 64 > 10 > private
    # (The table has tenths.)
    assert 15.8 < task_written[0] - task[0] < 20
    assert -20 < task_written[1] - task[1] < -15  # some pages of libraries are seen for the first time meanwhile
    assert 15.8 < written[0] - beside[0] < 20
    assert -20 < written[1] - beside[1] < -15


def test_namespaces_are_seen_through_shared_memory() -> None:
    status, out, err = demo("namespaces")
    assert (status, err) == (0, "")
    rows = re.findall(
        r"^(creator|task, at birth|task, settled in|creator, after) +(\d+) +(\d+) +(\S+) +(.*)$", out, re.M
    )
    seen = {who: tuple(rest) for who, *rest in rows}
    pid, uid, host, interfaces = seen["creator"]
    assert int(pid) > 1
    assert (uid, host) == (str(os.getuid()), socket.gethostname())
    assert seen["task, at birth"] == ("1", overflow_uid(), host, "lo")
    assert seen["task, settled in"] == ("1", "0", "taskclone", "lo")
    assert seen["creator, after"] == (pid, uid, host, interfaces)


def overflow_uid() -> str:
    with open("/proc/sys/kernel/overflowuid") as file:
        return file.read().strip()


def test_forbidden_namespaces_are_told() -> None:
    """In a user namespace that may have none below it."""
    assert shutil.which("unshare"), "util-linux is needed"
    script = r"""
import subprocess
forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$0" "$@"'
demo = "import sys; sys.argv = ['taskclone', 'demo', 'namespaces']; from taskclone.cli import main; main()"
sys.exit(subprocess.run(["unshare", "-U", "-r", "sh", "-c", forbid, sys.executable, "-c", demo]).returncode)
"""
    status, out, err = run(script)
    assert (status, out) == (1, "")
    assert err.startswith("Error: new namespaces were refused here: clone3: No space left on device")
    assert "/proc/sys/user/max_user_namespaces" in err
