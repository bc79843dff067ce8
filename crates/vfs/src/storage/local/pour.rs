//! A stream that a tap pours into a file, charged piece by piece.

use std::fs::File;
use std::io;

use wharf_model::Refusal;

use super::beneath::refusal;
use crate::storage::end_of;
use crate::storage::tap::{Meter, Poured, Stop, Tap};

/// Bytes that one pouring moves before others have their turn.
const TURN_BYTES: u64 = 16 * 1024 * 1024;

/// Pours into `file`, which is `length` long, from `offset` on.
pub(super) fn pour(
    file: &File,
    mut offset: u64,
    length: u64,
    mut tap: Box<dyn Tap>,
    meter: &mut dyn Meter,
) -> Poured {
    let start = offset;
    let mut end = length;
    let stop = loop {
        if offset - start >= TURN_BYTES {
            break Stop::Turn;
        }
        let drawn = match tap.draw() {
            Ok(0) => break Stop::End,
            Ok(drawn) => drawn,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Stop::Dry,
            Err(error) => break Stop::Stream(error),
        };
        match pour_piece(file, offset, drawn, end, tap.as_mut(), meter) {
            Ok(after) => (offset, end) = (after, end.max(after)),
            Err(refusal) => break Stop::Refused(refusal),
        }
    };
    Poured {
        tap: Some(tap),
        bytes: offset - start,
        stop,
    }
}

/// One piece that was drawn: charged, then written whole or taken back. Where it ends.
fn pour_piece(
    file: &File,
    offset: u64,
    drawn: usize,
    end: u64,
    tap: &mut dyn Tap,
    meter: &mut dyn Meter,
) -> Result<u64, Refusal> {
    let after = end_of(offset, u64::try_from(drawn).unwrap_or(u64::MAX))?;
    let growth = after.saturating_sub(end);
    meter.reserve(growth)?;
    let mut left = drawn;
    let mut at = offset;
    while left > 0 {
        let poured = match tap.pour(file, at, left) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result,
        };
        match poured {
            Ok(poured) => {
                left = left.saturating_sub(poured);
                at = at.saturating_add(u64::try_from(poured).unwrap_or(0));
            }
            Err(error) => {
                if file.metadata().is_ok_and(|now| now.len() > end) {
                    let _ = file.set_len(end);
                }
                meter.refund(growth);
                return Err(refusal(error));
            }
        }
    }
    Ok(after)
}
