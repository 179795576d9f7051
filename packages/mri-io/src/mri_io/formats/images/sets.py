"""Data sets of image files: the files of one case, images and label maps, in one volume."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mri_io.errors import FormatError, MriError, expected_got
from mri_io.formats.base import Format, Identity, RawElement, RawVolume, SourceItem, identify
from mri_io.formats.images.files import ImageFile, image_element, label_element, label_memory
from mri_io.formats.images.sidecars import sidecar_of
from mri_io.formats.images.single import is_fragile_image, open_image

__all__ = ["ImagePart", "ImageSetFormat"]


@dataclass(frozen=True)
class ImagePart:
    """One file of a case, or one member of a series in it.

    Attributes
    ----------
    element
        ``image/<name>`` or ``seg/<name>``.
    path
        The file.
    member
        Which member of the series in the file it is, None for the whole file.
    labels
        Names of the ids of a label map; without them those in the file, else ``label 1`` and so on.
    named_in
        The file in which the ids can be named.
    like
        Of a label map that is empty, the image on whose grid it is stored.
    attributes
        What else the element should say.
    """

    element: str
    path: Path
    member: int | None = None
    labels: Mapping[int, str] = field(default_factory=dict)
    named_in: str = ""
    like: Path | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


class ImageSetFormat(Format):
    """A layout of folders in which every case has some image files, whatever their format.

    `find` gives items made by `case`; reading them is the same for all layouts.
    """

    acquisition: ClassVar[str]
    """Acquisition in the ids of volumes."""

    @abstractmethod
    def find(self, path: Path) -> list[SourceItem]:
        """Return the cases of a folder that `sniff` accepted."""

    def case(
        self,
        root: Path,
        name: str,
        parts: Sequence[ImagePart],
        *,
        files: Sequence[Path] = (),
        problem: str = "",
        part: str | None = None,
    ) -> SourceItem:
        """Describe one case.

        Parameters
        ----------
        root
            Folder of the data set.
        name
            The case, and the subject.
        parts
            Its files.
        files
            Further files that decide what is made.
        problem
            Why it cannot be read.
        part
            The part of the data set's own split that it is in.
        """
        sidecars = (sidecar for p in parts if (sidecar := sidecar_of(p.path)) is not None)
        covered = tuple(dict.fromkeys((*(p.path for p in parts), *sidecars, *files)))
        names = {p.element.partition("/")[2]: dict(p.labels) for p in parts if p.element.startswith("seg/")}
        options = {"case": name, "root": root, "parts": tuple(parts), "labels": names, "part": part}
        first = parts[0].path if parts else root / name
        return SourceItem(self.name, first, covered, f"{name} ({first.name})", options, problem=problem)

    def is_fragile(self, path: Path) -> bool:
        """Whether a native library would parse a file of a case; folders are only listed."""
        return path.is_file() and is_fragile_image(path)

    def refused(self, root: Path, error: FormatError) -> SourceItem:
        """Describe a data set that cannot be read at all."""
        return SourceItem(self.name, root / root.name, (), root.name, problem=str(error))

    def identify(self, item: SourceItem) -> Identity:
        """Return the identity after the data set's folder and the case."""
        case = str(item.options["case"])
        return identify(item.options["root"] / case, case, self.acquisition_of(item))

    def acquisition_of(self, item: SourceItem) -> str:
        """Return the acquisition of a case; by default one for all."""
        return self.acquisition

    def split_of(self, item: SourceItem) -> Mapping[str, str] | None:
        """Return the part that the data set itself puts a case in."""
        part = item.options.get("part")
        return {self.name: part} if part else None

    def read(self, item: SourceItem) -> RawVolume:
        """Read headers; images are read in blocks, label maps at once.

        Raises
        ------
        FormatError
            When a file is missing or damaged, or has no such member.
        """
        opened = [(part, _open(part)) for part in item.options["parts"]]
        elements = [_element(part, image) for part, image in opened]
        images = [image for part, image in opened if part.element.startswith("image/")]
        grids = {(image.shape[-3:], image.voxel_mm) for image in images}
        # The header states one matrix; where images have several grids, none is that of the volume.
        header = images[0].header()
        if len(grids) > 1:
            header = header.model_copy(update={"recon_matrix": None, "recon_fov_m": None})
        return RawVolume(elements=tuple(elements), header=header)

    def memory(self, item: SourceItem) -> int:
        """Return the bytes of the image that needs most, and those of all label maps."""
        images, maps = 0, 0
        for part in item.options["parts"]:
            try:
                image = _open(part)
            except (MriError, OSError):
                return super().memory(item)
            if part.element.startswith("seg/"):
                maps += label_memory(image)
            else:
                images = max(images, image.memory)
        return images + maps


def _open(part: ImagePart) -> ImageFile:
    if not part.path.is_file():
        raise FormatError(f"{part.path}: expected {part.element} of this case, found no file.")
    image = open_image(part.path)
    if part.member is None:
        return image
    if not image.series or part.member >= image.shape[0]:
        got = image.shape[0] if image.series else "one image"
        raise FormatError(expected_got("images in the file", expected=f"{part.member + 1}", got=got, where=part.path))
    return image.member(part.member)


def _element(part: ImagePart, image: ImageFile) -> RawElement:
    if not part.element.startswith("seg/"):
        made = image_element(image, part.element)
    elif part.like is None:
        made = label_element(image, part.element, part.labels, named_in=part.named_in)
    else:
        made = _empty(part, image, open_image(part.like))
    return replace(made, attributes={**made.attributes, **part.attributes})


def _empty(part: ImagePart, image: ImageFile, like: ImageFile) -> RawElement:
    """Return a label map without labels on another grid; FormatError when it has labels."""
    if any(block.any() for block in image.blocks()):
        raise FormatError(expected_got("empty label map", expected="zeros", got="labels", where=part.path))
    zeros = np.zeros(like.shape[-3:], np.uint8)
    return RawElement.of(part.element, zeros, dims=like.dims[-3:], affine=like.affine, labels=part.labels)
