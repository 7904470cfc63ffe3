"""Writes an initramfs: a cpio archive in the "newc" form, the only one that the kernel unpacks
(Documentation/driver-api/early-userspace/buffer-format.rst)."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

__all__ = ["Archive"]

_FOLDER = stat.S_IFDIR | 0o755
_LINK = stat.S_IFLNK | 0o777
_LINKS_IN_A_ROW = 40  # as the kernel's own limit


class Archive:
    """An archive that is being written; everything in it belongs to root. Folders above a name come by themselves.

    A name that is there already is passed over: what several users need is simply added by each.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._there = {PurePosixPath("/")}

    def add_folder(self, name: str, mode: int = 0o755) -> None:
        """An empty folder."""
        self._enter(PurePosixPath(name), stat.S_IFDIR | mode)

    def add_text(self, name: str, text: str, mode: int = 0o644) -> None:
        """A file with that text in it."""
        self._enter(PurePosixPath(name), stat.S_IFREG | mode, text.encode())

    def add_copy(self, name: str, source: Path) -> None:
        """A file of this machine, or a folder with all that is in it, under that name."""
        if source.is_dir():
            for below in sorted(source.iterdir()):
                self.add_copy(f"{name}/{below.name}", below)
        else:
            status = source.stat()
            mode = stat.S_IFREG | (0o755 if status.st_mode & stat.S_IXUSR else 0o644)
            # With its time: bytecode is good only for a source of the time that is noted in it.
            self._enter(PurePosixPath(name), mode, source.read_bytes(), int(status.st_mtime))

    def add_own(self, path: str | Path) -> None:
        """A file of this machine under its own path, with the symbolic links that lead to it."""
        at, rest, followed = PurePosixPath("/"), list(PurePosixPath(path).parts[1:]), 0
        while rest:
            part = rest.pop(0)
            if part == "..":
                at = at.parent
                continue
            at /= part
            if not os.path.islink(at):
                continue
            followed += 1
            if followed > _LINKS_IN_A_ROW:
                raise OSError(f"too many symbolic links on the way to {path}")
            target = PurePosixPath(os.readlink(at))
            self._enter(at, _LINK, os.fsencode(target))
            rest = [*(target.parts[1:] if target.is_absolute() else target.parts), *rest]
            at = PurePosixPath("/") if target.is_absolute() else at.parent
        self.add_copy(str(at), Path(at))

    def close(self) -> None:
        """Writes the mark of the end; the file stays open."""
        self._write("TRAILER!!!", 0, b"", 0)

    def _enter(self, name: PurePosixPath, mode: int, data: bytes = b"", modified: int = 0) -> None:
        if name in self._there:
            return
        self._there.add(name)
        self._enter(name.parent, _FOLDER)
        self._write(str(name.relative_to("/")), mode, data, modified)

    def _write(self, name: str, mode: int, data: bytes, modified: int) -> None:
        number, links, owner, device, checksum = len(self._there), 1, 0, 0, 0
        encoded = os.fsencode(name) + b"\0"
        fields = [number, mode, owner, owner, links, modified, len(data), *[device] * 4, len(encoded), checksum]
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
        for part in (header, data):
            self._file.write(part + b"\0" * (-len(part) % 4))
