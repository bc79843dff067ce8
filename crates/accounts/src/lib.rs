//! Accounts, passwords and the stores that keep them.
//!
//! ```text
//! name, password ─► Authenticator ─► Account        AccountStore ─► SqliteStore
//!                     │       │                          ▲
//!                     │       └── asks ──────────────────┘
//!                     └── PasswordPool (argon2id, so many at a time)
//!
//! address, name ─► LoginGuard ─► Throttle (delays, bans)   BanStore ─► SqliteStore
//! ```
//!
//! Left to others: when the guard is asked (the server's door), limits on
//! sessions, what a home holds (the virtual file system), texts for peers (each protocol).
//!
//! Invariants: a password is kept as an argon2id hash only and never printed;
//! an unknown name costs what a wrong password costs; a home whose stored usage
//! is clean was counted after the last write.

mod account;
mod authenticator;
mod guard;
mod key;
mod password;
mod sqlite;
mod store;
mod throttle;

pub use account::{
    Account, AccountChange, ExecPolicy, NewAccount, PlainLogin, TlsPolicy, UnknownPolicy,
};
pub use authenticator::{Authenticator, LoginRefusal, Origin};
pub use guard::LoginGuard;
pub use key::{AuthorizedKey, InvalidFingerprint, InvalidKeyLine, KeyFingerprint, KeyOptions};
pub use password::{
    InvalidPasswordHash, NewPassword, PasswordError, PasswordHash, PasswordPolicy, PasswordPool,
};
pub use sqlite::SqliteStore;
pub use store::{AccountStore, BanStore, StoreError, StoreResult, StoredAccount, StoredUsage};
pub use throttle::{Ban, InvalidPeerNetwork, PeerNetwork, Throttle, ThrottleRules};
