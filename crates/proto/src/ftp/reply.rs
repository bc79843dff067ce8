//! Replies: three digits and text, on one line or several (RFC 959 §4.2).

use bytes::BytesMut;

use crate::line::{Line, LineDecoder, MAX_REPLY_BYTES};

/// A reply's three digits. Its first says whether the command went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplyCode(u16);

#[expect(
    missing_docs,
    reason = "each is named after its meaning in RFC 959 §4.2.2, RFC 2228 §5, RFC 2428 §2, RFC 3659 §5.1 or RFC 4217 §10"
)]
impl ReplyCode {
    pub const RESTART_MARKER: Self = Self(110);
    pub const DATA_ALREADY_OPEN: Self = Self(125);
    pub const OPENING_DATA: Self = Self(150);
    pub const OK: Self = Self(200);
    pub const SUPERFLUOUS: Self = Self(202);
    pub const SYSTEM_STATUS: Self = Self(211);
    pub const DIRECTORY_STATUS: Self = Self(212);
    pub const FILE_STATUS: Self = Self(213);
    pub const HELP: Self = Self(214);
    pub const SYSTEM_TYPE: Self = Self(215);
    pub const READY: Self = Self(220);
    pub const GOODBYE: Self = Self(221);
    pub const NO_TRANSFER: Self = Self(225);
    pub const TRANSFER_COMPLETE: Self = Self(226);
    pub const PASSIVE: Self = Self(227);
    pub const EXTENDED_PASSIVE: Self = Self(229);
    pub const LOGGED_IN: Self = Self(230);
    pub const LOGGED_IN_BY_CERTIFICATE: Self = Self(232);
    pub const SECURITY_ACCEPTED: Self = Self(234);
    pub const ACTION_OK: Self = Self(250);
    pub const PATH_CREATED: Self = Self(257);
    pub const NEED_PASSWORD: Self = Self(331);
    pub const NEED_MORE: Self = Self(350);
    pub const SERVICE_UNAVAILABLE: Self = Self(421);
    pub const CANNOT_OPEN_DATA: Self = Self(425);
    pub const TRANSFER_ABORTED: Self = Self(426);
    pub const FILE_BUSY: Self = Self(450);
    pub const LOCAL_ERROR: Self = Self(451);
    pub const STORAGE_FULL: Self = Self(452);
    pub const UNKNOWN_COMMAND: Self = Self(500);
    pub const INVALID_ARGUMENT: Self = Self(501);
    pub const NOT_IMPLEMENTED: Self = Self(502);
    pub const BAD_SEQUENCE: Self = Self(503);
    pub const PARAMETER_NOT_IMPLEMENTED: Self = Self(504);
    pub const FAMILY_NOT_SUPPORTED: Self = Self(522);
    pub const PROTECTION_REFUSED: Self = Self(522);
    pub const NOT_LOGGED_IN: Self = Self(530);
    pub const CONTROL_NOT_PROTECTED: Self = Self(533);
    pub const DENIED_BY_POLICY: Self = Self(534);
    pub const LEVEL_NOT_SUPPORTED: Self = Self(536);
    pub const UNAVAILABLE: Self = Self(550);
    pub const OVER_QUOTA: Self = Self(552);
    pub const NAME_NOT_ALLOWED: Self = Self(553);
    pub const INVALID_RESTART: Self = Self(554);
}

impl ReplyCode {
    /// A code read from a peer: 100 to 659.
    pub fn new(code: u16) -> Option<Self> {
        (100..660).contains(&code).then_some(Self(code))
    }

    /// The number.
    pub fn as_u16(self) -> u16 {
        self.0
    }

    fn digits(self) -> [u8; 3] {
        [100, 10, 1].map(|place| b'0' + u8::try_from(self.0 / place % 10).unwrap_or_default())
    }

    /// 1xx: another reply follows.
    pub fn is_preliminary(self) -> bool {
        self.0 / 100 == 1
    }

    /// 2xx: done.
    pub fn is_completion(self) -> bool {
        self.0 / 100 == 2
    }

    /// 3xx: the next command of the sequence is awaited.
    pub fn is_intermediate(self) -> bool {
        self.0 / 100 == 3
    }

    /// 4xx: refused for now.
    pub fn is_transient_refusal(self) -> bool {
        self.0 / 100 == 4
    }
}

impl std::fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    code: ReplyCode,
    /// Invariant: not empty. No line end, as nothing with one can be put in.
    lines: Vec<Vec<u8>>,
}

impl Reply {
    /// A reply of one line. Line ends and NUL in `text` become `?`.
    pub fn new(code: ReplyCode, text: impl Into<Vec<u8>>) -> Self {
        Self {
            code,
            lines: vec![harmless(text.into())],
        }
    }

    /// A reply of several lines: `first`, then `middle`, then `last`.
    pub fn multiline(
        code: ReplyCode,
        first: impl Into<Vec<u8>>,
        middle: impl IntoIterator<Item = Vec<u8>>,
        last: impl Into<Vec<u8>>,
    ) -> Self {
        let mut lines = vec![harmless(first.into())];
        lines.extend(middle.into_iter().map(harmless));
        lines.push(harmless(last.into()));
        Self { code, lines }
    }

