-- Several clusters in one installation, each with a change log of its own that says what changed for
-- its nodes; the nodes and their epochs; who leads; calls to others that must not be lost.
--
-- Carried out with foreign keys off (caches are rebuilt while credentials refer to them) and checked
-- as a whole afterwards.

CREATE TABLE clusters (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    -- Keys the hash from a cache's key to its slot, so that nobody outside can aim at one slot.
    slot_key   BLOB    NOT NULL CHECK (length(slot_key) = 16),
    -- Of the newest change; 0 when there never was one.
    revision   INTEGER NOT NULL DEFAULT 0 CHECK (revision >= 0),
    created_at INTEGER NOT NULL CHECK (created_at >= 0)
) STRICT;

-- What there is belongs to the cluster of `larder up`.
INSERT INTO clusters (id, name, slot_key, revision, created_at)
SELECT 1, 'default', randomblob(16), coalesce(max(revision), 0), coalesce(min(at), 0) FROM changes;

CREATE TABLE new_caches (
    -- AUTOINCREMENT: the id of a deleted cache is never given to another.
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster_id       INTEGER NOT NULL REFERENCES clusters (id),
    name             TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    plan             TEXT    NOT NULL CHECK (length(plan) BETWEEN 1 AND 64),
    enabled          INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    -- Exactly one primary credential, and one of this cache's own. A unique index over a flag could
    -- only say "at most one". Checked at commit, because each of the two rows needs the other.
    primary_username TEXT    NOT NULL,
    -- Grows with each flush: a node that was away finds out that it must forget its items.
    flush_generation INTEGER NOT NULL DEFAULT 0 CHECK (flush_generation >= 0),
    created_at       INTEGER NOT NULL CHECK (created_at >= 0),
    -- When a client last used it, as far as is known; to a few minutes.
    used_at          INTEGER NOT NULL CHECK (used_at >= 0),
    FOREIGN KEY (id, primary_username) REFERENCES credentials (cache_id, username)
        DEFERRABLE INITIALLY DEFERRED
) STRICT;

-- Also of the caches that were deleted no id is given again.
INSERT INTO sqlite_sequence (name, seq) SELECT 'new_caches', seq FROM sqlite_sequence WHERE name = 'caches';
INSERT INTO new_caches (id, cluster_id, name, plan, enabled, primary_username, created_at, used_at)
SELECT id, 1, name, plan, enabled, primary_username, created_at, unixepoch() FROM caches;
DROP TABLE caches;
ALTER TABLE new_caches RENAME TO caches;
CREATE INDEX caches_by_cluster ON caches (cluster_id);

-- The changes before said nothing about what changed for a node; a node that asks for them is given
-- a snapshot.
DROP TABLE changes;

