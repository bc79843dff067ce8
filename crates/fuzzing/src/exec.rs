//! Remote commands, and the lines of scp.

use std::io::Cursor;

use tokio::io::{AsyncReadExt as _, duplex};
use wharf_model::VirtualPath;
use wharf_proto::scp::{MAX_LINE_BYTES, Message, WARNING, complaint};
use wharf_server::exec::{Streams, run, run_shell};

use crate::home::{self, MemoryHome};

/// Longest input: what a person could look through.
const MAX_INPUT_BYTES: usize = 8 * 1024;

/// Bytes that a pipe holds before its writer waits.
const PIPE_BYTES: usize = 1024;

/// Whatever is typed: no panic, an end, and the ledger says what the storage holds. What
/// stands before the first NUL are lines for a shell; each line behind it is a command of
/// its own, whose input is the line after it.
pub(crate) fn exec(input: &[u8]) {
    if input.len() > MAX_INPUT_BYTES {
        return;
    }
    home::run(async {
        let home = MemoryHome::new();
        let mut parts = input.splitn(2, |byte| *byte == 0);
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        let commands = second.unwrap_or(first);
        if second.is_some() {
            play(&home, None, first).await;
        }
        let mut lines = commands.split(|byte| *byte == b'\n');
        while let Some(command) = lines.next() {
            play(&home, Some(command), lines.next().unwrap_or_default()).await;
        }
    });
}

/// Runs a command, or a shell where there is none, with `input`.
async fn play(home: &MemoryHome, command: Option<&[u8]>, input: &[u8]) {
    let (output, mut output_end) = duplex(PIPE_BYTES);
    let (errors, mut errors_end) = duplex(PIPE_BYTES);
    let streams = Streams::new(Cursor::new(input.to_vec()), output, errors);
    let root = VirtualPath::root();
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let running = async {
        match command {
            Some(command) => run(command, &home.vfs, &root, streams).await,
            None => run_shell(&home.vfs, &root, streams.with_terminal()).await,
        }
    };
    let (status, read, read_errors) = tokio::join!(
        running,
        output_end.read_to_end(&mut output),
        errors_end.read_to_end(&mut errors),
    );
    assert!(read.is_ok() && read_errors.is_ok());
    // Unless it sends elsewhere what is said of it.
    let redirects = command.unwrap_or(input).contains(&b'>');
    if status.code() == 127 && !redirects {
        assert!(!errors.is_empty(), "a command that is not known is named");
    }
    home.check().await;
}

/// Whatever the other end of scp sends: a line that was read is the same when it is written; a
/// complaint is one line; what takes files and what sends them end, and the ledger holds.
pub(crate) fn scp(input: &[u8]) {
    if input.len() > MAX_INPUT_BYTES {
        return;
    }
    for line in input.split(|byte| *byte == b'\n') {
        if let Ok(message) = Message::parse(line) {
            let mut written = message.to_line();
            assert_eq!(written.pop(), Some(b'\n'));
            assert!(!written.contains(&b'\n'));
            assert_eq!(Message::parse(&written), Ok(message));
        }
    }
    let line = complaint(WARNING, input, "no");
    assert!(line.len() <= MAX_LINE_BYTES + 1);
    assert_eq!(
        line.iter().position(|byte| *byte == b'\n'),
        Some(line.len() - 1)
    );
    home::run(async {
        let home = MemoryHome::new();
        for command in [
            "scp -t .",
            "scp -rpdt /",
            "scp -t new",
            "scp -rpf * nothing",
            "scp -f f",
        ] {
            play(&home, Some(command.as_bytes()), input).await;
        }
    });
}
