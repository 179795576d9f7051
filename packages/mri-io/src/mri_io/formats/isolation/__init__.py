"""Readers in a process of their own: a damaged file may make a native library hang or crash, and that must end there.

HDF5, ITK and image codecs parse files in C; some damaged files send them into endless loops or to a segmentation fault.
`isolated` wraps a reader so that whatever touches such a file happens in a child process, which is started when it is
first needed, kept for the next file, and replaced when it dies or does not answer. Blocks of arrays come through shared
memory, the next one being read while the last is written. Of what does not look like such a file nothing goes there.
"""

from mri_io.formats.isolation.proxy import isolated

__all__ = ["isolated"]
