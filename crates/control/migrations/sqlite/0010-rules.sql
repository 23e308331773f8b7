-- Rules for addresses. Nodes hear of them as they do of caches, and a rule of a whole cluster is a change
-- of no cache: so the change log has new kinds, and may be without a cache. SQLite can change neither in
-- place; foreign keys are off meanwhile.

DROP TRIGGER revisions_move_with_a_change;

CREATE TABLE new_changes (
    cluster_id INTEGER NOT NULL REFERENCES clusters (id),
    revision   INTEGER NOT NULL,
    at         INTEGER NOT NULL CHECK (at >= 0),
    kind       TEXT    NOT NULL CHECK (kind IN (
        'cache created', 'cache deleted', 'plan changed', 'cache enabled', 'cache disabled',
        'cache flushed', 'credential added', 'credential removed', 'credential promoted',
        'capabilities changed', 'rule added', 'rule changed', 'rule removed', 'rule ended')),
    -- Absent where the whole cluster is meant.
    cache_id   INTEGER,
    username   TEXT,
    -- Which records the nodes must put and delete, as JSON.
    delta      TEXT    NOT NULL,
    PRIMARY KEY (cluster_id, revision)
) STRICT, WITHOUT ROWID;

INSERT INTO new_changes (cluster_id, revision, at, kind, cache_id, username, delta)
SELECT cluster_id, revision, at, kind, cache_id, username, delta FROM changes;
DROP TABLE changes;
ALTER TABLE new_changes RENAME TO changes;

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

-- Which addresses may come in, until when, and why.
CREATE TABLE rules (
    -- AUTOINCREMENT: the id of a rule that was removed is never given to another.
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    cluster_id INTEGER NOT NULL REFERENCES clusters (id),
    -- Absent where it is for every connection to the cluster.
    cache_id   INTEGER REFERENCES caches (id) ON DELETE CASCADE,
    -- An address, or a network with its prefix, in its one form.
    network    TEXT    NOT NULL CHECK (length(network) BETWEEN 2 AND 64),
    ruling     TEXT    NOT NULL CHECK (ruling IN ('allow', 'block')),
    reason     TEXT    NOT NULL CHECK (length(reason) BETWEEN 1 AND 200),
    made_by    TEXT    NOT NULL,
    made_at    INTEGER NOT NULL CHECK (made_at >= 0),
    ends_at    INTEGER NOT NULL CHECK (ends_at > made_at)
) STRICT;
CREATE UNIQUE INDEX one_rule_for_a_network ON rules (cluster_id, coalesce(cache_id, 0), network);
CREATE INDEX rules_by_cache ON rules (cache_id) WHERE cache_id IS NOT NULL;
CREATE INDEX rules_by_end ON rules (ends_at);

-- Requests for rules are no cache's, and are changes that nodes hear of: their answers say which.
ALTER TABLE installation_requests ADD COLUMN cluster_id INTEGER;
ALTER TABLE installation_requests ADD COLUMN revision INTEGER;
