"""Tables of the index, version by version, and the statements that guard them (docs/adr/0012).

An entry is replaced only by a row with a higher ``(source_version, epoch, views, rank)`` whose source version is not
below the newest one seen of that video. Entries are compared under the writers' lock (``supersedes`` in
coefvq/vmp/stored.py); the other tables of a video by the writing statement itself.
"""

from __future__ import annotations

from coefvq.vmp import feed
from coefvq.vmp.inserts import Insert

_NOW = "TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))"
#: SQLite takes any name; elsewhere REAL has four bytes
_FLOAT = "DOUBLE PRECISION"
_FIRST = (
    """CREATE TABLE entries (
        video_id TEXT PRIMARY KEY, state TEXT NOT NULL CHECK (state IN ('live', 'removed', 'deleted')),
        rule TEXT NOT NULL, source_version INTEGER NOT NULL, bundle_order INTEGER NOT NULL,
        bundle_version TEXT NOT NULL, value TEXT NOT NULL)""",
    "CREATE TABLE offsets (consumer TEXT PRIMARY KEY, offset INTEGER NOT NULL)",
    # append-only: who decided what, when and by which rule; nothing reads it back, so it may be cut
    f"""CREATE TABLE effects (
        number INTEGER PRIMARY KEY AUTOINCREMENT, consumer TEXT NOT NULL, offset INTEGER NOT NULL,
        video_id TEXT NOT NULL, source_version INTEGER NOT NULL, bundle_version TEXT NOT NULL,
        outcome TEXT NOT NULL, rule TEXT NOT NULL, written INTEGER NOT NULL, error TEXT, applied_at {_NOW})""",
    "CREATE INDEX effects_by_video ON effects (video_id, source_version)",
    f"""CREATE TABLE dead_letters (
        video_id TEXT PRIMARY KEY, offset INTEGER NOT NULL, source_version INTEGER NOT NULL,
        uri TEXT NOT NULL, reason TEXT NOT NULL, failed_at {_NOW})""",
)
_SECOND = (
    # one row at most: the id of the log, once the two were opened together
    "CREATE TABLE state (id TEXT NOT NULL)",
    "ALTER TABLE offsets ADD COLUMN digest TEXT",
)
_THIRD = (
    f"""CREATE TABLE deployments (
        epoch INTEGER PRIMARY KEY, decision INTEGER NOT NULL, bundles TEXT NOT NULL, models TEXT NOT NULL,
        rules TEXT NOT NULL, withdrawn INTEGER NOT NULL DEFAULT 0, fence INTEGER NOT NULL DEFAULT 0,
        issued_at {_NOW})""",
    # rows of the older schema get epochs below any that is issued from now on, one per set of pairs
    """INSERT INTO deployments (epoch, decision, bundles, models, rules)
        SELECT row_number() OVER (ORDER BY min(bundle_order), bundle_version), 0, bundle_version, '', ''
        FROM entries GROUP BY bundle_version""",
    "ALTER TABLE entries ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE entries ADD COLUMN rank INTEGER NOT NULL DEFAULT 2",
    "ALTER TABLE entries ADD COLUMN views INTEGER",
    "ALTER TABLE entries ADD COLUMN decided_at TEXT",
    "UPDATE entries SET epoch = (SELECT epoch FROM deployments WHERE bundles = entries.bundle_version), "
    "views = CASE WHEN json_valid(value) THEN json_extract(value, '$.views') END",
    "ALTER TABLE entries DROP COLUMN bundle_order",
    "CREATE INDEX entries_by_epoch ON entries (epoch)",
    # what was seen of a video, whatever became of it
    "CREATE TABLE videos (video_id TEXT PRIMARY KEY, seen_version INTEGER NOT NULL, views INTEGER)",
    """INSERT INTO videos (video_id, seen_version, views)
        SELECT video_id, max(source_version), max(views) FROM (
            SELECT video_id, source_version, views FROM entries
            UNION ALL SELECT video_id, source_version, NULL FROM effects
            UNION ALL SELECT video_id, source_version, NULL FROM dead_letters) GROUP BY video_id""",
    # videos that were watched more often than at their verdict; the others to decide again follow from their rows
    "CREATE TABLE due (video_id TEXT PRIMARY KEY) WITHOUT ROWID",
    "CREATE INDEX provisional ON entries (video_id) WHERE rank = 1",
    """CREATE TABLE overrides (
        video_id TEXT PRIMARY KEY, content TEXT NOT NULL, source_version INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('live', 'removed')), by TEXT NOT NULL, reason TEXT NOT NULL,
        at TEXT NOT NULL)""",
    "ALTER TABLE dead_letters ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE dead_letters ADD COLUMN held INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE effects ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE effects ADD COLUMN rank INTEGER",
    """CREATE TABLE campaigns (
        number INTEGER PRIMARY KEY AUTOINCREMENT, state TEXT NOT NULL CHECK (state IN ('running', 'paused', 'done')),
        epoch INTEGER NOT NULL, phase INTEGER NOT NULL DEFAULT 0, cursor TEXT NOT NULL DEFAULT '',
        total INTEGER NOT NULL, scored INTEGER NOT NULL DEFAULT 0, decided INTEGER NOT NULL DEFAULT 0,
        changed INTEGER NOT NULL DEFAULT 0, started_at TEXT NOT NULL, ended_at TEXT)""",
    # what a reader sees: a person's word first, then whether the pair still stands, then the verdict
    """CREATE VIEW served AS
        SELECT e.video_id, e.state AS verdict, e.rule, e.source_version, e.epoch, e.rank, e.bundle_version, e.value,
            e.decided_at, v.views, o.state AS pinned, o.by, o.reason, o.at,
            CASE WHEN e.state = 'deleted' THEN 'deleted'
                WHEN o.state IS NOT NULL THEN o.state
                WHEN d.withdrawn = 1 THEN 'withdrawn'
                ELSE e.state END AS state
        FROM entries e
        LEFT JOIN videos v ON v.video_id = e.video_id
        LEFT JOIN overrides o ON o.video_id = e.video_id
        LEFT JOIN deployments d ON d.epoch = e.epoch""",
)
_SERVED = """CREATE VIEW served AS
    SELECT e.video_id, CASE WHEN e.held = 1 THEN 'held' ELSE e.state END AS verdict, e.rule, e.source_version,
        e.epoch, e.rank, e.bundle_version, e.value, e.decided_at, v.views, o.state AS pinned, o.by, o.reason, o.at,
        CASE WHEN e.state = 'deleted' THEN 'deleted'
            WHEN o.state IS NOT NULL THEN o.state
            WHEN d.withdrawn = 1 THEN 'withdrawn'
            WHEN e.held = 1 THEN 'held'
            ELSE e.state END AS state
    FROM entries e
    LEFT JOIN videos v ON v.video_id = e.video_id
    LEFT JOIN overrides o ON o.video_id = e.video_id
    LEFT JOIN deployments d ON d.epoch = e.epoch"""
