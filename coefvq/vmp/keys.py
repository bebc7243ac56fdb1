"""The key of a video: its id within its tenant, as one text.

Log and index know keys only, so no statement can mix two tenants. A key of the default tenant is the bare id: a state
without tenants is as it was. A key of another one is ``tenant``, the separator U+001F, and the id.
"""

from __future__ import annotations

import re

from coefvq.errors import ConfigError, DataError

#: who owns a video where no tenant is named
DEFAULT = "default"
SEPARATOR = "\x1f"
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


def key(tenant: str, video_id: str) -> str:
    """The key of a video.

    Raises:
        DataError: the id holds the separator.
    """
    if SEPARATOR in video_id:
        raise DataError(f"video '{video_id}': the id holds the control character U+001F; remove it")
    return video_id if tenant == DEFAULT else f"{tenant}{SEPARATOR}{video_id}"


def split(found: str) -> tuple[str, str]:
    """Tenant and id of a key."""
    tenant, separator, video_id = found.partition(SEPARATOR)
    return (tenant, video_id) if separator else (DEFAULT, found)


def tenant_of(found: str) -> str:
    """The tenant of a key."""
    return split(found)[0] if SEPARATOR in found else DEFAULT


def shown(found: str) -> str:
    """A key as messages name it: ``clip_1``, or ``acme/clip_1`` of another tenant than the default one."""
    return found.replace(SEPARATOR, "/")


def within(tenant: str, column: str) -> tuple[str, tuple[str, ...]]:
    """The SQL condition that a column of keys is of a tenant, and its parameters."""
    if tenant == DEFAULT:
        return f"{column} NOT LIKE ?", (f"%{SEPARATOR}%",)
    return f"{column} >= ? AND {column} < ?", (tenant + SEPARATOR, tenant + chr(ord(SEPARATOR) + 1))


def check_tenant(name: str) -> str:
    """A tenant's name as a person wrote it.

    Raises:
        ConfigError: it is no name.
    """
    if re.fullmatch(NAME, name, re.ASCII) is None:
        raise ConfigError(
            f"tenant {name!r:.80}: expected up to 64 of A-Z, a-z, 0-9, '_', '.' and '-', a letter or digit first"
        )
    return name
