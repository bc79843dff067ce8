//! Line ends of TYPE A: CRLF on the wire, LF in a file (RFC 959 §3.1.1.1).

/// Translates content of a file for the wire: a bare LF becomes CRLF. A CRLF
/// that is in the file already stays one, so that a file that came from DOS
/// arrives with single line ends.
#[derive(Debug, Default)]
pub struct ToWire {
    after_carriage_return: bool,
}

impl ToWire {
    /// At the start of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the wire form of `content` to `out`.
    pub fn translate(&mut self, content: &[u8], out: &mut Vec<u8>) {
        for piece in content.split_inclusive(|byte| *byte == b'\n') {
            match piece {
                [text @ .., b'\n'] => {
                    let has_return = text
                        .last()
                        .map_or(self.after_carriage_return, |last| *last == b'\r');
                    out.extend_from_slice(text);
                    out.extend_from_slice(if has_return { b"\n" } else { b"\r\n" });
                    self.after_carriage_return = false;
                }
                text => {
                    out.extend_from_slice(text);
                    self.after_carriage_return = text.last() == Some(&b'\r');
                }
            }
        }
    }
}

/// Translates content from the wire for a file: CRLF becomes LF; a CR before
/// anything else is content and stays.
#[derive(Debug, Default)]
pub struct FromWire {
    held_carriage_return: bool,
}

impl FromWire {
    /// At the start of a transfer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the file's form of `content` to `out`. A CR at the very end is
    /// held back until it is known what follows it.
    pub fn translate(&mut self, content: &[u8], out: &mut Vec<u8>) {
        for byte in content {
            if std::mem::take(&mut self.held_carriage_return) && *byte != b'\n' {
                out.push(b'\r');
            }
            if *byte == b'\r' {
                self.held_carriage_return = true;
            } else {
                out.push(*byte);
            }
        }
    }

    /// Appends what was held back at the end of the transfer.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held_carriage_return) {
            out.push(b'\r');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_translate_both_ways_at_every_chunk_size() {
        let cases: [(&[u8], &[u8], &[u8]); 6] = [
            // file, wire, file again
            (b"a\nb\n", b"a\r\nb\r\n", b"a\nb\n"),
            (b"a\r\nb", b"a\r\nb", b"a\nb"),
            (b"\n\n", b"\r\n\r\n", b"\n\n"),
            (b"a\rb\r", b"a\rb\r", b"a\rb\r"),
            (b"a\r\r\n", b"a\r\r\n", b"a\r\n"),
            (b"", b"", b""),
        ];
        for (file, wire, back) in cases {
            for chunk_bytes in 1..=4 {
                let (mut to, mut from) = (ToWire::new(), FromWire::new());
                let (mut sent, mut stored) = (Vec::new(), Vec::new());
                file.chunks(chunk_bytes)
                    .for_each(|chunk| to.translate(chunk, &mut sent));
                assert_eq!(sent, wire, "{file:?}");
                wire.chunks(chunk_bytes)
                    .for_each(|chunk| from.translate(chunk, &mut stored));
                from.finish(&mut stored);
                assert_eq!(stored, back, "{wire:?}");
            }
        }
    }
}
