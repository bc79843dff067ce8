//! What a client sends (draft-ietf-secsh-filexfer-02 §4 and §6; OpenSSH's PROTOCOL §4).

use bitflags::bitflags;
use bytes::{BufMut as _, Bytes, BytesMut};

use super::attributes::Attributes;
use super::extension::Extension;
use super::wire::{DecodeError, Fields, put_packet, put_string};

/// The number by which a client knows the answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u32);

/// What a server calls an open file or directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Handle(pub Bytes);

bitflags! {
    /// How a file is to be opened (§6.3).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct OpenFlags: u32 {
        /// For reading.
        const READ = 0x01;
        /// For writing.
        const WRITE = 0x02;
        /// Every write goes to the end, whatever its offset.
        const APPEND = 0x04;
        /// Made if it is not there.
        const CREATE = 0x08;
        /// Emptied.
        const TRUNCATE = 0x10;
        /// Refused if it is there; only with `CREATE`.
        const EXCLUSIVE = 0x20;
    }
}

/// One packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientPacket {
    /// The first one: its version, and extensions of its own.
    Init {
        /// The highest version that it speaks.
        version: u32,
        /// Names and values.
        extensions: Vec<(Bytes, Bytes)>,
    },
    /// Every other one.
    Request(RequestId, Request),
}

/// What a client asks for. Names are bytes, absolute or relative to the home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Opens a file; answered by a handle.
    Open {
        /// Which.
        path: Bytes,
        /// For what.
        flags: OpenFlags,
        /// Of a file that is made.
        attributes: Attributes,
    },
    /// Ends the use of a handle.
    Close {
        /// Which.
        handle: Handle,
    },
    /// Asks for content.
    Read {
        /// Of which file.
        handle: Handle,
        /// From which byte.
        offset: u64,
        /// Bytes at most.
        length: u32,
    },
    /// Brings content.
    Write {
        /// For which file.
        handle: Handle,
        /// To which byte.
        offset: u64,
        /// The content.
        data: Bytes,
    },
    /// Attributes, of a link itself.
    Lstat {
        /// Of what.
        path: Bytes,
    },
    /// Attributes of what is open.
    Fstat {
        /// What.
        handle: Handle,
    },
    /// Changes attributes.
    SetStat {
        /// Of what.
        path: Bytes,
        /// Those that change.
        attributes: Attributes,
    },
    /// Changes attributes of what is open.
    FsetStat {
        /// What.
        handle: Handle,
        /// Those that change.
        attributes: Attributes,
    },
    /// Opens a directory; answered by a handle.
    OpenDirectory {
        /// Which.
        path: Bytes,
    },
    /// Asks for some entries.
    ReadDirectory {
        /// Of which directory.
        handle: Handle,
    },
    /// Removes a file.
    Remove {
        /// Which.
        path: Bytes,
    },
    /// Makes a directory.
    MakeDirectory {
        /// Where.
        path: Bytes,
        /// Its attributes.
        attributes: Attributes,
    },
    /// Removes an empty directory.
    RemoveDirectory {
        /// Which.
        path: Bytes,
    },
    /// The absolute form of a path.
    RealPath {
        /// Of which.
        path: Bytes,
    },
    /// Attributes, links followed.
    Stat {
        /// Of what.
        path: Bytes,
    },
    /// Renames; never replaces.
    Rename {
        /// What.
        from: Bytes,
        /// To which name.
        to: Bytes,
    },
    /// Where a link leads.
    ReadLink {
        /// Which link.
        path: Bytes,
    },
    /// Makes a symbolic link. Target first, as OpenSSH sends it and everybody after it; the
    /// draft has them the other way round (PROTOCOL §4.1).
    Symlink {
        /// What it says.
        target: Bytes,
        /// Where it stands.
        link: Bytes,
    },
    /// Renames, and replaces.
    PosixRename {
        /// What.
        from: Bytes,
        /// To which name.
        to: Bytes,
    },
    /// Gives a file a second name.
    HardLink {
        /// Which file.
        existing: Bytes,
        /// The name.
        link: Bytes,
    },
    /// Puts what was written on the disk.
    Fsync {
        /// Of which file.
        handle: Handle,
    },
    /// Space where a path is.
    StatVfs {
        /// Which path.
        path: Bytes,
    },
    /// Space where an open file is.
    FstatVfs {
        /// Which file.
        handle: Handle,
    },
    /// Attributes of a link itself.
    LsetStat {
        /// Of what.
        path: Bytes,
        /// Those that change.
        attributes: Attributes,
    },
    /// What the server takes.
    Limits,
    /// The absolute form of a path that may begin with `~`.
    ExpandPath {
        /// Which path.
        path: Bytes,
    },
    /// Copies content from one open file to another.
    CopyData {
        /// The source.
        from: Handle,
        /// Its first byte.
        from_offset: u64,
        /// Bytes; 0 for everything up to the end.
        length: u64,
        /// The target.
        to: Handle,
        /// Its first byte.
        to_offset: u64,
    },
    /// Where an account is at home.
    HomeDirectory {
        /// Which account; empty for the one that asks.
        account: Bytes,
    },
    /// Names of numeric owners.
    UsersGroupsById {
        /// Users.
        users: Vec<u32>,
        /// Groups.
        groups: Vec<u32>,
    },
    /// Digests of content.
    CheckFile {
        /// Of what.
        subject: CheckSubject,
        /// Algorithms, the preferred ones first, with commas between them.
        algorithms: Bytes,
        /// From which byte.
        offset: u64,
        /// Bytes; 0 for everything up to the end.
        length: u64,
        /// Bytes under one digest; 0 for one digest of all.
        block_bytes: u32,
    },
}