_FOURTH = (
    # one MLLM task per video; scores: what the base model said, '' where it has to be asked first
    f"""CREATE TABLE pending (
        video_id TEXT PRIMARY KEY, source_version INTEGER NOT NULL, epoch INTEGER NOT NULL, views INTEGER,
        lane INTEGER NOT NULL CHECK (lane IN (0, 1, 2)), priority {_FLOAT} NOT NULL, calls INTEGER NOT NULL,
        drawn INTEGER NOT NULL DEFAULT 0, shed INTEGER NOT NULL DEFAULT 0, silent INTEGER NOT NULL DEFAULT 0,
        scores TEXT NOT NULL, enqueued {_FLOAT} NOT NULL, deadline {_FLOAT}, owner TEXT, leased_until {_FLOAT})""",
    "CREATE INDEX pending_by_priority ON pending (lane, priority DESC, enqueued)",
    "CREATE INDEX pending_by_deadline ON pending (deadline) WHERE deadline IS NOT NULL",
    "CREATE INDEX pending_by_owner ON pending (owner) WHERE owner IS NOT NULL",
    # one row at most: what the MLLM may cost; clock: seconds in which tasks were served, at: unix time of the last look
    f"""CREATE TABLE budget (
        one INTEGER PRIMARY KEY CHECK (one = 1), rate {_FLOAT}, burst {_FLOAT} NOT NULL DEFAULT 1, max_wait {_FLOAT},
        tokens {_FLOAT} NOT NULL DEFAULT 0, at {_FLOAT} NOT NULL DEFAULT 0, clock {_FLOAT} NOT NULL DEFAULT 0,
        served INTEGER NOT NULL DEFAULT 0)""",
    "ALTER TABLE entries ADD COLUMN held INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE effects ADD COLUMN routes TEXT",
    f"ALTER TABLE effects ADD COLUMN effective {_FLOAT}",
    f"ALTER TABLE effects ADD COLUMN waited {_FLOAT}",
    # when a rule on the age of a video may decide otherwise; unix time
    f"CREATE TABLE recheck (video_id TEXT PRIMARY KEY, at {_FLOAT} NOT NULL)",
    "CREATE INDEX recheck_by_time ON recheck (at)",
    # what waited for an MLLM that was down waits in the queue from now on
    "INSERT INTO pending (video_id, source_version, epoch, views, lane, priority, calls, silent, scores, enqueued) "
    "SELECT d.video_id, d.source_version, d.epoch, v.views, 1, 1, 1, 1, '', 0 "
    "FROM dead_letters d LEFT JOIN videos v ON v.video_id = d.video_id WHERE d.held = 1",
    "INSERT INTO pending (video_id, source_version, epoch, views, lane, priority, calls, silent, scores, enqueued) "
    "SELECT video_id, source_version, epoch, views, 1, 1, 1, 1, '', 0 FROM entries "
    "WHERE rank = 1 AND video_id NOT IN (SELECT video_id FROM dead_letters)",
    "DROP INDEX provisional",
    "DROP VIEW served",
    _SERVED,
)
_AUDIT = (
    # which videos people were asked to label (coefvq/vmp/audit_draws.py)
    """CREATE TABLE audit_draws (
        number INTEGER PRIMARY KEY AUTOINCREMENT, issue TEXT NOT NULL, since TEXT, until TEXT, seed INTEGER NOT NULL,
        drawn_at TEXT NOT NULL, imported_at TEXT)""",
    """CREATE TABLE audit_strata (
        draw INTEGER NOT NULL, bundle TEXT NOT NULL, kind TEXT NOT NULL, videos INTEGER NOT NULL,
        labels INTEGER NOT NULL, PRIMARY KEY (draw, bundle, kind))""",
    f"""CREATE TABLE audit_labels (
        draw INTEGER NOT NULL, video_id TEXT NOT NULL, bundle TEXT NOT NULL, kind TEXT NOT NULL,
        probability {_FLOAT} NOT NULL, audit {_FLOAT} NOT NULL, label INTEGER, PRIMARY KEY (draw, video_id))""",
)
_FIFTH = (
    # keys hold the tenant (coefvq/vmp/keys.py), so the tables of videos are as they were; the queue takes turns
    "ALTER TABLE pending ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default'",
    "DROP INDEX pending_by_priority",
    "CREATE INDEX pending_by_turn ON pending (tenant, lane, priority DESC, enqueued)",
    # the tenants that were ever configured, with budget and turn; no row where nobody configured any
    f"""CREATE TABLE tenants (
        tenant TEXT PRIMARY KEY, rate {_FLOAT}, burst {_FLOAT} NOT NULL DEFAULT 1, max_wait {_FLOAT},
        tokens {_FLOAT} NOT NULL DEFAULT 0, served INTEGER NOT NULL DEFAULT 0, turn INTEGER NOT NULL DEFAULT 0)""",
    "ALTER TABLE audit_draws ADD COLUMN tenant TEXT NOT NULL DEFAULT 'default'",
)
_SIXTH = (
    # `vmp forget` alone looked for the audit rows of a video, and it writes all tables anew anyhow
    "DROP INDEX effects_by_video",
    "DROP VIEW served",
    *feed.INTO_VIDEOS,
    _SERVED,
)
_SEVENTH = (
    # only a rollback asked for the entries of an epoch, and it may walk: each batch paid for one tree of pages more
    "DROP INDEX entries_by_epoch",
)
SCHEMA = (_FIRST, _SECOND, _THIRD, (*_FOURTH, *feed.TABLES, *_AUDIT), _FIFTH, _SIXTH, _SEVENTH)

