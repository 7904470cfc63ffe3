"""Creators whose parent waits for their siblings, or leaves them: for what CLONE_PARENT makes."""

from __future__ import annotations

from creator import run

__all__ = ["lines_of"]

PARENT = """
import subprocess, sys
# The creator's parent, which reaps when it is told to.
SCRIPT = '''
import os, signal, sys, threading, time
from taskclone import *
def say(*words): os.write(1, (" ".join(map(str, words)) + chr(10)).encode())
parent = os.getppid()
''' + sys.argv[1]
creator = subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE)
while True:
    info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    if info.si_pid == creator.pid: break
    if REAPS:
        os.waitpid(info.si_pid, 0)
    else:
        time.sleep(0.005)
sys.exit(creator.wait())
"""


def lines_of(script: str, reaps: bool) -> list[str]:
    """What a creator that runs this script says; ``parent`` is its parent, which reaps all, or the creator alone."""
    parent = PARENT.replace("REAPS", str(reaps)).replace("sys.argv[1]", repr(script))
    status, out, err = run(parent)
    assert (status, err) == (0, "")
    return out.splitlines()