    /// The code.
    pub fn code(&self) -> ReplyCode {
        self.code
    }

    /// All lines, without codes and line ends.
    pub fn lines(&self) -> &[Vec<u8>] {
        &self.lines
    }

    /// The text of the last line, which is the only one of most replies.
    pub fn text(&self) -> &[u8] {
        self.lines.last().map(Vec::as_slice).unwrap_or_default()
    }

    /// Appends the reply to `out`. A middle line that starts with a digit gets
    /// a space before it, so that none can be taken for the last (RFC 959
    /// §4.2); a byte 0xFF is doubled only by clients, so it goes as it is.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // The code or what stands for it, and the line end.
        const AROUND: usize = 6;
        let code = self.code.digits();
        let last = self.lines.len().saturating_sub(1);
        out.reserve(self.lines.iter().map(|line| line.len() + AROUND).sum());
        for (index, line) in self.lines.iter().enumerate() {
            if index == last {
                out.extend_from_slice(&code);
                out.extend_from_slice(b" ");
            } else if index == 0 {
                out.extend_from_slice(&code);
                out.extend_from_slice(b"-");
            } else if line.first().is_some_and(u8::is_ascii_digit) {
                out.extend_from_slice(b" ");
            }
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Text that stays on its line.
fn harmless(mut text: Vec<u8>) -> Vec<u8> {
    for byte in &mut text {
        if matches!(byte, b'\r' | b'\n' | 0) {
            *byte = b'?';
        }
    }
    text
}

/// The text of a 257 reply: the path in quotes, quotes in it doubled (RFC 959 Appendix II).
pub fn quote_path(path: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'"'];
    for byte in path {
        if *byte == b'"' {
            quoted.push(b'"');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    quoted
}

/// The path in the text of a 257 reply.
pub fn parse_quoted_path(text: &[u8]) -> Option<Vec<u8>> {
    let open = text.iter().position(|byte| *byte == b'"')?;
    let mut path = Vec::new();
    let mut rest = text.get(open + 1..)?.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'"' {
            path.push(*byte);
            continue;
        }
        match rest.next() {
            Some(b'"') => path.push(b'"'),
            _ => return Some(path),
        }
    }
    None
}

/// Most lines of one reply that a client takes: a server with thousands of
/// features is broken or hostile.
pub const MAX_REPLY_LINES: usize = 10_000;

/// Most bytes of one reply that a client takes.
pub const MAX_REPLY_TOTAL_BYTES: usize = 1024 * 1024;

/// Reads replies from a server, in every dialect of several lines.
#[derive(Debug)]
pub struct ReplyDecoder {
    lines: LineDecoder,
    /// The reply whose last line has not come yet.
    open: Option<Reply>,
    bytes: usize,
}

/// What a server sent is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line that should start a reply does not start with three digits.
    #[error("the server sent a line that is no FTP reply")]
    NotAReply,
    /// A reply over [`MAX_REPLY_LINES`], [`MAX_REPLY_TOTAL_BYTES`] or [`MAX_REPLY_BYTES`].
    #[error("the server sent a reply that is too long")]
    TooLong,
}

impl Default for ReplyDecoder {
    fn default() -> Self {
        Self {
            lines: LineDecoder::without_telnet(MAX_REPLY_BYTES),
            open: None,
            bytes: 0,
        }
    }
}

impl ReplyDecoder {
    /// The next whole reply in `buffer`; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`ReplyError`]; the connection is of no more use then.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Reply>, ReplyError> {
        while let Some(line) = self.lines.decode(buffer) {
            let Line::Complete(line) = line else {
                return Err(ReplyError::TooLong);
            };
            if let Some(reply) = self.take(line)? {
                return Ok(Some(reply));
            }
        }
        // Not to wait for the end of a line that may have none.
        if self.lines.is_overlong() {
            return Err(ReplyError::TooLong);
        }
        Ok(None)
    }

    fn take(&mut self, line: Vec<u8>) -> Result<Option<Reply>, ReplyError> {
        let Some(mut open) = self.open.take() else {
            return self.start(&line);
        };
        self.bytes += line.len();
        if open.lines.len() >= MAX_REPLY_LINES || self.bytes > MAX_REPLY_TOTAL_BYTES {
            return Err(ReplyError::TooLong);
        }
        match split_code(&line) {
            Some((code, b' ', text)) if code == open.code => {
                open.lines.push(harmless(text.to_vec()));
                Ok(Some(open))
            }
            // Some servers repeat the code on every line.
            Some((code, b'-', text)) if code == open.code => {
                open.lines.push(harmless(text.to_vec()));
                self.open = Some(open);
                Ok(None)
            }
            _ => {
                open.lines.push(harmless(line));
                self.open = Some(open);
                Ok(None)
            }
        }
    }