-- One row for each transaction that changed something for the nodes of a cluster: 1, 2, 3, … without
-- a gap. Whoever has applied revision r asks for those after r and knows that nothing is missing
-- between them. Old ones are removed from the lower end.
CREATE TABLE changes (
    cluster_id INTEGER NOT NULL REFERENCES clusters (id),
    revision   INTEGER NOT NULL,
    at         INTEGER NOT NULL CHECK (at >= 0),
    kind       TEXT    NOT NULL CHECK (kind IN (
        'cache created', 'cache deleted', 'plan changed', 'cache enabled', 'cache disabled',
        'cache flushed', 'credential added', 'credential removed', 'credential promoted',
        'capabilities changed')),
    cache_id   INTEGER NOT NULL,
    username   TEXT,
    -- Which records the nodes must put and delete, as JSON.
    delta      TEXT    NOT NULL,
    PRIMARY KEY (cluster_id, revision)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER changes_have_no_gap BEFORE INSERT ON changes
WHEN NEW.revision <> (SELECT revision + 1 FROM clusters WHERE id = NEW.cluster_id)
BEGIN SELECT raise(ABORT, 'the change log must have no gap'); END;

CREATE TRIGGER changes_move_the_revision AFTER INSERT ON changes
BEGIN UPDATE clusters SET revision = NEW.revision WHERE id = NEW.cluster_id; END;

CREATE TRIGGER revisions_move_with_a_change BEFORE UPDATE OF revision ON clusters
WHEN NEW.revision <> OLD.revision + 1
    OR NOT EXISTS (SELECT 1 FROM changes WHERE cluster_id = NEW.id AND revision = NEW.revision)
BEGIN SELECT raise(ABORT, 'a revision is one change'); END;

CREATE TRIGGER changes_are_not_rewritten BEFORE UPDATE ON changes
BEGIN SELECT raise(ABORT, 'the change log is only appended to'); END;

CREATE TRIGGER changes_end_with_the_newest BEFORE DELETE ON changes
WHEN OLD.revision = (SELECT revision FROM clusters WHERE id = OLD.cluster_id)
BEGIN SELECT raise(ABORT, 'the newest change stays'); END;

-- Who did what, for people. Has a row for acts that change nothing for the nodes, too.
CREATE TABLE new_audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL CHECK (at >= 0),
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    -- Absent where the whole installation is meant.
    cluster_id INTEGER,
    cache_id   INTEGER,
    -- As it was then: the cache may be gone when this is read.
    cache_name TEXT,
    username   TEXT,
    detail     TEXT    NOT NULL,
    -- The change it made, if it made one; it may be gone from the change log.
    revision   INTEGER,
    UNIQUE (cluster_id, revision)
) STRICT;

INSERT INTO sqlite_sequence (name, seq) SELECT 'new_audit', seq FROM sqlite_sequence WHERE name = 'audit';
INSERT INTO new_audit (id, at, actor, action, cluster_id, cache_id, cache_name, username, detail, revision)
SELECT id, at, actor, action, 1, cache_id, cache_name, username, detail, revision FROM audit;
DROP TABLE audit;
ALTER TABLE new_audit RENAME TO audit;
CREATE INDEX audit_by_time ON audit (at);

CREATE TRIGGER audit_is_not_rewritten BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is only appended to'); END;

-- Requests that were carried out, by the key their client gave them, so that a repetition is not.
CREATE TABLE idempotency_keys (
    key            TEXT    NOT NULL PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 255),
    -- SHA-256 of the request: the same key for another request is a mistake.
    request_digest BLOB    NOT NULL CHECK (length(request_digest) = 32),
    at             INTEGER NOT NULL CHECK (at >= 0),
    cluster_id     INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    cache_id       INTEGER NOT NULL,
    username       TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (at);

-- Which master key the passwords are sealed under: a start with another one is refused.
CREATE TABLE installation (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    -- HMAC-SHA-256 of a fixed text under a key derived from it.
    key_check BLOB NOT NULL CHECK (length(key_check) = 32)
) STRICT;

-- Which control process may write. SQLite has one; its fence grows with every start.
CREATE TABLE leadership (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    holder        TEXT    NOT NULL,
    fence         INTEGER NOT NULL CHECK (fence >= 0),
    expires_at_ms INTEGER NOT NULL
) STRICT;
INSERT INTO leadership (id, holder, fence, expires_at_ms) VALUES (1, '', 0, 0);

CREATE TRIGGER fences_only_rise BEFORE UPDATE OF fence ON leadership
WHEN NEW.fence < OLD.fence
BEGIN SELECT raise(ABORT, 'a fence never falls'); END;

-- Data-plane nodes. The name stays when the machine behind it is replaced.
CREATE TABLE nodes (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster_id    INTEGER NOT NULL REFERENCES clusters (id),
    name          TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    -- SHA-256 of the public key it joined with: whoever comes under this name must have it.
    key_digest    BLOB    NOT NULL CHECK (length(key_digest) = 32),
    -- Drawn by the process at its start; 64 bits, kept as a signed number.
    incarnation   INTEGER NOT NULL,
    -- A literal IP address and port (names could resolve to something else tomorrow); absent before
    -- the node has connected once.
    peers         TEXT    CHECK (length(peers) BETWEEN 1 AND 64),
    -- Memory of each of its backends in MiB, as a JSON list.
    backends_mib  TEXT    NOT NULL,
    registered_at INTEGER NOT NULL CHECK (registered_at >= 0),
    UNIQUE (cluster_id, name)
) STRICT;

