"""The attributes of volumes and elements: header, source, provenance. SI units throughout."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from pydantic import Field

from mri_io.config import Config, config_hash

__all__ = ["Header", "InputRef", "Provenance", "Source", "now_utc"]


def now_utc() -> str:
    """Return the present time in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Header(Config):
    """Acquisition parameters of a volume; what a file does not state stays None.

    Sizes are in the order x, y, z of the arrays: columns, rows, slices or partitions.
    """

    encoded_matrix: tuple[int, int, int] | None = Field(default=None, description="columns, rows, partitions")
    recon_matrix: tuple[int, int, int] | None = Field(default=None, description="columns, rows, partitions")
    encoded_fov_m: tuple[float, float, float] | None = Field(default=None, description="columns, rows, partitions")
    recon_fov_m: tuple[float, float, float] | None = Field(default=None, description="columns, rows, partitions")
    te_s: tuple[float, ...] | None = None
    tr_s: tuple[float, ...] | None = None
    ti_s: tuple[float, ...] | None = None
    flip_angle_rad: tuple[float, ...] | None = None
    field_T: float | None = None
    vendor: str | None = None
    sequence: str | None = None
    trajectory: str | None = None
    padding_left: int | None = None
    padding_right: int | None = None


class Source(Config):
    """The file that a volume was converted from."""

    uri: str
    sha256: str
    format: str


class InputRef(Config):
    """An element that a result was computed from, by path and commit."""

    path: str
    commit: str


class _HasCommit(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def commit(self) -> str: ...


class Provenance(Config):
    """How an element came about.

    Equality of `method`, `config_hash` and `inputs` makes two provenances name the same computation; that is
    what resuming compares.
    """

    method: str
    package: str
    version: str
    config: dict[str, Any] = Field(default_factory=dict)
    inputs: tuple[InputRef, ...] = ()
    weights_sha256: str | None = None
    seed: int | None = None
    created_utc: str = Field(default_factory=now_utc)

    @classmethod
    def of(
        cls,
        package: str,
        method: str,
        config: Mapping[str, Any] | Config | None = None,
        inputs: Sequence[_HasCommit] = (),
        *,
        seed: int | None = None,
        weights_sha256: str | None = None,
    ) -> "Provenance":
        """Describe a computation by an installed package on committed elements."""
        try:
            installed = version(package)
        except PackageNotFoundError:
            installed = "unknown"
        values = config.model_dump(mode="json") if isinstance(config, Config) else dict(config or {})
        refs = tuple(InputRef(path=element.path, commit=element.commit) for element in inputs)
        return cls(
            method=method,
            package=package,
            version=installed,
            config=values,
            inputs=refs,
            seed=seed,
            weights_sha256=weights_sha256,
        )

    @property
    def config_hash(self) -> str:
        """SHA-256 of the configuration, the seed and the weights."""
        return config_hash({"config": self.config, "seed": self.seed, "weights": self.weights_sha256})

    def to_attributes(self) -> dict[str, Any]:
        """Return the mapping that is stored, with the hash beside the configuration."""
        return {**self.model_dump(mode="json"), "config_hash": self.config_hash}

    def same_computation(self, stored: Mapping[str, Any]) -> bool:
        """Whether stored provenance names the same method, configuration and inputs."""
        refs = [(ref.path, ref.commit) for ref in self.inputs]
        stored_refs = [(ref.get("path"), ref.get("commit")) for ref in stored.get("inputs", [])]
        return (
            stored.get("method") == self.method
            and stored.get("config_hash") == self.config_hash
            and stored_refs == refs
        )
