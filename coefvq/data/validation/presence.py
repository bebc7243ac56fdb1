"""Which manifest paths are files below the data root, by listing folders instead of asking for each path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def files_exist(uris: Iterable[Any], media_root: Path) -> npt.NDArray[np.bool_]:
    """Whether each uri is a file below ``media_root``, bool [n].

    A URL (``scheme://``) counts as existing: ingest has probed it, and asking a remote store again for every row
    would make validation need the network. A symlink must lead to a file below the root.
    """
    # a list: pandas makes an object of Arrow for each text that it is asked for
    cells = uris.to_numpy(dtype=object).tolist() if isinstance(uris, pd.Series) else uris
    texts = ["" if uri is None or uri is pd.NA or uri != uri else str(uri) for uri in cells]
    root = media_root.resolve()
    listed: dict[str, frozenset[str]] = {}
    found = np.zeros(len(texts), bool)
    for number, text in enumerate(texts):
        folder, _, name = text.rpartition("/")
        if folder not in listed:
            listed[folder] = _files_in(root, folder)
        found[number] = name in listed[folder] or ("://" in text and _URL.match(text) is not None)
    return found


def _files_in(root: Path, folder: str) -> frozenset[str]:
    """Names of the files in one folder; none where the folder is not below the root."""
    if folder.startswith("/") or ".." in folder.split("/") or "\0" in folder:
        return frozenset()
    try:
        inside = (root / folder).resolve()
        if not inside.is_relative_to(root):
            return frozenset()
        with os.scandir(inside) as entries:
            return frozenset(
                entry.name for entry in entries if entry.is_file(follow_symlinks=False) or _leads_below(entry, root)
            )
    except OSError:
        return frozenset()


def _leads_below(entry: os.DirEntry[str], root: Path) -> bool:
    if not entry.is_symlink():
        return False
    target = Path(entry.path).resolve()
    return target.is_relative_to(root) and target.is_file()
