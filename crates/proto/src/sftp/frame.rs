//! Packets in a byte stream: a length, then that many bytes (draft-ietf-secsh-filexfer-02 §3).

use bytes::{Buf as _, Bytes, BytesMut};

use super::wire::LENGTH_BYTES;

/// Longest packet that is taken, in bytes behind its length field: content of
/// [`MAX_WRITE_BYTES`] and room for the fields before it. OpenSSH takes 256 KiB
/// (`SFTP_MAX_MSG_LENGTH`).
pub const MAX_PACKET_BYTES: usize = MAX_WRITE_BYTES + 1024;

/// Most content that a server puts in one reply, so that the whole of it fits the 256 KiB
/// that OpenSSH's client takes; also what that client asks for at most.
pub const MAX_READ_BYTES: usize = 255 * 1024;

/// Most content of one `WRITE`.
pub const MAX_WRITE_BYTES: usize = 256 * 1024;

/// Shortest packet: a type, and the id of a request or a version.
const MIN_PACKET_BYTES: usize = 5;

/// Why the stream cannot be cut into packets any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More than [`MAX_PACKET_BYTES`].
    #[error("a packet of {0} bytes is longer than {MAX_PACKET_BYTES}")]
    TooLong(u32),
    /// Too short to have an id, so that nobody could be answered.
    #[error("a packet of {0} bytes holds no request")]
    TooShort(u32),
}

/// Takes the next packet, without its length field, from the front of `buffer`. `None` when it
/// is not whole yet; then the buffer has room for the rest of it.
///
/// # Errors
/// [`FrameError`]; the stream is lost then.
pub fn take_packet(buffer: &mut BytesMut) -> Result<Option<Bytes>, FrameError> {
    let Some((field, _)) = buffer.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let announced = u32::from_be_bytes(*field);
    let length = usize::try_from(announced).map_err(|_| FrameError::TooLong(announced))?;
    if length > MAX_PACKET_BYTES {
        return Err(FrameError::TooLong(announced));
    }
    if length < MIN_PACKET_BYTES {
        return Err(FrameError::TooShort(announced));
    }
    let whole = LENGTH_BYTES + length;
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    let mut packet = buffer.split_to(whole);
    packet.advance(LENGTH_BYTES);
    Ok(Some(packet.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(input: &[u8], chunk_bytes: usize) -> Result<Vec<Bytes>, FrameError> {
        let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
        for chunk in input.chunks(chunk_bytes) {
            buffer.extend_from_slice(chunk);
            while let Some(packet) = take_packet(&mut buffer)? {
                packets.push(packet);
            }
        }
        Ok(packets)
    }

    #[test]
    fn packets_are_cut_at_their_lengths_at_every_chunk_size() {
        let input = b"\0\0\0\x05\x01\0\0\0\x03\0\0\0\x06\x02\0\0\0\x03x";
        for chunk_bytes in 1..=input.len() {
            let packets = decode(input, chunk_bytes).expect("whole");
            assert_eq!(packets, [&b"\x01\0\0\0\x03"[..], b"\x02\0\0\0\x03x"]);
        }
    }

    #[test]
    fn a_packet_at_the_bound_is_taken_and_one_past_it_ends_the_stream() {
        // 0x40400 = 263,168 = 256 KiB + 1 KiB.
        let mut whole = b"\0\x04\x04\0".to_vec();
        whole.resize(4 + 263_168, 7);
        let packets = decode(&whole, 65_536).expect("within the bound");
        assert_eq!(packets.first().map(Bytes::len), Some(263_168));
        assert_eq!(
            decode(b"\0\x04\x04\x01", 4),
            Err(FrameError::TooLong(263_169))
        );
        assert_eq!(
            decode(b"\xff\xff\xff\xff", 4),
            Err(FrameError::TooLong(u32::MAX))
        );
    }

    #[test]
    fn a_packet_without_an_id_ends_the_stream() {
        assert_eq!(decode(b"\0\0\0\0", 4), Err(FrameError::TooShort(0)));
        assert_eq!(decode(b"\0\0\0\x04abcd", 8), Err(FrameError::TooShort(4)));
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_packets(
            input in proptest::collection::vec(prop_oneof![3 => Just(0_u8), 1 => 0_u8..12], 0..80),
            chunk_bytes in 1_usize..20,
        ) {
            prop_assert_eq!(decode(&input, 80), decode(&input, chunk_bytes));
        }
    }
}
