"""Names of the files of AHEAD: which subject, inversion and echo, and what a file holds of it."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ECHOES", "Part", "image_part", "raw_part"]

ECHOES = 4
"""Of the second inversion."""

_RAW = re.compile(r"mp2rageme_(?P<subject>[0-9]+)_(?P<inversion>inv[12])(?:_te(?P<echo>[0-9]))?\.h5")
_COILS = re.compile(r"(?:mp2rageme_)?(?:coilsens_(?P<after>[0-9]+)|(?P<before>[0-9]+)_coilsens)\.h5")
_IMAGE = re.compile(r"(?P<stem>.*?)\.nii(?:\.gz)?")
_MARK = re.compile(r"(?<![a-z0-9])(?:mp2rageme|ahead)(?![a-z])")
_ECHO = re.compile(r"(?<![a-z0-9])(?:echo|te|e)[-_]?(?P<echo>[1-9])(?![0-9])")
_KIND = re.compile(r"(?<![a-z0-9])(?:part-)?(?P<kind>magnitude|mag|phase|ph)(?![a-z0-9])")


@dataclass(frozen=True)
class Part:
    """What one file holds of a scan.

    Attributes
    ----------
    scan
        Equal for the files of one scan: ``001_inv2``, or the name of images without echo and kind.
    kind
        ``kspace``, ``coils``, ``magnitude`` or ``phase``.
    echo
        From 1; 0 for a file that is none of several echoes.
    """

    scan: str
    kind: str
    echo: int = 0

    @property
    def subject(self) -> str:
        """The number of the subject, of raw files."""
        return self.scan.partition("_")[0]


def raw_part(path: Path) -> Part | None:
    """Return what a raw file is by its name, None when it is not named as those of AHEAD."""
    found = _RAW.fullmatch(path.name)
    if found:
        return Part(f"{found['subject']}_{found['inversion']}", "kspace", int(found["echo"] or 0))
    coils = _COILS.fullmatch(path.name)
    return Part(coils["after"] or coils["before"], "coils") if coils else None


def image_part(path: Path) -> Part | None:
    """Return what an image is by its name, None where it does not state the set, echo, and magnitude or phase.

    Examples
    --------
    >>> image_part(Path("sub-01_acq-mp2rageme_inv-2_echo-2_part-phase.nii.gz"))
    Part(scan='sub-01_acq-mp2rageme_inv-2', kind='phase', echo=2)
    >>> image_part(Path("sub-01_echo-2_part-phase_MEGRE.nii.gz")) is None
    True
    """
    named = _IMAGE.fullmatch(path.name)
    stem = named["stem"] if named else ""
    words = stem.lower().replace("_", " ")
    echo, kind = _ECHO.search(words), _KIND.search(words)
    if echo is None or kind is None or not _MARK.search(words) or re.search("inv-?1", words):
        return None
    spans = sorted((echo.span(), kind.span()), reverse=True)
    for start, stop in spans:
        stem = stem[:start] + stem[stop:]
    scan = re.sub(r"[_.\-\s]{2,}", "_", stem).strip("_.- ")
    return Part(scan, "magnitude" if kind["kind"].startswith("mag") else "phase", int(echo["echo"]))
