"""Words of scanners that may be stored: makers, models, coils and sequences. Any other text may name a patient."""

import re
from collections.abc import Sequence

__all__ = ["known_coil", "known_diffusion_scheme", "known_model", "known_sequence", "known_vendor"]

_VENDORS = {
    "SIEMENS": "SIEMENS", "GE": "GE", "GENERAL ELECTRIC": "GE", "PHILIPS": "Philips", "TOSHIBA": "Toshiba",
    "CANON": "Canon", "BRUKER": "Bruker", "HITACHI": "Hitachi", "FUJIFILM": "Fujifilm", "UIH": "UIH",
    "UNITED IMAGING": "UIH", "HYPERFINE": "Hyperfine", "AGILENT": "Agilent", "VARIAN": "Varian", "ESAOTE": "Esaote",
}  # fmt: skip

# Of one word, ``CORPDFS``, ``AXT1POST``, ``DwiSE``, ``tse2d1``: plane, contrast, preparation, sequence, dimensions.
_PLANES = "ax|axial|sag|sagittal|cor|coronal|tra|transversal|transverse|oblique"
_CONTRASTS = (
    "t1w?|t2w?|t2star|t1n|t1c|t2f|pdw?|dwi?|diff|diffusion|dti|adc|trace|b0|b1|swi|tof|angio|bold|fmri|perf|perfusion"
    "|asl|pcasl|pasl|dce|dsc|cine|flow|lge|mt|qsm|hbv|ttp|rcbv"
)
_PREPARATIONS = "flair|stir|ir|psir|fs|fatsat|fbk|spair|spir|pre|post|ce|gd|star|we|dixon|me"
_SEQUENCES = (
    "se|tse|fse|ssfse|sstse|gre|gr|mgre|megre|ep|epi|epse|fe|feepi|seepi|ffe|tfe|fl|flash|tfl|tfi|fi|fisp|tir|tgse|pgse"
    "|trufi|truefisp|trufisp|bssfp|balanced|ssfp|bffe|fiesta|ciss|dess|qdess|haste|space|spc|spcir|cube|vista|mprage"
    "|memprage|mp2rage|mp2rageme|rage|spgr|fspgr|irfspgr|bravo|vibe|lava|thrive|grase|propeller|blade|medic|merge|ute|zte"
    "|petra|resolve|molli|shmolli|rm|sk|press|steam|svs|csi|fid|spiral|radial|phantom|scout|localizer|localiser|survey"
)
_WORD = rf"(?:{_PLANES})?(?:{_CONTRASTS})?(?:{_PREPARATIONS})*(?:{_SEQUENCES})?(?:[23]d\d{{0,2}})?(?:{_PREPARATIONS})*"
_SEQUENCE = re.compile(_WORD, re.IGNORECASE)
_SIEMENS = re.compile(rf"\*?(?:{_SEQUENCES})[23]d\d{{0,2}}_\d{{1,3}}[a-z]{{0,2}}\d?")
"""As Siemens names them, ``*tfl3d1_16ns``."""
_LONG = re.compile(
    "acquisition|and|brain|breast|cardiac|dual|echo|echoes|fast|field|gradient|head|heart|high|imaging"
    "|inversion|knee|liver|magnetisation|magnetization|mapping|mode|multi|multishot|multislice|neck|planar"
    "|prepared|prostate|pulse|rapid|recalled|recovery|refocused|resolution|saturation|shot|single|slice|slices"
    "|spin|spine|spoiled|state|steady|suppressed|susceptibility|true|turbo|ultrafast|volume|weighted|weighting"
    "|with",
    re.IGNORECASE,
)

