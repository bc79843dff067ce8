//! Messages that stay apart on a stream: a header in JSON that says what comes
//! and how long it is, and then that.
//!
//! ```text
//! 2 bytes, big-endian     so many bytes of JSON                                so many bytes
//! length of the header    {"type":"text/plain","encoding":"utf-8","length":5}  hello
//! ```

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::codec::{Decoder, Encoder};

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is, as the two ends have agreed, such as `text/plain` or `json`.
    pub kind: String,
    /// How its text is encoded, if it is text.
    pub encoding: Option<String>,
    /// The message itself.
    pub body: Bytes,
}

impl Frame {
    /// A message that is no text.
    pub fn new(kind: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self {
            kind: kind.into(),
            encoding: None,
            body: body.into(),
        }
    }

    /// A message of text.
    pub fn text(kind: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            encoding: Some("utf-8".to_owned()),
            body: Bytes::from(text.into()),
        }
    }
}

/// What stands before a message.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Header {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
    length: u64,
}

/// Reads and writes [`Frame`]s, for `tokio_util::codec::Framed`.
#[derive(Debug, Clone)]
pub struct FrameCodec {
    most_body_bytes: usize,
    /// The header whose message has not come whole.
    header: Option<(Header, usize)>,
}

/// Enough for a type and an encoding.
const MAX_HEADER_BYTES: usize = 4096;
const LENGTH_BYTES: usize = 2;

impl FrameCodec {
    /// Takes messages of so many bytes at most.
    pub fn new(most_body_bytes: usize) -> Self {
        Self {
            most_body_bytes,
            header: None,
        }
    }

