//! What a server sends (draft-ietf-secsh-filexfer-02 §4 and §7; OpenSSH's PROTOCOL §4).

use bytes::{BufMut as _, Bytes, BytesMut};

use super::attributes::Attributes;
use super::extension::Extension;
use super::request::{Handle, RequestId, Undecodable};
use super::status::StatusCode;
use super::wire::{DecodeError, Fields, put_packet, put_string};

/// One packet of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerPacket {
    /// The first one: its version, and its extensions.
    Version {
        /// The version that both speak from here on.
        version: u32,
        /// Names and values.
        extensions: Vec<(Bytes, Bytes)>,
    },
    /// The answer to a request.
    Response(RequestId, Response),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// How it went.
    Status {
        /// For programs.
        code: StatusCode,
        /// For people; from another server it may hold anything.
        message: Bytes,
    },
    /// What was opened.
    Handle(Handle),
    /// Content.
    Data(Bytes),
    /// Entries of a directory, or one path.
    Names(Vec<Name>),
    /// Attributes.
    Attributes(Attributes),
    /// What an extension answers: [`StatVfs`], [`Limits`], [`CheckedFile`], [`UserGroupNames`].
    Extended(Bytes),
}

/// A name, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// As it stands, or a path.
    pub name: Bytes,
    /// A line of `ls -l`, for people.
    pub long_name: Bytes,
    /// What is known.
    pub attributes: Attributes,
}

mod kind {
    pub(super) const VERSION: u8 = 2;
    pub(super) const STATUS: u8 = 101;
    pub(super) const HANDLE: u8 = 102;
    pub(super) const DATA: u8 = 103;
    pub(super) const NAME: u8 = 104;
    pub(super) const ATTRS: u8 = 105;
    pub(super) const EXTENDED_REPLY: u8 = 201;
}

/// What language messages are in (RFC 3066).
const LANGUAGE: &[u8] = b"en";

impl ServerPacket {
    /// Reads a packet without its length field.
    ///
    /// # Errors
    /// [`Undecodable`], with the id that it answers where it has one.
    pub fn decode(packet: Bytes) -> Result<Self, Undecodable> {
        let mut fields = Fields::new(packet);
        let unknown = |reason| Undecodable { id: None, reason };
        let kind = fields.byte().map_err(unknown)?;
        let number = fields.u32().map_err(unknown)?;
        if kind == kind::VERSION {
            let extensions = fields.pairs().map_err(unknown)?;
            return Ok(Self::Version {
                version: number,
                extensions,
            });
        }
        let id = RequestId(number);
        match Response::decode(kind, fields) {
            Ok(response) => Ok(Self::Response(id, response)),
            Err(reason) => Err(Undecodable {
                id: Some(id),
                reason,
            }),
        }
    }

    /// Appends the packet, with its length field.
    pub fn encode(&self, out: &mut BytesMut) {
        put_packet(out, |out| match self {
            Self::Version {
                version,
                extensions,
            } => {
                out.put_u8(kind::VERSION);
                out.put_u32(*version);
                for (name, value) in extensions {
                    put_string(out, name);
                    put_string(out, value);
                }
            }
            Self::Response(id, response) => response.encode(*id, out),
        });
    }
}

impl Response {
    /// The status `code` with words for people.
    pub fn status(code: StatusCode, message: impl Into<Bytes>) -> Self {
        Self::Status {
            code,
            message: message.into(),
        }
    }

    fn decode(kind: u8, mut fields: Fields) -> Result<Self, DecodeError> {
        Ok(match kind {
            kind::STATUS => Self::Status {
                code: StatusCode::from_u32(fields.u32()?),
                // Old servers send the code alone.
                message: if fields.is_empty() {
                    Bytes::new()
                } else {
                    fields.string()?
                },
            },
            kind::HANDLE => Self::Handle(Handle(fields.string()?)),
            kind::DATA => Self::Data(fields.string()?),
            kind::NAME => {
                // The count is a stranger's: memory grows by what is really there.
                let mut names = Vec::new();
                for _ in 0..fields.u32()? {
                    names.push(Name {
                        name: fields.string()?,
                        long_name: fields.string()?,
                        attributes: Attributes::decode(&mut fields)?,
                    });
                }
                Self::Names(names)
            }
            kind::ATTRS => Self::Attributes(Attributes::decode(&mut fields)?),
            kind::EXTENDED_REPLY => Self::Extended(fields.rest()),
            unknown => return Err(DecodeError::UnknownType(unknown)),
        })
    }

    fn encode(&self, id: RequestId, out: &mut BytesMut) {
        let mut begin = |kind| {
            out.put_u8(kind);
            out.put_u32(id.0);
        };
        match self {
            Self::Status { code, message } => {
                begin(kind::STATUS);
                out.put_u32(code.as_u32());
                put_string(out, message);
                put_string(out, LANGUAGE);
            }
            Self::Handle(handle) => {
                begin(kind::HANDLE);
                put_string(out, &handle.0);
            }
            Self::Data(data) => {
                begin(kind::DATA);
                put_string(out, data);
            }
            Self::Names(names) => {
                begin(kind::NAME);
                out.put_u32(u32::try_from(names.len()).unwrap_or(u32::MAX));
                for name in names {
                    put_string(out, &name.name);
                    put_string(out, &name.long_name);
                    name.attributes.encode(out);
                }
            }
            Self::Attributes(attributes) => {
                begin(kind::ATTRS);
                attributes.encode(out);
            }
            Self::Extended(data) => {
                begin(kind::EXTENDED_REPLY);
                out.put_slice(data);
            }
        }
    }
}

