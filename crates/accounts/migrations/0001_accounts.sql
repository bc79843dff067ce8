-- A home is what a quota is counted over; several accounts may share one.
-- Homes below the data directory's `homes/` are stored relative to it, so that
-- the data directory can be moved; others are absolute.
-- dirty = 1: a server has written since the last clean count (or nothing was
-- ever counted), so bytes and files are not to be trusted.
CREATE TABLE homes (
    path  TEXT    NOT NULL PRIMARY KEY,
    bytes INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    files INTEGER NOT NULL DEFAULT 0 CHECK (files >= 0),
    dirty INTEGER NOT NULL DEFAULT 1 CHECK (dirty IN (0, 1))
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: the number of a removed account is never given to another.
-- Times are seconds since 1970-01-01 UTC; a limit that is NULL is none.
CREATE TABLE accounts (
    id            INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL UNIQUE,
    password_hash TEXT    NOT NULL,
    home          TEXT    NOT NULL REFERENCES homes (path),
    quota_bytes   INTEGER CHECK (quota_bytes >= 0),
    quota_files   INTEGER CHECK (quota_files >= 0),
    permissions   TEXT    NOT NULL,
    tls           TEXT    NOT NULL,
    exec          TEXT    NOT NULL,
    disabled      INTEGER NOT NULL CHECK (disabled IN (0, 1)),
    expires       INTEGER,
    max_sessions  INTEGER CHECK (max_sessions >= 0),
    created       INTEGER NOT NULL
) STRICT;

CREATE INDEX accounts_by_home ON accounts (home);

-- Exceptions to an account's permissions, by virtual path. Paths are bytes.
CREATE TABLE permission_rules (
    account_id  INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    path        BLOB    NOT NULL,
    permissions TEXT    NOT NULL,
    PRIMARY KEY (account_id, path)
) STRICT, WITHOUT ROWID;
