"""Names of files and patients: which may be stored, and what stands for the others; which names are none."""

import hashlib
import re

__all__ = ["bids_suffix", "contrast_of", "is_anonymous", "is_bids", "stored_name"]

_ENDING = re.compile(r"\.(nii|nii\.gz|h5|hdf5|mrd|cfl|hdr|nrrd|nhdr|mha|mhd|par|PAR|png|dat|npy|mat)$")
_BIDS = re.compile(r"sub-[A-Za-z0-9]+(?:_[a-z]+-[A-Za-z0-9]+)*(?:_(?P<suffix>[A-Za-z0-9]+))?")
_HARMLESS = re.compile(
    r"file(_(brain|knee|prostate)(_AX[A-Z0-9]+)*)?(_?[0-9]+)*"  # as the fastMRI data set names its files
    r"|MTR_[0-9]{3}"  # as SKM-TEA does
    r"|name-[0-9a-f]{12}"  # made here
    r"|(dataset|scan)[_-]?[0-9]*"  # groups in ISMRMRD files
)


def is_bids(stem: str) -> bool:
    """Whether a name without ending has the form ``sub-X[_key-value]...[_suffix]``."""
    return _BIDS.fullmatch(stem) is not None


def bids_suffix(stem: str) -> str | None:
    """Return the suffix, the contrast for images, of a name in the BIDS form, None where there is none."""
    found = _BIDS.fullmatch(stem)
    return found["suffix"] if found else None


_CONTRASTS = re.compile(
    r"(?:^|[_\W])(t1w?|t2w?|t2star|pdw?|flair|dwi|adc|b0|bold|cine|swi|t1ce|t1c|t1gd|t1n|t2f|mprage|angio|hbv)(?=[_\W]|$)"
)


def contrast_of(stem: str) -> str:
    """Return the contrast that a file's name states, else ``image``.

    Of names wholly in the BIDS form it is the suffix; in others a known word is looked for, since the rest may be a
    person's name.

    Examples
    --------
    >>> contrast_of("sub-01_ses-2_T1w"), contrast_of("DOE_JOHN_t2"), contrast_of("DOE_JOHN")
    ('t1w', 't2', 'image')
    """
    if is_bids(stem):
        return (bids_suffix(stem) or "image").lower()
    found = _CONTRASTS.search(stem.lower())
    return found[1] if found else "image"


_FILLERS = re.compile(r"[x0*#?^=_.,/\-\s]*", re.IGNORECASE)
_NOBODY = re.compile(
    r"anon(ym(ous|i[sz]ed?)?)?|unknown|unnamed|undefined|none|null|nil|nan|n[/.]?a\.?|no|not|available|applicable|given"
    r"|de-?identified|removed|redacted|deleted|hidden|empty|blank|patient(id)?|subject|name|id"
)


def is_anonymous(text: str | None) -> bool:
    """Whether what a file calls the patient tells nobody: what is left when names are taken out of files.

    Files that say so are of several patients.

    Examples
    --------
    >>> [is_anonymous(text) for text in ("", "xxxxxxxx", "0", "Anonymous^Patient", "N/A", "anon-17", "Xu^Na", "007")]
    [True, True, True, True, True, False, False, False]
    """
    words = re.split(r"[\^=_,\s]+", (text or "").strip().lower())
    return _FILLERS.fullmatch(text or "") is not None or all(_NOBODY.fullmatch(word) for word in words if word)


def stored_name(name: str) -> str:
    """Return the name of a file, or of a group in a file, as the store may hold it.

    Names in the BIDS form and those known to be harmless stay. Of any other the ending stays, after a hash by which the
    file is known again. What this returns stays as it is when it is given again.

    Examples
    --------
    >>> stored_name("sub-01_T1w.nii.gz"), stored_name("file1000.h5"), stored_name("DOE_JOHN_t1.nii.gz")
    ('sub-01_T1w.nii.gz', 'file1000.h5', 'name-369597a2ffae.nii.gz')
    """
    found = _ENDING.search(name)
    ending = found[0] if found else ""
    stem = name.removesuffix(ending)
    if is_bids(stem) or _HARMLESS.fullmatch(stem):
        return name
    return f"name-{hashlib.sha256(stem.encode()).hexdigest()[:12]}{ending}"
