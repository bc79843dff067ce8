//! SFTP version 3 (draft-ietf-secsh-filexfer-02) with the extensions of the table in
//! `extension.rs`: packets as pure functions.
//!
//! ```text
//! bytes ─► take_packet ─► ClientPacket::decode ─► Request      Response ─► encode ─► bytes      (server)
//! bytes ─► take_packet ─► ServerPacket::decode ─► Response     Request  ─► encode ─► bytes      (client)
//! ```
//!
//! Names, handles and texts are bytes, as the protocol has them. What is decoded shares
//! the memory of its packet, so that content is not copied. Bytes behind the last field of a
//! packet are passed over, as OpenSSH does: later versions of the protocol put fields there.

mod attributes;
mod extension;
mod frame;
mod request;
mod response;
mod status;
mod wire;

pub use attributes::{Attributes, Owner, Times};
pub use extension::{Extension, check_file_name, known_algorithm};
pub use frame::{FrameError, MAX_PACKET_BYTES, MAX_READ_BYTES, MAX_WRITE_BYTES, take_packet};
pub use request::{CheckSubject, ClientPacket, Handle, OpenFlags, Request, RequestId, Undecodable};
pub use response::{CheckedFile, Limits, Name, Response, ServerPacket, StatVfs, UserGroupNames};
pub use status::StatusCode;
pub use wire::DecodeError;

/// The version of the protocol that both ends speak.
pub const VERSION: u32 = 3;
