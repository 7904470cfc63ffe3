"""What strace says of clone calls: the other witness, with a decoder of its own."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

Tree = list[tuple[str, frozenset[str], str, Any]]
"""The calls of a task in order: system call, flags, exit signal, and the tree of the new task (None: it failed)."""

CALLS = ("fork", "vfork", "clone", "clone3")
LINE = re.compile(r"(?P<tid>\d+) +(?:<\.\.\. )?(?P<call>\w+)(?: resumed>|\()(?P<text>.*)")
RESULT = re.compile(r"\) += (-?\d+)")


def traced(argv: list[str], folder: Path) -> Tree:
    """The tree of the program that ``argv`` starts."""
    log = folder / "strace.log"
    command = ["strace", "-f", "-q", "-a1", f"-etrace={','.join(CALLS)},execve", "-esignal=none", "-o", str(log), *argv]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return tree_of(log.read_text())


def tree_of(log: str) -> Tree:
    """From the log of strace -f: a call that is interrupted by others has two lines, the start and the result."""
    made: dict[int, Tree] = defaultdict(list)
    begun: dict[int, str] = {}
    first = 0
    for line in log.splitlines():
        match = LINE.fullmatch(line)
        if match is None:
            continue  # an exit
        tid, call, text = int(match["tid"]), match["call"], match["text"]
        first = first or tid
        if call not in CALLS:
            continue
        text = begun.pop(tid, "") + text
        if text.endswith("<unfinished ...>"):
            begun[tid] = text.removesuffix("<unfinished ...>").removesuffix(" ")
            continue
        result = RESULT.search(text)
        assert result is not None, line
        child = int(result[1])
        made[tid].append((call, *_flags_and_signal(call, text), made[child] if child > 0 else None))
    assert first
    assert not begun
    return made[first]


def _flags_and_signal(call: str, text: str) -> tuple[frozenset[str], str]:
    if call == "fork":
        return frozenset(), "SIGCHLD"
    if call == "vfork":  # strace has no arguments to show; these are what vfork(2) says
        return frozenset({"VM", "VFORK"}), "SIGCHLD"
    flags = re.search(r"flags=([^,}]+)", text)
    assert flags is not None, text
    names = set(flags[1].split("|")) - {"0"}
    signals = {name for name in names if name.startswith("SIG")}
    names -= signals
    if call == "clone3":
        signal = re.search(r"exit_signal=(\w+)", text)
        assert signal is not None, text
        signals = {signal[1]} - {"0"}
    assert all(name.startswith("CLONE_") for name in names), text
    return frozenset(name.removeprefix("CLONE_") for name in names), "".join(signals)
