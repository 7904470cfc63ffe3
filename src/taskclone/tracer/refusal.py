"""Who refuses ptrace here: a sentence for the error, from what /proc says of this process."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

__all__ = ["why_refused"]

YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")
STATUS: Final = Path("/proc/self/status")
LABEL: Final = Path("/proc/self/attr/current")
CAP_SYS_PTRACE_BIT: Final = 19  # <linux/capability.h>


def why_refused(error: int) -> str:
    """What is likely to have answered ``error`` to PTRACE_SEIZE of a child of this process, and what to do.

    Everything that may be the cause is named; ptrace(2), "Ptrace access mode checking" and "/proc/sys/kernel/yama".
    """
    return "; ".join(_causes(error)) or (
        f"nothing that is known to refuse it is in force here (errno {errno.errorcode.get(error, error)}): a security "
        "module of the kernel (see /sys/kernel/security/lsm) or the kernel's own build may"
    )


def _causes(error: int) -> list[str]:
    status = _status()
    causes = []
    tracer = status.get("TracerPid", "0")
    if tracer != "0":
        causes.append(f"this process is traced by process {tracer} (strace, a debugger), and its children with it: a "
                      "task has one tracer; run it outside")  # fmt: skip
    scope = _read(YAMA)
    if scope == "3":
        causes.append(f"Yama forbids ptrace altogether until the next boot ({YAMA} is 3)")
    elif scope == "2" and not int(status.get("CapEff", "0"), 16) >> CAP_SYS_PTRACE_BIT & 1:
        causes.append(f"Yama allows ptrace only with CAP_SYS_PTRACE ({YAMA} is 2): be root, or have it set to 1")
    if status.get("Seccomp", "0") != "0":
        causes.append("a seccomp filter is in force (Seccomp in /proc/self/status), such as a container's profile: "
                      "allow ptrace in it; docker: --cap-add=SYS_PTRACE, or --security-opt seccomp=...")  # fmt: skip
    if error in (errno.EPERM, errno.EACCES):
        if Path("/proc/self/fd").stat().st_uid != os.geteuid():
            causes.append("this process is not dumpable, as after a change of credentials (prctl(2), PR_SET_DUMPABLE)")
        label = _read(LABEL).rstrip("\0")
        if label and not label.startswith("unconfined"):
            causes.append(f"the security module's label {label!r} may forbid it (AppArmor: a ptrace rule; SELinux: "
                          "the boolean deny_ptrace)")  # fmt: skip
    return causes


def _status() -> dict[str, str]:
    pairs = (line.partition(":") for line in _read(STATUS).splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _read(path: Path) -> str:
    """Without the white space around; "" where the kernel has no such file, or no answer."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
