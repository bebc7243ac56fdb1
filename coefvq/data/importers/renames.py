"""A user's names of columns: ``ingest.columns`` maps manifest words to them, and common names are recognised.

The mapping is applied once, by the reader of tables; everything behind it knows manifest words only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coefvq.data.importers.columns import CHAT_COLUMNS, PATH_COLUMNS, read_names
from coefvq.errors import DataError
from coefvq.records import CAPTION

#: manifest word -> the user's column, as ``ingest.columns`` holds it
Renames = Mapping[str, str]

#: names that tables often have, by the manifest word that they most likely mean; compared without case, ``_`` and ``-``
COMMON_NAMES: dict[str, tuple[str, ...]] = {
    "uri": ("filepath", "file_path", "filename", "video_path", "clip_path", "video_file", "video_uri", "video_url"),
    "video_id": ("id", "clip_id", "item_id", "vid"),
    "title": (CAPTION, "text", "description", "desc", "video_title"),
    "stickers": ("hashtags", "tags", "overlay_text", "ocr_text"),
    "creator_id": ("uploader_id", "user_id", "author_id", "uploader", "author", "user", "channel_id", "account_id"),
    "views": ("play_count", "view_count", "views_count", "plays"),
    "published_at": ("created_at", "upload_time", "uploaded_at", "create_time", "publish_time", "posted_at"),
}


def renamed(place: str, row: Mapping[str, Any], renames: Renames) -> Mapping[str, Any]:
    """A row under manifest words; the user's other columns keep their names.

    A table that has the word itself and not the user's column stays as it is: snapshots write such tables.

    Raises:
        DataError: the row has both, so that two columns hold one meaning.
    """
    words = {column: word for word, column in renames.items() if column in row}
    if not words:
        return row
    for column, word in words.items():
        if word in row and word not in words:
            raise DataError(
                f"{place}: columns '{column}' (ingest.columns.{word}) and '{word}' are both there for {word}; take "
                f"{word} out of ingest.columns or delete one column"
            )
    return {words.get(name, name): value for name, value in row.items()}


def absent(columns: Iterable[str], renames: Renames) -> dict[str, str]:
    """Entries of the mapping that name no column; ``columns`` are those of the table after renaming."""
    present = set(columns)
    return {
        word: column
        for word, column in renames.items()
        if not present.intersection(PATH_COLUMNS if word == "uri" else (word,))
    }


def proposed(columns: Iterable[str]) -> dict[str, str]:
    """Manifest word -> the column that most likely means it, of those that the table has under no name we read.

    A word that the table has already is not proposed again. ``caption`` is a word of its own (a description for the
    alignment), and is proposed for a title where nothing else is.
    """
    names = list(columns)
    found: dict[str, str] = {}
    for word, common in COMMON_NAMES.items():
        if word in names or (word == "uri" and {*PATH_COLUMNS, *CHAT_COLUMNS}.intersection(names)):
            continue
        by_form = {_form(name): name for name in names if name not in read_names() or name == CAPTION}
        match = next((by_form[form] for form in map(_form, (word, *common)) if form in by_form), None)
        if match is not None:
            found[word] = match
    return found


def unused_line(columns: Iterable[str], used: Iterable[str]) -> str:
    """One line about the columns that nothing reads, each with the word it most likely means; empty if all are used."""
    names, known = list(columns), set(used)
    meant = {column: word for word, column in proposed(names).items()}
    unused = [name for name in names if name not in known]
    if not unused:
        return ""
    shown = ", ".join(f"{name} ({meant[name]}?)" if name in meant else name for name in unused)
    first = next((name for name in unused if name in meant), None)
    remedy = f"; to use one, set ingest.columns, e.g. {{{meant[first]}: {first}}}" if first is not None else ""
    return f"columns not used: {shown}{remedy}"


def _form(name: str) -> str:
    return name.strip().casefold().replace("_", "").replace("-", "").replace(" ", "")
