"""The part that readers of image files share: naming, label maps that lie beside an image, elements, memory."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from mri_io.errors import FormatError, MriError, expected_got
from mri_io.formats import format_names, get_format
from mri_io.formats.base import Format, Identity, RawVolume, SourceItem, identify
from mri_io.formats.contents import content_of
from mri_io.formats.images.files import ENDINGS, ImageFile, image_element, image_stem, label_element, label_memory
from mri_io.formats.images.label_names import pair_labels, read_label_names
from mri_io.formats.images.sidecars import sidecar_of, with_sidecar
from mri_io.formats.names import contrast_of

__all__ = ["ImageFormat", "header_beside", "is_fragile_image", "label_map_item", "open_image"]

_LABEL_MAP = "label_map"
"""Option of an item that is no image but the label map of its name."""


class ImageFormat(Format):
    """A reader of single image files.

    A file in the same folder that is named as the label map of an image, ``t1w_seg.nii.gz`` beside ``t1w.nii.gz``,
    becomes ``seg/<name>`` of that image's volume.
    """

    @abstractmethod
    def open(self, path: Path) -> ImageFile:
        """Read the header of a file; raise FormatError when it is not what it should be."""

    def images(self, path: Path) -> Mapping[str, ImageFile]:
        """Return the images of a file by what follows the contrast in their names; by default there is one."""
        return {"": self.open(path)}

    def header_of(self, path: Path) -> Path:
        """Return the file by which an image is named, given any of its files."""
        return path

    def files_of(self, path: Path) -> tuple[Path, ...]:
        """Return all files of an image, as far as they are there, given that by which it is named."""
        return (path,)

    def find(self, path: Path) -> list[SourceItem]:
        """Return the one image of a file, and its BIDS sidecar."""
        header = self.header_of(path)
        sidecar = sidecar_of(header)
        files = (*self.files_of(header), *([sidecar] if sidecar is not None else []))
        return [SourceItem(self.name, header, files, header.name)]

    def gather(self, items: Sequence[SourceItem]) -> list[SourceItem]:
        """Join label maps to the images beside which they lie; one that fits no image has a `problem`."""
        folders: dict[Path, dict[Path, SourceItem]] = {}
        for item in items:
            folders.setdefault(item.path.parent, {}).setdefault(item.path, item)
        return [item for folder, found in folders.items() for item in _joined(folder, list(found.values()))]

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the file's name; free text of the header is not looked at."""
        stem = image_stem(item.path.name)
        return identify(item.path, stem, contrast_of(stem))

    def read(self, item: SourceItem) -> RawVolume:
        """Read headers; the data are read in blocks, label maps at once."""
        if _LABEL_MAP in item.options:
            return self._read_label_map(item)
        contrast = contrast_of(image_stem(item.path.name))
        images = {ending: with_sidecar(image) for ending, image in self.images(item.path).items()}
        elements = [image_element(image, f"image/{contrast}{ending}") for ending, image in images.items()]
        names = item.options.get("labels", {})
        for name, path in item.options.get("maps", {}).items():
            elements.append(label_element(open_image(path), f"seg/{name}", names[name]))
        return RawVolume(elements=tuple(elements), header=next(iter(images.values())).header())

    def _read_label_map(self, item: SourceItem) -> RawVolume:
        image, name = self.open(item.path), item.options[_LABEL_MAP]
        element = label_element(image, f"seg/{name}", item.options["labels"][name])
        return RawVolume(elements=(element,), header=image.header())

    def memory(self, item: SourceItem) -> int:
        """Return the bytes of a few blocks of slices, and those of whole label maps."""
        try:
            if _LABEL_MAP in item.options:
                return label_memory(self.open(item.path))
            images = max(image.memory for image in self.images(item.path).values())
            maps = sum(label_memory(open_image(path)) for path in item.options.get("maps", {}).values())
        except (MriError, OSError):
            return super().memory(item)
        return images + maps


