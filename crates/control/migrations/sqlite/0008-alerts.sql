-- Alerts of caches, where their messages go, and messages among the calls that wait to be made.
--
-- Carried out with foreign keys off and checked as a whole afterwards.

CREATE TABLE alert_deliveries (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    cache_id         INTEGER NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    email            TEXT    CHECK (length(email) BETWEEN 1 AND 254),
    slack_channel    TEXT    CHECK (length(slack_channel) <= 81),
    -- Nonce and ciphertext: whoever has the URL can write to the channel.
    sealed_slack_url BLOB    CHECK (length(sealed_slack_url) BETWEEN 29 AND 256),
    -- One way or the other.
    CHECK ((email IS NULL) = (sealed_slack_url IS NOT NULL)),
    CHECK ((slack_channel IS NULL) = (sealed_slack_url IS NULL))
) STRICT;
CREATE INDEX alert_deliveries_by_cache ON alert_deliveries (cache_id);

CREATE TABLE alerts (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    cache_id     INTEGER NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    trigger_type TEXT    NOT NULL CHECK (trigger_type IN ('hit_rate', 'memory_usage')),
    -- Percent.
    threshold    INTEGER NOT NULL CHECK (threshold BETWEEN 0 AND 100),
    -- Stays while an alert uses it; both go with their cache.
    delivery_id  INTEGER NOT NULL REFERENCES alert_deliveries (id),
    description  TEXT    NOT NULL CHECK (length(description) <= 500),
    enabled      INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    -- The value is beyond the threshold, and that was told.
    raised       INTEGER NOT NULL CHECK (raised IN (0, 1))
) STRICT;
CREATE INDEX alerts_by_cache ON alerts (cache_id);
CREATE INDEX alerts_by_delivery ON alerts (delivery_id);

CREATE TABLE new_outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    -- To one of these.
    webhook_id      INTEGER REFERENCES webhooks (id) ON DELETE CASCADE,
    delivery_id     INTEGER REFERENCES alert_deliveries (id) ON DELETE CASCADE,
    -- What the receiver tells repetitions by.
    idempotency_key TEXT    NOT NULL UNIQUE CHECK (length(idempotency_key) BETWEEN 1 AND 64),
    body            TEXT    NOT NULL,
    created_at      INTEGER NOT NULL CHECK (created_at >= 0),
    state           TEXT    NOT NULL CHECK (state IN ('waiting', 'sent', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- Not before this; while a call is under way, the time when it is taken for lost.
    next_attempt_ms INTEGER NOT NULL,
    -- Why the last attempt failed.
    problem         TEXT,
    CHECK ((webhook_id IS NULL) = (delivery_id IS NOT NULL))
) STRICT;
INSERT INTO sqlite_sequence (name, seq) SELECT 'new_outbox', seq FROM sqlite_sequence WHERE name = 'outbox';
INSERT INTO new_outbox
    (id, webhook_id, idempotency_key, body, created_at, state, attempts, next_attempt_ms, problem)
SELECT id, webhook_id, idempotency_key, body, created_at, state, attempts, next_attempt_ms, problem
FROM outbox;
DROP TABLE outbox;
ALTER TABLE new_outbox RENAME TO outbox;
CREATE INDEX outbox_waiting ON outbox (next_attempt_ms) WHERE state = 'waiting';
CREATE INDEX outbox_by_state ON outbox (state, id);
