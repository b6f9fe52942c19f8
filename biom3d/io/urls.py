"""OME-Zarr over https:// and s3://: only the chunks that are asked for travel, and each of them once."""

import configparser
import os
import re
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from biom3d.errors import ConfigError, DataError
from biom3d.io.choice import url_of

_ANSWER_S, _CONNECT_S = 60, 10  # how long a server may take
_RETRIES = 2
_CREDENTIALS = "AWS_ACCESS_KEY_ID"


class RemoteStore(WrapperStore[Store]):
    """The files of a server, of which those that were read lie in a temporary folder until `forget`."""

    def __init__(self, store: Store, folder: tempfile.TemporaryDirectory | None = None) -> None:
        super().__init__(store)
        self._folder = folder or tempfile.TemporaryDirectory(prefix="biom3d-")
        self._kept = LocalStore(self._folder.name)

    def _with_store(self, store: Store) -> "RemoteStore":
        return type(self)(store, self._folder)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return what is under `key`; whole files are kept, parts of shards are asked for again."""
        if byte_range is not None:
            return await self._store.get(key, prototype, byte_range)
        with suppress(OSError):
            if (kept := await self._kept.get(key, prototype)) is not None:
                return kept
        value = await self._store.get(key, prototype)
        if value is not None:
            with suppress(OSError):  # no room: it travels again then
                await self._kept.set(key, value)
        return value

    def forget(self) -> None:
        """Remove what was kept."""
        self._folder.cleanup()


def open_store(path: Path) -> RemoteStore:
    """Return the store of a URL, which was a path meanwhile.

    Raises:
        ConfigError: obstore is not installed. DataError: the URL holds a password.
    """
    try:
        from obstore.store import from_url
        from zarr.storage import ObjectStore
    except ImportError as error:
        raise ConfigError(
            "images at a URL need obstore; install it: pip install 'biom3d-workflow[urls]', or copy the image here"
        ) from error
    url = url_of(path)
    assert url is not None
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise DataError("a password does not belong into a URL, which is written into logs; take it out")
    common: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=_ANSWER_S),
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "allow_http": parts.scheme == "http" or os.environ.get("AWS_ENDPOINT_URL", "").startswith("http:"),
        },
        "retry_config": {
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=_ANSWER_S),
            "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=2), "base": 2},
        },
    }
    if parts.scheme == "s3":
        common["config"] = _aws_settings()
    return RemoteStore(ObjectStore(from_url(url, **common), read_only=True))


def explain(error: BaseException, path: Path) -> str | None:
    """Return what went wrong between here and the server, in one line; None for what is no such error."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    found = next((one for one in seen if type(one).__module__.startswith("obstore") or isinstance(one, OSError)), None)
    if found is None:
        return None
    host = urlsplit(url_of(path) or "").netloc
    text, kind = str(found), type(found).__name__
    status = re.search(r"\b(?:status|HTTP error:?|code)[^0-9\n]{0,40}\b([345]\d\d)\b", text)
    if kind in ("PermissionDeniedError", "UnauthenticatedError") or (status and status[1] in ("401", "403")):
        return (
            f"'{host}' does not let this account read it; check the name, or give credentials ({_CREDENTIALS} and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
        )
    if isinstance(found, FileNotFoundError):
        return f"nothing is there on '{host}'; check the URL"
    for sign, words in (
        ("dns", "its name is not known"),
        ("refused", "nothing answers at its port"),
        ("timed out", f"no answer in {_ANSWER_S} s"),
        ("certificate", "its certificate is not trusted"),
        ("unreachable", "there is no network to it"),
    ):
        if sign in text.lower():
            return f"'{host}' cannot be reached: {words}; check the URL and the network, and run again"
    if status:
        return f"'{host}' answered {status[1]}; run again later, or copy the image here"
    line = next((line.strip() for line in text.splitlines() if line.strip()), kind)
    return f"'{host}' gave an error ({line[:200]}); run again later, or copy the image here"


def _aws_settings() -> dict[str, Any]:
    """Return credentials of the usual places; without any the bucket is asked as a public one.

    obstore reads the environment, but not the files that `aws configure` writes, and without credentials it would ask
    Amazon's own machines for some, for a minute.
    """
    if _CREDENTIALS in os.environ:
        return {}
    files = [os.environ.get(f"AWS_{name}", Path.home() / ".aws" / file) for name, file in _FILES]
    reader = configparser.ConfigParser()
    with suppress(configparser.Error, OSError, UnicodeDecodeError):
        reader.read(files, encoding="utf-8")
    profile = os.environ.get("AWS_PROFILE", "default")
    section = next((reader[name] for name in (profile, f"profile {profile}") if reader.has_section(name)), None)
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "endpoint_url")
    found = {name: section[name] for name in names if section and section.get(name)}
    if "aws_access_key_id" in found:
        return found
    return {"skip_signature": True, **found}


_FILES = (("CONFIG_FILE", "config"), ("SHARED_CREDENTIALS_FILE", "credentials"))
