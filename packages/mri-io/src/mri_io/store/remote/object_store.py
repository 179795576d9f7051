"""S3, Google Cloud Storage, Azure and HTTP through obstore."""

import base64
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mri_io.errors import ConfigError, StoreError
from mri_io.store.remote.backends import ABSENT, ANY, ConflictError, Root, Stat, library

__all__ = ["ObjectStoreBackend"]

_RETRY = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
_TIMEOUT = "900s"  # of one request; that of a shard of 512 MiB takes its time
_ADVICE = "Check the address, the network and the credentials (docs/remote.md)."
_CODE, _MESSAGE = re.compile(r"<Code>([^<]+)</Code>"), re.compile(r"<Message>([^<]+)</Message>")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_OF_MACHINES = ("/latest/api/token", "/latest/meta-data/", "169.254.170.", "/computeMetadata/", "/metadata/identity/")
"""In addresses at which libraries ask for the credentials of a machine when there are no others."""
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (of a profile: aws configure export-credentials --profile NAME "
    "--format env), or AWS_SKIP_SIGNATURE=true for a public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class ObjectStoreBackend:
    """Objects of a bucket, container or web server; options and credentials come from the environment."""

    def __init__(self, root: Root) -> None:
        self._obstore = library("obstore")
        store = library("obstore.store")
        self.root = root
        web = root.scheme in ("http", "https")
        self.lists, self._writes = not web, not web
        # Google's conditions are on the generation of an object, those of all others on its ETag.
        self._condition = "version" if root.scheme == "gs" else "e_tag"
        self._no_suffix = root.scheme.startswith(("az", "adl", "abfs"))  # Azure knows no ranges from the end
        options: dict[str, Any] = {"timeout": _TIMEOUT, "connect_timeout": "20s"}
        if root.scheme == "http" or _allows_http():
            options["allow_http"] = True
        if root.login:  # obstore leaves it out of its requests
            token = base64.b64encode(":".join(root.user).encode()).decode()
            options["default_headers"] = {"Authorization": f"Basic {token}"}
        try:
            self.store = store.from_url(str(root), client_options=options, retry_config=_RETRY)
        except Exception as error:
            reason = root.reason(error)
            raise ConfigError(f"{root}: the object store cannot be addressed: {reason}") from root.cause(error)

    def _ask(self, key: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Call a function of obstore; what it raises becomes an error of ours."""
        failures = self._obstore.exceptions
        try:
            return function(self.store, *arguments, **options)
        except FileNotFoundError as error:
            if _code(error) in _NO_BUCKET:
                raise StoreError(f"{self.root}/{key}: {self._in_words(error)}") from None
            raise FileNotFoundError(f"{self.root}/{key}: there is no such object") from None
        except (failures.AlreadyExistsError, failures.PreconditionError) as error:
            raise ConflictError(f"{self.root}/{key}: the object has changed: {self.root.reason(error)}") from None
        except Exception as error:
            raise StoreError(f"{self.root}/{key}: {self._in_words(error)}") from self.root.cause(error)

    def _in_words(self, error: Exception) -> str:
        """Return what is wrong, and what to do: libraries quote the XML of the server, or an address of their own."""
        text, code = str(error), _code(error)
        if any(part in text for part in _OF_MACHINES):
            names = _CREDENTIALS.get(self.root.scheme[:2], "them in the environment")
            return f"there are no credentials, and this machine has no role with any. Set {names} (docs/remote.md)."
        if code in _NO_BUCKET:
            return f"there is no bucket {self.root.host!r}. Check its name, or make it."
        if code:
            message = _MESSAGE.search(text)
            said = StoreError(f"{code}: {message[1]}" if message else code)
            return f"the server says {self.root.reason(said)}. {_ADVICE}"
        return f"{self.root.reason(error)}. {_ADVICE}"

    def _stat(self, meta: Mapping[str, Any]) -> Stat:
        modified = meta["last_modified"].timestamp()
        return Stat(meta["size"], modified, meta[self._condition] or f"{modified}-{meta['size']}")

    def read(self, key: str, start: int = 0, length: int | None = None) -> tuple[bytes, Stat]:
        """See `Backend.read`."""
        if length is None:
            return self._get(key, {"offset": start} if start else None)
        return self._get(key, (start, start + length))

    def read_end(self, key: str, length: int) -> tuple[bytes, Stat]:
        """See `Backend.read_end`."""
        if not self._no_suffix:
            try:
                return self._get(key, {"suffix": length})
            except StoreError:  # of an object that is empty, or shorter, some servers have no part
                if (found := self.stat(key)) is None or found.size > length:
                    raise
                return self._get(key, None)
        found = self.stat(key)
        if found is None:
            raise FileNotFoundError(f"{self.root}/{key}: there is no such object")
        return self._get(key, (found.size - length, found.size) if found.size > length else None)

    def _get(self, key: str, chosen: Any) -> tuple[bytes, Stat]:
        def fetch(store: Any) -> tuple[bytes, Stat]:
            result = self._obstore.get(store, key, options={"range": chosen} if chosen is not None else None)
            return bytes(result.bytes()), self._stat(result.meta)

        found: tuple[bytes, Stat] = self._ask(key, fetch)
        return found

    def stat(self, key: str) -> Stat | None:
        """See `Backend.stat`."""
        try:
            return self._stat(self._ask(key, self._obstore.head, key))
        except FileNotFoundError:
            return None

    def walk(self, prefix: str) -> Iterator[tuple[str, Stat]]:
        """See `Backend.walk`."""

        def pages(store: Any) -> list[Mapping[str, Any]]:
            return [item for page in self._obstore.list(store, prefix) for item in page]

        for item in self._ask(prefix, pages):
            yield item["path"], self._stat(item)

    def children(self, prefix: str) -> tuple[list[str], list[str]]:
        """See `Backend.children`."""
        if not self.lists:
            return [], []
        found = self._ask(prefix, self._obstore.list_with_delimiter, prefix)
        folders = [path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"]]
        return folders, [item["path"].rpartition("/")[2] for item in found["objects"]]

    def write(self, key: str, data: bytes | Path, condition: str = ANY) -> str:
        """See `Backend.write`."""
        self._check_writable(key)
        mode: Any = {ANY: "overwrite", ABSENT: "create"}.get(condition, {self._condition: condition})
        if isinstance(data, Path):
            # Mapped, not read: one request sends a whole shard, without holding it in memory.
            body = np.memmap(data, mode="r", dtype=np.uint8) if data.stat().st_size else b""
        else:
            body = data
        done = self._ask(key, self._obstore.put, key, body, mode=mode, use_multipart=False)
        tag = done[self._condition]
        if tag is None:
            raise StoreError(f"{self.root}/{key}: expected a tag of what was written, got none. {_ADVICE}")
        return str(tag)

    def delete(self, keys: Iterable[str]) -> None:
        """See `Backend.delete`."""
        chosen = list(keys)
        if chosen:
            self._check_writable(chosen[0])
            try:
                self._ask(chosen[0], self._obstore.delete, chosen)
            except FileNotFoundError:  # some servers tell; what is gone is what was asked for
                for key in chosen if len(chosen) > 1 else ():
                    self.delete([key])

    def _check_writable(self, key: str) -> None:
        if not self._writes:
            raise StoreError(
                f"{self.root}/{key}: web servers are read-only. Change the cohort where it is, or copy it to a folder "
                "or an object store."
            )


def _code(error: Exception) -> str:
    """Return the code of a server's error, empty where it gave none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def _allows_http() -> bool:
    names = ("AWS_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "ALLOW_HTTP")
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in names)
