//! The kernel's road of an upload: socket to page cache, by a pipe between them.

use std::fs::File;
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};
use wharf_vfs::storage::Tap;

use super::fast_road::FAST_BYTES;
use super::{BUFFER_BYTES, PumpControl};

/// A socket and the pipe through which the kernel moves its bytes.
pub(super) struct SocketTap {
    socket: Arc<TcpStream>,
    /// What is drawn, and not poured yet.
    pipe: (OwnedFd, OwnedFd),
    capacity: usize,
    /// The next draw may wait: so much came with the last one.
    is_fast: bool,
    /// The file system takes nothing from a pipe.
    copies: bool,
    control: PumpControl,
}

impl SocketTap {
    /// Bytes that the pipe should hold: what a socket has at a time, and what
    /// an unprivileged process may ask for (pipe(7)).
    const PIPE_BYTES: usize = 1024 * 1024;

    /// With less the pipe costs more than it saves; pipes(7) leaves that much
    /// to a user who has too many of them.
    const LEAST_PIPE_BYTES: usize = 128 * 1024;

    /// None where the system has no pipe for it.
    pub(super) fn new(socket: Arc<TcpStream>, control: &PumpControl) -> Option<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).ok()?;
        let _ = fcntl_setpipe_size(&writer, Self::PIPE_BYTES);
        let capacity = fcntl_getpipe_size(&writer).ok()?;
        Some(Self {
            socket,
            pipe: (reader, writer),
            capacity,
            is_fast: true,
            copies: false,
            control: control.clone(),
        })
        .filter(|tap| tap.capacity >= Self::LEAST_PIPE_BYTES)
    }

    fn splice_in(&self) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE;
        let writer = &self.pipe.1;
        loop {
            match splice(&self.socket, None, writer, None, self.capacity, flags) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Whether all was drawn, and no more will come. Never waits; `WouldBlock` where that is open.
    fn has_ended(&self) -> io::Result<bool> {
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (_, length) = recv(&self.socket, &mut byte, flags)?;
        Ok(length == 0)
    }

    fn copy_out(&self, file: &File, offset: u64, length: usize) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let mut buffer = vec![0; length.min(BUFFER_BYTES)];
        let count = rustix::io::read(&self.pipe.0, &mut buffer)?;
        file.write_all_at(buffer.get(..count).unwrap_or_default(), offset)?;
        Ok(count)
    }
}

impl Tap for SocketTap {
    fn draw(&mut self) -> io::Result<usize> {
        if self.control.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        // Whoever draws again after `WouldBlock` has seen that the stream is fast again.
        if !std::mem::replace(&mut self.is_fast, true) && self.has_ended()? {
            return Ok(0);
        }
        let drawn = self.splice_in()?;
        // At the mark of urgent data (RFC 6093) `splice` stops for ever, and says the same as at the
        // end; a read goes past it.
        if drawn == 0 && !self.has_ended()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.is_fast = drawn >= FAST_BYTES;
        Ok(drawn)
    }

    fn pour(&mut self, file: &File, offset: u64, length: usize) -> io::Result<usize> {
        let poured = if self.copies {
            self.copy_out(file, offset, length)?
        } else {
            let mut position = offset;
            match splice(
                &self.pipe.0,
                None,
                file,
                Some(&mut position),
                length,
                SpliceFlags::MOVE,
            ) {
                Err(Errno::INVAL) => {
                    self.copies = true;
                    self.copy_out(file, offset, length)?
                }
                result => result?,
            }
        };
        self.control.progress_by(poured);
        Ok(poured)
    }
}
