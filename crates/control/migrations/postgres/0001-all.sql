-- Everything of an installation with several control processes: the same tables, names and rules as in
-- SQLite (see the steps beside these), in PostgreSQL's words.

-- Refuses what a trigger finds, in the words of its argument.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$;

CREATE TABLE clusters (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    -- Keys the hash from a cache's key to its slot, so that nobody outside can aim at one slot.
    slot_key   BYTEA   NOT NULL CHECK (length(slot_key) = 16),
    -- Of the newest change; 0 when there never was one.
    revision   BIGINT NOT NULL DEFAULT 0 CHECK (revision >= 0),
    created_at BIGINT NOT NULL CHECK (created_at >= 0)
);

-- The cluster that every installation begins with.
INSERT INTO clusters (name, slot_key, created_at)
VALUES ('default', uuid_send(gen_random_uuid()), CAST(extract(epoch FROM now()) AS BIGINT));

CREATE TABLE caches (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id       BIGINT NOT NULL REFERENCES clusters (id),
    name             TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 64),
    plan             TEXT    NOT NULL CHECK (length(plan) BETWEEN 1 AND 64),
    enabled          BOOLEAN NOT NULL,
    -- Exactly one primary credential, and one of this cache's own: see below.
    primary_username TEXT    NOT NULL,
    -- Grows with each flush: a node that was away finds out that it must forget its items.
    flush_generation BIGINT NOT NULL DEFAULT 0 CHECK (flush_generation >= 0),
    created_at       BIGINT NOT NULL CHECK (created_at >= 0),
    -- When a client last used it, as far as is known; to a few minutes.
    used_at          BIGINT NOT NULL CHECK (used_at >= 0)
);
CREATE INDEX caches_by_cluster ON caches (cluster_id);

CREATE TABLE credentials (
    username        TEXT    NOT NULL PRIMARY KEY CHECK (length(username) BETWEEN 1 AND 31),
    cache_id        BIGINT NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    -- Bits: 1 write, 2 flush, 4 api.
    capabilities    BIGINT NOT NULL CHECK (capabilities BETWEEN 0 AND 7),
    -- HMAC-SHA-256 under the installation's key: what the data plane compares with.
    password_hash   BYTEA   NOT NULL CHECK (length(password_hash) = 32),
    -- Nonce and ChaCha20-Poly1305 ciphertext: what its owner can be shown again.
    sealed_password BYTEA   NOT NULL CHECK (length(sealed_password) BETWEEN 29 AND 256),
    created_at      BIGINT NOT NULL CHECK (created_at >= 0),
    UNIQUE (cache_id, username)
);

-- Exactly one primary credential, and one of this cache's own. A unique index over a flag could only say
-- "at most one". Checked at commit, because each of the two rows needs the other.
ALTER TABLE caches ADD FOREIGN KEY (id, primary_username)
    REFERENCES credentials (cache_id, username) DEFERRABLE INITIALLY DEFERRED;

-- One row for each transaction that changed something for the nodes of a cluster: 1, 2, 3, … without
-- a gap. Whoever has applied revision r asks for those after r and knows that nothing is missing
-- between them. Old ones are removed from the lower end.
CREATE TABLE changes (
    cluster_id BIGINT NOT NULL REFERENCES clusters (id),
    revision   BIGINT NOT NULL,
    at         BIGINT NOT NULL CHECK (at >= 0),
    kind       TEXT    NOT NULL CHECK (kind IN (
        'cache created', 'cache deleted', 'plan changed', 'cache enabled', 'cache disabled',
        'cache flushed', 'credential added', 'credential removed', 'credential promoted',
        'capabilities changed')),
    cache_id   BIGINT NOT NULL,
    username   TEXT,
    -- Which records the nodes must put and delete, as JSON.
    delta      TEXT    NOT NULL,
    PRIMARY KEY (cluster_id, revision)
);

CREATE FUNCTION changes_have_no_gap() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.revision <> (SELECT revision + 1 FROM clusters WHERE id = NEW.cluster_id) THEN
        RAISE EXCEPTION 'the change log must have no gap';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER changes_have_no_gap BEFORE INSERT ON changes
FOR EACH ROW EXECUTE FUNCTION changes_have_no_gap();