def _joined(folder: Path, items: Sequence[SourceItem]) -> list[SourceItem]:
    """Join the items of one folder; the order is that of the images."""
    stems: dict[str, list[SourceItem]] = {}
    for item in items:
        stems.setdefault(image_stem(item.path.name), []).append(item)
    pairs = pair_labels(list(stems))
    maps: dict[str, dict[str, SourceItem]] = {}
    left: list[SourceItem] = []
    for stem, pair in pairs.items():
        if pair is None or len(stems[pair.image]) > 1 or len(stems[stem]) > 1:
            left += [replace(item, problem=_problem(item.path)) for item in stems[stem]]
        else:
            maps.setdefault(pair.image, {})[pair.name] = stems[stem][0]
    try:
        declared = read_label_names(folder) if maps else {}
    except FormatError as error:
        return [replace(item, problem=str(error)) for item in items]
    joined = []
    for stem, found in stems.items():
        if stem not in pairs:
            joined += [_with_maps(item, maps.get(stem, {}), declared) for item in found]
    return joined + left


def _with_maps(
    item: SourceItem, maps: Mapping[str, SourceItem], declared: Mapping[str, Mapping[int, str]]
) -> SourceItem:
    if not maps:
        return item
    files = (*item.files, *(file for found in maps.values() for file in found.files))
    options = {
        "maps": {name: found.path for name, found in maps.items()},
        "labels": {name: dict(declared.get(name, {})) for name in maps},
    }
    return replace(item, files=files, options={**item.options, **options})


def _problem(path: Path) -> str:
    return (
        f"{path}: is named like a label map, and of which one image beside it is not clear. Name it <image>_<name>, "
        "give it with --labels, or rename it if it is an image."
    )


def header_beside(path: Path, ending: str, files_of: Callable[[Path], tuple[Path, ...]]) -> Path:
    """Return the header of its name that says that its data are in this file, else the file itself."""
    header = path
    while header.suffix:
        header = header.with_suffix("")
        named = header.with_name(header.name + ending)
        if named.is_file() and path in files_of(named):
            return named
    return path


def _image_readers() -> Iterator[ImageFormat]:
    for name in format_names():
        reader = get_format(name)
        if isinstance(reader, ImageFormat):
            yield reader


def is_fragile_image(path: Path) -> bool:
    """Whether a native library would parse an image file; see `Format.is_fragile`."""
    return any(reader.is_fragile(path) for reader in _image_readers())


def label_map_item(path: Path, name: str, labels: Mapping[int, str]) -> SourceItem:
    """Describe a label map that is given by itself, to be read by the reader that the item names.

    Its volume has one element, ``seg/<name>``, and the header of the file. What `Format.is_fragile` says so of is
    looked at in a child process.

    Parameters
    ----------
    path
        An image file of whatever format.
    name
        Of the label map.
    labels
        Names of the ids; see `label_element`.

    Raises
    ------
    FormatError
        When no reader of image files knows it.
    """
    reader = _reader_of(path, isolate=True)
    header = reader.header_of(path)
    options = {_LABEL_MAP: name, "labels": {name: dict(labels)}}
    return SourceItem(reader.name, header, reader.files_of(header), header.name, options)


def open_image(path: Path) -> ImageFile:
    """Read the header of an image file of whatever format.

    Raises
    ------
    FormatError
        When no reader of image files knows it, or the file is not what it should be.
    """
    reader = _reader_of(path)
    return with_sidecar(reader.open(reader.header_of(path)))


def _reader_of(path: Path, *, isolate: bool = False) -> ImageFormat:
    for reader in _image_readers():
        if get_format(reader.name, isolate=isolate).sniff(path):
            return reader
    if named := next((reader for reader in _image_readers() if path.name.lower().endswith(reader.endings)), None):
        return named
    what, fix = content_of(path)
    expected, got = f"an image file ({', '.join(ENDINGS)})", f"none of them: {what}"
    raise FormatError(expected_got("content", expected=expected, got=got, where=path, fix=fix))
