"""One way to start a task by each route, for facts that hold on all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import creator
from taskclone.flags import SHARED, THREAD, CloneFlags

F = CloneFlags
HERE = Path(__file__).parent

FUNCTIONS: Final[dict[str, dict[str, Any]]] = {
    "fork": {},
    "relay": {"flags": F.UNTRACED},
    "bare": {"flags": F.FILES, "bare": True},
    "shared": {"flags": SHARED},
    "in place": {"flags": SHARED | F.VFORK},
    "thread": {"flags": THREAD},
}
"""By route: keyword arguments of clone() for a function. bare=True: whoever runs the tests may have other threads."""
PROCESSES: Final = {name: fields for name, fields in FUNCTIONS.items() if name != "thread"}
"""Those with a pid of their own."""
WITHOUT_VFORK: Final = {name: fields for name, fields in PROCESSES.items() if name != "in place"}
"""Those whose creator goes on beside them."""


def answer_of(script: str, *command: str) -> Any:
    """What a creator of its own answers: the script sets ``answer``, any JSON. ``command`` stands before it."""
    path = [str(HERE), str(HERE.parent)]
    whole = f"{creator.PRELUDE}\nsys.path[:0] = {path!r}\nimport json, errno\n{script}\nprint(json.dumps(answer))\n"
    done = subprocess.run(
        [*command, sys.executable, "-c", whole],
        capture_output=True,
        text=True,
        timeout=creator.TIMEOUT,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return json.loads(done.stdout)


def refused(flags: int, **fields: Any) -> str:
    """For a script: the lines that put into ``answer``, by route, how a start with these flags beside ended: its
    exception's type and errno, or "it started"."""
    return f"""
from routes import FUNCTIONS
flags, fields = CloneFlags({int(flags)}), {fields!r}
answer = {{}}
for name, start in [*FUNCTIONS.items(), ("program", {{}})]:
    body, arguments = (["/bin/true"], ()) if name == "program" else (int, ())
    try:
        with clone(body, *arguments, **start | fields | {{"flags": start.get("flags", 0) | flags}}) as task:
            task.result()
    except OSError as error:
        answer[name] = [type(error).__name__, errno.errorcode[error.errno]]
    except UnsupportedOperation as error:
        answer[name] = ["UnsupportedOperation", ""]
    else:
        answer[name] = ["it started", ""]
"""
