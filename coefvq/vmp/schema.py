"""The statements that write the index and guard it (docs/adr/0012); its tables: coefvq/vmp/schema_steps.py.

An entry is replaced only by a row with a higher ``(source_version, epoch, views, rank)`` whose source version is not
below the newest one seen of that video. Entries are compared under the writers' lock (``supersedes`` in
coefvq/vmp/stored.py); the other tables of a video by the writing statement itself.
"""

from __future__ import annotations

from coefvq.vmp.inserts import Insert
from coefvq.vmp.schema_steps import ENTRY_OF_VIDEO

#: the entry that a video had before goes by ``END_ENTRIES``
WRITE_ENTRY = Insert(
    "entries",
    ("change", "video_id", "source_version", "views", "value"),
    ("state", "rule", "epoch", "rank", "bundle_version", "decided_at", "held"),
)
#: for rows that have little in common
WRITE_MIXED_ENTRY = Insert("entries", (*WRITE_ENTRY.shared, *WRITE_ENTRY.own))
END_ENTRIES = "DELETE FROM entries WHERE "
SEE_VIDEO = Insert(
    "videos",
    ("video_id", "seen_version", "views", "change"),
    conflict="""ON CONFLICT (video_id) DO UPDATE SET
        seen_version = CASE WHEN excluded.seen_version > videos.seen_version
            THEN excluded.seen_version ELSE videos.seen_version END,
        views = CASE WHEN coalesce(excluded.views, -1) > coalesce(videos.views, -1)
            THEN excluded.views ELSE videos.views END,
        change = coalesce(excluded.change, videos.change)""",
)
#: an audit row takes these columns from its batch and from what was stored before
EFFECT_OF_BATCH = ("consumer", "applied_at", "written", "error", "effective")
#: it takes these from its own row of the batch; most rows of a batch have the same values
EFFECT_OF_ROW = ("epoch", "rank", "bundle_version", "outcome", "rule", "routes", "waited")
WRITE_EFFECT = Insert("effects", ("offset", "video_id", "source_version"), (*EFFECT_OF_BATCH, *EFFECT_OF_ROW))
WRITE_MIXED_EFFECT = Insert("effects", (*WRITE_EFFECT.shared, *WRITE_EFFECT.own))
#: an old event, or a worker of an old epoch, reports no failure of what was judged since
WRITE_DEAD_LETTER = f"""
    INSERT INTO dead_letters (video_id, offset, source_version, epoch, uri, reason, held)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
    WHERE NOT EXISTS (SELECT 1 FROM videos WHERE video_id = ?1 AND seen_version > ?3)
        AND NOT EXISTS (SELECT 1 FROM {ENTRY_OF_VIDEO} WHERE v.video_id = ?1 AND e.rank >= 2
            AND (e.source_version, e.epoch, coalesce(e.views, -1)) >= (?3, ?4, coalesce(?8, -1)))
    ON CONFLICT (video_id) DO UPDATE SET
        offset = excluded.offset, source_version = excluded.source_version, epoch = excluded.epoch,
        uri = excluded.uri, reason = excluded.reason, held = excluded.held, failed_at = excluded.failed_at
    WHERE (excluded.source_version, excluded.epoch) >= (dead_letters.source_version, dead_letters.epoch)"""  # noqa: S608
SETTLE_DEAD_LETTER = "DELETE FROM dead_letters WHERE video_id = ? AND (source_version, epoch) <= (?, ?)"
WRITE_OFFSET = """
    INSERT INTO offsets (consumer, offset, digest) VALUES (?, ?, ?)
    ON CONFLICT (consumer) DO UPDATE SET offset = excluded.offset, digest = excluded.digest
    WHERE excluded.offset > offsets.offset"""
#: a verdict made at fewer views than are known has to be made again
SET_DUE = Insert("due", ("video_id",), conflict="ON CONFLICT (video_id) DO NOTHING")
END_DUE = "DELETE FROM due WHERE video_id = ?"
#: nothing had to change at these views
KEEP_VERDICT = """
    DELETE FROM due WHERE video_id = ?1
    AND EXISTS (SELECT 1 FROM videos WHERE video_id = ?1 AND coalesce(views, -1) <= coalesce(?2, -1))"""
