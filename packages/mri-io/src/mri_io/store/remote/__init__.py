"""Cohorts in object stores and on other machines: paths that are URLs, claims in place of renames, ranged reads."""
