//! File attributes (draft-ietf-secsh-filexfer-02 §5).

use std::time::{Duration, SystemTime};

use bytes::{BufMut as _, Bytes, BytesMut};
use wharf_model::{Entry, EntryKind};

use super::wire::{DecodeError, Fields, put_string};

/// What is said of a file; what is not said is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Length in bytes.
    pub size: Option<u64>,
    /// Numeric owner and group.
    pub owner: Option<Owner>,
    /// `st_mode` of POSIX: the kind of file, and the permission bits.
    pub permissions: Option<u32>,
    /// Last access and modification.
    pub times: Option<Times>,
    /// What only some know: names and values.
    pub extended: Vec<(Bytes, Bytes)>,
}

/// Who owns a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
}

/// When a file was used, in seconds from 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// Last access.
    pub accessed: u32,
    /// Last modification.
    pub modified: u32,
}

impl Times {
    /// Both as `time`; what 32 bits cannot hold becomes the nearest that they can.
    pub fn both(time: SystemTime) -> Self {
        let seconds = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |after| after.as_secs());
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        Self {
            accessed: seconds,
            modified: seconds,
        }
    }

    /// The last modification.
    pub fn modified(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(self.modified))
    }
}

const SIZE: u32 = 0x0000_0001;
const OWNER: u32 = 0x0000_0002;
const PERMISSIONS: u32 = 0x0000_0004;
const TIMES: u32 = 0x0000_0008;
const EXTENDED: u32 = 0x8000_0000;

/// The kind of file in `st_mode` (POSIX `<sys/stat.h>`, with the numbers of Linux).
const KIND_MASK: u32 = 0o170_000;
const KINDS: [(u32, EntryKind); 4] = [
    (0o100_000, EntryKind::File),
    (0o040_000, EntryKind::Directory),
    (0o120_000, EntryKind::Symlink),
    // A pipe, so that nobody tries to fetch it.
    (0o010_000, EntryKind::Other),
];

impl Attributes {
    /// What is said of `entry`.
    pub fn of(entry: &Entry) -> Self {
        let kind = KINDS.iter().find(|(_, kind)| *kind == entry.kind);
        let kind = kind.map_or(0, |(bits, _)| *bits);
        Self {
            size: Some(entry.size),
            owner: Some(Owner {
                user: entry.owner,
                group: entry.group,
            }),
            permissions: Some(kind | (entry.mode & 0o7777)),
            times: Some(Times::both(entry.modified)),
            extended: Vec::new(),
        }
    }

    /// What kind of file it is, where that is said.
    pub fn kind(&self) -> Option<EntryKind> {
        let bits = self.permissions? & KIND_MASK;
        if bits == 0 {
            return None;
        }
        let known = KINDS.iter().find(|(kind, _)| *kind == bits);
        Some(known.map_or(EntryKind::Other, |(_, kind)| *kind))
    }

    pub(super) fn decode(fields: &mut Fields) -> Result<Self, DecodeError> {
        let flags = fields.u32()?;
        let mut attributes = Self::default();
        if flags & SIZE != 0 {
            attributes.size = Some(fields.u64()?);
        }
        if flags & OWNER != 0 {
            attributes.owner = Some(Owner {
                user: fields.u32()?,
                group: fields.u32()?,
            });
        }
        if flags & PERMISSIONS != 0 {
            attributes.permissions = Some(fields.u32()?);
        }
        if flags & TIMES != 0 {
            attributes.times = Some(Times {
                accessed: fields.u32()?,
                modified: fields.u32()?,
            });
        }
        if flags & EXTENDED != 0 {
            // The count is a stranger's: memory grows by what is really there.
            for _ in 0..fields.u32()? {
                attributes
                    .extended
                    .push((fields.string()?, fields.string()?));
            }
        }
        Ok(attributes)
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let mut flags = 0;
        for (said, flag) in [
            (self.size.is_some(), SIZE),
            (self.owner.is_some(), OWNER),
            (self.permissions.is_some(), PERMISSIONS),
            (self.times.is_some(), TIMES),
            (!self.extended.is_empty(), EXTENDED),
        ] {
            flags |= if said { flag } else { 0 };
        }
        out.put_u32(flags);
        if let Some(size) = self.size {
            out.put_u64(size);
        }
        if let Some(owner) = self.owner {
            out.put_u32(owner.user);
            out.put_u32(owner.group);
        }
        if let Some(permissions) = self.permissions {
            out.put_u32(permissions);
        }
        if let Some(times) = self.times {
            out.put_u32(times.accessed);
            out.put_u32(times.modified);
        }
        if !self.extended.is_empty() {
            out.put_u32(u32::try_from(self.extended.len()).unwrap_or(u32::MAX));
            for (name, value) in &self.extended {
                put_string(out, name);
                put_string(out, value);
            }
        }
    }
}
