"""The type checker that tests run behind jaxtyping's shape checks."""

from beartype import BeartypeConf, beartype

__all__ = ["checked"]

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""beartype that takes an int where a float is declared, as PEP 484 says."""
