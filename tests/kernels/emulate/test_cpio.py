"""Archives, read back by the form's own description."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import NamedTuple

import pytest
from cpio import Archive


class Entry(NamedTuple):
    mode: int
    modified: int
    data: bytes


def entries(archive: bytes) -> list[tuple[str, Entry]]:
    """Names and what is there, in order."""
    found, at = [], 0
    while at < len(archive):
        assert archive[at : at + 6] == b"070701"
        numbers = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        _, mode, owner, group, links, modified, size, *devices, length, checksum = numbers
        assert (owner, group, links, devices, checksum) == (0, 0, 1, [0] * 4, 0)
        at += 110
        name = archive[at : at + length]
        assert name.endswith(b"\0")
        at += length + -(110 + length) % 4
        found.append((name[:-1].decode(), Entry(mode, modified, archive[at : at + size])))
        at += size + -size % 4
    assert found.pop()[0] == "TRAILER!!!"
    return found


def test_folders_come_before_what_is_in_them_and_nothing_twice(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"abc")
    source.chmod(0o755)
    os.utime(source, (1_600_000_000, 1_600_000_000))
    file = io.BytesIO()
    archive = Archive(file)
    archive.add_folder("/tmp", 0o1777)
    archive.add_text("/a/b/text", "für")
    archive.add_copy("/a/b/copy", source)
    archive.add_text("/a/b/copy", "other")
    archive.close()
    assert entries(file.getvalue()) == [
        ("tmp", Entry(stat.S_IFDIR | 0o1777, 0, b"")),
        ("a", Entry(stat.S_IFDIR | 0o755, 0, b"")),
        ("a/b", Entry(stat.S_IFDIR | 0o755, 0, b"")),
        ("a/b/text", Entry(stat.S_IFREG | 0o644, 0, "für".encode())),
        ("a/b/copy", Entry(stat.S_IFREG | 0o755, 1_600_000_000, b"abc")),
    ]


def test_a_folder_is_copied_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / "1").write_text("one")
    (tmp_path / "x" / "2").write_text("two")
    file = io.BytesIO()
    archive = Archive(file)
    archive.add_copy("/to", tmp_path / "x")
    archive.close()
    assert [(name, entry.data) for name, entry in entries(file.getvalue())] == [
        ("to", b""), ("to/2", b"two"), ("to/y", b""), ("to/y/1", b"one"),
    ]  # fmt: skip


def test_the_links_that_lead_to_a_file_come_too(tmp_path: Path) -> None:
    """As /lib, which is usr/lib, and libc.so, which is another file of the same folder."""
    (tmp_path / "usr" / "lib").mkdir(parents=True)
    (tmp_path / "usr" / "lib" / "libx.so.1.2").write_text("x")
    (tmp_path / "usr" / "lib" / "libx.so.1").symlink_to("libx.so.1.2")
    (tmp_path / "lib").symlink_to("usr/lib")
    roundabout = tmp_path / "usr" / "lib" / ".." / "lib"
    (tmp_path / "etc").symlink_to(roundabout)
    file = io.BytesIO()
    archive = Archive(file)
    archive.add_own(tmp_path / "lib" / "libx.so.1")
    archive.add_own(tmp_path / "etc" / "libx.so.1")
    archive.close()
    root = str(tmp_path.relative_to("/"))
    found = {
        name.removeprefix(f"{root}/"): entry for name, entry in entries(file.getvalue()) if name.startswith(f"{root}/")
    }
    assert {name: entry.data for name, entry in found.items() if stat.S_ISLNK(entry.mode)} == {
        "lib": b"usr/lib", "usr/lib/libx.so.1": b"libx.so.1.2", "etc": os.fsencode(roundabout),
    }  # fmt: skip
    assert found["usr/lib/libx.so.1.2"].data == b"x"


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many symbolic links"):
        Archive(io.BytesIO()).add_own(tmp_path / "a")