_MODELS = re.compile(
    "magnetom|skyra|prisma|prismafit|fit|aera|avanto|espree|symphony|sonata|harmony|trio|triotim|tim|verio|vida|lumina"
    "|sola|altea|terra|free|max|star|cima|plus|biograph|mmr|allegra|concerto|essenza|spectra|sempra|amira|investigational"
    "|achieva|ingenia|intera|ambition|elition|panorama|gyroscan|evolution|dstream|multiva|prodiva|mr|systems?|medical"
    "|signa|discovery|optima|architect|premier|pioneer|hdxt?|hd|excite|artist|voyager|creator|explorer|victor|horizon"
    r"|mr\d{3}w?|vantage|titan|orian|galan|centurian|elan|biospec|pharmascan|swoop|umr|echelon|oval|aperto|[xs]|\d{1,3}t?",
    re.IGNORECASE,
)
_COILS = re.compile(
    "head|neck|headneck|body|spine|knee|breast|cardiac|torso|foot|ankle|shoulder|wrist|hand|flex|small|large|array|coil"
    "|matrix|anterior|posterior|left|right|upper|lower|extremity|phased|channel|ch|tx|rx|tr|volume|surface|brain|neuro"
    r"|(?:hd|hea|hep|neu|sp|bo|[a-z])?\d{1,3}[a-z]{0,2}",
    re.IGNORECASE,
)
_DIFFUSION = re.compile("monopolar|bipolar|stejskal|tanner|twice|refocused|spin|echo|single|double", re.IGNORECASE)
_BETWEEN = re.compile(r"[\W_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def known_vendor(text: str | None) -> str | None:
    """Return the maker of a scanner that text names, of those known; None of other text.

    Examples
    --------
    >>> known_vendor("GE MEDICAL SYSTEMS"), known_vendor("Siemens, scanner of Doe"), known_vendor("Dr Gerd")
    ('GE', 'SIEMENS', None)
    """
    upper = (text or "").upper()
    return next((name for word, name in _VENDORS.items() if re.search(rf"\b{word}(?![A-Z])", upper)), None)


def known_sequence(text: str | None, personal: Sequence[str] = ()) -> str | None:
    """Return the words of text by which sequences and their contrasts are called; None where there is none.

    Text that has no other words comes back as it is; of other text the known words are joined. What is no such word,
    numbers too, may be a name, an id or a date.

    Parameters
    ----------
    text
        Name of a sequence, a technique, a protocol.
    personal
        What names the patient: a person may be called as a sequence is.

    Examples
    --------
    >>> known_sequence("CORPDFS_FBK"), known_sequence("TurboSpinEcho"), known_sequence("*tse2d1_15")
    ('CORPDFS_FBK', 'TurboSpinEcho', '*tse2d1_15')
    >>> known_sequence("AXT2 of DOE, 1950-02-03"), known_sequence("Doe"), known_sequence("Space", ["Space"])
    ('AXT2', None, None)
    """
    whole = (text or "").strip()
    names = {one.lower() for one in personal}
    if _SIEMENS.fullmatch(whole):
        return whole
    words = [word for word in _BETWEEN.split(whole) if word]
    known = [word for word in words if _is_sequence(word) and word.lower() not in names]
    return whole if known and known == words else "_".join(known) or None


def _is_sequence(word: str) -> bool:
    parts = [word] if _SEQUENCE.fullmatch(word) else _CAMEL.split(word)
    return all(_SEQUENCE.fullmatch(part) or _LONG.fullmatch(part) for part in parts)


def known_model(text: str | None) -> str | None:
    """Return the known words of the name of a scanner's model."""
    return _known(text, _MODELS)


def known_coil(text: str | None) -> str | None:
    """Return the known words of the name of a coil or of one of its elements, ``HeadNeck_20:1:H11``."""
    return _known(text, _COILS)


def known_diffusion_scheme(text: str | None) -> str | None:
    """Return the known words of the name of a diffusion weighting."""
    return _known(text, _DIFFUSION)


def _known(text: str | None, words: re.Pattern[str]) -> str | None:
    """Return text all words of which are known, of other text the known words that are no numbers."""
    whole = (text or "").strip()
    found = [word for word in _BETWEEN.split(whole) if word]
    known = [word for word in found if words.fullmatch(word)]
    if known and known == found:
        return whole
    return "_".join(word for word in known if not word.isdecimal()) or None
