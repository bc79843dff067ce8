//! The fast road of an upload with TLS: one thread reads, decrypts and writes, so that what it
//! has decrypted is still in its processor's cache when the file takes it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use wharf_net::Patience;
use wharf_vfs::storage::Tap;

use super::fast_road::{FAST_BYTES, Lent, of};
use super::{BUFFER_BYTES, PumpControl};

/// A stream with TLS and what was decrypted of it.
pub(super) struct TlsTap {
    lent: Lent,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are drawn.
    drawn: usize,
    /// Bytes of them that are poured.
    poured: usize,
    /// The next draw may wait: so much came with the last one.
    is_fast: bool,
    control: PumpControl,
}

impl TlsTap {
    /// Draws from the stream that is on loan then.
    pub(super) fn new(lent: Lent, control: &PumpControl) -> Self {
        Self {
            lent,
            buffer: vec![0; BUFFER_BYTES],
            drawn: 0,
            poured: 0,
            is_fast: true,
            control: control.clone(),
        }
    }
}

impl Tap for TlsTap {
    fn draw(&mut self) -> io::Result<usize> {
        if self.control.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let mut lent = of(&self.lent);
        let stream = lent.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        (self.drawn, self.poured) = (0, 0);
        // Whoever draws again after `WouldBlock` has seen that the stream is fast again.
        let patience = match std::mem::replace(&mut self.is_fast, true) {
            true => Patience::Some,
            false => Patience::None,
        };
        self.drawn = stream.read(&mut self.buffer, patience)?;
        self.is_fast = self.drawn >= FAST_BYTES;
        Ok(self.drawn)
    }

    fn pour(&mut self, file: &File, offset: u64, length: usize) -> io::Result<usize> {
        let end = self.drawn.min(self.poured.saturating_add(length));
        let content = self.buffer.get(self.poured..end).unwrap_or_default();
        let poured = file.write_at(content, offset)?;
        self.poured += poured;
        self.control.progress_by(poured);
        Ok(poured)
    }
}