CREATE FUNCTION changes_move_the_revision() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE clusters SET revision = NEW.revision WHERE id = NEW.cluster_id;
    RETURN NULL;
END $$;
CREATE TRIGGER changes_move_the_revision AFTER INSERT ON changes
FOR EACH ROW EXECUTE FUNCTION changes_move_the_revision();

CREATE FUNCTION revisions_move_with_a_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.revision <> OLD.revision + 1 OR NOT EXISTS (
        SELECT 1 FROM changes WHERE cluster_id = NEW.id AND revision = NEW.revision)
    THEN
        RAISE EXCEPTION 'a revision is one change';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER revisions_move_with_a_change BEFORE UPDATE OF revision ON clusters
FOR EACH ROW EXECUTE FUNCTION revisions_move_with_a_change();

CREATE TRIGGER changes_are_not_rewritten BEFORE UPDATE ON changes
FOR EACH ROW EXECUTE FUNCTION refuse('the change log is only appended to');

CREATE FUNCTION changes_end_with_the_newest() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.revision = (SELECT revision FROM clusters WHERE id = OLD.cluster_id) THEN
        RAISE EXCEPTION 'the newest change stays';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER changes_end_with_the_newest BEFORE DELETE ON changes
FOR EACH ROW EXECUTE FUNCTION changes_end_with_the_newest();

-- Who did what, for people. Has a row for acts that change nothing for the nodes, too.
CREATE TABLE audit (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         BIGINT NOT NULL CHECK (at >= 0),
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    -- Absent where the whole installation is meant.
    cluster_id BIGINT,
    cache_id   BIGINT,
    -- As it was then: the cache may be gone when this is read.
    cache_name TEXT,
    username   TEXT,
    detail     TEXT    NOT NULL,
    -- The change it made, if it made one; it may be gone from the change log.
    revision   BIGINT,
    UNIQUE (cluster_id, revision)
);
CREATE INDEX audit_by_time ON audit (at);

CREATE TRIGGER audit_is_not_rewritten BEFORE UPDATE ON audit
FOR EACH ROW EXECUTE FUNCTION refuse('the audit log is only appended to');

-- Requests that were carried out, by the key their client gave them, so that a repetition is not.
CREATE TABLE idempotency_keys (
    key            TEXT    NOT NULL PRIMARY KEY CHECK (length(key) BETWEEN 1 AND 255),
    -- SHA-256 of the request: the same key for another request is a mistake.
    request_digest BYTEA   NOT NULL CHECK (length(request_digest) = 32),
    at             BIGINT NOT NULL CHECK (at >= 0),
    cluster_id     BIGINT NOT NULL,
    revision       BIGINT NOT NULL,
    cache_id       BIGINT NOT NULL,
    username       TEXT
);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (at);

-- Which master key the passwords are sealed under: a start with another one is refused.
CREATE TABLE installation (
    id        BIGINT PRIMARY KEY CHECK (id = 1),
    -- HMAC-SHA-256 of a fixed text under a key derived from it.
    key_check BYTEA NOT NULL CHECK (length(key_check) = 32)
);

-- Which control process may write.
CREATE TABLE leadership (
    id            BIGINT PRIMARY KEY CHECK (id = 1),
    holder        TEXT    NOT NULL,
    fence         BIGINT NOT NULL CHECK (fence >= 0),
    expires_at_ms BIGINT NOT NULL
);
INSERT INTO leadership (id, holder, fence, expires_at_ms) VALUES (1, '', 0, 0);

CREATE TRIGGER fences_only_rise BEFORE UPDATE OF fence ON leadership
FOR EACH ROW WHEN (NEW.fence < OLD.fence) EXECUTE FUNCTION refuse('a fence never falls');

-- Data-plane nodes. The name stays when the machine behind it is replaced.
CREATE TABLE nodes (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id    BIGINT NOT NULL REFERENCES clusters (id),
    name          TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 64),
    -- SHA-256 of the public key it joined with: whoever comes under this name must have it.
    key_digest    BYTEA   NOT NULL CHECK (length(key_digest) = 32),
    -- Drawn by the process at its start; 64 bits, kept as a signed number.
    incarnation   BIGINT NOT NULL,
    -- A literal IP address and port (names could resolve to something else tomorrow); absent before
    -- the node has connected once.
    peers         TEXT    CHECK (length(peers) BETWEEN 1 AND 64),
    -- Memory of each of its backends in MiB, as a JSON list.
    backends_mib  TEXT    NOT NULL,
    registered_at BIGINT NOT NULL CHECK (registered_at >= 0),
    UNIQUE (cluster_id, name)
);

