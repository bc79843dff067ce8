//! A stream whose bytes a thread moves into a file, or has the kernel move: what
//! a stream and a storage agree on.

use std::fs::File;
use std::io;

use wharf_model::Refusal;

/// A stream that can be poured into a file, such as a socket by `splice(2)`.
///
/// Used on a thread that may block, which belongs to it for as long as bytes come. A peer that
/// sends little, or nothing that counts, must not keep that thread: no call waits for long.
pub trait Tap: Send + 'static {
    /// Takes bytes out of the stream; how many, and none at its end.
    ///
    /// # Errors
    /// `WouldBlock` where there are none for now; otherwise what the stream says.
    fn draw(&mut self) -> io::Result<usize>;

    /// Puts the first `length` of the bytes that were drawn into `file` from
    /// `offset` on; how many went, which is at least one.
    ///
    /// # Errors
    /// What the file system says.
    fn pour(&mut self, file: &File, offset: u64, length: usize) -> io::Result<usize>;
}

/// What is asked before a file grows.
pub trait Meter: Send {
    /// Charges bytes.
    ///
    /// # Errors
    /// `OverQuota`.
    fn reserve(&mut self, bytes: u64) -> Result<(), Refusal>;

    /// Takes bytes back that were charged and did not come to be.
    fn refund(&mut self, bytes: u64);
}

/// How a pouring went.
pub struct Poured {
    /// The stream, if the thread came back.
    pub tap: Option<Box<dyn Tap>>,
    /// Bytes that are in the file.
    pub bytes: u64,
    /// Why it stopped.
    pub stop: Stop,
}

/// Why a pouring stopped.
#[derive(Debug)]
pub enum Stop {
    /// The stream has ended.
    End,
    /// Nothing comes for now.
    Dry,
    /// More comes, but others had to wait long enough.
    Turn,
    /// The stream broke.
    Stream(io::Error),
    /// The file could not take it. It is as long as before the piece that failed.
    Refused(Refusal),
}
