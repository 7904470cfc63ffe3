"""What a start costs, and a switch between two tasks, measured.

    series.py      what a case is made of: series and parts, and the loops that time them
    axes.py        what grows from point to point: heap, huge heap, mappings, descriptors, CPUs
    cases/         the cases, one file each; a new file there is a new case
    worker.py      the process that measures: pins itself, takes on its burden, runs the points
    memory.py      what /proc says about the worker's memory
    run.py         the conductor: which worker runs when, and what comes back
    results.py     what a run leaves: points, host facts, notes
    host.py        the facts about the machine that belong beside every figure
    stats.py       percentiles, slopes and how sure they are
    store.py       results as JSON in pyperf's format, and back
    verdict.py     the sentences of the launch benchmark, computed from the results
    goals.py       the bars that it is held against
    causes.py      what the cost of a start follows, and what it does not
    bare_program   the C loop as a program (csrc/core/bare_program.c)

How it is measured. Every series runs in fresh processes of its own, several one after the other in turn with those of
the other series ("rounds"), so that a slow minute of the machine falls on all of them. A process is pinned to one CPU
and forbids huge pages (but where they are what is measured); it writes to its heap, then launches. The C series run in
a program without an interpreter: a fork of a Python process copies the interpreter's memory too, which is another
question. What is compared from Python to Python is measured once more *together*: the routes and their rivals in one
process, a few launches each in turn; those that copy memory in one such process, those that share it in another.

Times are nanoseconds in the data, microseconds in tables and charts. "start" is from the call until it is back in the
creator, "total" until the task is joined or reaped and its result is there. Other times have names of their own:
"first" until the body's first instruction, "rewrite" to write to the heap again, "round_trip" there and back.
"""
