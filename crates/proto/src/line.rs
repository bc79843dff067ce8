//! Lines of a control connection: bounded, in any chunking, free of Telnet.
//!
//! FTP's control connection is a Telnet connection (RFC 959 §2.3, RFC 854): a
//! client may send interrupt and synch signals before `ABOR`, and a byte 0xFF
//! of a name arrives doubled.

use bytes::{Buf as _, BytesMut};

/// Longest command line that a server takes, in bytes without its line end.
pub const MAX_COMMAND_BYTES: usize = 8 * 1024;

/// Longest reply line that a client takes, in bytes without its line end.
pub const MAX_REPLY_BYTES: usize = 64 * 1024;

/// One line, without its line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The line's bytes; Telnet signals taken out, `CR NUL` made `CR` (RFC 2640 §3.1).
    Complete(Vec<u8>),
    /// A line over the bound has ended; nothing of it was kept.
    TooLong,
}

/// Cuts a byte stream into lines. Lines end in LF; one CR before it belongs to the line end.
#[derive(Debug)]
pub struct LineDecoder {
    max_bytes: usize,
    telnet: Telnet,
    /// Invariant: `line.len() <= max_bytes`.
    line: Vec<u8>,
    overlong: bool,
    after_carriage_return: bool,
}

/// What the Telnet layer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Telnet {
    /// Bytes are taken as they are.
    Off,
    Data,
    /// IAC was read.
    ExpectCommand,
    /// IAC WILL, WONT, DO or DONT was read.
    ExpectOption,
}

const IAC: u8 = 0xff;
const WILL: u8 = 251;
const DONT: u8 = 254;

