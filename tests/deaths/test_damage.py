"""Deaths that leave something behind in Python: it is named, released where that is sound, and what stays is shown."""

from __future__ import annotations

import pytest
from deathbed import NEEDS_LIBRARY, ROUTES, Death, creator, witness

pytestmark = NEEDS_LIBRARY

_CRASHED = "error.signal == signal.SIGSEGV"
_MODULE = """
import tempfile
sys.dont_write_bytecode = True
folder = tempfile.TemporaryDirectory()
sys.path.insert(0, folder.name)
creator, waited = os.getpid(), os.pipe()
with open(folder.name + "/half_made.py", "w") as file:
    file.write("import __main__ as main\\n"
               "if main.os.getpid() != main.creator:\\n"
               "    main.os.read(main.waited[0], 1)\\n"
               "    main.with_lock.write_to(16)\\n"
               "value = 7\\n")
def import_half_made():
    import half_made
    return half_made.value
"""
_WAITING_IMPORTER = """
importers = []
def import_beside():
    "Waits for the lock of the module that the task is importing."
    while "half_made" not in sys.modules: time.sleep(0.001)
    def wait():
        try: importers.append(import_half_made())
        except AttributeError as error: importers.append(str(error))
    importer = threading.Thread(target=wait, daemon=True)
    importer.start()
    while sys._current_frames()[importer.ident].f_code.co_name != "acquire": time.sleep(0.001)
    os.write(waited[1], b"x")
beside = threading.Thread(target=import_beside)
beside.start()
"""
_DYING_FILE = """
class Raw(io.RawIOBase):
    def writable(self): return True
    def write(self, data):
        if os.getpid() != creator: with_lock.write_to(16)
        return len(data)
creator = os.getpid()
"""

DAMAGE = {
    "del-in-a-collection": Death(
        "cycle = Dying(); cycle.me = cycle; del cycle; gc.collect()",
        _CRASHED + " and error.stack[-1].name == 'Dying.__del__'",
        damage="collector",
        lost="collector",
        setting="""
class Dying:
    def __del__(self): with_lock.write_to(16)
""",
        afterwards="assert die(lambda: with_lock.write_to(16)).damage == (), 'the second has not done it'",
    ),
    "import": Death(
        "import_half_made()",
        _CRASHED + " and 'half_made' in error.damage[0]",
        damage="import",
        setting=_MODULE + "os.write(waited[1], b'x')",
        afterwards="assert in_thread(import_half_made) == import_half_made() == 7",
    ),
    "import-that-others-wait-for": Death(
        "import_half_made()",
        _CRASHED + " and 'half_made' in error.damage[0]",
        damage="import",
        setting=_MODULE + _WAITING_IMPORTER,
        afterwards="""
beside.join()
assert in_thread(import_half_made) == 7
while not importers: time.sleep(0.001)
if sys.version_info < (3, 14):
    assert importers[0].startswith("partially initialized module 'half_made'"), "as after any import that fails"
else: assert importers == [7]
""",
    ),
    "logging": Death(
        "logging.getLogger('dying').error('last words')",
        _CRASHED + " and 'Dying' in error.damage[0]",
        damage="logging",
        setting="""
class Dying(logging.Handler):
    def emit(self, record):
        if os.getpid() != creator: with_lock.write_to(16)
        heard.append(record.msg)
creator, heard = os.getpid(), []
logging.getLogger("dying").addHandler(Dying())
""",
        afterwards="in_thread(logging.getLogger('dying').error, 'on'); assert heard == ['on']",
    ),
    "logging-module-lock": Death("with logging._lock: with_lock.write_to(16)", _CRASHED, damage="logging"),
    "rlock": Death(
        "with lock, other: with_lock.write_to(16)",
        _CRASHED + " and error.damage[0].startswith('RLock: 2 ')",
        damage="RLock",
        setting="lock, other = threading.RLock(), threading.Condition()",
        afterwards="assert not lock.acquire(timeout=0.1) and not other.acquire(timeout=0.1)",
    ),
    "buffered-file": Death(
        "file.write(b'x'); file.flush()",
        _CRASHED,
        damage="buffered file",
        setting=_DYING_FILE + "file, other = io.BufferedWriter(Raw()), io.TextIOWrapper(io.BufferedWriter(Raw()))",
        afterwards="""
stuck = threading.Thread(target=file.flush, daemon=True)
stuck.start()
in_thread(other.write, "others can be used")
in_thread(other.flush)
stuck.join(0.1)
assert stuck.is_alive()
del file
gc.collect()
""",
    ),
    "several-locks": Death(
        "with lock, logging._lock: file.write(b'x'); file.flush()",
        _CRASHED,
        damage="logging, RLock, buffered file",
        setting=_DYING_FILE + "file = io.BufferedWriter(Raw()); lock = threading.RLock()",
    ),
}


@ROUTES
@pytest.mark.parametrize("how", DAMAGE)
def test_damage(route: str, how: str) -> None:
    witness(route, DAMAGE[how])


@ROUTES
def test_print(route: str) -> None:
    """A death in print(): sys.stdout is a new one, or the interpreter would wait for the old one's lock at its end."""
    creator(
        route,
        """
        read_end, full = os.pipe()
        os.set_blocking(full, False)
        with contextlib.suppress(BlockingIOError):
            while True: os.write(full, bytes(4096))
        os.set_blocking(full, True)
        own = os.dup(1)
        os.dup2(full, 1)
        error = end(lambda: print("x" * 10**5, flush=True), lambda pid: os.kill(pid, signal.SIGXCPU))
        os.dup2(own, 1)
        assert error.signal == signal.SIGXCPU, error
        assert error.damage == ("buffered file: <stdout> stays locked; sys.stdout is a new one on the same "
                                "descriptor",), error.damage
        in_thread(lambda: print("said", flush=True))
        assert (sys.stdout.name, sys.stdout.mode, sys.stdout.encoding) == ("<stdout>", "w", sys.__stderr__.encoding)
        goes_on()
        """,
    )
