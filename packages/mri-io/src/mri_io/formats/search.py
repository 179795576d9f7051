"""Which volumes are in files and folders: every file is shown to the readers in turn, data sets are taken whole."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mri_io.errors import ConfigError, FormatError, MriError, expected_got
from mri_io.formats.base import Format, ReadOptions, SourceItem
from mri_io.formats.contents import content_of
from mri_io.formats.table import formats, get_format

__all__ = ["Found", "find_items", "find_sources"]


@dataclass(frozen=True)
class Found:
    """What is in files and folders.

    `items` are the volumes, `passed_over` files of no known format, `left_out` folders that were not looked through,
    `cohorts` such that hold a cohort.
    """

    items: list[SourceItem]
    passed_over: list[Path]
    left_out: list[Path]
    cohorts: list[Path] = field(default_factory=list)


def find_items(
    sources: Sequence[str | Path], format: str = "auto", choices: ReadOptions | None = None
) -> list[SourceItem]:
    """Return the volumes in files and folders; see `find_sources`."""
    return find_sources(sources, format, choices).items


def find_sources(
    sources: Sequence[str | Path], format: str = "auto", choices: ReadOptions | None = None, *, isolate: bool = False
) -> Found:
    """Return the volumes in files and folders, and what was passed over.

    A folder is taken as one data set if a reader knows its layout; otherwise its files are looked at one by one
    (label maps in a folder ``labels`` are left to ``--labels``), and those of no known format are passed over. The
    folder ``derivatives`` of a BIDS data set is left out: what was computed of a scan has its name. It may be given
    itself. So are cohorts left out, which hold volumes already. What cannot be read, for want of permission for
    example, is an item with a `problem`. With `isolate` damaged files cannot hang or crash this process.

    Raises
    ------
    FormatError
        When a source does not exist, or nothing in any is of a known (or the given) format.
    ConfigError
        When a source has an empty name, or none of the formats found follows an option that was chosen.
    """
    names = formats() if format == "auto" else [format]
    readers = [get_format(name, isolate=isolate) for name in names]
    items: dict[tuple[Path, str], tuple[SourceItem, Path]] = {}
    search = _Search(readers)
    for source in sources:
        if not str(source):
            raise ConfigError("convert: expected a file or folder, got an empty name. Is a variable not set?")
        path = Path(source).absolute()  # workers on other machines may have another working directory
        if not _is_there(path):
            raise FormatError(f"{path}: there is no such file or folder.")
        found = search.find(path)
        for item in found:
            # A pair of files given as both, or a file and its folder, are one item.
            folder = _folder(path) if item.path != path else path.parent
            items.setdefault((item.path.resolve(), item.label), (item, item.path.parent.relative_to(folder)))
    if not items:
        raise _nothing_known(names, sources)
    # Files of one series may be given one by one, as a shell expands *.dcm.
    folders = {item.path: folder for item, folder in items.values()}
    joined = _gathered([item for item, _ in items.values()])
    labelled = _with_distinct_labels([(item, folders[item.path]) for item in joined])
    left_out = [folder for folder in search.left_out if folder.resolve() not in search.seen]
    read = {file.resolve() for item in labelled for file in item.files}  # a sidecar, say
    passed_over = [path for path in search.passed_over if path.resolve() not in read]
    return Found(_with_choices(labelled, choices or ReadOptions(), format), passed_over, left_out, search.cohorts)


def _nothing_known(names: Iterable[str], sources: Sequence[str | Path]) -> FormatError:
    """Return the error for sources in which nothing is known; of one file it says what it is."""
    got, fix = "none of them", ""
    if len(sources) == 1 and Path(sources[0]).is_file():
        what, fix = content_of(Path(sources[0]))
        got = f"none of them: {what}"
    expected, where = f"one of the formats {', '.join(names)}", ", ".join(map(str, sources))
    return FormatError(expected_got("content", expected=expected, got=got, where=where, fix=fix))


def _gathered(found: Sequence[SourceItem]) -> list[SourceItem]:
    """Let each reader join what belongs together; the order is that of the first files."""
    groups: dict[str, list[SourceItem]] = {}
    for item in found:
        groups.setdefault(item.format, []).append(item)
    order = {(item.path, item.label): position for position, item in enumerate(found)}
    joined = [item for name, members in groups.items() for item in _joined(name, members)]
    return sorted(joined, key=lambda item: order.get((item.path, item.label), len(order)))


def _joined(name: str, items: list[SourceItem]) -> list[SourceItem]:
    if name not in formats():
        return items
    try:
        return formats()[name].gather(items)
    except Exception as error:  # which file is to blame is not known; those of other readers are not
        text = str(error) if isinstance(error, MriError) else f"{type(error).__name__}: {error}"
        why = f"could not be joined with the other files of the format {name}: {text}"
        return [replace(item, problem=item.problem or f"{item.path}: {why}") for item in items]


def _with_choices(items: Sequence[SourceItem], choices: ReadOptions, named: str) -> list[SourceItem]:
    """Give every item the options that its reader follows."""
    chosen = choices.chosen()
    followed = {
        name: reader.options | (reader.options_when_named if name == named else frozenset())
        for name, reader in formats().items()
    }
    found = {item.format for item in items} & followed.keys()
    for option in chosen:
        if not any(option in followed[name] for name in found):
            able = [name for name, reader in formats().items() if option in reader.options]
            able += [f"{name} (named by --format)" for name, r in formats().items() if option in r.options_when_named]
            got = ", ".join(sorted(found)) or "nothing readable"
            raise ConfigError(
                expected_got(f"--{option}", expected=f"sources of the formats {', '.join(able)}", got=got)
            )
    return [
        replace(item, choices=ReadOptions(**{k: v for k, v in chosen.items() if k in followed.get(item.format, ())}))
        for item in items
    ]


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # in a folder that may not be entered; looking for volumes says so
        return True


def _folder(source: Path) -> Path:
    try:
        return source if source.is_dir() else source.parent
    except OSError:
        return source.parent


class _Search:
    """Looks through files and folders, each folder once: links may lead back to where they are."""

    def __init__(self, readers: Sequence[Format]) -> None:
        self._readers = readers
        self.seen: set[Path] = set()
        self.passed_over: list[Path] = []
        self.left_out: list[Path] = []
        self.cohorts: list[Path] = []

    def find(self, path: Path) -> list[SourceItem]:
        """Return the volumes in a file or folder; what cannot be read is an item with a `problem`."""
        try:
            is_folder = path.is_dir()
            if is_folder:
                own = path.resolve()
                if own in self.seen:
                    return []
                self.seen.add(own)
                if _is_cohort(path):
                    self.cohorts.append(path)
                    return []
            for reader in self._readers:
                if _knows(reader, path):
                    return reader.find(path)
            if not is_folder:
                if named := next((r for r in self._readers if path.name.lower().endswith(r.endings)), None):
                    return named.find(path)
                self.passed_over.append(path)
                return []
            children = self._children(path)
        except OSError as error:
            problem = f"{path}: cannot be read: {error.strerror or error}. Check its permissions, or leave it out."
            return [SourceItem("", path, (), path.name, problem=problem)]
        except Exception as error:  # one file is never the end of the others
            text = str(error) if isinstance(error, MriError) else f"{path}: {type(error).__name__}: {error}"
            problem = text if str(path) in text else f"{path}: {text}"
            return [SourceItem("", path, (), path.name, problem=problem)]
        return [item for child in children for item in self.find(child)]

    def _children(self, folder: Path) -> list[Path]:
        children = [child for child in sorted(folder.iterdir()) if child.name[0] != "."]
        kept = []
        for child in children:
            name = child.name.lower()
            if name == "derivatives" and child.is_dir() and _is_bids_root(children):
                self.left_out.append(child)
            elif not (name == "labels" and child.is_dir()):
                kept.append(child)
        return kept


def _is_cohort(folder: Path) -> bool:
    return (folder / "cohort.json").is_file() and (folder / "volumes").is_dir()


def _is_bids_root(children: Sequence[Path]) -> bool:
    return any(
        child.name == "dataset_description.json" or (child.name.startswith("sub-") and child.is_dir())
        for child in children
    )


def _knows(reader: Format, path: Path) -> bool:
    try:
        return reader.sniff(path)
    except OSError:
        if path.is_dir():  # something in it may not be read; its other files are looked at one by one
            return False
        raise


def _with_distinct_labels(found: Sequence[tuple[SourceItem, Path]]) -> list[SourceItem]:
    """Label items by their paths below the given folders, or below one that all share where those are the same."""
    labels = [(folder / item.label).as_posix() for item, folder in found]
    if len(set(labels)) < len(labels):
        folders = [item.path.parent.resolve() for item, _ in found]
        shared = os.path.commonpath(folders)
        labels = [
            (own.relative_to(shared) / item.label).as_posix() for (item, _), own in zip(found, folders, strict=True)
        ]
    return [replace(item, label=label) for (item, _), label in zip(found, labels, strict=True)]
