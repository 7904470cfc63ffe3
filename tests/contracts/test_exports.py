"""What is public: the names, their docstrings, the types."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import pytest

import taskclone
from taskclone import _core, errors
from taskclone.tracer import _ptrace

PACKAGE = Path(taskclone.__file__).parent

PUBLIC = {
    "CAPTURE", "PROCESS", "SHARED", "THREAD", "CloneFlags",
    "ChildSetup", "Executor", "ExitStatus", "Plan", "Task",
    "call", "clone", "fork", "stats",
    "FlagError", "OutcomeError", "StartError", "TaskDied", "TaskError", "TaskTerminated", "UnsupportedOperation",
}  # fmt: skip


def test_all_is_what_is_documented() -> None:
    assert set(taskclone.__all__) == PUBLIC
    assert len(taskclone.__all__) == len(PUBLIC)


def test_nothing_else_is_public() -> None:
    more = {
        name
        for name, value in vars(taskclone).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name not in PUBLIC
    }
    assert more == set()


def test_every_error_of_the_errors_file_is_exported() -> None:
    assert set(errors.__all__) <= PUBLIC
    roots = {name for name in errors.__all__ if not issubclass(getattr(errors, name), taskclone.TaskError)}
    assert roots == {"TaskTerminated"}, "which is raised inside a body only, and is a SystemExit"


OBJECTS = {name: getattr(taskclone, name) for name in PUBLIC - {"CAPTURE", "PROCESS", "SHARED", "THREAD"}}
OBJECTS["package"] = taskclone


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_every_public_object_has_a_docstring(name: str) -> None:
    value = OBJECTS[name]
    assert len((value.__doc__ or "").strip()) > 20
    if not inspect.isclass(value):
        return
    for member, what in vars(value).items():
        if member.startswith("_") or not (inspect.isroutine(what) or isinstance(what, property)):
            continue
        assert inspect.getdoc(what), f"{name}.{member}"


@pytest.mark.parametrize("name", ["call", "clone", "stats"])
def test_every_public_function_is_annotated(name: str) -> None:
    signature = inspect.signature(getattr(taskclone, name))
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in signature.parameters.values())


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_core.pyi").exists()


def stub_names(body: list[ast.stmt]) -> set[str]:
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    names |= {n.target.id for n in body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
    return {
        name for name in names if not name.startswith("_") or name == "__init__"
    }  # the others are types of the stub


def public_names(value: Any) -> set[str]:
    return {name for name in vars(value) if not name.startswith("_")}


EXTENSIONS = pytest.mark.parametrize(("extension", "stub"), [(_core, "_core.pyi"), (_ptrace, "tracer/_ptrace.pyi")])


@EXTENSIONS
def test_the_stub_is_what_the_extension_has(extension: Any, stub: str) -> None:
    body = ast.parse((PACKAGE / stub).read_text()).body
    assert stub_names(body) == public_names(extension)
    for node in body:
        if isinstance(node, ast.ClassDef):
            assert stub_names(node.body) - {"__init__"} == public_names(getattr(extension, node.name)), node.name


@EXTENSIONS
def test_every_object_of_the_extension_has_a_docstring(extension: Any, stub: str) -> None:
    assert [name for name in public_names(extension) if name.islower() and not getattr(extension, name).__doc__] == []


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib import metadata

    try:
        installed = metadata.version("taskclone")
    except metadata.PackageNotFoundError:
        pytest.skip("taskclone is not installed here: it runs out of the source tree")
    assert taskclone.__version__ == installed
