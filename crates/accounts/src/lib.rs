//! Accounts, passwords and the stores that keep them.
