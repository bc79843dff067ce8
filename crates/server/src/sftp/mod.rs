//! SFTP (draft-ietf-secsh-filexfer-02, version 3) on the virtual file system, over any stream.
//!
//! ```text
//! stream ─► Session: take_packet ─► ask (budget) ─► file and directory tasks ─► Replies ─► stream
//!                                              └─► names: Vfs ────────────────────┘
//! ```
//!
//! Each open file and directory is a task of its own, which carries its requests out in the order
//! in which they come. Requests that look at names run beside each other; one that changes
//! names runs alone, when everything before it has been answered, so that a client that does
//! not wait gets what it would have got if it had (§6.1). Only for a digest nothing waits once its
//! file is open: it can take minutes, and a client that changes the file meanwhile asks for either.
//!
//! Leaves the login and the encryption to whoever makes the stream.

mod check;
mod directory;
mod file;
mod handles;
mod names;
mod refusal;
mod replies;
mod session;

pub use handles::MAX_HANDLES;
pub use names::AttributePolicy;
pub use session::{SessionError, SftpOptions, serve};
