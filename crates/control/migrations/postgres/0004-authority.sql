-- Whose certificates the nodes trust: a control process with another authority would be refused by all
-- of them, so it must not lead.

-- SHA-256 of the authority's certificate, of the first process that led.
ALTER TABLE installation ADD COLUMN authority BYTEA CHECK (length(authority) = 32);
