"""Rows in ms-swift's dataset format: chat messages with the clips they speak of.

``{"messages": [{"role": "user", "content": "<video>a title"}, {"role": "assistant", "content": "yes"}],
"videos": ["a.mp4"], "label": 1}``: ``messages`` is the format's one required key, ``videos`` holds paths
or URLs, ``label`` is its key for classification (ms-swift, docs/source_en/Customization/Custom-dataset.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coefvq.data.importers.values import shown
from coefvq.errors import DataError

_TAG = "<video>"
_OWN = frozenset({"messages", "videos", "images", "audios", "tools", "objects", "rejected_response"})


def is_swift(row: Mapping[str, Any]) -> bool:
    """Whether a row is a chat rather than a flat record."""
    return row.get("messages") is not None


def flatten(place: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A chat row in flat columns: ``file_name``, ``title`` (what the users say), ``answer`` (the last reply).

    Other keys, ``label`` among them, stay as they are; a ``title`` of the row's own wins.

    Raises:
        DataError: not exactly one video, or messages of another form.
    """
    said = _messages(place, row["messages"])
    asked = [content.replace(_TAG, "").strip() for role, content in said if role == "user"]
    answers = [content for role, content in said if role == "assistant"]
    return {
        "file_name": _video(place, row.get("videos")),
        "title": "\n".join(content for content in asked if content),
        "answer": answers[-1] if answers else None,
        **{name: value for name, value in row.items() if name not in _OWN},
    }


def _messages(place: str, messages: Any) -> list[tuple[str, str]]:
    if not isinstance(messages, list):
        raise DataError(f"{place}: messages = {shown(messages)}: expected a list of role and content; correct it")
    said = []
    for message in messages:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"{place}: messages holds {shown(message)}: expected role and content as texts; correct it")
        said.append((role, content))
    return said


def _video(place: str, videos: Any) -> str:
    listed = [videos] if isinstance(videos, str) else videos
    if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], str):
        raise DataError(f"{place}: videos = {shown(videos)}: expected a list of one path or URL; give each clip a row")
    return listed[0]
