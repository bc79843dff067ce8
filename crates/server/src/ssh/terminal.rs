//! What a terminal's driver does where there is no process and so no driver:
//! echo, editing of the line, line ends.
//!
//! A client that has asked for a terminal sends keys as they are pressed and
//! shows what it gets as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::Notify;

use super::input::Feed;

/// Longest line that can be typed, in bytes; Linux's N_TTY_BUF_SIZE.
pub(super) const MAX_LINE_BYTES: usize = 4096;

/// Most bytes that are translated at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// What Ctrl-C means.
#[derive(Debug, Clone, Copy)]
pub(super) enum CtrlC<'a> {
    /// A shell hears of it, and goes on; what was typed before is not wanted.
    Interrupts(&'a Notify),
    /// What reads the lines is not wanted.
    Ends,
}

/// Why there are no more lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoMoreLines {
    /// The keys have ended.
    End,
    /// Ctrl-C.
    Interrupt,
}

/// Makes lines of keys, shows them on `echo` and hands them to `lines`, until
/// the keys end. Dropping the future loses the line that is being typed.
///
/// # Errors
/// The keys or the echo broke off; `lines` then have, too.
pub(super) async fn edit(
    mut keys: impl AsyncRead + Unpin,
    mut echo: impl AsyncWrite + Unpin,
    lines: Feed,
    ctrl_c: CtrlC<'_>,
) -> io::Result<NoMoreLines> {
    let mut editor = Editor::default();
    let mut pressed = [0; 256];
    loop {
        let count = keys.read(&mut pressed).await?;
        if count == 0 {
            lines.end();
            return Ok(NoMoreLines::End);
        }
        for key in pressed.iter().take(count) {
            let done = editor.press(*key);
            echo.write_all(&editor.take_echo()).await?;
            match done {
                Done::Nothing => {}
                Done::Line(line) => {
                    lines.waits_for_less_than(MAX_LINE_BYTES).await;
                    lines.push(&line);
                }
                Done::End => lines.end_once(),
                Done::Interrupt => match ctrl_c {
                    CtrlC::Ends => return Ok(NoMoreLines::Interrupt),
                    CtrlC::Interrupts(shell) => {
                        lines.clear();
                        shell.notify_one();
                    }
                },
            }
        }
    }
}

/// A line that is being typed.
#[derive(Debug, Default)]
struct Editor {
    /// Invariant: at most [`MAX_LINE_BYTES`].
    line: Vec<u8>,
    echo: Vec<u8>,
    after_return: bool,
}

/// What a key has come to.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    /// With its line end.
    Line(Vec<u8>),
    /// Whoever reads has read all.
    End,
    /// Ctrl-C; the line is gone.
    Interrupt,
}

impl Editor {
    fn press(&mut self, key: u8) -> Done {
        let after_return = std::mem::replace(&mut self.after_return, key == b'\r');
        match key {
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                self.echo.extend_from_slice(b"\r\n");
                let mut line = std::mem::take(&mut self.line);
                line.push(b'\n');
                return Done::Line(line);
            }
            END if self.line.is_empty() => return Done::End,
            BACKSPACE | DELETE => self.rub_out(),
            KILL => {
                while !self.line.is_empty() {
                    self.rub_out();
                }
            }
            INTERRUPT => {
                self.line.clear();
                self.echo.extend_from_slice(b"^C\r\n");
                return Done::Interrupt;
            }
            0x20..=0x7e | 0x80.. if self.line.len() + 1 < MAX_LINE_BYTES => {
                self.line.push(key);
                self.echo.push(key);
            }
            // Arrows and the like would move a cursor that nothing here follows.
            _ => {}
        }
        Done::Nothing
    }

    /// Takes back the last character, however many bytes of UTF-8 it has.
    fn rub_out(&mut self) {
        let mut taken = false;
        while let Some(byte) = self.line.pop() {
            taken = true;
            if byte & 0b1100_0000 != 0b1000_0000 {
                break;
            }
        }
        if taken {
            self.echo.extend_from_slice(b"\x08 \x08");
        }
    }

    fn take_echo(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.echo)
    }
}

const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const KILL: u8 = 0x15;
const DELETE: u8 = 0x7f;

/// An output on a screen, where a line feed alone does not go back to the margin.
pub(super) struct Screen<W> {
    below: W,
    /// Translated, and not yet taken.
    translated: Vec<u8>,
    taken: usize,
}

