-- Peers that guessed passwords. A row stays for a while after the ban is over,
-- so that the next one is longer. network is an IPv4 address or an IPv6 /64;
-- ends and forget are in seconds since 1970-01-01 UTC.
CREATE TABLE bans (
    network TEXT    NOT NULL PRIMARY KEY,
    times   INTEGER NOT NULL CHECK (times > 0),
    ends    INTEGER NOT NULL,
    forget  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Networks from which an account may log in, in CIDR notation with commas
-- between them; empty for everywhere.
ALTER TABLE accounts ADD COLUMN allow_from TEXT NOT NULL DEFAULT '';
