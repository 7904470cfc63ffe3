from collections.abc import Sequence
from typing import Literal, TypeAlias

_CloneArgs: TypeAlias = tuple[int, int, int, int, int, int, int, int, int, int, int]

_Failed: TypeAlias = tuple[Literal["failed"], str, int]
_Exec: TypeAlias = tuple[Literal["exec"], int, int, str]
_Call: TypeAlias = tuple[Literal["call"], int, str, int, int, bool, int, int, _CloneArgs]
_End: TypeAlias = tuple[Literal["end"], int, int]

RECORD_SIZE: int

def parse(data: bytes, /) -> list[_Failed | _Exec | _Call | _End]: ...
def start(
    path: bytes, argv: Sequence[bytes], environment: Sequence[bytes], streams: tuple[int, int, int], /
) -> tuple[int, int, int]: ...