-- Topologies, by epoch. At most one is being prepared and at most one is in force.
CREATE TABLE epochs (
    cluster_id   INTEGER NOT NULL REFERENCES clusters (id),
    epoch        INTEGER NOT NULL CHECK (epoch >= 1),
    state        TEXT    NOT NULL CHECK (state IN ('prepared', 'committed', 'superseded', 'aborted')),
    topology     BLOB    NOT NULL,
    digest       BLOB    NOT NULL CHECK (length(digest) = 32),
    prepared_at  INTEGER NOT NULL CHECK (prepared_at >= 0),
    decided_at   INTEGER CHECK (decided_at >= 0),
    -- When it was sure that nobody serves by an older one.
    settled_at   INTEGER CHECK (settled_at >= 0),
    PRIMARY KEY (cluster_id, epoch),
    CHECK ((state = 'prepared') = (decided_at IS NULL)),
    CHECK (settled_at IS NULL OR state IN ('committed', 'superseded'))
) STRICT;
CREATE UNIQUE INDEX one_prepared_epoch ON epochs (cluster_id) WHERE state = 'prepared';
CREATE UNIQUE INDEX one_committed_epoch ON epochs (cluster_id) WHERE state = 'committed';

-- Who has to have every link of a topology open before it is committed, and who has.
CREATE TABLE epoch_members (
    cluster_id      INTEGER NOT NULL,
    epoch           INTEGER NOT NULL,
    node_name       TEXT    NOT NULL,
    acknowledged_at INTEGER CHECK (acknowledged_at >= 0),
    PRIMARY KEY (cluster_id, epoch, node_name),
    FOREIGN KEY (cluster_id, epoch) REFERENCES epochs (cluster_id, epoch) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TRIGGER epochs_commit_when_all_have_acknowledged BEFORE UPDATE OF state ON epochs
WHEN NEW.state = 'committed' AND EXISTS (
    SELECT 1 FROM epoch_members WHERE cluster_id = NEW.cluster_id AND epoch = NEW.epoch
        AND acknowledged_at IS NULL)
BEGIN SELECT raise(ABORT, 'a member has not acknowledged the epoch'); END;

CREATE TRIGGER decided_epochs_stay_decided BEFORE UPDATE OF state ON epochs
WHEN NOT (OLD.state = 'prepared' OR (OLD.state = 'committed' AND NEW.state = 'superseded'))
BEGIN SELECT raise(ABORT, 'an epoch is decided once'); END;

-- Who wants to hear of changes.
CREATE TABLE webhooks (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    url           TEXT    NOT NULL UNIQUE CHECK (length(url) BETWEEN 1 AND 2048),
    -- Nonce and ciphertext of what its calls are signed with.
    sealed_secret BLOB    NOT NULL CHECK (length(sealed_secret) BETWEEN 29 AND 256),
    created_at    INTEGER NOT NULL CHECK (created_at >= 0)
) STRICT;

-- Calls to others, written with the change that causes them and carried out afterwards.
CREATE TABLE outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook_id      INTEGER NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    -- What the receiver tells repetitions by.
    idempotency_key TEXT    NOT NULL UNIQUE CHECK (length(idempotency_key) BETWEEN 1 AND 64),
    body            TEXT    NOT NULL,
    created_at      INTEGER NOT NULL CHECK (created_at >= 0),
    state           TEXT    NOT NULL CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- Not before this; while a call is under way, the time when it is taken for lost.
    next_attempt_ms INTEGER NOT NULL,
    -- Why the last attempt failed.
    problem         TEXT
) STRICT;
CREATE INDEX outbox_waiting ON outbox (next_attempt_ms) WHERE state = 'waiting';
CREATE INDEX outbox_by_state ON outbox (state, id);
