//! A stream whose content is taken from the system before it is asked for.
//!
//! The library for TLS asks its stream for 4 KiB at a time, so that each record of 16 KiB
//! would take five calls.

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
