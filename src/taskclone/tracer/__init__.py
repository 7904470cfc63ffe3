"""What programs pass to clone, seen from outside with ptrace(2).

    records.py   what the tracer tells: calls, programs, ends
    trace.py     one program, traced from its start to the end of all that it made
    refusal.py   who on this machine refuses ptrace
    apis.py      the well-known functions that make tasks, each as a small program to trace
    findings.py  what one of them was seen to pass
    words.py     the same in plain words
    _ptrace      the tracer itself, a process of its own (csrc/ptrace)
    c_api        the C programs (csrc/ptrace/c_api.c)

Tasks made with CLONE_UNTRACED are missed: the call is seen, what the task does is not.
"""