-- Topologies, by epoch. At most one is being prepared and at most one is in force.
CREATE TABLE epochs (
    cluster_id   BIGINT NOT NULL REFERENCES clusters (id),
    epoch        BIGINT NOT NULL CHECK (epoch >= 1),
    state        TEXT    NOT NULL CHECK (state IN ('prepared', 'committed', 'superseded', 'aborted')),
    topology     BYTEA   NOT NULL,
    digest       BYTEA   NOT NULL CHECK (length(digest) = 32),
    prepared_at  BIGINT NOT NULL CHECK (prepared_at >= 0),
    decided_at   BIGINT CHECK (decided_at >= 0),
    -- When it was sure that nobody serves by an older one.
    settled_at   BIGINT CHECK (settled_at >= 0),
    PRIMARY KEY (cluster_id, epoch),
    CHECK ((state = 'prepared') = (decided_at IS NULL)),
    CHECK (settled_at IS NULL OR state IN ('committed', 'superseded'))
);
CREATE UNIQUE INDEX one_prepared_epoch ON epochs (cluster_id) WHERE state = 'prepared';
CREATE UNIQUE INDEX one_committed_epoch ON epochs (cluster_id) WHERE state = 'committed';

-- Who has to have every link of a topology open before it is committed, and who has.
CREATE TABLE epoch_members (
    cluster_id      BIGINT NOT NULL,
    epoch           BIGINT NOT NULL,
    node_name       TEXT    NOT NULL,
    acknowledged_at BIGINT CHECK (acknowledged_at >= 0),
    PRIMARY KEY (cluster_id, epoch, node_name),
    FOREIGN KEY (cluster_id, epoch) REFERENCES epochs (cluster_id, epoch) ON DELETE CASCADE
);

CREATE FUNCTION epochs_commit_when_all_have_acknowledged() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'committed' AND EXISTS (
        SELECT 1 FROM epoch_members WHERE cluster_id = NEW.cluster_id AND epoch = NEW.epoch
            AND acknowledged_at IS NULL)
    THEN
        RAISE EXCEPTION 'a member has not acknowledged the epoch';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER epochs_commit_when_all_have_acknowledged BEFORE UPDATE OF state ON epochs
FOR EACH ROW EXECUTE FUNCTION epochs_commit_when_all_have_acknowledged();

CREATE TRIGGER decided_epochs_stay_decided BEFORE UPDATE OF state ON epochs FOR EACH ROW
WHEN (NOT (OLD.state = 'prepared' OR (OLD.state = 'committed' AND NEW.state = 'superseded')))
EXECUTE FUNCTION refuse('an epoch is decided once');

-- Who wants to hear of changes.
CREATE TABLE webhooks (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    url           TEXT    NOT NULL UNIQUE CHECK (length(url) BETWEEN 1 AND 2048),
    -- Nonce and ciphertext of what its calls are signed with.
    sealed_secret BYTEA   NOT NULL CHECK (length(sealed_secret) BETWEEN 29 AND 256),
    created_at    BIGINT NOT NULL CHECK (created_at >= 0)
);

-- Calls to others, written with the change that causes them and carried out afterwards.
CREATE TABLE outbox (
    id              BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id      BIGINT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    -- What the receiver tells repetitions by.
    idempotency_key TEXT    NOT NULL UNIQUE CHECK (length(idempotency_key) BETWEEN 1 AND 64),
    body            TEXT    NOT NULL,
    created_at      BIGINT NOT NULL CHECK (created_at >= 0),
    state           TEXT    NOT NULL CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts        BIGINT NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- Not before this; while a call is under way, the time when it is taken for lost.
    next_attempt_ms BIGINT NOT NULL,
    -- Why the last attempt failed.
    problem         TEXT
);
CREATE INDEX outbox_waiting ON outbox (next_attempt_ms) WHERE state = 'waiting';
CREATE INDEX outbox_by_state ON outbox (state, id);
