"""Where ptrace is refused: a clear message that names what refuses it, and nothing is left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from scripts import python, start

from taskclone.tracer import refusal
from taskclone.tracer.refusal import why_refused

pytestmark = pytest.mark.usefixtures("nothing_left")

IMPORTS = """
from taskclone.errors import StartError
from proc import children_of, descriptors
"""
TRACE = """
before = descriptors()
try:
    with Trace(["/bin/true"]) as trace: list(trace.records())
except StartError as error:
    say(error.step, errno.errorcode[error.errno], error)
say(children_of(os.getpid()), descriptors() == before)
"""


def refused(script: str) -> tuple[str, str]:
    """The error, and what is left, of a creator of its own."""
    creator = start(IMPORTS + script + TRACE)  # who changes his credentials may not find the modules any more
    out, err = creator.communicate(timeout=60)
    assert err == ""
    message, left = out.splitlines()
    assert left == "{} True"
    return message, left


@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_by_a_seccomp_filter(error: str) -> None:
    message, _ = refused(f"import seccomp; seccomp.refuse('ptrace', errno.{error})")
    assert message.startswith(f"PTRACE_SEIZE {error} [Errno {getattr(errno, error)}] PTRACE_SEIZE: ")
    assert "a seccomp filter is in force" in message
    assert "--cap-add=SYS_PTRACE" in message


def test_by_another_tracer() -> None:
    traced = python(
        f"sys.path[:0] = {[str(Path(__file__).parents[1])]!r}\nfrom taskclone.tracer.trace import Trace{IMPORTS}{TRACE}"
    )
    message, left = traced.out.splitlines()
    assert message.startswith("PTRACE_SEIZE EPERM ")
    assert "this process is traced by process" in message
    assert left == "{} True"


def test_by_credentials_that_were_changed() -> None:
    if os.geteuid() == 0:
        before = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"  # which makes it non-dumpable
    else:
        before = "ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE"
    message, _ = refused(before)
    assert "this process is not dumpable" in message


def test_by_a_filter_that_kills() -> None:
    creator = start("""
import seccomp
from taskclone.errors import TaskDied
seccomp.kill("ptrace")
try:
    with Trace(["/bin/true"]) as trace: list(trace.records())
except TaskDied as error: say(error)
""")
    out, err = creator.communicate(timeout=60)
    assert err == ""
    assert "ended of SIGSYS: a seccomp filter kills whoever calls ptrace" in out


def faked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    for name in ("YAMA", "STATUS", "LABEL"):
        path = tmp_path / name
        if name in files:
            path.write_text(files[name])
        monkeypatch.setattr(refusal, name, path)


NO_CAPABILITY, PTRACE_CAPABILITY = (
    "CapEff:\t0000000000000000\nSeccomp:\t0\n",
    "CapEff:\t0000000000080000\nSeccomp:\t0\n",
)


@pytest.mark.parametrize(
    ("files", "named", "not_named"),
    [
        ({"YAMA": "3\n", "STATUS": PTRACE_CAPABILITY}, ["Yama forbids ptrace altogether"], ["seccomp", "label"]),
        ({"YAMA": "2\n", "STATUS": NO_CAPABILITY}, ["only with CAP_SYS_PTRACE"], ["altogether"]),
        ({"YAMA": "2\n", "STATUS": PTRACE_CAPABILITY}, ["nothing that is known"], ["Yama"]),
        ({"YAMA": "1\n", "STATUS": NO_CAPABILITY}, ["nothing that is known", "EPERM"], ["Yama"]),
        ({"YAMA": "3\n", "STATUS": "Seccomp:\t2\nTracerPid:\t77\n"}, ["Yama", "seccomp", "process 77"], []),
        ({"LABEL": "docker-default (enforce)\0\n"}, ["'docker-default (enforce)'"], ["Yama", "seccomp"]),
        ({"LABEL": "unconfined\n"}, ["nothing that is known"], ["label"]),
        ({}, ["nothing that is known"], []),
    ],
)
def test_the_causes_that_proc_shows(
    files: dict[str, str], named: list[str], not_named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faked(tmp_path, monkeypatch, **files)
    text = why_refused(errno.EPERM)
    assert [word for word in named if word not in text] == []
    assert [word for word in not_named if word in text] == []


def test_where_nothing_refuses_nothing_is_accused() -> None:
    """Each of the causes stands in /proc by itself; here, where ptrace works, none of them does."""
    status = Path("/proc/self/status").read_text()
    if "Seccomp:\t0" not in status:
        pytest.skip("a seccomp filter is in force here, which lets ptrace pass")
    assert "nothing that is known" in why_refused(errno.ENOSYS)
