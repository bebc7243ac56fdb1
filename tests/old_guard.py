"""The guard that the index had before epochs: the control of the tests that show why it went.

A row replaced an entry if ``(source_version, sum of the bundle numbers, bundle text)`` was higher. An ignored row left
nothing behind, and a dead letter was refused only where the audit rows held a newer version.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from coefvq.vmp.records import SinkRow
from tests.old_vmp_state import bundle_order

Key = tuple[int, int, str]


@dataclass
class OldIndex:
    """Entries, audit rows and dead letters by the old rules."""

    entries: dict[str, tuple[Key, SinkRow]] = field(default_factory=dict)
    effects: list[tuple[str, int]] = field(default_factory=list)
    dead_letters: dict[str, int] = field(default_factory=dict)

    def apply(self, row: SinkRow) -> None:
        """Store one row."""
        if row.state is not None:
            key = (row.source_version, bundle_order(row.bundle_version), row.bundle_version)
            before = self.entries.get(row.video_id)
            if before is None or key > before[0]:
                self.entries[row.video_id] = (key, row)
        self.effects.append((row.video_id, row.source_version))
        newest = max((version for name, version in self.effects if name == row.video_id), default=0)
        if row.error is not None and row.source_version >= newest:
            self.dead_letters[row.video_id] = row.source_version
        elif row.error is None and self.dead_letters.get(row.video_id, row.source_version + 1) <= row.source_version:
            del self.dead_letters[row.video_id]
