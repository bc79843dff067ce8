//! Whether the content of a file is in memory, so that reading it waits for no disk.

use std::fs::File;
#[cfg(target_os = "linux")]
use std::io;

/// No page cache has smaller pieces.
#[cfg(target_os = "linux")]
const PAGE_BYTES: u64 = 4096;

/// Whether `length` bytes from `offset` on are in memory, as far as the first and the last of
/// them tell: the system reads files ahead in order. `None` where the file system cannot tell, as
/// tmpfs, which has nothing but memory.
#[cfg(target_os = "linux")]
pub fn is_resident(file: &File, offset: u64, length: usize) -> Option<bool> {
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    let last = offset.saturating_add(length.saturating_sub(1));
    let is_one_page = offset / PAGE_BYTES == last / PAGE_BYTES;
    match byte_is_resident(file, offset) {
        Some(true) if !is_one_page => byte_is_resident(file, last),
        known => known,
    }
}

/// Whether `length` bytes from `offset` on are in memory: not known here.
#[cfg(not(target_os = "linux"))]
pub fn is_resident(_file: &File, _offset: u64, _length: usize) -> Option<bool> {
    None
}

/// Beyond the end there is nothing to wait for.
#[cfg(target_os = "linux")]
fn byte_is_resident(file: &File, offset: u64) -> Option<bool> {
    match read_without_wait(file, offset, &mut [0]) {
        Ok(_) => Some(true),
        Err(rustix::io::Errno::AGAIN) => Some(false),
        Err(_) => None,
    }
}

/// Reads from `offset` on as much as is in memory, or whatever is there where the file system
/// cannot tell; the bytes read. Fewer than `buffer` has room for say nothing of the file's end.
///
/// # Errors
/// What the system says of reading.
#[cfg(target_os = "linux")]
pub fn read_resident(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    use rustix::io::Errno;
    match read_without_wait(file, offset, buffer) {
        Ok(length) => Ok(length),
        Err(Errno::AGAIN | Errno::INTR) => Ok(0),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            std::os::unix::fs::FileExt::read_at(file, buffer, offset)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(target_os = "linux")]
fn read_without_wait(file: &File, offset: u64, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut buffers = [io::IoSliceMut::new(buffer)];
    preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn what_was_just_written_is_in_memory_and_so_is_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = tempfile::tempfile_in(directory.path()).expect("a file");
        file.write_all_at(&[1; 10_000], 0).expect("written");
        if is_resident(&file, 0, 1).is_none() {
            eprintln!("skipped: this file system cannot tell");
            return;
        }
        for (offset, length) in [(0, 1), (0, 10_000), (9_999, 100_000), (20_000, 1), (5, 0)] {
            assert_eq!(
                is_resident(&file, offset, length),
                Some(true),
                "{offset} {length}"
            );
        }
    }

    #[test]
    fn what_is_in_memory_is_read_wherever_the_file_is() {
        let homes = [std::env::temp_dir(), "/dev/shm".into()];
        for home in homes.into_iter().filter(|home| home.exists()) {
            let file = tempfile::tempfile_in(home).expect("a file");
            file.write_all_at(&[1, 2, 3, 4, 5], 0).expect("written");
            let mut buffer = [0; 4];
            assert_eq!(read_resident(&file, 2, &mut buffer).expect("read"), 3);
            assert_eq!(buffer, [3, 4, 5, 0]);
            assert_eq!(read_resident(&file, 5, &mut buffer).expect("read"), 0);
        }
    }
}
