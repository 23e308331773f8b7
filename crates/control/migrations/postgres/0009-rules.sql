-- Rules for addresses. Nodes hear of them as they do of caches, and a rule of a whole cluster is a change
-- of no cache: so the change log has new kinds, and may be without a cache.

ALTER TABLE changes DROP CONSTRAINT changes_kind_check;
ALTER TABLE changes ADD CONSTRAINT changes_kind_check CHECK (kind IN (
    'cache created', 'cache deleted', 'plan changed', 'cache enabled', 'cache disabled',
    'cache flushed', 'credential added', 'credential removed', 'credential promoted',
    'capabilities changed', 'rule added', 'rule changed', 'rule removed', 'rule ended'));
-- Absent where the whole cluster is meant.
ALTER TABLE changes ALTER COLUMN cache_id DROP NOT NULL;

-- Which addresses may come in, until when, and why.
CREATE TABLE rules (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    cluster_id BIGINT NOT NULL REFERENCES clusters (id),
    -- Absent where it is for every connection to the cluster.
    cache_id   BIGINT REFERENCES caches (id) ON DELETE CASCADE,
    -- An address, or a network with its prefix, in its one form.
    network    TEXT   NOT NULL CHECK (length(network) BETWEEN 2 AND 64),
    ruling     TEXT   NOT NULL CHECK (ruling IN ('allow', 'block')),
    reason     TEXT   NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    made_by    TEXT   NOT NULL,
    made_at    BIGINT NOT NULL CHECK (made_at >= 0),
    ends_at    BIGINT NOT NULL CHECK (ends_at > made_at)
);
CREATE UNIQUE INDEX one_rule_for_a_network ON rules (cluster_id, coalesce(cache_id, 0), network);
CREATE INDEX rules_by_cache ON rules (cache_id) WHERE cache_id IS NOT NULL;
CREATE INDEX rules_by_end ON rules (ends_at);

-- Requests for rules are no cache's, and are changes that nodes hear of: their answers say which.
ALTER TABLE installation_requests ADD COLUMN cluster_id BIGINT;
ALTER TABLE installation_requests ADD COLUMN revision BIGINT;