/// What check-file is to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckSubject {
    /// A path (`check-file-name`).
    Path(Bytes),
    /// An open file (`check-file-handle`).
    Handle(Handle),
    /// An open file, asked for in the way of paramiko (`check-file`).
    EchoedHandle(Handle),
}

/// A packet that is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Undecodable {
    /// Whom to answer, unless nobody asked.
    pub id: Option<RequestId>,
    /// What is wrong.
    pub reason: DecodeError,
}

mod kind {
    pub(super) const INIT: u8 = 1;
    pub(super) const OPEN: u8 = 3;
    pub(super) const CLOSE: u8 = 4;
    pub(super) const READ: u8 = 5;
    pub(super) const WRITE: u8 = 6;
    pub(super) const LSTAT: u8 = 7;
    pub(super) const FSTAT: u8 = 8;
    pub(super) const SETSTAT: u8 = 9;
    pub(super) const FSETSTAT: u8 = 10;
    pub(super) const OPENDIR: u8 = 11;
    pub(super) const READDIR: u8 = 12;
    pub(super) const REMOVE: u8 = 13;
    pub(super) const MKDIR: u8 = 14;
    pub(super) const RMDIR: u8 = 15;
    pub(super) const REALPATH: u8 = 16;
    pub(super) const STAT: u8 = 17;
    pub(super) const RENAME: u8 = 18;
    pub(super) const READLINK: u8 = 19;
    pub(super) const SYMLINK: u8 = 20;
    pub(super) const EXTENDED: u8 = 200;
}

impl ClientPacket {
    /// Reads a packet without its length field.
    ///
    /// # Errors
    /// [`Undecodable`], with the id of the request where it has one.
    pub fn decode(packet: Bytes) -> Result<Self, Undecodable> {
        let mut fields = Fields::new(packet);
        let unknown = |reason| Undecodable { id: None, reason };
        let kind = fields.byte().map_err(unknown)?;
        let number = fields.u32().map_err(unknown)?;
        if kind == kind::INIT {
            let extensions = fields.pairs().map_err(unknown)?;
            return Ok(Self::Init {
                version: number,
                extensions,
            });
        }
        let id = RequestId(number);
        match Request::decode(kind, fields) {
            Ok(request) => Ok(Self::Request(id, request)),
            Err(reason) => Err(Undecodable {
                id: Some(id),
                reason,
            }),
        }
    }

    /// Appends the packet, with its length field.
    pub fn encode(&self, out: &mut BytesMut) {
        put_packet(out, |out| match self {
            Self::Init {
                version,
                extensions,
            } => {
                out.put_u8(kind::INIT);
                out.put_u32(*version);
                for (name, value) in extensions {
                    put_string(out, name);
                    put_string(out, value);
                }
            }
            Self::Request(id, request) => request.encode(*id, out),
        });
    }
}

