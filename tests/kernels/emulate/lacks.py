"""The one exception of the emulator."""

from __future__ import annotations

import shutil

__all__ = ["Lacking", "need"]


class Lacking(Exception):
    """Something that this machine, or Debian's archive, does not have; the text says what to do."""


def need(programs: dict[str, str]) -> None:
    """Raises Lacking for programs that are not here; the values are the Debian packages that bring them."""
    missing = {package for program, package in programs.items() if not shutil.which(program)}
    if missing:
        raise Lacking(f"missing here: apt install --no-install-recommends {' '.join(sorted(missing))}")
