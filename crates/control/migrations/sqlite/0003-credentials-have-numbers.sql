-- Some of the API names credentials by number. A number is never given twice.
--
-- Carried out with foreign keys off (caches refer to the table that is rebuilt) and checked as a whole
-- afterwards.

CREATE TABLE new_credentials (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    username        TEXT    NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 31),
    cache_id        INTEGER NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    -- Bits: 1 write, 2 flush, 4 api.
    capabilities    INTEGER NOT NULL CHECK (capabilities BETWEEN 0 AND 7),
    -- HMAC-SHA-256 under the installation's key: what the data plane compares with.
    password_hash   BLOB    NOT NULL CHECK (length(password_hash) = 32),
    -- Nonce and ChaCha20-Poly1305 ciphertext: what its owner can be shown again.
    sealed_password BLOB    NOT NULL CHECK (length(sealed_password) BETWEEN 29 AND 256),
    created_at      INTEGER NOT NULL CHECK (created_at >= 0),
    UNIQUE (cache_id, username)
) STRICT;

INSERT INTO new_credentials
    (username, cache_id, capabilities, password_hash, sealed_password, created_at)
SELECT username, cache_id, capabilities, password_hash, sealed_password, created_at
FROM credentials ORDER BY created_at, username;
DROP TABLE credentials;
ALTER TABLE new_credentials RENAME TO credentials;