impl Request {
    fn decode(kind: u8, mut fields: Fields) -> Result<Self, DecodeError> {
        let fields = &mut fields;
        Ok(match kind {
            kind::OPEN => Self::Open {
                path: fields.string()?,
                flags: OpenFlags::from_bits_retain(fields.u32()?),
                attributes: Attributes::decode(fields)?,
            },
            kind::CLOSE => Self::Close {
                handle: handle(fields)?,
            },
            kind::READ => Self::Read {
                handle: handle(fields)?,
                offset: fields.u64()?,
                length: fields.u32()?,
            },
            kind::WRITE => Self::Write {
                handle: handle(fields)?,
                offset: fields.u64()?,
                data: fields.string()?,
            },
            kind::LSTAT => Self::Lstat {
                path: fields.string()?,
            },
            kind::FSTAT => Self::Fstat {
                handle: handle(fields)?,
            },
            kind::SETSTAT => Self::SetStat {
                path: fields.string()?,
                attributes: Attributes::decode(fields)?,
            },
            kind::FSETSTAT => Self::FsetStat {
                handle: handle(fields)?,
                attributes: Attributes::decode(fields)?,
            },
            kind::OPENDIR => Self::OpenDirectory {
                path: fields.string()?,
            },
            kind::READDIR => Self::ReadDirectory {
                handle: handle(fields)?,
            },
            kind::REMOVE => Self::Remove {
                path: fields.string()?,
            },
            kind::MKDIR => Self::MakeDirectory {
                path: fields.string()?,
                attributes: Attributes::decode(fields)?,
            },
            kind::RMDIR => Self::RemoveDirectory {
                path: fields.string()?,
            },
            kind::REALPATH => Self::RealPath {
                path: fields.string()?,
            },
            kind::STAT => Self::Stat {
                path: fields.string()?,
            },
            kind::RENAME => Self::Rename {
                from: fields.string()?,
                to: fields.string()?,
            },
            kind::READLINK => Self::ReadLink {
                path: fields.string()?,
            },
            kind::SYMLINK => Self::Symlink {
                target: fields.string()?,
                link: fields.string()?,
            },
            kind::EXTENDED => {
                let name = fields.string()?;
                let extension = Extension::from_name(&name).ok_or(DecodeError::UnknownExtension)?;
                Self::decode_extended(extension, fields)?
            }
            unknown => return Err(DecodeError::UnknownType(unknown)),
        })
    }

    fn decode_extended(extension: Extension, fields: &mut Fields) -> Result<Self, DecodeError> {
        Ok(match extension {
            Extension::PosixRename => Self::PosixRename {
                from: fields.string()?,
                to: fields.string()?,
            },
            Extension::HardLink => Self::HardLink {
                existing: fields.string()?,
                link: fields.string()?,
            },
            Extension::Fsync => Self::Fsync {
                handle: handle(fields)?,
            },
            Extension::StatVfs => Self::StatVfs {
                path: fields.string()?,
            },
            Extension::FstatVfs => Self::FstatVfs {
                handle: handle(fields)?,
            },
            Extension::LsetStat => Self::LsetStat {
                path: fields.string()?,
                attributes: Attributes::decode(fields)?,
            },
            Extension::Limits => Self::Limits,
            Extension::ExpandPath => Self::ExpandPath {
                path: fields.string()?,
            },
            Extension::CopyData => Self::CopyData {
                from: handle(fields)?,
                from_offset: fields.u64()?,
                length: fields.u64()?,
                to: handle(fields)?,
                to_offset: fields.u64()?,
            },
            Extension::HomeDirectory => Self::HomeDirectory {
                account: fields.string()?,
            },
            Extension::UsersGroupsById => Self::UsersGroupsById {
                users: numbers(&fields.string()?)?,
                groups: numbers(&fields.string()?)?,
            },
            Extension::CheckFile => {
                let subject = CheckSubject::EchoedHandle(handle(fields)?);
                Self::decode_check(subject, fields)?
            }
            Extension::CheckFileHandle => {
                let subject = CheckSubject::Handle(handle(fields)?);
                Self::decode_check(subject, fields)?
            }
            Extension::CheckFileName => {
                let subject = CheckSubject::Path(fields.string()?);
                Self::decode_check(subject, fields)?
            }
        })
    }

    fn decode_check(subject: CheckSubject, fields: &mut Fields) -> Result<Self, DecodeError> {
        Ok(Self::CheckFile {
            subject,
            algorithms: fields.string()?,
            offset: fields.u64()?,
            length: fields.u64()?,
            block_bytes: fields.u32()?,
        })
    }

