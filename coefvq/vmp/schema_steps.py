"""Tables of the index, version by version; a state of an older version runs the steps that it lacks.

An entry has the number of its change in the feed as its key, so entries lie in the order of their changes: a batch
writes its entries at the end of the table, whatever its videos are called. ``videos`` leads from a key to it.
"""

from __future__ import annotations

from coefvq.vmp import feed

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
#: a video with its entry, found by the key or by the number of the change
ENTRY_OF_VIDEO = "videos v JOIN entries e ON e.change = v.change AND e.video_id = v.video_id"
_EIGHTH = (
    "DROP VIEW served",
    # in the order of the feed, so that a batch writes at the end of one tree in place of into three
    """CREATE TABLE entries_8 (
        change INTEGER PRIMARY KEY, video_id TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('live', 'removed', 'deleted')), rule TEXT NOT NULL,
        source_version INTEGER NOT NULL, bundle_version TEXT NOT NULL, value TEXT NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 0, rank INTEGER NOT NULL DEFAULT 2, views INTEGER, decided_at TEXT,
        held INTEGER NOT NULL DEFAULT 0)""",
    """INSERT INTO entries_8 (change, video_id, state, rule, source_version, bundle_version, value, epoch, rank, views,
            decided_at, held)
        SELECT v.change, e.video_id, e.state, e.rule, e.source_version, e.bundle_version, e.value, e.epoch, e.rank,
            e.views, e.decided_at, e.held
        FROM entries e JOIN videos v ON v.video_id = e.video_id WHERE v.change IS NOT NULL ORDER BY v.change""",
    # an entry without a number would be lost: refuse
    "CREATE TABLE lost_8 (entries INTEGER NOT NULL CHECK (entries = 0))",
    "INSERT INTO lost_8 SELECT (SELECT count(*) FROM entries) - (SELECT count(*) FROM entries_8)",
    "DROP TABLE lost_8",
    "DROP TABLE entries",
    "ALTER TABLE entries_8 RENAME TO entries",
    "DROP INDEX videos_by_change",
    f"""CREATE VIEW served AS
        SELECT v.video_id, e.change, CASE WHEN e.held = 1 THEN 'held' ELSE e.state END AS verdict, e.rule,
            e.source_version, e.epoch, e.rank, e.bundle_version, e.value, e.decided_at, v.views, o.state AS pinned,
            o.by, o.reason, o.at,
            CASE WHEN e.state = 'deleted' THEN 'deleted'
                WHEN o.state IS NOT NULL THEN o.state
                WHEN d.withdrawn = 1 THEN 'withdrawn'
                WHEN e.held = 1 THEN 'held'
                ELSE e.state END AS state
        FROM {ENTRY_OF_VIDEO}
        LEFT JOIN overrides o ON o.video_id = v.video_id
        LEFT JOIN deployments d ON d.epoch = e.epoch""",  # noqa: S608
)
SCHEMA = (_FIRST, _SECOND, _THIRD, (*_FOURTH, *feed.TABLES, *_AUDIT), _FIFTH, _SIXTH, _SEVENTH, _EIGHTH)
