-- Public keys that open accounts. line is a line of authorized_keys, options and
-- comment included; fingerprint is its key's, SHA256: and base64.
CREATE TABLE account_keys (
    account_id  INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    fingerprint TEXT    NOT NULL,
    line        TEXT    NOT NULL,
    PRIMARY KEY (account_id, fingerprint)
) STRICT, WITHOUT ROWID;
