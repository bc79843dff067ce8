//! Sessions and protocols on top of the virtual file system.
//!
//! ```text
//! net::accept ─► FtpService ─► session (one task) ─► Door ─► Vfs
//!                                   │                         ▲
//!                                   └─ transfer (one task) ─ pump
//! ```

pub mod door;
pub mod exec;
pub mod ftp;
pub mod process;
pub mod registry;
pub mod sftp;
pub mod transfer;