    fn decode_header(&self, source: &mut BytesMut) -> Result<Option<(Header, usize)>, FrameError> {
        let Some((length, _)) = source.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > MAX_HEADER_BYTES {
            return Err(FrameError::LongHeader(length));
        }
        let whole = LENGTH_BYTES + length;
        if source.len() < whole {
            source.reserve(whole - source.len());
            return Ok(None);
        }
        source.advance(LENGTH_BYTES);
        let header: Header = serde_json::from_slice(&source.split_to(length))?;
        match usize::try_from(header.length) {
            Ok(body) if body <= self.most_body_bytes => Ok(Some((header, body))),
            _ => Err(FrameError::LongBody(header.length)),
        }
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = FrameError;

    /// The next message, once it has come whole. What has come is kept by the
    /// caller, and never more than one header and one message's bound is asked for.
    fn decode(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if self.header.is_none() {
            self.header = self.decode_header(source)?;
        }
        let Some((header, body)) = self.header.take() else {
            return Ok(None);
        };
        if source.len() < body {
            // As much as has come doubles, so a length alone takes no memory.
            source.reserve((body - source.len()).min(source.len().max(MAX_HEADER_BYTES)));
            self.header = Some((header, body));
            return Ok(None);
        }
        Ok(Some(Frame {
            kind: header.kind,
            encoding: header.encoding,
            body: source.split_to(body).freeze(),
        }))
    }

    /// The next message. A stream may end between two, and nowhere else: also
    /// where a header was taken and nothing of its message has come.
    fn decode_eof(&mut self, source: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        match self.decode(source)? {
            None if self.header.is_some() || !source.is_empty() => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            }
            decoded => Ok(decoded),
        }
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = FrameError;

    fn encode(&mut self, frame: Frame, target: &mut BytesMut) -> Result<(), FrameError> {
        let length = u64::try_from(frame.body.len()).unwrap_or(u64::MAX);
        if frame.body.len() > self.most_body_bytes {
            return Err(FrameError::LongBody(length));
        }
        let header = serde_json::to_vec(&Header {
            kind: frame.kind,
            encoding: frame.encoding,
            length,
        })?;
        let size = match u16::try_from(header.len()) {
            Ok(size) if header.len() <= MAX_HEADER_BYTES => size,
            _ => return Err(FrameError::LongHeader(header.len())),
        };
        target.reserve(LENGTH_BYTES + header.len() + frame.body.len());
        target.put_u16(size);
        target.extend_from_slice(&header);
        target.extend_from_slice(&frame.body);
        Ok(())
    }
}

/// Why a stream has no message, or none can be written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The header is longer than any.
    #[error("the header of a message has {0} bytes, and {MAX_HEADER_BYTES} are taken")]
    LongHeader(usize),
    /// The message is longer than is taken.
    #[error("a message of {0} bytes is longer than is taken")]
    LongBody(u64),
    /// The header is not the JSON that it should be.
    #[error("the header of a message is malformed")]
    BadHeader(#[from] serde_json::Error),
    /// The stream failed, or ended within a message.
    #[error("the stream failed")]
    Io(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec() -> FrameCodec {
        FrameCodec::new(100)
    }

    fn bytes(header: &str, body: &[u8]) -> BytesMut {
        let length = u16::try_from(header.len()).expect("short").to_be_bytes();
        BytesMut::from(&[&length[..], header.as_bytes(), body].concat()[..])
    }

    #[test]
    fn a_message_is_written_as_drawn() {
        let mut target = BytesMut::new();
        let frame = Frame::text("text/plain", "hello");
        codec().encode(frame.clone(), &mut target).expect("fits");
        let header = r#"{"type":"text/plain","encoding":"utf-8","length":5}"#;
        assert_eq!(target, bytes(header, b"hello"));
        let decoded = codec().decode(&mut target).expect("well-formed");
        assert_eq!(decoded, Some(frame));
        assert!(target.is_empty());
    }

    #[test]
    fn messages_stay_apart_however_their_bytes_arrive() {
        let frames = [
            Frame::new("a", &b"1"[..]),
            Frame::new("empty", Bytes::new()),
            Frame::text("long", "x".repeat(100)),
        ];
        let mut whole = BytesMut::new();
        for frame in &frames {
            codec().encode(frame.clone(), &mut whole).expect("fits");
        }
        for piece in [1, 2, 3, 7, whole.len()] {
            let mut codec = codec();
            let mut source = BytesMut::new();
            let mut decoded = Vec::new();
            for piece in whole.chunks(piece) {
                source.extend_from_slice(piece);
                while let Some(frame) = codec.decode(&mut source).expect("well-formed") {
                    decoded.push(frame);
                }
            }
            assert_eq!(decoded, frames);
        }
    }

    #[test]
    fn an_end_anywhere_within_a_message_is_an_error() {
        let mut whole = BytesMut::new();
        codec()
            .encode(Frame::text("text/plain", "hello"), &mut whole)
            .expect("fits");
        for cut in 0..=whole.len() {
            let mut codec = codec();
            let mut source = BytesMut::from(&whole[..cut]);
            let before = codec.decode(&mut source).expect("well-formed");
            assert_eq!(before.is_some(), cut == whole.len());
            let end = codec.decode_eof(&mut source);
            match cut == 0 || cut == whole.len() {
                true => assert!(matches!(end, Ok(None)), "{cut}: {end:?}"),
                false => {
                    let Err(FrameError::Io(error)) = end else {
                        panic!("{cut}: {end:?}");
                    };
                    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
                }
            }
        }
    }

    #[test]
    fn what_is_longer_than_is_taken_is_refused_before_it_has_come() {
        for (length, refused) in [(100, false), (101, true)] {
            let header = format!(r#"{{"type":"x","length":{length}}}"#);
            let decoded = codec().decode(&mut bytes(&header, b""));
            assert_eq!(decoded.is_err(), refused, "{length}");
        }
        let huge = r#"{"type":"x","length":18446744073709551615}"#;
        let error = codec().decode(&mut bytes(huge, b"")).expect_err("too long");
        assert!(matches!(error, FrameError::LongBody(u64::MAX)));
        let mut long_header = BytesMut::from(&4097_u16.to_be_bytes()[..]);
        let error = codec().decode(&mut long_header).expect_err("too long");
        assert!(matches!(error, FrameError::LongHeader(4097)));
        let frame = Frame::new("x", vec![0; 101]);
        assert!(codec().encode(frame, &mut BytesMut::new()).is_err());
        let frame = Frame::new("x".repeat(4096), Bytes::new());
        let error = codec().encode(frame, &mut BytesMut::new());
        assert!(matches!(error, Err(FrameError::LongHeader(_))));
    }

    #[test]
    fn a_header_that_is_malformed_is_an_error() {
        for header in [
            "",
            "{}",
            "[]",
            r#"{"type":1,"length":1}"#,
            r#"{"type":"x","length":-1}"#,
        ] {
            let error = codec().decode(&mut bytes(header, b"")).expect_err(header);
            assert!(matches!(error, FrameError::BadHeader(_)));
        }
    }
}