#: ``?12`` is the rank that the answer will have: what an entry of that worth already says is not asked again
WRITE_TASK = f"""
    INSERT INTO pending (video_id, source_version, epoch, views, lane, priority, calls, drawn, shed, scores, enqueued,
        deadline, tenant)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
        (SELECT clock FROM budget)
            + coalesce((SELECT max_wait FROM tenants WHERE tenant = ?13), (SELECT max_wait FROM budget)), ?13
    WHERE NOT EXISTS (SELECT 1 FROM videos WHERE video_id = ?1 AND seen_version > ?2)
        AND NOT EXISTS (SELECT 1 FROM {ENTRY_OF_VIDEO} WHERE v.video_id = ?1
            AND (e.source_version, e.epoch, coalesce(e.views, -1), e.rank) >= (?2, ?3, coalesce(?4, -1), ?12))
    ON CONFLICT (video_id) DO UPDATE SET
        source_version = excluded.source_version, epoch = excluded.epoch, views = excluded.views,
        -- the place in the queue stays with the content
        enqueued = CASE WHEN pending.source_version = excluded.source_version THEN pending.enqueued
            ELSE excluded.enqueued END,
        deadline = CASE WHEN pending.source_version = excluded.source_version THEN pending.deadline
            ELSE excluded.deadline END,
        lane = CASE WHEN pending.source_version = excluded.source_version AND pending.lane < excluded.lane
            THEN pending.lane ELSE excluded.lane END,
        priority = excluded.priority, calls = excluded.calls, drawn = excluded.drawn, shed = excluded.shed,
        silent = 0, scores = excluded.scores, owner = NULL, leased_until = NULL
    WHERE (excluded.source_version, excluded.epoch, coalesce(excluded.views, -1))
        > (pending.source_version, pending.epoch, coalesce(pending.views, -1)) OR pending.scores = ''"""  # noqa: S608
#: a task that a newer verdict left without use
OVERTAKEN_TASK = """
    DELETE FROM pending WHERE video_id = ?1
        AND (source_version, epoch, coalesce(views, -1)) < (?2, ?3, coalesce(?4, -1))"""
#: a verdict that waits for nothing ends the task that it answers, and any older one
END_TASK = """
    DELETE FROM pending WHERE video_id = ?1
        AND (source_version, epoch, coalesce(views, -1)) <= (?2, ?3, coalesce(?4, -1))"""
_THE_TASK = "WHERE video_id = ? AND (source_version, epoch, coalesce(views, -1)) = (?, ?, coalesce(?, -1))"
DROP_TASK = f"DELETE FROM pending {_THE_TASK}"  # noqa: S608
SILENCE_TASK = f"UPDATE pending SET silent = 1 {_THE_TASK}"  # noqa: S608
SHED_TASK = f"UPDATE pending SET lane = 0, shed = 1, deadline = NULL {_THE_TASK}"  # noqa: S608
#: newer content, or a deletion, makes a task void
CANCEL_TASK = "DELETE FROM pending WHERE video_id = ? AND source_version < ?"
#: the newest verdict says when it may change by age alone
WRITE_RECHECK = """
    INSERT INTO recheck (video_id, at) SELECT ?1, ?2
    WHERE NOT EXISTS (SELECT 1 FROM videos WHERE video_id = ?1 AND seen_version > ?3)
    ON CONFLICT (video_id) DO UPDATE SET at = excluded.at"""
END_RECHECK = """
    DELETE FROM recheck WHERE video_id = ?1
    AND NOT EXISTS (SELECT 1 FROM videos WHERE video_id = ?1 AND seen_version > ?2)"""
END_OVERRIDE = "DELETE FROM overrides WHERE video_id = ? AND content != ? AND source_version < ?"
