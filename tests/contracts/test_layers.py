"""The house: every file is named in the layout of taskclone/__init__.py, and imports only what stands further up."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import taskclone

PACKAGE = Path(taskclone.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))
ORDER = [
    "_core", "errors", "flags", "flagdoc", "rule", "setuprules", "rules", "forms", "explain", "childsetup", "capture",
    "awaiting", "plan", "outcome", "damage", "leftovers", "traces", "culprit", "salvage", "parcel", "task", "routes",
    "launch", "faces", "__init__", "tracer", "bench", "doctor", "report", "cli",
]  # fmt: skip
"""From the bottom, which is at the top of the layout, to the faces."""


def layer(path: Path) -> str:
    """The file of the package, or its folder."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_only_for_types_or_main(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'")


def imports(body: list[ast.stmt], package: str = "") -> Iterator[str]:
    """Dotted names below taskclone that are imported anywhere, functions included; "" for the package itself."""
    for node in body:
        if is_only_for_types_or_main(node):
            assert isinstance(node, ast.If)
            yield from imports(node.orelse)
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[2] for alias in node.names if alias.name.split(".")[0] == "taskclone")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "taskclone":
            below = (node.module or "").partition(".")[2]
            for alias in node.names:
                name = f"{below}.{alias.name}".lstrip(".")
                yield name if is_module(name) else below
        assert not isinstance(node, ast.ImportFrom) or node.level == 0, "relative imports hide the layer"
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from imports(getattr(node, field, []))


def is_module(name: str) -> bool:
    place = PACKAGE.joinpath(*name.split("."))
    return name == "_core" or place.is_dir() or place.with_suffix(".py").exists()


def imported_by(path: Path) -> set[str]:
    return set(imports(ast.parse(path.read_text(encoding="utf-8")).body))


def test_the_reader_of_imports_finds_them() -> None:
    text = """
import os
from taskclone.flags import ROWS
from taskclone import rules, _core, Task
if TYPE_CHECKING:
    from taskclone.task import Task
if __name__ == "__main__":
    import taskclone.cli
def late():
    try:
        import taskclone.bench.run
    except ImportError:
        from taskclone import bench
"""
    assert set(imports(ast.parse(text).body)) == {"flags", "rules", "_core", "", "bench.run", "bench"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = layer(path)
    below = ORDER[: ORDER.index(own)]
    for name in imported_by(path):
        target = name.split(".")[0] or "__init__"
        assert target in below or (target == own and path.parent != PACKAGE), f"{own} imports {name or 'the package'}"


COMMON = {f"routes.{name}" for name in ("children", "copying", "fallback", "idmaps", "ownthreads", "setup")}
"""What the routes have in common."""


def test_the_routes_do_not_know_each_other() -> None:
    for path in (PACKAGE / "routes").glob("*.py"):
        others = {name for name in imported_by(path) if name.startswith("routes")}
        assert others <= COMMON, path.name


def test_the_instruments_know_neither_each_other_nor_the_faces() -> None:
    """The cases of the benchmarks measure the faces."""
    for own, others in (
        ("tracer", {"bench", "doctor", "faces"}),
        ("bench", {"doctor", "tracer"}),
        ("doctor", {"bench", "faces", "tracer"}),
    ):
        for path in (PACKAGE / own).rglob("*.py"):
            assert not {name.split(".")[0] for name in imported_by(path)} & others, path.name


def test_every_file_is_named_in_the_layout() -> None:
    layout = taskclone.__doc__ or ""
    words = set(layout.replace("(", " ").split())
    found = {layer(path) for path in FILES} - {"__init__"} | {"_core"}
    missing = {name for name in found if name not in words and f"{name}/" not in words}
    assert missing == set()
    named = {line.split("  ")[0].strip() for line in layout.splitlines() if line.startswith("    ")}
    assert {name.rstrip("/") for names in named for name in names.split()} <= found, "and no more"
    assert set(ORDER) == found | {"__init__"}


def test_the_layout_is_in_the_order_that_is_kept() -> None:
    first = [line.split()[0].rstrip("/") for line in (taskclone.__doc__ or "").splitlines() if line.startswith("    ")]
    first.remove("_core")
    assert first == [name for name in ORDER if name in first]


def test_importing_the_package_loads_neither_faces_nor_instruments() -> None:
    script = "import sys, taskclone; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=20)
    loaded = set(done.stdout.split())
    above = tuple(f"taskclone.{name}" for name in ("faces", "tracer", "bench", "doctor", "report", "cli"))
    assert {name for name in loaded if name.startswith(above)} == set()
    heavy = {"click", "rich", "matplotlib", "numpy", "psutil", "pyperf", "asyncio", "multiprocessing"}
    assert loaded & (heavy | {"concurrent.futures", "logging"}) == set()