WRITE_ENTRY = Insert(
    "entries",
    ("video_id", "source_version", "views", "value"),
    ("state", "rule", "epoch", "rank", "bundle_version", "decided_at", "held"),
    """ON CONFLICT (video_id) DO UPDATE SET
        state = excluded.state, rule = excluded.rule, source_version = excluded.source_version,
        epoch = excluded.epoch, rank = excluded.rank, views = excluded.views,
        bundle_version = excluded.bundle_version, value = excluded.value, decided_at = excluded.decided_at,
        held = excluded.held""",
)
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
#: for rows that have little in common
WRITE_MIXED_EFFECT = Insert("effects", (*WRITE_EFFECT.shared, *WRITE_EFFECT.own))
#: an old event, or a worker of an old epoch, reports no failure of what was judged since
WRITE_DEAD_LETTER = """
    INSERT INTO dead_letters (video_id, offset, source_version, epoch, uri, reason, held)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
    WHERE NOT EXISTS (SELECT 1 FROM videos WHERE video_id = ?1 AND seen_version > ?3)
        AND NOT EXISTS (SELECT 1 FROM entries WHERE video_id = ?1 AND rank >= 2
            AND (source_version, epoch, coalesce(views, -1)) >= (?3, ?4, coalesce(?8, -1)))
    ON CONFLICT (video_id) DO UPDATE SET
        offset = excluded.offset, source_version = excluded.source_version, epoch = excluded.epoch,
        uri = excluded.uri, reason = excluded.reason, held = excluded.held, failed_at = excluded.failed_at
    WHERE (excluded.source_version, excluded.epoch) >= (dead_letters.source_version, dead_letters.epoch)"""
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
WRITE_TASK = """
    INSERT INTO pending (video_id, source_version, epoch, views, lane, priority, calls, drawn, shed, scores, enqueued,
        deadline, tenant)
    SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
        (SELECT clock FROM budget)
            + coalesce((SELECT max_wait FROM tenants WHERE tenant = ?13), (SELECT max_wait FROM budget)), ?13
    WHERE NOT EXISTS (SELECT 1 FROM videos WHERE video_id = ?1 AND seen_version > ?2)
        AND NOT EXISTS (SELECT 1 FROM entries WHERE video_id = ?1
            AND (source_version, epoch, coalesce(views, -1), rank) >= (?2, ?3, coalesce(?4, -1), ?12))
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
        > (pending.source_version, pending.epoch, coalesce(pending.views, -1)) OR pending.scores = ''"""
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
