//! A stream whose content is taken from the system before it is asked for.
//!
//! The library for TLS asks its stream for 4 KiB at a time, so that each record of 16 KiB
//! would take five calls. And it does not say whether a stream ended between two records,
//! which some peers take for an end, or within one, which nobody does.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::Stream;

/// Most bytes taken with one call: four records.
const AHEAD_BYTES: usize = 64 * 1024;

/// A stream that may be read ahead.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    stream: Stream,
    /// What has come and was not asked for. None where nothing is read ahead.
    ahead: Option<Ahead>,
}

/// Bytes that have come.
#[derive(Debug, Default)]
struct Ahead {
    content: Vec<u8>,
    /// So many of them were asked for.
    taken: usize,
    place: Place,
}

/// Where in its records a stream is that begins with TLS (RFC 8446 §5.1).
#[derive(Debug, Default)]
struct Place {
    /// Bytes of a header that have come: type, version and length.
    of_header: usize,
    /// The length, as far as it has come.
    length: usize,
    /// Bytes of a record that are still to come.
    left: usize,
}

impl Place {
    const HEADER_BYTES: usize = 5;
    const LENGTH_FROM: usize = 3;

    fn pass(&mut self, mut content: &[u8]) {
        while let [byte, behind @ ..] = content {
            if self.left > 0 {
                let passed = self.left.min(content.len());
                self.left -= passed;
                content = content.get(passed..).unwrap_or_default();
                continue;
            }
            if self.of_header >= Self::LENGTH_FROM {
                self.length = (self.length << 8) | usize::from(*byte);
            }
            self.of_header += 1;
            if self.of_header == Self::HEADER_BYTES {
                self.left = self.length;
                (self.of_header, self.length) = (0, 0);
            }
            content = behind;
        }
    }

    fn is_within_record(&self) -> bool {
        self.of_header > 0 || self.left > 0
    }
}

impl Ahead {
    fn left(&self) -> &[u8] {
        self.content.get(self.taken..).unwrap_or_default()
    }
}

impl ReadAhead {
    /// A stream that is read only as far as is asked.
    pub(crate) fn never(stream: Stream) -> Self {
        let ahead = None;
        Self { stream, ahead }
    }

    /// A stream that is read as far as something is there.
    pub(crate) fn always(stream: Stream) -> Self {
        let ahead = Some(Ahead::default());
        Self { stream, ahead }
    }

    /// The stream below, which may have been read farther than was asked.
    pub(crate) fn get_ref(&self) -> &Stream {
        &self.stream
    }

    /// As [`ReadAhead::get_ref`].
    pub(crate) fn get_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The stream below.
    ///
    /// # Errors
    /// It was read farther than was asked.
    pub(crate) fn into_inner(self) -> io::Result<Stream> {
        if self.is_drained() {
            return Ok(self.stream);
        }
        let text = "the stream was read ahead";
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    /// Whether the stream, which is read ahead, is within a record of TLS as far as it has come.
    pub(crate) fn is_within_record(&self) -> bool {
        let ahead = self.ahead.as_ref();
        ahead.is_some_and(|ahead| ahead.place.is_within_record())
    }

    /// Whether nothing was taken that was not asked for.
    pub(crate) fn is_drained(&self) -> bool {
        self.ahead
            .as_ref()
            .is_none_or(|ahead| ahead.left().is_empty())
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, ahead } = self.get_mut();
        let Some(ahead) = ahead.as_mut().filter(|_| buf.remaining() > 0) else {
            return Pin::new(stream).poll_read(cx, buf);
        };
        if ahead.left().is_empty() {
            ahead.content.clear();
            ahead.taken = 0;
            ahead.content.reserve_exact(AHEAD_BYTES);
            ready!(match stream {
                Stream::Unwatched(socket) => socket.read_ahead(&mut ahead.content),
                stream => pin!(stream.read_buf(&mut ahead.content))
                    .poll(cx)
                    .map_ok(drop),
            })?;
            ahead.place.pass(&ahead.content);
        }
        let length = ahead.left().len().min(buf.remaining());
        buf.put_slice(ahead.left().get(..length).unwrap_or_default());
        ahead.taken += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// Reads up to `count` bytes.
    async fn some(stream: &mut ReadAhead, count: usize) -> Vec<u8> {
        let mut content = vec![0; count];
        let length = stream.read(&mut content).await.expect("there");
        content.truncate(length);
        content
    }

    #[tokio::test]
    async fn what_is_read_ahead_comes_in_order_and_to_the_end() {
        let (mut theirs, ours) = tokio::io::duplex(2 * AHEAD_BYTES);
        let sent: Vec<u8> = (0..=u8::MAX).cycle().take(AHEAD_BYTES + 1000).collect();
        theirs.write_all(&sent).await.expect("room");
        drop(theirs);
        let mut stream = ReadAhead::always(ours.into());
        let mut came = some(&mut stream, 1).await;
        assert!(!stream.is_drained());
        loop {
            let more = some(&mut stream, 4096).await;
            if more.is_empty() {
                break;
            }
            came.extend(more);
        }
        assert!(stream.is_drained());
        assert!(came == sent);
    }

    #[test]
    fn a_place_is_within_a_record_from_its_first_byte_to_its_last() {
        let records = [&[22, 3, 1, 0, 2, 9, 9], &[23, 3, 3, 1, 1][..], &[7; 257]].concat();
        let ends = [0, 7, 7 + 5 + 257];
        for pieces in [1, 2, 5, 300] {
            let (mut place, mut at) = (Place::default(), 0);
            assert!(!place.is_within_record());
            for piece in records.chunks(pieces) {
                place.pass(piece);
                at += piece.len();
                assert_eq!(place.is_within_record(), !ends.contains(&at), "{at}");
            }
        }
        let mut empty = Place::default();
        empty.pass(&[23, 3, 3, 0, 0]);
        assert!(!empty.is_within_record());
    }

    #[tokio::test]
    async fn a_stream_below_is_given_back_only_where_nothing_is_missing_from_it() {
        let (mut theirs, ours) = tokio::io::duplex(64);
        theirs.write_all(b"abc").await.expect("room");
        let mut stream = ReadAhead::always(ours.into());
        assert_eq!(some(&mut stream, 2).await, b"ab");
        let error = stream.into_inner().expect_err("the rest is lost");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);

        let (mut theirs, ours) = tokio::io::duplex(64);
        theirs.write_all(b"abc").await.expect("room");
        let mut stream = ReadAhead::never(ours.into());
        assert_eq!(some(&mut stream, 2).await, b"ab");
        let mut below = stream.into_inner().expect("as far as was asked");
        assert_eq!(below.read_u8().await.expect("there"), b'c');
    }
}
