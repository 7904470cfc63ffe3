"""The benchmark cases: every module here has a ``CASE``. To add one, add a file."""

from __future__ import annotations

from importlib import import_module

from taskclone.bench.series import Case

__all__ = ["find"]


def find(name: str) -> Case:
    """The case of the module ``name`` in this package."""
    case = import_module(f"{__name__}.{name}").CASE
    if not isinstance(case, Case):
        raise TypeError(f"{__name__}.{name}.CASE is not a Case")
    return case
