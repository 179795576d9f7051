"""Defects of files, drawn by hypothesis: bits, bytes, extreme integers, pieces lost, doubled or exchanged."""

from dataclasses import dataclass

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

__all__ = ["Case", "Edit", "cases", "mutated"]

_HEAD = 4096
"""Bytes at the beginning, where damage has consequences: half of the defects go there."""
_EXTREMES = [
    value.to_bytes(width, order)  # type: ignore[arg-type]
    for width in (1, 2, 4, 8)
    for order in ("little", "big")
    for value in (0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width - 1), 2 ** (8 * width) - 1)
]


@dataclass(frozen=True)
class Edit:
    """One defect; places are fractions of the file, or of its head."""

    kind: str
    in_head: bool
    place: float
    other: float
    length: int
    bit: int
    content: bytes
    extreme: bytes


@dataclass(frozen=True)
class Case:
    """The defects of one input, and which of its files has them, a fraction of their number."""

    victim: float
    edits: list[Edit]


_FRACTION = st.floats(0, 1, exclude_max=True)
_EDITS = st.builds(
    Edit,
    kind=st.sampled_from(("bit", "bytes", "extreme", "cut", "delete", "double", "exchange", "zero")),
    in_head=st.booleans(),
    place=_FRACTION,
    other=_FRACTION,
    length=st.integers(1, 64),
    bit=st.integers(0, 7),
    content=st.binary(min_size=64, max_size=64),
    extreme=st.sampled_from(_EXTREMES),
)
_CASES = st.builds(Case, victim=_FRACTION, edits=st.lists(_EDITS, min_size=1, max_size=4))


def cases(number: int, seed: int) -> list[Case]:
    """Return that many cases, the same for the same seed and sources: hypothesis draws from their constants, too."""
    found: list[Case] = []
    quick = settings(
        max_examples=number,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    while len(found) < number:  # hypothesis may stop early

        @hypothesis.seed(seed + len(found))
        @quick
        @given(_CASES)
        def collect(case: Case) -> None:
            found.append(case)

        collect()
    return found[:number]


def mutated(data: bytes, edits: list[Edit]) -> bytes:
    """Return bytes with defects, one after the other."""
    changed = bytearray(data)
    for edit in edits:
        size = len(changed)
        if not size:
            break
        at = int(edit.place * (min(size, _HEAD) if edit.in_head else size))
        end = min(size, at + edit.length)
        if edit.kind == "bit":
            changed[at] ^= 1 << edit.bit
        elif edit.kind == "bytes":
            changed[at:end] = edit.content[: end - at]
        elif edit.kind == "extreme":
            changed[at : at + len(edit.extreme)] = edit.extreme
        elif edit.kind == "cut":
            del changed[at:]
        elif edit.kind == "delete":
            del changed[at:end]
        elif edit.kind == "double":
            changed[at:at] = changed[at:end]
        elif edit.kind == "exchange":
            other = int(edit.other * size)
            changed[at:end], changed[other : other + end - at] = changed[other : other + end - at], changed[at:end]
        else:
            changed[at:end] = bytes(end - at)
    return bytes(changed)
