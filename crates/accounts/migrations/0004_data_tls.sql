-- Whether an account's data needs TLS, as accounts.tls says it of logins;
-- 'inherit' is what that says, then what the listener does.
ALTER TABLE accounts ADD COLUMN data_tls TEXT NOT NULL DEFAULT 'inherit';