impl LineDecoder {
    /// Lines of at most `max_bytes`, Telnet signals taken out: what a server reads.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            telnet: Telnet::Data,
            line: Vec::new(),
            overlong: false,
            after_carriage_return: false,
        }
    }

    /// Lines of at most `max_bytes` with 0xFF as it is: what a client reads,
    /// since servers do not double it.
    pub fn without_telnet(max_bytes: usize) -> Self {
        Self {
            telnet: Telnet::Off,
            ..Self::new(max_bytes)
        }
    }

    /// Takes bytes from the front of `buffer` up to the end of the next line.
    /// `None` when no line ends in it; then all of it was taken.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Option<Line> {
        let mut rest = &buffer[..];
        let line = self.read(&mut rest);
        let taken = buffer.len() - rest.len();
        buffer.advance(taken);
        line
    }

    /// The same from bytes that lie elsewhere. `bytes` is what is behind the line then, and empty where
    /// there is none.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Option<Line> {
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        self.take(parts.next().unwrap_or_default());
        let rest = parts.next();
        *bytes = rest.unwrap_or_default();
        rest.map(|_| self.finish())
    }

    /// Whether the line that has not ended yet is over the bound already: its
    /// end will give [`Line::TooLong`], if it ever comes.
    pub fn is_overlong(&self) -> bool {
        self.overlong
    }

    /// Takes a part of a line in: at once where no byte of it can mean something else.
    fn take(&mut self, part: &[u8]) {
        let plain = matches!(self.telnet, Telnet::Off | Telnet::Data)
            && !self.after_carriage_return
            && self.line.len() + part.len() <= self.max_bytes
            && !part.iter().any(|byte| matches!(*byte, IAC | 0));
        if plain {
            self.line.extend_from_slice(part);
            self.after_carriage_return = part.last() == Some(&b'\r');
        } else {
            part.iter().for_each(|byte| self.take_byte(*byte));
        }
    }

    fn take_byte(&mut self, byte: u8) {
        match self.telnet {
            Telnet::Off => self.push(byte),
            Telnet::Data if byte == IAC => self.telnet = Telnet::ExpectCommand,
            Telnet::Data => self.push(byte),
            Telnet::ExpectCommand => match byte {
                IAC => {
                    self.telnet = Telnet::Data;
                    self.push(IAC);
                }
                WILL..=DONT => self.telnet = Telnet::ExpectOption,
                // 240..=250: interrupt process, data mark and the other signals.
                240..=250 => self.telnet = Telnet::Data,
                // Not Telnet at all: a client that does not double 0xFF in a name.
                other => {
                    self.telnet = Telnet::Data;
                    self.push(IAC);
                    self.push(other);
                }
            },
            Telnet::ExpectOption => self.telnet = Telnet::Data,
        }
    }

    fn push(&mut self, byte: u8) {
        let follows_carriage_return =
            std::mem::replace(&mut self.after_carriage_return, byte == b'\r');
        if follows_carriage_return && byte == 0 {
            return;
        }
        if self.line.len() < self.max_bytes {
            self.line.push(byte);
        } else if byte != b'\r' || follows_carriage_return {
            // A CR just past the bound may still belong to the line end.
            self.overlong = true;
        }
    }

    fn finish(&mut self) -> Line {
        if self.telnet != Telnet::Off {
            self.telnet = Telnet::Data;
        }
        let ended_in_carriage_return = std::mem::take(&mut self.after_carriage_return);
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.overlong) {
            return Line::TooLong;
        }
        if ended_in_carriage_return && line.last() == Some(&b'\r') {
            line.pop();
        }
        Line::Complete(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(mut decoder: LineDecoder, input: &[u8], chunk_bytes: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut buffer = BytesMut::new();
        for chunk in input.chunks(chunk_bytes) {
            buffer.extend_from_slice(chunk);
            while let Some(line) = decoder.decode(&mut buffer) {
                lines.push(line);
            }
        }
        lines
    }

    #[test]
    fn telnet_signals_vanish_and_names_stay_whole_at_every_chunk_size() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"NOOP\r\n", b"NOOP"),
            (b"NOOP\n", b"NOOP"),
            (b"\xff\xf4\xff\xf2ABOR\r\n", b"ABOR"),
            (b"\xff\xf4\xf2ABOR\r\n", b"\xf2ABOR"),
            (b"\xff\xfd\x06NOOP\r\n", b"NOOP"),
            (b"STOR a\xff\xffb\r\n", b"STOR a\xffb"),
            (b"STOR a\r\0b\r\n", b"STOR a\rb"),
            (b"STOR \xff\xe9t\xff\xe9\r\n", b"STOR \xff\xe9t\xff\xe9"),
        ];
        for (input, expected) in cases {
            for chunk_bytes in 1..=input.len() {
                let lines = decode(LineDecoder::new(64), input, chunk_bytes);
                assert_eq!(
                    lines,
                    [Line::Complete(expected.to_vec())],
                    "{input:?} by {chunk_bytes}"
                );
            }
        }
    }

    #[test]
    fn a_line_over_the_bound_is_reported_once_and_the_next_one_is_whole() {
        for chunk_bytes in 1..=40 {
            let lines = decode(
                LineDecoder::new(8),
                b"12345678\r\n123456789\r\nxxxxxxxxxxxxxxxx\nNOOP\r\n",
                chunk_bytes,
            );
            let complete = |text: &[u8]| Line::Complete(text.to_vec());
            assert_eq!(
                lines,
                [
                    complete(b"12345678"),
                    Line::TooLong,
                    Line::TooLong,
                    complete(b"NOOP")
                ]
            );
        }
    }

    #[test]
    fn a_client_reads_0xff_as_it_is() {
        let lines = decode(LineDecoder::without_telnet(64), b"226 \xffdone\r\n", 3);
        assert_eq!(lines, [Line::Complete(b"226 \xffdone".to_vec())]);
    }

    proptest! {
        #[test]
        fn a_part_is_taken_as_its_bytes_are(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(0u8), Just(255u8), any::<u8>()], 0..24),
            first in 0usize..24,
        ) {
            let parts = input.split_at(first.min(input.len()));
            let [mut by_parts, mut by_bytes] = [LineDecoder::new(16), LineDecoder::new(16)];
            by_parts.take(parts.0);
            by_parts.take(parts.1);
            input.iter().for_each(|byte| by_bytes.take_byte(*byte));
            prop_assert_eq!(by_parts.finish(), by_bytes.finish());
        }

        #[test]
        fn chunking_never_changes_the_lines(
            input in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(0u8), Just(255u8), any::<u8>()], 0..80),
            chunk_bytes in 1usize..20,
        ) {
            let whole = decode(LineDecoder::new(16), &input, 80);
            let chunked = decode(LineDecoder::new(16), &input, chunk_bytes);
            prop_assert_eq!(whole, chunked);
        }
    }
}
