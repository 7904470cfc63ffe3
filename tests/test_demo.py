"""``taskclone demo``: the sample of the article and its forms, with stdout a pipe."""

from __future__ import annotations

import pytest

from creator import run


def demo(*form: str) -> tuple[int, str, str]:
    return run(f"sys.argv = ['taskclone', 'demo', *{form!r}]\nfrom taskclone.cli import main\nmain()")


def test_the_sample_of_the_article() -> None:
    assert demo() == (
        0,
        'Child sees buf = "hello from parent"\nChild exited with status 0. buf = "hello from parent"\n',
        "",
    )


def test_the_sample_with_shared_memory() -> None:
    assert demo("vm") == (
        0,
        'Child sees buf = "hello from parent"\nChild exited with status 0. buf = "hello from child"\n',
        "",
    )


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("ids", ["creator", "PROCESS", "SHARED", "THREAD"]),
        (
            "fd",
            [
                "SHARED: the descriptor that the task opened is in",
                "PROCESS: the descriptor that the task opened is not",
            ],
        ),
        ("stop", ["TimeoutError"]),
        ("crash", ["SIGSEGV", "ctypes.string_at(0)", "goes on"]),
    ],
)
def test_the_other_forms(form: str, words: list[str]) -> None:
    status, out, err = demo(form)
    assert (status, err) == (0, "")
    assert [word for word in words if word not in out] == []
