"""`taskclone api` and `taskclone explain FUNCTION`, as commands."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from scripts import python, start

from taskclone.cli.api import api as api_command
from taskclone.cli.explain import explain
from taskclone.explain import explain_flag, explain_set
from taskclone.flags import PROCESS, THREAD, CloneFlags, flag_names
from taskclone.tracer import apis, findings
from taskclone.tracer.apis import APIS, Api, chosen
from taskclone.tracer.findings import Finding, look, tell
from taskclone.tracer.records import Call, CloneArgs
from taskclone.tracer.words import alike

pytestmark = pytest.mark.usefixtures("nothing_left")

F = CloneFlags
COPY = F.CHILD_CLEARTID | F.CHILD_SETTID


def run(command: Any, *arguments: str) -> tuple[int, str]:
    """Exit status and output, stderr included."""
    result = CliRunner().invoke(command, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


def named(name: str) -> Api:
    (found,) = (api for api in APIS if api.name == name)
    return found


# ---- the table of APIs ----------------------------------------------------------------------------------------------


def test_names_are_unique_and_there_are_c_python_and_our_own() -> None:
    assert len({api.name for api in APIS}) == len({api.call for api in APIS}) == len(APIS)
    assert list(dict.fromkeys(api.group for api in APIS)) == ["C", "Python", "taskclone"]


def test_a_name_stands_for_its_kinds() -> None:
    assert [api.name for api in chosen(("multiprocessing", "fork"))] == [
        "fork", "multiprocessing.fork", "multiprocessing.spawn", "multiprocessing.forkserver",
    ]  # fmt: skip
    assert chosen(()) == list(APIS)
    assert [api.name for api in chosen(("subprocess.shell",))] == ["subprocess.shell"]
    with pytest.raises(ValueError, match="unknown API 'f'; there are: fork, vfork"):
        chosen(("f",))


def test_what_a_task_says_it_was_granted_is_what_the_kernel_was_given() -> None:
    traced = python("""
from taskclone import PROCESS, SHARED, THREAD, CloneFlags, clone
def granted(task, tid): say(tid, int(task.granted.flags), task.granted.exit_signal)
def start(flags, **fields):
    task = clone(threading.get_native_id, flags=flags, **fields)
    granted(task, task.result())
    task.wait()
for flags in (PROCESS, SHARED, THREAD, SHARED | CloneFlags.VFORK, "VM|FS|SIGHAND", "VM|FILES|IO|SYSVSEM|VFORK"):
    start(flags)
start(SHARED, exit_signal=signal.SIGCHLD)
other = threading.Thread(target=start, args=(SHARED,))
other.start(); other.join()
task = clone(["/bin/true"])
granted(task, task.pid)
task.wait()
""")
    seen = {call.child: (int(call.flags), call.exit_signal) for call in traced.calls}
    said = [tuple(map(int, line.split())) for line in traced.out.splitlines()]
    assert len(said) == 9
    assert [(tid, *seen[tid]) for tid, *_ in said] == said


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_table() -> None:
    status, text = run(api_command, "posix_spawn", "pthread_create", "multiprocessing.spawn", "taskclone.shared")
    assert status == 0
    for words in ("posix_spawn()", "VM|VFORK", "SIGCHLD", "then runs c_api", "none", "  also", "call 1 of 2",
                  "calls 1, 2 of 3", "given: stack", "memory, descriptors", "Linux", "glibc"):  # fmt: skip
        assert words in text, text
    assert "fork()" not in text.replace("vfork()", "")


def test_all_of_it_as_json() -> None:
    status, text = run(api_command, "--json", "fork", "vfork", "os.fork", "multiprocessing.forkserver")
    assert status == 0
    answer = json.loads(text)
    assert answer["format"] == 1
    assert set(answer["machine"]) == {"kernel", "machine", "libc", "python", "taskclone"}
    fork, vfork, os_fork, forkserver = answer["apis"]
    assert [api["failure"] for api in answer["apis"]] == [None] * 4
    (call,) = fork["calls"]
    assert {key: call[key] for key in ("flags", "flag_names", "unknown_bits", "exit_signal_name", "given")} == {
        "flags": int(COPY), "flag_names": ["CHILD_CLEARTID", "CHILD_SETTID"], "unknown_bits": 0,
        "exit_signal_name": "SIGCHLD", "given": ["child_tid"],
    }  # fmt: skip
    assert (call["runs_the_body"], call["made_by_task_of_call"], call["error"]) == (True, None, None)
    assert os_fork["calls"][0]["flags"] == call["flags"]
    assert vfork["calls"][0]["flag_names"] == ["VM", "VFORK"]
    *_, body = forkserver["calls"]
    assert [seen["runs_the_body"] for seen in forkserver["calls"]].count(True) == 1
    assert (body["runs_the_body"], body["made_by_task_of_call"]) == (True, 2), "the server has made it"
    assert shlex.join(fork["program"]).endswith("c_api fork")


@pytest.mark.parametrize("arguments", [("nonsense",), ("--timeout", "0")])
def test_bad_arguments(arguments: tuple[str, ...]) -> None:
    assert run(api_command, *arguments)[0] == 2


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("import sys; sys.exit('out of luck')", "the program that calls it ended with status 1: out of luck"),
        ("import os; os.kill(os.getpid(), 9)", "the program that calls it died of SIGKILL"),
        ("import time; time.sleep(60)", "had not ended after 1.5 s"),
        ("pass", "no call was seen to make the body (thread ids that reported: [])"),
        ("print('body 1 1')", "no call was seen to make the body (thread ids that reported: [1])"),
        ("import os\nfor _ in '12':\n if not os.fork(): os.write(1, b'body 1 %d\\n' % os.getpid()); os._exit(0)\n"
         " os.wait()", "no call was seen to make the body (thread ids that reported: ["),
    ],
)  # fmt: skip
def test_what_is_not_seen_whole_says_why(script: str, failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Scripted(Api):
        @property
        def argv(self) -> list[str]:
            return [sys.executable, "-c", script]

    api = Scripted("broken", "Python", "broken()")
    monkeypatch.setattr(apis, "APIS", (api, named("vfork")))
    status, text = run(api_command, "--timeout", "1.5")
    assert status == 1
    assert "vfork" in text, "the others are shown all the same"
    assert f"Error: not seen whole: broken: {failure}" in text or failure in text
    finding = look(api, timeout=1.5)
    assert failure in finding.failure


def test_ptrace_is_refused() -> None:
    creator = start("""
