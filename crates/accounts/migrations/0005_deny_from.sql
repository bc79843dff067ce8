-- Networks from which an account may not log in, whatever accounts.allow_from
-- says; written as there.
ALTER TABLE accounts ADD COLUMN deny_from TEXT NOT NULL DEFAULT '';
