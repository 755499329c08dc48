//! The tables. A change of meaning raises [`FORMAT`]; a program that finds a higher one leaves the file alone.

/// The format that this program writes.
pub(crate) const FORMAT: i64 = 1;

/// Removals kept for one node; a node that is further behind gets a snapshot.
pub(super) const REMOVALS_MAX: i64 = 10_000;

/// Floors of past lives that are kept for a node; an edge restored from an image older than these is held.
pub(super) const FLOORS_KEPT: i64 = 100;

/// Deleted nodes that are remembered: far more than a fleet replaces in a certificate's life, and a few hundred KiB.
pub(super) const DELETED_NODES_MAX: i64 = 10_000;

/// Writes that were done and are remembered: a deploy every five minutes for a year, in some 20 MiB.
pub(super) const AUDIT_DONE_MAX: i64 = 100_000;

/// Writes that were refused and are remembered; bounded apart, so that whoever may do nothing cannot push out what was done.
pub(super) const AUDIT_REFUSED_MAX: i64 = 10_000;

/// Of these, those of one token: whoever has one cannot push out what was refused to others.
pub(super) const AUDIT_REFUSED_OF_TOKEN_MAX: i64 = 1_000;

/// Tokens that ended and are remembered: one for each edge of a large fleet and all of the API, in some 2 MiB.
pub(super) const TOKENS_ENDED_MAX: i64 = 10_000;

/// Versions of a job that are kept for going back, and whose outcomes are.
pub(super) const VERSIONS_KEPT: i64 = 10;

