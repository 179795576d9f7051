"""pydicom's remarks, which quote values of a header, held back: names of patients are among them."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from mri_io.formats.base import import_extra

__all__ = ["EXTRA", "quietly"]

EXTRA = "dicom"
"""The extra of mri-io with pydicom, highdicom and the decoders."""


@contextmanager
def quietly() -> Iterator[None]:
    """Read without warnings and messages of pydicom, and without its validation of values, which makes them."""
    config = import_extra("pydicom.config", EXTRA)
    logger, mode = logging.getLogger("pydicom"), config.settings.reading_validation_mode
    disabled = logger.disabled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.disabled = True
        config.settings.reading_validation_mode = config.IGNORE
        try:
            yield
        finally:
            logger.disabled = disabled
            config.settings.reading_validation_mode = mode