import seccomp
seccomp.refuse("ptrace", errno.EPERM)
from taskclone.cli import main
main(["api", "fork"])
""")
    out, err = creator.communicate(timeout=60)
    assert (creator.returncode, out) == (1, "")
    assert err.startswith("Error: fork cannot be traced: PTRACE_SEIZE: Operation not permitted; a seccomp filter is in")


def test_a_filter_that_hides_clone3() -> None:
    """As containers have had it: libc falls back to clone, and both calls are seen."""
    creator = start("""
import seccomp
seccomp.refuse("clone3", errno.ENOSYS)
from taskclone.cli import main
main(["api", "--json", "pthread_create"])
""")
    out, err = creator.communicate(timeout=60)
    assert (creator.returncode, err) == (0, "")
    first, second = json.loads(out)["apis"][0]["calls"]
    assert (first["system_call"], first["error"], first["child"], first["runs_the_body"]) == (
        "clone3",
        "ENOSYS",
        None,
        False,
    )
    assert (second["system_call"], second["error"], second["runs_the_body"]) == ("clone", None, True)
    assert first["flags"] == second["flags"] == int(THREAD)


def test_the_program_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(apis.resources, "files", lambda package: tmp_path)
    status, text = run(api_command, "fork")
    assert status == 1
    assert "fork cannot be traced: a program of this package is missing or cannot be run" in text


def test_calls_that_look_the_same_are_one_line() -> None:
    def made(tid: int, child: int, flags: int = 0) -> Call:
        return Call(tid, "clone", child, 0, True, 0, 0, CloneArgs(flags, *[0] * 10))

    calls = [made(1, 2), made(1, 3, 0x100), made(1, 4), made(2, 5), made(1, 6)]
    finding = Finding(APIS[0], tell(calls, 6))
    assert [[seen.number for seen in group] for group in alike(finding)] == [[5], [1, 3], [2], [4]]


# ---- explain --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fork", "pthread_create", "posix_spawn", "threading.Thread", "taskclone.copied"])
def test_explain_traces_and_explains(name: str) -> None:
    body = look(named(name)).body
    assert body is not None
    call, flags = body.call.system_call, body.call.flags
    status, text = run(explain, name)
    assert status == 0
    head, _, rest = text.partition("\n\n")
    assert head.startswith(f"{named(name).call}, as seen just now: Linux ")
    signal = "SIGCHLD" if body.call.exit_signal else "none"
    assert f"\ncalls {call} {flag_names(flags)}, exit signal {signal} (given: " in head
    assert rest == explain_set(flags, exit_signal=body.call.exit_signal) + "\n"


def test_explain_shows_what_else_is_made() -> None:
    status, text = run(explain, "multiprocessing.spawn")
    assert status == 0
    assert "\nalso  vfork VM|VFORK, exit signal SIGCHLD (call 1 of 2; then runs " in text


def test_a_function_and_a_flag_of_one_name_point_to_each_other() -> None:
    status, text = run(explain, "vfork")
    assert status == 0
    assert text.startswith("vfork(), as seen just now")
    assert text.endswith("this is the function; for the flag ask for CLONE_VFORK\n")
    for name in ("VFORK", "CLONE_VFORK"):
        assert run(explain, name) == (
            0,
            f"{explain_flag(F.VFORK)}\n\nthe set with this flag alone:\n{explain_set(F.VFORK)}\n"
            "this is the flag; for the function ask for vfork\n",
        )


def test_what_is_neither_names_both() -> None:
    status, text = run(explain, "forkk")
    assert status == 2
    assert "presets: process, shared, thread; functions: fork, vfork, " in text


def test_explain_says_when_it_could_not_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Finding(named("fork"), (), "it was dark")
    monkeypatch.setattr("taskclone.cli.api.look", lambda api, timeout: failed)
    assert run(explain, "fork") == (1, "Error: fork could not be seen whole: it was dark\n")
    assert findings.look is look
    assert run(explain, "process") == (0, explain_set(PROCESS) + "\n"), "which needs no look"
