"""A seccomp filter for this process and all that it starts, by hand: one system call fails from now on (seccomp(2))."""

from __future__ import annotations

import ctypes
import platform
import struct

PR_SET_NAME, PR_SET_PDEATHSIG = 15, 1
_PR_SET_NO_NEW_PRIVS, _SET_MODE_FILTER, _TSYNC = 38, 1, 1
_RET_ALLOW, _RET_ERRNO, _RET_KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K

_COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]
_NUMBERS = {
    "rt_sigaction": (13, 134), "chdir": (80, 49), "sigaltstack": (131, 132), "prctl": (157, 167), "dup3": (292, 24),
    "rseq": (334, 293), "execve": (59, 221), "close_range": (436, 436), "seccomp": (317, 277),
    "ioctl": (16, 29), "pidfd_open": (434, 434), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "clone3": (435, 435),
}  # fmt: skip


def refuse(call: str, error: int, first: int | None = None) -> None:
    """``call``, with ``first`` as its first argument where that is given, fails in every thread of this process."""
    _answer(call, _RET_ERRNO | error, first)


def kill(call: str) -> None:
    """Whoever makes ``call`` dies of SIGSYS."""
    _answer(call, _RET_KILL_PROCESS, None)


def _answer(call: str, answer: int, first: int | None) -> None:
    checks = [(0, _NUMBERS[call][_COLUMN])] + ([] if first is None else [(16, first)])  # struct seccomp_data
    code = []
    for i, (offset, value) in enumerate(checks):
        code.append((_LOAD, 0, 0, offset))
        code.append((_JUMP_EQUAL, 0, 2 * (len(checks) - i - 1) + 1, value))
    code += [(_RETURN, 0, 0, answer), (_RETURN, 0, 0, _RET_ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if libc.syscall(_NUMBERS["seccomp"][_COLUMN], _SET_MODE_FILTER, _TSYNC, header):
        raise OSError(ctypes.get_errno(), "seccomp")
