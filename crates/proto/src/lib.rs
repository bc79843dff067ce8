//! FTP, SFTP, scp and the command lines of remote commands, as pure functions between
//! bytes and types; no IO, no clock, no async.
//!
//! ```text
//! bytes ─► LineDecoder ─► Command::parse ─► Command      Reply ─► encode ─► bytes      (server)
//! bytes ─► LineDecoder ─► ReplyDecoder   ─► Reply                                      (client)
//! Entry ─► encode_facts / encode_list_line ─► bytes ─► parse_facts_line / parse_list_line ─► RemoteEntry
//! command line ─► Script ─► words and patterns
//! ```
//!
//! SFTP and scp draw their own pictures in [`sftp`] and [`scp`]. Both ends of Wharf use the same types. Every
//! parser takes any bytes in any chunking, bounds what it keeps, and panics on none.

pub mod ascii;
pub mod exec;
pub mod ftp;
pub mod line;
pub mod scp;
pub mod sftp;
pub mod time;
