"""What may be stored: element types and their versions, attributes, validation."""

from mri_io.schema.attributes import Header, Provenance, Source
from mri_io.schema.elements import ELEMENT_TYPES, SCHEMA_VERSION, ElementType, element_type

__all__ = ["ELEMENT_TYPES", "SCHEMA_VERSION", "ElementType", "Header", "Provenance", "Source", "element_type"]