/// Space of a file system, as `statvfs(3)` has it (PROTOCOL §4.4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatVfs {
    /// Bytes of a block of the file system.
    pub block_bytes: u64,
    /// Bytes of the unit that blocks are counted in.
    pub fragment_bytes: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free ones.
    pub blocks_free: u64,
    /// Free ones that the asker may fill.
    pub blocks_available: u64,
    /// All places for files.
    pub files: u64,
    /// Free ones.
    pub files_free: u64,
    /// Free ones that the asker may take.
    pub files_available: u64,
    /// Which file system.
    pub id: u64,
    /// 1: nothing can be written; 2: no file changes who runs it.
    pub flags: u64,
    /// Longest name, in bytes.
    pub name_bytes: u64,
}

impl StatVfs {
    /// Reads what an extended reply holds.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn decode(reply: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(reply);
        Ok(Self {
            block_bytes: fields.u64()?,
            fragment_bytes: fields.u64()?,
            blocks: fields.u64()?,
            blocks_free: fields.u64()?,
            blocks_available: fields.u64()?,
            files: fields.u64()?,
            files_free: fields.u64()?,
            files_available: fields.u64()?,
            id: fields.u64()?,
            flags: fields.u64()?,
            name_bytes: fields.u64()?,
        })
    }

    /// The reply.
    pub fn to_response(&self) -> Response {
        extended(&[
            self.block_bytes,
            self.fragment_bytes,
            self.blocks,
            self.blocks_free,
            self.blocks_available,
            self.files,
            self.files_free,
            self.files_available,
            self.id,
            self.flags,
            self.name_bytes,
        ])
    }
}

/// What a server takes, in bytes; 0 where it says nothing (PROTOCOL §4.8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Longest packet.
    pub packet_bytes: u64,
    /// Most content of one read.
    pub read_bytes: u64,
    /// Most content of one write.
    pub write_bytes: u64,
    /// Most files and directories open at one time.
    pub open_handles: u64,
}

impl Limits {
    /// Reads what an extended reply holds.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn decode(reply: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(reply);
        Ok(Self {
            packet_bytes: fields.u64()?,
            read_bytes: fields.u64()?,
            write_bytes: fields.u64()?,
            open_handles: fields.u64()?,
        })
    }

    /// The reply.
    pub fn to_response(&self) -> Response {
        extended(&[
            self.packet_bytes,
            self.read_bytes,
            self.write_bytes,
            self.open_handles,
        ])
    }
}

fn extended(numbers: &[u64]) -> Response {
    let mut reply = BytesMut::with_capacity(numbers.len() * 8);
    numbers.iter().for_each(|number| reply.put_u64(*number));
    Response::Extended(reply.freeze())
}

/// Digests of a file (draft-ietf-secsh-filexfer-extensions-00 §3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedFile {
    /// Which algorithm made them.
    pub algorithm: Bytes,
    /// One after the other, without anything between them.
    pub digests: Bytes,
    /// The extension's name stands before them, as paramiko has it.
    pub echoed: bool,
}

impl CheckedFile {
    /// Reads what an extended reply holds, in the draft's form or in paramiko's: no algorithm
    /// is called as the extension is.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn decode(reply: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(reply);
        let first = fields.string()?;
        let echoed = first == Extension::CheckFile.name();
        Ok(Self {
            algorithm: if echoed { fields.string()? } else { first },
            digests: fields.rest(),
            echoed,
        })
    }

    /// The reply.
    pub fn to_response(&self) -> Response {
        let mut reply = BytesMut::new();
        if self.echoed {
            put_string(&mut reply, Extension::CheckFile.name().as_bytes());
        }
        put_string(&mut reply, &self.algorithm);
        reply.put_slice(&self.digests);
        Response::Extended(reply.freeze())
    }
}

/// Names of numeric owners; empty where there is none (PROTOCOL §4.12).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserGroupNames {
    /// In the order of the users that were asked for.
    pub users: Vec<Bytes>,
    /// In the order of the groups.
    pub groups: Vec<Bytes>,
}

impl UserGroupNames {
    /// Reads what an extended reply holds.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn decode(reply: Bytes) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(reply);
        Ok(Self {
            users: strings(fields.string()?)?,
            groups: strings(fields.string()?)?,
        })
    }

    /// The reply.
    pub fn to_response(&self) -> Response {
        let mut reply = BytesMut::new();
        for names in [&self.users, &self.groups] {
            let mut packed = BytesMut::new();
            names.iter().for_each(|name| put_string(&mut packed, name));
            put_string(&mut reply, &packed);
        }
        Response::Extended(reply.freeze())
    }
}

fn strings(packed: Bytes) -> Result<Vec<Bytes>, DecodeError> {
    let mut fields = Fields::new(packed);
    let mut strings = Vec::new();
    while !fields.is_empty() {
        strings.push(fields.string()?);
    }
    Ok(strings)
}

#[cfg(test)]
mod tests;
