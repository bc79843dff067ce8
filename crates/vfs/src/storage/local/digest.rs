//! Digests of files on a disk, remembered beside the file until it changes.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use wharf_model::{ByteRange, Digest, DigestAlgorithm, Hasher, Refusal};

use super::Wanted;
use super::beneath::{attribute, refusal, remove_attribute, set_attribute};

/// The digest of `file` or of a range of it, cut at its end, as long as it is wanted.
pub(super) fn digest(
    file: &File,
    algorithm: DigestAlgorithm,
    range: Option<ByteRange>,
    wanted: &Wanted,
) -> Result<(Digest, ByteRange), Refusal> {
    let size = file.metadata().map_err(refusal)?.len();
    let asked = range.unwrap_or(ByteRange {
        start: 0,
        end: size,
    });
    if asked.start > size {
        return Err(Refusal::OffsetBeyondEnd {
            offset: asked.start,
            size,
        });
    }
    let covered = ByteRange {
        start: asked.start,
        end: asked.end.min(size),
    };
    let whole = covered
        == ByteRange {
            start: 0,
            end: size,
        };
    if whole && let Some(known) = recall(file, algorithm) {
        return Ok((known, covered));
    }
    let stamp = stamp(file);
    let digest = compute(file, algorithm, covered, wanted)?;
    // A file that changed meanwhile has a digest of nothing in particular.
    if whole && stamp == self::stamp(file) {
        remember(file, &digest);
    }
    Ok((digest, covered))
}

fn compute(
    file: &File,
    algorithm: DigestAlgorithm,
    range: ByteRange,
    wanted: &Wanted,
) -> Result<Digest, Refusal> {
    let mut hasher = Hasher::new(algorithm);
    take_in(&mut hasher, file, range, wanted)?;
    Ok(hasher.finish())
}

/// Has `hasher` take in `range` up to the end of `file`, as long as it is wanted; where it ended.
pub(super) fn take_in(
    hasher: &mut Hasher,
    file: &File,
    range: ByteRange,
    wanted: &Wanted,
) -> Result<u64, Refusal> {
    let mut buffer = vec![0; 1 << 18];
    let mut offset = range.start;
    while offset < range.end {
        wanted.check()?;
        let left = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let length = file
            .read_at(buffer.get_mut(..most).unwrap_or_default(), offset)
            .map_err(refusal)?;
        if length == 0 {
            break;
        }
        hasher.update(buffer.get(..length).unwrap_or_default());
        offset += u64::try_from(length).unwrap_or(0);
    }
    Ok(offset)
}

/// Keeps `digest` with the file as it is now.
pub(super) fn remember(file: &File, digest: &Digest) {
    if let Some(stamp) = stamp(file) {
        let value = format!("{stamp} {digest}");
        set_attribute(file, &attribute_name(digest.algorithm()), value.as_bytes());
    }
}

/// Drops every digest, because the file is about to change in a way that its stamp may not show.
pub(super) fn forget(file: &File) {
    for algorithm in DigestAlgorithm::ALL {
        remove_attribute(file, &attribute_name(algorithm));
    }
}

/// What was kept, if the file has not changed since.
fn recall(file: &File, algorithm: DigestAlgorithm) -> Option<Digest> {
    let value = String::from_utf8(attribute(file, &attribute_name(algorithm))?).ok()?;
    let (kept_stamp, hexadecimal) = value.rsplit_once(' ')?;
    if kept_stamp != stamp(file)? {
        return None;
    }
    Digest::parse_hex(algorithm, hexadecimal)
}

fn attribute_name(algorithm: DigestAlgorithm) -> String {
    format!("user.wharf.digest.{}", algorithm.name())
}

/// Size and modification time: what changes whenever content does.
fn stamp(file: &File) -> Option<String> {
    let metadata = file.metadata().ok()?;
    Some(format!(
        "{} {}.{}",
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec()
    ))
}
