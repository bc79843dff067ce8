//! Sessions and protocols on top of the virtual file system.
//!
//! ```text
//! net::accept ─► FtpService ─► session (one task) ─► Door ─► Vfs
//!        │                          │                         ▲
//!        │                          └─ transfer (one task) ─ pump
//!        └─────► SshService ─► session (russh's task) ─► Door ─► programs (one task a channel)
//! ```

pub mod activity;
pub mod door;
pub mod exec;
pub mod ftp;
pub mod process;
pub mod registry;
pub mod sftp;
pub mod ssh;
pub mod transfer;