    fn encode(&self, id: RequestId, out: &mut BytesMut) {
        out.put_u8(self.kind());
        out.put_u32(id.0);
        if let Some(extension) = self.extension() {
            put_string(out, extension.name().as_bytes());
        }
        match self {
            Self::Open {
                path,
                flags,
                attributes,
            } => {
                put_string(out, path);
                out.put_u32(flags.bits());
                attributes.encode(out);
            }
            Self::Close { handle }
            | Self::Fstat { handle }
            | Self::ReadDirectory { handle }
            | Self::Fsync { handle }
            | Self::FstatVfs { handle } => put_string(out, &handle.0),
            Self::Read {
                handle,
                offset,
                length,
            } => {
                put_string(out, &handle.0);
                out.put_u64(*offset);
                out.put_u32(*length);
            }
            Self::Write {
                handle,
                offset,
                data,
            } => {
                put_string(out, &handle.0);
                out.put_u64(*offset);
                put_string(out, data);
            }
            Self::Lstat { path }
            | Self::OpenDirectory { path }
            | Self::Remove { path }
            | Self::RemoveDirectory { path }
            | Self::RealPath { path }
            | Self::Stat { path }
            | Self::ReadLink { path }
            | Self::StatVfs { path }
            | Self::ExpandPath { path }
            | Self::HomeDirectory { account: path } => put_string(out, path),
            Self::SetStat { path, attributes }
            | Self::LsetStat { path, attributes }
            | Self::MakeDirectory { path, attributes } => {
                put_string(out, path);
                attributes.encode(out);
            }
            Self::FsetStat { handle, attributes } => {
                put_string(out, &handle.0);
                attributes.encode(out);
            }
            Self::Rename { from, to }
            | Self::PosixRename { from, to }
            | Self::HardLink {
                existing: from,
                link: to,
            }
            | Self::Symlink {
                target: from,
                link: to,
            } => {
                put_string(out, from);
                put_string(out, to);
            }
            Self::Limits => {}
            Self::CopyData {
                from,
                from_offset,
                length,
                to,
                to_offset,
            } => {
                put_string(out, &from.0);
                out.put_u64(*from_offset);
                out.put_u64(*length);
                put_string(out, &to.0);
                out.put_u64(*to_offset);
            }
            Self::UsersGroupsById { users, groups } => {
                put_numbers(out, users);
                put_numbers(out, groups);
            }
            Self::CheckFile {
                subject,
                algorithms,
                offset,
                length,
                block_bytes,
            } => {
                let (CheckSubject::Path(name)
                | CheckSubject::Handle(Handle(name))
                | CheckSubject::EchoedHandle(Handle(name))) = subject;
                put_string(out, name);
                put_string(out, algorithms);
                out.put_u64(*offset);
                out.put_u64(*length);
                out.put_u32(*block_bytes);
            }
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Open { .. } => kind::OPEN,
            Self::Close { .. } => kind::CLOSE,
            Self::Read { .. } => kind::READ,
            Self::Write { .. } => kind::WRITE,
            Self::Lstat { .. } => kind::LSTAT,
            Self::Fstat { .. } => kind::FSTAT,
            Self::SetStat { .. } => kind::SETSTAT,
            Self::FsetStat { .. } => kind::FSETSTAT,
            Self::OpenDirectory { .. } => kind::OPENDIR,
            Self::ReadDirectory { .. } => kind::READDIR,
            Self::Remove { .. } => kind::REMOVE,
            Self::MakeDirectory { .. } => kind::MKDIR,
            Self::RemoveDirectory { .. } => kind::RMDIR,
            Self::RealPath { .. } => kind::REALPATH,
            Self::Stat { .. } => kind::STAT,
            Self::Rename { .. } => kind::RENAME,
            Self::ReadLink { .. } => kind::READLINK,
            Self::Symlink { .. } => kind::SYMLINK,
            Self::PosixRename { .. }
            | Self::HardLink { .. }
            | Self::Fsync { .. }
            | Self::StatVfs { .. }
            | Self::FstatVfs { .. }
            | Self::LsetStat { .. }
            | Self::Limits
            | Self::ExpandPath { .. }
            | Self::CopyData { .. }
            | Self::HomeDirectory { .. }
            | Self::UsersGroupsById { .. }
            | Self::CheckFile { .. } => kind::EXTENDED,
        }
    }

    /// The extension that it belongs to, if it is none of version 3.
    pub fn extension(&self) -> Option<Extension> {
        Some(match self {
            Self::PosixRename { .. } => Extension::PosixRename,
            Self::HardLink { .. } => Extension::HardLink,
            Self::Fsync { .. } => Extension::Fsync,
            Self::StatVfs { .. } => Extension::StatVfs,
            Self::FstatVfs { .. } => Extension::FstatVfs,
            Self::LsetStat { .. } => Extension::LsetStat,
            Self::Limits => Extension::Limits,
            Self::ExpandPath { .. } => Extension::ExpandPath,
            Self::CopyData { .. } => Extension::CopyData,
            Self::HomeDirectory { .. } => Extension::HomeDirectory,
            Self::UsersGroupsById { .. } => Extension::UsersGroupsById,
            Self::CheckFile { subject, .. } => match subject {
                CheckSubject::Path(_) => Extension::CheckFileName,
                CheckSubject::Handle(_) => Extension::CheckFileHandle,
                CheckSubject::EchoedHandle(_) => Extension::CheckFile,
            },
            _ => return None,
        })
    }
}

fn handle(fields: &mut Fields) -> Result<Handle, DecodeError> {
    fields.string().map(Handle)
}

/// Numbers of four bytes each, without anything between them.
fn numbers(packed: &[u8]) -> Result<Vec<u32>, DecodeError> {
    let (chunks, rest) = packed.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(DecodeError::BrokenList);
    }
    Ok(chunks.iter().copied().map(u32::from_be_bytes).collect())
}

fn put_numbers(out: &mut BytesMut, numbers: &[u32]) {
    let packed: Vec<u8> = numbers.iter().flat_map(|one| one.to_be_bytes()).collect();
    put_string(out, &packed);
}

#[cfg(test)]
mod tests;
