-- Who may open the dashboard; the same as in SQLite's step of this name.

-- What a cache's secret is derived from, together with a key that is not in here (docs/decisions/0038).
CREATE TABLE dashboard_secrets (
    cache_id BIGINT PRIMARY KEY REFERENCES caches (id) ON DELETE CASCADE,
    -- Drawn anew whenever the secret is rotated.
    nonce    BYTEA  NOT NULL CHECK (length(nonce) = 16)
);

CREATE TABLE operators (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          TEXT    NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 31),
    -- Argon2id with its parameters and salt, as a PHC string.
    password_hash TEXT    NOT NULL CHECK (length(password_hash) BETWEEN 1 AND 255),
    created_at    BIGINT  NOT NULL CHECK (created_at >= 0)
);

-- Browsers that were let in. An owner's has a cache, an operator's an operator; where an operator looks
-- at a cache as its owner does, a session has both.
CREATE TABLE sessions (
    -- SHA-256 of what the cookie says: a copy of this table lets nobody in.
    id_digest   BYTEA  PRIMARY KEY CHECK (length(id_digest) = 32),
    cache_id    BIGINT REFERENCES caches (id) ON DELETE CASCADE,
    operator_id BIGINT REFERENCES operators (id) ON DELETE CASCADE,
    created_at  BIGINT NOT NULL CHECK (created_at >= 0),
    expires_at  BIGINT NOT NULL CHECK (expires_at > created_at),
    CHECK (cache_id IS NOT NULL OR operator_id IS NOT NULL)
);
CREATE INDEX sessions_of_cache ON sessions (cache_id, created_at);
CREATE INDEX sessions_of_operator ON sessions (operator_id, created_at);
CREATE INDEX sessions_by_end ON sessions (expires_at);