pub(super) const TABLES: &str = "
CREATE TABLE life (
    epoch INTEGER PRIMARY KEY,
    nonce BLOB NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;
-- The node's desired revision when the life after `epoch` started; only where it differs from the one before.
CREATE TABLE life_floor (
    node BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    PRIMARY KEY (node, epoch)
) STRICT, WITHOUT ROWID;
CREATE TABLE node (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    labels TEXT NOT NULL,
    key BLOB NOT NULL,
    certificate_expires_at INTEGER NOT NULL,
    incarnation BLOB,
    boot_counter INTEGER NOT NULL DEFAULT 0,
    boot_nonce BLOB,
    desired_rev INTEGER NOT NULL DEFAULT 0,
    desired_digest BLOB NOT NULL,
    received_rev INTEGER NOT NULL DEFAULT 0,
    last_ack_at INTEGER,
    observed_rev INTEGER NOT NULL DEFAULT 0,
    observed_digest BLOB NOT NULL,
    removals_from INTEGER NOT NULL DEFAULT 0,
    held TEXT,
    revoked_at INTEGER,
    created_at INTEGER NOT NULL,
    last_seen_at INTEGER,
    program TEXT,
    versions TEXT NOT NULL DEFAULT '[]',
    capabilities TEXT NOT NULL DEFAULT '[]',
    cordoned INTEGER NOT NULL DEFAULT 0,
    draining INTEGER NOT NULL DEFAULT 0,
    -- Keys that operators set (text) or took away (null); they win over `labels`, what the edge says itself.
    operator_labels TEXT NOT NULL DEFAULT '{}',
    -- How often operators ordered something of it.
    order_count INTEGER NOT NULL DEFAULT 0,
    lost_at INTEGER,
    -- Executions of all jobs that are desired to run there.
    executions INTEGER NOT NULL DEFAULT 0
) STRICT;
-- Nodes that are no more: their certificates are known, and worth nothing.
CREATE TABLE deleted_node (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX deleted_node_until ON deleted_node (until);
CREATE TABLE spec (
    digest BLOB PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;
CREATE TABLE job (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    spec BLOB NOT NULL REFERENCES spec (digest),
    stopped INTEGER NOT NULL,
    deleted INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX job_name ON job (name) WHERE deleted = 0;
CREATE INDEX job_spec ON job (spec);
CREATE TABLE job_version (
    job BLOB NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    spec BLOB NOT NULL REFERENCES spec (digest),
    created_at INTEGER NOT NULL,
    -- The version whose content this one took again, and why; null when it was deployed.
    rolled_back_to INTEGER,
    reason TEXT,
    -- It went to every node at once, or its rollout ended well.
    good INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, version)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_version_spec ON job_version (spec);
-- How the newest version of a job reaches its nodes. `good_spec` keeps the content to go back to.
CREATE TABLE rollout (
    job BLOB PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    good_spec BLOB REFERENCES spec (digest),
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX rollout_spec ON rollout (good_spec);
-- One row is one execution and its assignment: `body` is the row byte for byte as first committed.
CREATE TABLE execution (
    id BLOB PRIMARY KEY,
    job BLOB NOT NULL REFERENCES job (id),
    node BLOB NOT NULL REFERENCES node (id),
    slot INTEGER NOT NULL,
    version INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    desired TEXT NOT NULL,
    spec BLOB NOT NULL REFERENCES spec (digest),
    rev INTEGER NOT NULL,
    body BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    -- Its node was lost and its place given away.
    replaced INTEGER NOT NULL DEFAULT 0,
    once INTEGER NOT NULL DEFAULT 0,
    UNIQUE (job, node, slot)
) STRICT;
CREATE INDEX execution_node_rev ON execution (node, rev);
CREATE INDEX execution_spec ON execution (spec);
CREATE TABLE removal (
    node BLOB NOT NULL,
    rev INTEGER NOT NULL,
    execution BLOB NOT NULL,
    PRIMARY KEY (node, rev, execution)
) STRICT, WITHOUT ROWID;
CREATE TABLE observed (
    node BLOB NOT NULL,
    execution BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (node, execution)
) STRICT, WITHOUT ROWID;
CREATE TABLE outcome (
    execution BLOB NOT NULL,
    version INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    node BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (execution, version, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE evaluation (
    id BLOB PRIMARY KEY,
    job BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    fence INTEGER NOT NULL DEFAULT 0,
    claimed_by TEXT,
    claimed_until INTEGER
) STRICT;
CREATE UNIQUE INDEX evaluation_job ON evaluation (job);
CREATE TABLE run (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    -- What its client named it by, and what it asked for.
    key TEXT UNIQUE,
    request BLOB NOT NULL,
    params TEXT NOT NULL,
    launched_at INTEGER NOT NULL,
    -- The tick that launched it; no references: a run outlives its schedule.
    schedule BLOB,
    schedule_name TEXT,
    nominal INTEGER,
    -- The digest of what it brought for `[input.stdin]`.
    stdin BLOB
) STRICT;
-- Keys of runs that are forgotten, so that a launch that is repeated late makes no second run.
CREATE TABLE spent_key (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE,
    run BLOB NOT NULL,
    request BLOB NOT NULL,
    launched_at INTEGER NOT NULL
) STRICT;
CREATE INDEX spent_key_age ON spent_key (launched_at);
CREATE INDEX run_stdin ON run (stdin) WHERE stdin IS NOT NULL;
CREATE UNIQUE INDEX run_tick ON run (schedule, nominal) WHERE schedule IS NOT NULL;
CREATE TABLE schedule (
    id BLOB PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- By name: a job may be deleted and deployed again.
    job TEXT NOT NULL,
    cron TEXT,
    tz TEXT,
    every TEXT,
    overlap TEXT NOT NULL,
    catch_up TEXT NOT NULL,
    jitter TEXT,
    params TEXT NOT NULL,
    nodes TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    -- Ticks up to then have their rows.
    considered INTEGER NOT NULL,
    next_nominal INTEGER,
    next_at INTEGER,
    fence INTEGER NOT NULL DEFAULT 0,
    claimed_by TEXT,
    claimed_until INTEGER
) STRICT;
CREATE TABLE schedule_tick (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    schedule BLOB NOT NULL REFERENCES schedule (id) ON DELETE CASCADE,
    nominal INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    run BLOB,
    why TEXT,
    count INTEGER NOT NULL,
    decided_at INTEGER NOT NULL,
    -- Its run may be under way.
    open INTEGER NOT NULL,
    UNIQUE (schedule, nominal)
) STRICT;
CREATE INDEX schedule_tick_newest ON schedule_tick (schedule, seq);
CREATE INDEX schedule_tick_open ON schedule_tick (schedule) WHERE open = 1;
CREATE INDEX schedule_tick_queued ON schedule_tick (schedule, nominal) WHERE outcome = 'queued';
CREATE TABLE task (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run BLOB NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    -- No reference: a run outlives its job.
    job BLOB NOT NULL,
    job_name TEXT NOT NULL,
    version INTEGER NOT NULL,
    spec BLOB NOT NULL,
    -- The one node that it may go to; empty when any may have it.
    pinned BLOB NOT NULL,
    priority INTEGER NOT NULL,
    concurrency INTEGER,
    pool TEXT,
    -- later (its next try has its time), waiting (for a place), active, ended.
    phase TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    not_before INTEGER NOT NULL,
    execution BLOB,
    node BLOB,
    node_name TEXT,
    exposed INTEGER NOT NULL DEFAULT 0,
    wiped INTEGER NOT NULL DEFAULT 0,
    -- Ids of the nodes that refused it, one after the other.
    refused BLOB NOT NULL DEFAULT x'',
    stopping TEXT,
    claimed_by TEXT,
    claimed_until INTEGER,
    fence INTEGER NOT NULL DEFAULT 0,
    deadline INTEGER,
    started_at INTEGER,
    ended_at INTEGER,
    end TEXT,
    fail TEXT,
    reason TEXT NOT NULL DEFAULT '',
    records_in INTEGER NOT NULL DEFAULT 0,
    records_out INTEGER NOT NULL DEFAULT 0,
    -- Of its tries, those that failed; the others were refused, drained or lost.
    failures INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX task_run ON task (run);
CREATE INDEX task_job ON task (job, seq);
CREATE INDEX task_execution ON task (execution) WHERE execution IS NOT NULL;
CREATE INDEX task_waiting ON task (job, version, priority, pinned, seq) WHERE phase = 'waiting';
CREATE INDEX task_open_spec ON task (spec) WHERE phase <> 'ended';
CREATE INDEX task_later ON task (not_before) WHERE phase = 'later';
CREATE INDEX task_later_group ON task (job, version, priority, pinned, seq) WHERE phase = 'later';
CREATE INDEX task_active ON task (node, job, pool) WHERE phase = 'active';
CREATE INDEX task_active_job ON task (job) WHERE phase = 'active';
CREATE INDEX task_active_pool ON task (pool) WHERE phase = 'active';
-- How many have not ended, always.
CREATE TABLE open_tasks (count INTEGER NOT NULL) STRICT;
INSERT INTO open_tasks (count) VALUES (0);
CREATE TRIGGER task_opens AFTER INSERT ON task WHEN NEW.phase <> 'ended'
    BEGIN UPDATE open_tasks SET count = count + 1; END;
CREATE TRIGGER task_closes AFTER UPDATE OF phase ON task WHEN OLD.phase <> 'ended' AND NEW.phase = 'ended'
    BEGIN UPDATE open_tasks SET count = count - 1; END;
CREATE TRIGGER task_goes AFTER DELETE ON task WHEN OLD.phase <> 'ended'
    BEGIN UPDATE open_tasks SET count = count - 1; END;
-- Which groups have tasks that wait for a place (waiting) or their next try (later), how many, and the oldest of each:
-- always, so that no queue is read to know it.
CREATE TABLE waiting_group (
    job BLOB NOT NULL,
    version INTEGER NOT NULL,
    -- Minus the priority: the highest comes first.
    rank INTEGER NOT NULL,
    pinned BLOB NOT NULL,
    phase TEXT NOT NULL,
    oldest INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (job, version, rank, pinned, phase)
) STRICT, WITHOUT ROWID;
CREATE INDEX waiting_group_turn ON waiting_group (phase, rank, oldest);
CREATE INDEX waiting_group_oldest ON waiting_group (oldest);
CREATE TRIGGER task_waits AFTER INSERT ON task WHEN NEW.phase IN ('waiting', 'later') BEGIN
    INSERT INTO waiting_group (job, version, rank, pinned, phase, oldest, count)
        VALUES (NEW.job, NEW.version, -NEW.priority, NEW.pinned, NEW.phase, NEW.seq, 1)
        ON CONFLICT DO UPDATE SET oldest = min(oldest, NEW.seq), count = count + 1;
END;
CREATE TRIGGER task_waits_again AFTER UPDATE OF phase ON task
    WHEN OLD.phase <> NEW.phase AND NEW.phase IN ('waiting', 'later') BEGIN
    INSERT INTO waiting_group (job, version, rank, pinned, phase, oldest, count)
        VALUES (NEW.job, NEW.version, -NEW.priority, NEW.pinned, NEW.phase, NEW.seq, 1)
        ON CONFLICT DO UPDATE SET oldest = min(oldest, NEW.seq), count = count + 1;
END;
CREATE TRIGGER task_waits_no_more AFTER UPDATE OF phase ON task
    WHEN OLD.phase <> NEW.phase AND OLD.phase IN ('waiting', 'later') BEGIN
    DELETE FROM waiting_group WHERE job = OLD.job AND version = OLD.version AND rank = -OLD.priority AND pinned = OLD.pinned AND phase = OLD.phase AND count = 1;
    UPDATE waiting_group SET count = count - 1 WHERE job = OLD.job AND version = OLD.version AND rank = -OLD.priority AND pinned = OLD.pinned AND phase = OLD.phase;
    UPDATE waiting_group SET oldest = CASE OLD.phase
            WHEN 'waiting' THEN (SELECT seq FROM task WHERE phase = 'waiting' AND job = OLD.job
                AND version = OLD.version AND priority = OLD.priority AND pinned = OLD.pinned ORDER BY seq LIMIT 1)
            ELSE (SELECT seq FROM task WHERE phase = 'later' AND job = OLD.job
                AND version = OLD.version AND priority = OLD.priority AND pinned = OLD.pinned ORDER BY seq LIMIT 1)
        END
        WHERE job = OLD.job AND version = OLD.version AND rank = -OLD.priority AND pinned = OLD.pinned AND phase = OLD.phase AND oldest = OLD.seq;
END;
CREATE TRIGGER task_waited AFTER DELETE ON task WHEN OLD.phase IN ('waiting', 'later') BEGIN
    DELETE FROM waiting_group WHERE job = OLD.job AND version = OLD.version AND rank = -OLD.priority AND pinned = OLD.pinned AND phase = OLD.phase AND count = 1;
    UPDATE waiting_group SET count = count - 1 WHERE job = OLD.job AND version = OLD.version AND rank = -OLD.priority AND pinned = OLD.pinned AND phase = OLD.phase;
    UPDATE waiting_group SET oldest = CASE OLD.phase
            WHEN 'waiting' THEN (SELECT seq FROM task WHERE phase = 'waiting' AND job = OLD.job
                AND version = OLD.version AND priority = OLD.priority AND pinned = OLD.pinned ORDER BY seq LIMIT 1)
            ELSE (SELECT seq FROM task WHERE phase = 'later' AND job = OLD.job
                AND version = OLD.version AND priority = OLD.priority AND pinned = OLD.pinned ORDER BY seq LIMIT 1)
        END
        WHERE job = OLD.job AND version = OLD.version AND rank = -OLD.priority AND pinned = OLD.pinned AND phase = OLD.phase AND oldest = OLD.seq;
END;
-- What the newest try of a run's task wrote, as its edge said; the bytes are in files of their own, by digest.
CREATE TABLE output (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    execution BLOB NOT NULL UNIQUE,
    run BLOB NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    node BLOB NOT NULL,
    digest BLOB NOT NULL,
    bytes INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    -- lacking, held, gone
    state TEXT NOT NULL,
    -- Why it is gone.
    reason TEXT NOT NULL DEFAULT '',
    -- Since when it is in that state.
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX output_run ON output (run);
CREATE INDEX output_lacking ON output (node, seq) WHERE state = 'lacking';
CREATE INDEX output_held ON output (at, seq) WHERE state = 'held' AND bytes > 0;
CREATE INDEX output_digest ON output (digest) WHERE state <> 'gone';
-- Contents that outputs hold, each once, by the newest output that ever held it.
CREATE TABLE content (
    digest BLOB PRIMARY KEY,
    bytes INTEGER NOT NULL,
    newest INTEGER NOT NULL,
    holders INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX content_newest ON content (newest);
-- Contents that nothing holds any more, and whose files may go.
CREATE TABLE content_dropped (digest BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
-- How many outputs there are of each sort, and what is held, always.
CREATE TABLE output_totals (
    lacking INTEGER NOT NULL,
    held INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    held_bytes INTEGER NOT NULL
) STRICT;
INSERT INTO output_totals (lacking, held, gone, held_bytes) VALUES (0, 0, 0, 0);
CREATE TRIGGER output_comes AFTER INSERT ON output BEGIN
    UPDATE output_totals SET lacking = lacking + (NEW.state = 'lacking'), held = held + (NEW.state = 'held'),
        gone = gone + (NEW.state = 'gone');
END;
CREATE TRIGGER output_turns AFTER UPDATE OF state ON output BEGIN
    UPDATE output_totals SET lacking = lacking - (OLD.state = 'lacking') + (NEW.state = 'lacking'),
        held = held - (OLD.state = 'held') + (NEW.state = 'held'), gone = gone - (OLD.state = 'gone') + (NEW.state = 'gone');
END;
CREATE TRIGGER output_goes AFTER DELETE ON output BEGIN
    UPDATE output_totals SET lacking = lacking - (OLD.state = 'lacking'), held = held - (OLD.state = 'held'),
        gone = gone - (OLD.state = 'gone');
END;
CREATE TRIGGER output_holds AFTER UPDATE OF state ON output
    WHEN OLD.state <> 'held' AND NEW.state = 'held' AND NEW.bytes > 0 BEGIN
    INSERT INTO content (digest, bytes, newest, holders) VALUES (NEW.digest, NEW.bytes, NEW.seq, 1)
        ON CONFLICT DO UPDATE SET newest = max(newest, NEW.seq), holders = holders + 1;
END;
CREATE TRIGGER output_comes_held AFTER INSERT ON output WHEN NEW.state = 'held' AND NEW.bytes > 0 BEGIN
    INSERT INTO content (digest, bytes, newest, holders) VALUES (NEW.digest, NEW.bytes, NEW.seq, 1)
        ON CONFLICT DO UPDATE SET newest = max(newest, NEW.seq), holders = holders + 1;
END;
CREATE TRIGGER output_lets_go AFTER UPDATE OF state ON output
    WHEN OLD.state = 'held' AND NEW.state <> 'held' AND OLD.bytes > 0 BEGIN
    UPDATE content SET holders = holders - 1 WHERE digest = OLD.digest;
    DELETE FROM content WHERE digest = OLD.digest AND holders = 0;
END;
CREATE TRIGGER output_held_goes AFTER DELETE ON output WHEN OLD.state = 'held' AND OLD.bytes > 0 BEGIN
    UPDATE content SET holders = holders - 1 WHERE digest = OLD.digest;
    DELETE FROM content WHERE digest = OLD.digest AND holders = 0;
END;
CREATE TRIGGER content_comes AFTER INSERT ON content BEGIN
    UPDATE output_totals SET held_bytes = held_bytes + NEW.bytes;
END;
CREATE TRIGGER content_goes AFTER DELETE ON content BEGIN
    UPDATE output_totals SET held_bytes = held_bytes - OLD.bytes;
    INSERT INTO content_dropped (digest) VALUES (OLD.digest) ON CONFLICT DO NOTHING;
END;
CREATE TABLE token (
    id BLOB PRIMARY KEY,
    secret_hash BLOB NOT NULL,
    uses_left INTEGER,
    expires_at INTEGER NOT NULL,
    node TEXT,
    rejoin INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT
) STRICT;
-- Tokens of the API; the text itself is never stored.
CREATE TABLE api_token (
    id BLOB PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    role TEXT NOT NULL,
    name TEXT,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT
) STRICT, WITHOUT ROWID;
-- Tokens of both sorts that were revoked or have expired, for who asks later whose one was. `role` is null for a join token.
CREATE TABLE token_ended (
    id BLOB PRIMARY KEY,
    ended_at INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT,
    uses_left INTEGER,
    node TEXT,
    rejoin INTEGER NOT NULL,
    role TEXT,
    name TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX token_ended_at ON token_ended (ended_at, id);
-- Every write that was asked for through the API, and whatever else a role refused.
CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    token TEXT NOT NULL,
    name TEXT,
    role TEXT NOT NULL,
    operation TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    message TEXT
) STRICT;
CREATE INDEX audit_outcome ON audit (outcome = 'done', id);
CREATE INDEX audit_token ON audit (token, id);
CREATE INDEX audit_operation ON audit (operation, id);
CREATE INDEX audit_at ON audit (at);
CREATE TABLE token_join (
    token BLOB NOT NULL REFERENCES token (id) ON DELETE CASCADE,
    key BLOB NOT NULL,
    node BLOB NOT NULL,
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (token, key)
) STRICT, WITHOUT ROWID;
";
