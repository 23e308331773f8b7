-- Caches, their credentials, who changed what, and the log from which others follow the changes.
-- What can be said as a constraint is said here, so that no program can store a state that is wrong.

CREATE TABLE caches (
    -- AUTOINCREMENT: the id of a deleted cache is never given to another.
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    name             TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    plan             TEXT    NOT NULL CHECK (length(plan) BETWEEN 1 AND 64),
    enabled          INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    -- Exactly one primary credential, and one of this cache's own. A unique index over a flag could
    -- only say "at most one". Checked at commit, because each of the two rows needs the other.
    primary_username TEXT    NOT NULL,
    created_at       INTEGER NOT NULL CHECK (created_at >= 0),
    FOREIGN KEY (id, primary_username) REFERENCES credentials (cache_id, username)
        DEFERRABLE INITIALLY DEFERRED
) STRICT;

CREATE TABLE credentials (
    username        TEXT    NOT NULL PRIMARY KEY CHECK (length(username) BETWEEN 1 AND 31),
    cache_id        INTEGER NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    -- Bits: 1 write, 2 flush, 4 api.
    capabilities    INTEGER NOT NULL CHECK (capabilities BETWEEN 0 AND 7),
    -- HMAC-SHA-256 under the installation's key: what the data plane compares with.
    password_hash   BLOB    NOT NULL CHECK (length(password_hash) = 32),
    -- Nonce and ChaCha20-Poly1305 ciphertext: what its owner can be shown again.
    sealed_password BLOB    NOT NULL CHECK (length(sealed_password) BETWEEN 29 AND 256),
    created_at      INTEGER NOT NULL CHECK (created_at >= 0),
    UNIQUE (cache_id, username)
) STRICT, WITHOUT ROWID;

-- One row for each transaction that changed something: 1, 2, 3, … without a gap. Whoever has
-- applied revision r asks for r + 1 and knows that nothing is missing between them.
CREATE TABLE changes (
    revision INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL CHECK (at >= 0),
    kind     TEXT    NOT NULL CHECK (kind IN (
        'cache created', 'cache deleted', 'plan changed', 'cache enabled', 'cache disabled',
        'credential added', 'credential removed', 'credential promoted', 'capabilities changed')),
    cache_id INTEGER NOT NULL,
    username TEXT
) STRICT;

CREATE TRIGGER changes_have_no_gap BEFORE INSERT ON changes
WHEN NEW.revision <> (SELECT coalesce(max(revision), 0) + 1 FROM changes)
BEGIN SELECT raise(ABORT, 'the change log must have no gap'); END;

CREATE TRIGGER changes_are_not_rewritten BEFORE UPDATE ON changes
BEGIN SELECT raise(ABORT, 'the change log is only appended to'); END;

-- Who did what, for people. Has a row for acts that change no state, too (a flush).
CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL CHECK (at >= 0),
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    cache_id   INTEGER NOT NULL,
    -- As it was then: the cache may be gone when this is read.
    cache_name TEXT    NOT NULL,
    username   TEXT,
    detail     TEXT    NOT NULL,
    -- The change it made, if it made one.
    revision   INTEGER UNIQUE REFERENCES changes (revision)
) STRICT;

CREATE TRIGGER audit_is_not_rewritten BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is only appended to'); END;