impl<W: AsyncWrite + Unpin> Screen<W> {
    pub(super) fn new(below: W) -> Self {
        Self {
            below,
            translated: Vec::new(),
            taken: 0,
        }
    }

    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .translated
            .get(self.taken..)
            .filter(|rest| !rest.is_empty())
        {
            match ready!(Pin::new(&mut self.below).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.taken += count,
            }
        }
        self.translated.clear();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Screen<W> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        let piece = buf.get(..PIECE_BYTES).unwrap_or(buf);
        for byte in piece {
            if *byte == b'\n' {
                this.translated.push(b'\r');
            }
            this.translated.push(*byte);
        }
        // What cannot go now goes with the next write or flush.
        if let Poll::Ready(Err(error)) = this.poll_out(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.below).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_out(cx))?;
        Pin::new(&mut this.below).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::super::input::{Backlog, pipe};
    use super::*;

    /// What is shown of `keys`, and what a reader gets up to each end.
    async fn typed(keys: &[u8]) -> (String, Vec<String>) {
        let mut echo = Vec::new();
        let (feed, mut lines) = pipe(&Backlog::default());
        let shell = Notify::new();
        let ended = edit(keys, &mut echo, feed, CtrlC::Interrupts(&shell)).await;
        assert_eq!(ended.expect("in memory"), NoMoreLines::End);
        let mut read = Vec::new();
        loop {
            let mut text = String::new();
            lines.read_to_string(&mut text).await.expect("ends");
            if text.is_empty() {
                break;
            }
            read.push(text);
        }
        (String::from_utf8(echo).expect("text"), read)
    }

    #[tokio::test]
    async fn keys_become_lines_as_a_terminal_makes_them() {
        for (keys, echo, lines) in [
            (&b"ls\r"[..], "ls\r\n", &["ls\n"][..]),
            (b"ls\r\npwd\n", "ls\r\npwd\r\n", &["ls\npwd\n"]),
            (b"lx\x7fs\r", "lx\x08 \x08s\r\n", &["ls\n"]),
            (b"\x7f\x08a\r", "a\r\n", &["a\n"]),
            ("é\x7fe\r".as_bytes(), "é\x08 \x08e\r\n", &["e\n"]),
            (b"ab\x15c\r", "ab\x08 \x08\x08 \x08c\r\n", &["c\n"]),
            (b"a\rrm x\x03ls\r", "a\r\nrm x^C\r\nls\r\n", &["ls\n"]),
            (b"a\x04b\r\x04c\r", "ab\r\nc\r\n", &["ab\n", "c\n"]),
            (b"\x1b[A\r", "[A\r\n", &["[A\n"]),
        ] {
            let (shown, read) = typed(keys).await;
            assert_eq!(
                (&*shown, &read[..]),
                (
                    echo,
                    &lines.iter().map(ToString::to_string).collect::<Vec<_>>()[..]
                ),
                "{keys:?}"
            );
        }
    }

    #[tokio::test]
    async fn ctrl_c_ends_what_it_may_end() {
        let mut echo = Vec::new();
        let (feed, mut lines) = pipe(&Backlog::default());
        let keys = &b"one\rtwo\x03three\r"[..];
        let ended = edit(keys, &mut echo, feed, CtrlC::Ends).await;
        assert_eq!(ended.expect("in memory"), NoMoreLines::Interrupt);
        assert_eq!(echo, b"one\r\ntwo^C\r\n");
        let mut read = [0; 4];
        lines.read_exact(&mut read).await.expect("reads");
        assert_eq!(&read, b"one\n");
        lines.read_u8().await.expect_err("cut");
    }

    #[tokio::test]
    async fn a_line_takes_no_more_than_a_terminal_takes() {
        let keys = [vec![b'x'; MAX_LINE_BYTES + 5], vec![b'\r']].concat();
        let (_, lines) = typed(&keys).await;
        assert_eq!(lines.concat().len(), MAX_LINE_BYTES);
    }

    #[tokio::test]
    async fn keys_wait_while_nobody_reads_the_lines() {
        let (feed, mut lines) = pipe(&Backlog::default());
        let keys = b"x\r".repeat(5000);
        let mut editing = std::pin::pin!(edit(&keys[..], Vec::new(), feed, CtrlC::Ends));
        assert!(futures_util::poll!(&mut editing).is_pending());
        let mut read = vec![0; 4096];
        lines.read_exact(&mut read).await.expect("reads");
        assert!(
            futures_util::poll!(std::pin::pin!(lines.read_u8())).is_pending(),
            "no more came"
        );
        let mut rest = Vec::new();
        let (ended, read) = tokio::join!(editing, lines.read_to_end(&mut rest));
        assert_eq!(ended.expect("in memory"), NoMoreLines::End);
        assert_eq!(read.expect("ends"), 10_000 - 4096);
    }

    #[tokio::test]
    async fn lines_on_a_screen_begin_at_the_margin_however_slowly_it_takes_them() {
        let (ours, mut theirs) = tokio::io::duplex(3);
        let writing = tokio::spawn(async move {
            let mut screen = Screen::new(ours);
            screen.write_all(b"one\n\ntwo\n").await?;
            screen.shutdown().await
        });
        let mut shown = String::new();
        theirs.read_to_string(&mut shown).await.expect("reads");
        assert_eq!(shown, "one\r\n\r\ntwo\r\n");
        writing.await.expect("no panic").expect("writes");
    }
}