    fn start(&mut self, line: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let (code, separator, text) = split_code(line).ok_or(ReplyError::NotAReply)?;
        let reply = Reply::new(code, text);
        if separator == b'-' {
            self.bytes = line.len();
            self.open = Some(reply);
            return Ok(None);
        }
        Ok(Some(reply))
    }
}

/// The code, what follows it (a space where nothing does) and the text.
fn split_code(line: &[u8]) -> Option<(ReplyCode, u8, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = ReplyCode::new(std::str::from_utf8(digits).ok()?.parse().ok()?)?;
    match rest {
        [] => Some((code, b' ', rest)),
        [separator @ (b' ' | b'-'), text @ ..] => Some((code, *separator, text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(reply: &Reply) -> Vec<u8> {
        let mut out = Vec::new();
        reply.encode(&mut out);
        out
    }

    #[test]
    fn replies_encode_as_the_standard_shows() {
        assert_eq!(
            encoded(&Reply::new(ReplyCode::OK, "Done.")),
            b"200 Done.\r\n"
        );
        let features = [b" SIZE".to_vec(), b"211 x".to_vec()];
        let reply = Reply::multiline(ReplyCode::SYSTEM_STATUS, "Features:", features, "End");
        assert_eq!(
            encoded(&reply),
            b"211-Features:\r\n SIZE\r\n 211 x\r\n211 End\r\n"
        );
    }

    #[test]
    fn no_text_can_forge_a_line() {
        let reply = Reply::new(ReplyCode::UNAVAILABLE, "a\r\n226 done\0");
        assert_eq!(encoded(&reply), b"550 a??226 done?\r\n");
    }

    #[test]
    fn quotes_in_a_path_are_doubled_and_read_back() {
        assert_eq!(quote_path(b"/a \"b\""), b"\"/a \"\"b\"\"\"");
        assert_eq!(
            parse_quoted_path(b"\"/a \"\"b\"\"\" is current").as_deref(),
            Some(&b"/a \"b\""[..])
        );
        assert_eq!(parse_quoted_path(b"\"unclosed"), None);
    }

    type Case = (&'static [u8], u16, &'static [&'static [u8]]);

    #[test]
    fn replies_read_back_in_every_dialect_and_chunk_size() {
        let cases: [Case; 5] = [
            (b"220 hello\r\n", 220, &[b"hello"]),
            (b"220\r\n", 220, &[b""]),
            (
                b"211-Features:\r\n SIZE\r\n211 End\r\n",
                211,
                &[b"Features:", b" SIZE", b"End"],
            ),
            (b"211-a\r\n211-b\r\n211 c\r\n", 211, &[b"a", b"b", b"c"]),
            (
                b"230-a\n226 not yet\n230 b\n",
                230,
                &[b"a", b"226 not yet", b"b"],
            ),
        ];
        for (input, code, lines) in cases {
            for chunk_bytes in 1..=input.len() {
                let mut decoder = ReplyDecoder::default();
                let mut buffer = BytesMut::new();
                let mut replies = Vec::new();
                for chunk in input.chunks(chunk_bytes) {
                    buffer.extend_from_slice(chunk);
                    replies.extend(decoder.decode(&mut buffer).expect("a reply"));
                }
                assert_eq!(replies.len(), 1);
                assert_eq!(replies[0].code().as_u16(), code);
                assert_eq!(replies[0].lines(), lines);
            }
        }
    }

    #[test]
    fn an_endless_reply_is_given_up() {
        let mut decoder = ReplyDecoder::default();
        let mut buffer = BytesMut::from(&b"211-x\r\n"[..]);
        let result = (0..=MAX_REPLY_LINES).find_map(|_| {
            buffer.extend_from_slice(b" x\r\n");
            decoder.decode(&mut buffer).err()
        });
        assert_eq!(result, Some(ReplyError::TooLong));
        let mut buffer = BytesMut::from(&b"220 "[..]);
        buffer.extend_from_slice(&vec![b'x'; MAX_REPLY_BYTES - 4]);
        let mut decoder = ReplyDecoder::default();
        assert_eq!(decoder.decode(&mut buffer), Ok(None), "it may still end");
        buffer.extend_from_slice(b"x");
        assert_eq!(decoder.decode(&mut buffer), Err(ReplyError::TooLong));
        let mut garbage = BytesMut::from(&b"SSH-2.0-OpenSSH\r\n"[..]);
        assert_eq!(
            ReplyDecoder::default().decode(&mut garbage),
            Err(ReplyError::NotAReply)
        );
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            code in 100u16..660,
            lines in proptest::collection::vec("[a-zA-Z ][ -~]{0,20}", 1..6),
        ) {
            let code = ReplyCode::new(code).expect("in range");
            let lines: Vec<Vec<u8>> = lines.into_iter().map(String::into_bytes).collect();
            let reply = Reply { code, lines };
            let mut buffer = BytesMut::from(encoded(&reply).as_slice());
            prop_assert_eq!(ReplyDecoder::default().decode(&mut buffer), Ok(Some(reply)));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ReplyDecoder::default().decode(&mut BytesMut::from(input.as_slice()));
        }
    }
}
