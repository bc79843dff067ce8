//! Fields of a packet: numbers in network byte order, strings with their length before them
//! (RFC 4251 §5).

use bytes::{BufMut as _, Bytes, BytesMut};

/// Why a packet says nothing that can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field goes on beyond the end of its packet.
    #[error("a field ends beyond the end of the packet")]
    Truncated,
    /// A list of numbers that are not four bytes each.
    #[error("a list of numbers has a broken length")]
    BrokenList,
    /// A packet type that this end does not take.
    #[error("unknown packet type {0}")]
    UnknownType(u8),
    /// An extended request that is in no table.
    #[error("unknown extended request")]
    UnknownExtension,
}

/// Takes fields from the front of a packet.
pub(super) struct Fields(Bytes);

impl Fields {
    pub(super) fn new(packet: Bytes) -> Self {
        Self(packet)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything that has not been taken.
    pub(super) fn rest(self) -> Bytes {
        self.0
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// A string, which shares the packet's memory.
    pub(super) fn string(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::try_from(self.u32()?).map_err(|_| DecodeError::Truncated)?;
        if length > self.0.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.0.split_to(length))
    }

    /// Pairs of strings up to the end of the packet.
    pub(super) fn pairs(mut self) -> Result<Vec<(Bytes, Bytes)>, DecodeError> {
        let mut pairs = Vec::new();
        while !self.is_empty() {
            pairs.push((self.string()?, self.string()?));
        }
        Ok(pairs)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (front, _) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(DecodeError::Truncated)?;
        let array = *front;
        let _ = self.0.split_to(N);
        Ok(array)
    }
}

/// Appends a packet whose fields `fill` writes; its length is put before it.
pub(super) fn put_packet(out: &mut BytesMut, fill: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    fill(out);
    let length = length_of(out.len() - start - LENGTH_BYTES);
    if let Some(field) = out.get_mut(start..start + LENGTH_BYTES) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

pub(super) fn put_string(out: &mut BytesMut, content: &[u8]) {
    out.put_u32(length_of(content.len()));
    out.put_slice(content);
}

fn length_of(length: usize) -> u32 {
    u32::try_from(length).expect("nothing that is sent is near 4 GiB long")
}

/// Bytes of the length field before a packet or a string.
pub(super) const LENGTH_BYTES: usize = 4;
