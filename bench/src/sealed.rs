//! Transfers with TLS whose client decrypts and encrypts nothing meanwhile, which
//! takes as long as the server's part of it: what comes is thrown away in the
//! kernel, and what is sent was encrypted before.

use std::fs::File;
use std::io::{BufRead as _, Write as _};
use std::net::Shutdown;

use rustls::{ClientConnection, StreamOwned};

use crate::Outcome;
use crate::ftp::{PIECE_BYTES, ReadAhead, Session, Wire, discard_some, send_file};
use crate::workload::memory;

type Stream = StreamOwned<ClientConnection, ReadAhead>;

/// Bytes of the largest record on the wire, RFC 8446 section 5.2.
const RECORD_BYTES: u64 = 5 + (1 << 14) + 256;

/// An upload that the server waits for, and what is to be sent.
pub(crate) struct Sealed {
    stream: Box<Stream>,
    content: File,
}

/// Downloads a file of `size` bytes and discards it; the size.
pub(crate) fn fetch(session: &mut Session, path: &str, size: u64) -> Outcome<u64> {
    let Wire::Tls(mut stream) = session.transfer(&format!("RETR {path}"))? else {
        return Err("nothing is encrypted without TLS".into());
    };
    let bytes = discard_sealed(&mut stream, size)?;
    drop(stream);
    session.expect(226)?;
    // A record that came with the handshake may have been begun and not be counted.
    if bytes + RECORD_BYTES < size {
        return Err(format!("{bytes} of {size} bytes came").into());
    }
    Ok(size)
}

/// Begins an upload and encrypts `bytes` zeros for it.
pub(crate) fn seal(session: &mut Session, path: &str, bytes: u64) -> Outcome<Sealed> {
    let Wire::Tls(mut stream) = session.transfer(&format!("STOR {path}"))? else {
        return Err("nothing is encrypted without TLS".into());
    };
    let mut content = memory()?;
    let zeros = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left)?.min(PIECE_BYTES);
        let piece = zeros.get(..piece).unwrap_or(&zeros);
        stream.conn.writer().write_all(piece)?;
        pass_on(&mut stream.conn, &mut content)?;
        left -= u64::try_from(piece.len())?;
    }
    stream.conn.send_close_notify();
    pass_on(&mut stream.conn, &mut content)?;
    Ok(Sealed { stream, content })
}

/// Sends what was encrypted, and waits until the server has it.
pub(crate) fn store(session: &mut Session, sealed: Sealed) -> Outcome<()> {
    let Sealed { stream, content } = sealed;
    let socket = stream.sock.get_ref();
    send_file(socket, &content, content.metadata()?.len())?;
    socket.shutdown(Shutdown::Write)?;
    // What the server has to say must be read, or closing resets.
    let mut buffer = vec![0; PIECE_BYTES];
    while discard_some(socket, &mut buffer)? > 0 {}
    drop(stream);
    session.expect(226)?;
    Ok(())
}

fn pass_on(connection: &mut ClientConnection, content: &mut File) -> Outcome<()> {
    while connection.wants_write() {
        connection.write_tls(content)?;
    }
    Ok(())
}

/// Reads to the end; the number of bytes as they came, but for what came along
/// with the handshake and is decrypted. Once `size` bytes are there it says its
/// own end, which some servers wait for behind theirs.
fn discard_sealed(stream: &mut Stream, size: u64) -> Outcome<u64> {
    let mut total = 0;
    while let Ok(content @ [_, ..]) = stream.conn.reader().fill_buf() {
        let length = content.len();
        stream.conn.reader().consume(length);
        total += u64::try_from(length)?;
    }
    total += u64::try_from(stream.sock.forget())?;
    let mut buffer = vec![0; PIECE_BYTES];
    let mut has_said_end = false;
    loop {
        if total >= size && !has_said_end {
            has_said_end = true;
            stream.conn.send_close_notify();
            // Fails where the server has closed already.
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
        match discard_some(stream.sock.get_ref(), &mut buffer) {
            Ok(0) => return Ok(total),
            Ok(length) => total += u64::try_from(length)?,
            // A server that has not read that end, and closes, resets.
            Err(_) if has_said_end => return Ok(total),
            Err(error) => return Err(error),
        }
    }
}
