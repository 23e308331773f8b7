-- Alerts of caches, where their messages go, and messages among the calls that wait to be made.

CREATE TABLE alert_deliveries (
    id               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cache_id         BIGINT NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    email            TEXT   CHECK (length(email) BETWEEN 1 AND 254),
    slack_channel    TEXT   CHECK (length(slack_channel) <= 81),
    -- Nonce and ciphertext: whoever has the URL can write to the channel.
    sealed_slack_url BYTEA  CHECK (length(sealed_slack_url) BETWEEN 29 AND 256),
    -- One way or the other.
    CHECK ((email IS NULL) = (sealed_slack_url IS NOT NULL)),
    CHECK ((slack_channel IS NULL) = (sealed_slack_url IS NULL))
);
CREATE INDEX alert_deliveries_by_cache ON alert_deliveries (cache_id);

CREATE TABLE alerts (
    id           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cache_id     BIGINT NOT NULL REFERENCES caches (id) ON DELETE CASCADE,
    trigger_type TEXT   NOT NULL CHECK (trigger_type IN ('hit_rate', 'memory_usage')),
    -- Percent.
    threshold    BIGINT NOT NULL CHECK (threshold BETWEEN 0 AND 100),
    -- Stays while an alert uses it; both go with their cache.
    delivery_id  BIGINT NOT NULL REFERENCES alert_deliveries (id),
    description  TEXT   NOT NULL CHECK (length(description) <= 500),
    enabled      BOOLEAN NOT NULL,
    -- The value is beyond the threshold, and that was told.
    raised       BOOLEAN NOT NULL
);
CREATE INDEX alerts_by_cache ON alerts (cache_id);
CREATE INDEX alerts_by_delivery ON alerts (delivery_id);

ALTER TABLE outbox ALTER COLUMN webhook_id DROP NOT NULL;
ALTER TABLE outbox ADD COLUMN delivery_id BIGINT REFERENCES alert_deliveries (id) ON DELETE CASCADE;
-- To one or the other.
ALTER TABLE outbox ADD CHECK ((webhook_id IS NULL) = (delivery_id IS NOT NULL));
