//! The parsers of FTP, of both ends.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use wharf_model::{Entry, EntryKind, FileName, Permissions, VirtualPath, escape_for_display};
use wharf_proto::ascii::{FromWire, ToWire};
use wharf_proto::ftp::address::{
    format_eprt, format_epsv, format_pasv, format_port, parse_eprt, parse_epsv, parse_pasv,
    parse_port,
};
use wharf_proto::ftp::command::{Command, Iac, encode_command};
use wharf_proto::ftp::facts::{FactSet, FactSubject, encode_facts, parse_facts_line};
use wharf_proto::ftp::list::{RemoteEntry, encode_list_line, parse_list_line};
use wharf_proto::ftp::reply::{
    MAX_REPLY_LINES, Reply, ReplyDecoder, ReplyError, parse_quoted_path, quote_path,
};
use wharf_proto::line::{Line, LineDecoder};
use wharf_proto::time::{encode_time, parse_time};

use crate::split_first;

/// The longest line of the target `line`: short, so that the bound is met often.
const MAX_LINE_BYTES: usize = 24;

/// Lines are the same in every chunking, one for each LF, within the bound.
/// The first byte is the size of a chunk.
pub(crate) fn line(input: &[u8]) {
    let (chunk_bytes, input) = split_first(input);
    let decoders: [fn(usize) -> LineDecoder; 2] = [LineDecoder::new, LineDecoder::without_telnet];
    for decoder in decoders {
        let whole = decode_lines(decoder(MAX_LINE_BYTES), input, input.len());
        let ends = input.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(whole.len(), ends);
        assert_eq!(
            whole,
            decode_lines(decoder(MAX_LINE_BYTES), input, chunk_bytes)
        );
        for line in &whole {
            let Line::Complete(line) = line else { continue };
            assert!(line.len() <= MAX_LINE_BYTES && !line.contains(&b'\n'));
        }
    }
    translation(input, chunk_bytes);
}

fn decode_lines(mut decoder: LineDecoder, input: &[u8], chunk_bytes: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut buffer = BytesMut::new();
    for chunk in input.chunks(chunk_bytes.max(1)) {
        buffer.extend_from_slice(chunk);
        while let Some(line) = decoder.decode(&mut buffer) {
            lines.push(line);
        }
        assert!(buffer.is_empty(), "what is no line yet is taken");
    }
    lines
}

/// Line ends of TYPE A are the same in every chunking, and text without a CR comes back whole.
fn translation(content: &[u8], chunk_bytes: usize) {
    let (mut whole, mut chunked) = (Vec::new(), Vec::new());
    ToWire::new().translate(content, &mut whole);
    let mut to_wire = ToWire::new();
    for chunk in content.chunks(chunk_bytes.max(1)) {
        to_wire.translate(chunk, &mut chunked);
    }
    assert_eq!(whole, chunked);
    let mut back = Vec::new();
    let mut from_wire = FromWire::new();
    for chunk in whole.chunks(chunk_bytes.max(1)) {
        from_wire.translate(chunk, &mut back);
    }
    from_wire.finish(&mut back);
    if !content.contains(&b'\r') {
        assert_eq!(back, content);
    }
}

/// A line parses to the same command however it travels: as it is, or written
/// by the client's encoder, for servers that know Telnet and for others.
pub(crate) fn command(line: &[u8]) {
    let parsed = Command::parse(line);
    if let Ok(command) = &parsed {
        assert!(!command.verb().info().name().is_empty());
    }
    if let Err(error) = &parsed {
        assert!(!error.to_string().contains(['\r', '\n']));
    }
    let space = line.iter().position(|byte| *byte == b' ');
    let (verb, argument) = match space {
        Some(at) => (line.get(..at), line.get(at + 1..)),
        None => (Some(line), Some(&[][..])),
    };
    let (Some(Ok(verb)), Some(argument)) = (verb.map(std::str::from_utf8), argument) else {
        return;
    };
    for (iac, decoder) in [
        (Iac::Doubled, LineDecoder::new as fn(usize) -> _),
        (Iac::AsIs, LineDecoder::without_telnet),
    ] {
        let mut wire = Vec::new();
        let harmless = !argument
            .iter()
            .any(|byte| matches!(byte, b'\r' | b'\n' | 0));
        let encoded = encode_command(verb, argument, iac, &mut wire);
        assert_eq!(encoded.is_ok(), harmless);
        if encoded.is_err() || verb.contains(['\r', '\n', '\0']) {
            continue;
        }
        let received = decode_lines(decoder(line.len() + 1), &wire, 7);
        let [Line::Complete(received)] = received.as_slice() else {
            panic!("one command is one line, not {received:?}");
        };
        assert_eq!(Command::parse(received), parsed);
    }
}

/// Replies are the same in every chunking, bounded, and read as they were written.
/// The first byte is the size of a chunk.
pub(crate) fn reply(input: &[u8]) {
    let (chunk_bytes, input) = split_first(input);
    let (replies, error) = decode_replies(input, input.len());
    assert_eq!((replies.clone(), error), decode_replies(input, chunk_bytes));
    for reply in &replies {
        assert!((100..660).contains(&reply.code().as_u16()));
        assert!(reply.lines().len() <= MAX_REPLY_LINES + 1);
        let mut wire = Vec::new();
        reply.encode(&mut wire);
        let (again, error) = decode_replies(&wire, wire.len());
        let [again] = again.as_slice() else {
            panic!("one reply is one reply, not {again:?} and {error:?}");
        };
        assert_eq!((again.code(), again.text()), (reply.code(), reply.text()));
        let mut rewritten = Vec::new();
        again.encode(&mut rewritten);
        assert_eq!(rewritten, wire);
        parse_quoted_path(reply.text());
    }
    assert_eq!(
        parse_quoted_path(&quote_path(input)).as_deref(),
        Some(input)
    );
}

fn decode_replies(input: &[u8], chunk_bytes: usize) -> (Vec<Reply>, Option<ReplyError>) {
    let mut decoder = ReplyDecoder::default();
    let mut replies = Vec::new();
    let mut buffer = BytesMut::new();
    for chunk in input.chunks(chunk_bytes.max(1)) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.decode(&mut buffer) {
                Ok(Some(reply)) => replies.push(reply),
                Ok(None) => break,
                Err(error) => return (replies, Some(error)),
            }
        }
    }
    (replies, None)
}

/// Facts that were read are read the same again when the server writes them.
pub(crate) fn facts(line: &[u8]) {
    let set = FactSet::parse(line);
    assert_eq!(FactSet::parse(set.names().as_bytes()), set);
    if let Some(time) = parse_time(line) {
        let mut digits = Vec::new();
        encode_time(time, &mut digits);
        let again = parse_time(&digits).expect("what was written is a time");
        let fraction = time
            .duration_since(again)
            .expect("only the fraction is cut");
        assert!(fraction < Duration::from_secs(1));
    }
    let Some(read) = parse_facts_line(line) else {
        return;
    };
    assert!(!read.name.is_empty());
    let Some(entry) = entry(&read) else { return };
    let mut out = Vec::new();
    encode_facts(
        &entry,
        FactSubject::Entry,
        FactSet::default(),
        Permissions::all(),
        &entry.name,
        &mut out,
    );
    let again = parse_facts_line(&out).expect("what was written is a line of facts");
    assert_eq!(again.name, shown(&read.name));
    if entry.kind != EntryKind::Other {
        assert_eq!(again.kind, entry.kind);
    }
    if entry.kind == EntryKind::File {
        assert_eq!(again.size, Some(entry.size));
    }
    if let Some(modified) = again.modified {
        assert!(modified <= entry.modified);
    }
    assert_eq!(again.incomplete, entry.incomplete);
}

/// A line of LIST that was read is read the same again when the server writes it.
/// The first byte turns the clock, by a week each.
pub(crate) fn list(input: &[u8]) {
    let (weeks, line) = split_first(input);
    let weeks = Duration::from_secs(u64::try_from(weeks).unwrap_or(0) * 7 * 24 * 60 * 60);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + weeks;
    let Some(read) = parse_list_line(line, now) else {
        return;
    };
    assert!(!read.name.is_empty());
    let Some(entry) = entry(&read) else { return };
    if !matches!(entry.kind, EntryKind::File | EntryKind::Directory) {
        return;
    }
    let mut out = Vec::new();
    encode_list_line(&entry, now, &mut out);
    let again = parse_list_line(&out, now).expect("what was written is a line of a listing");
    assert_eq!(again.name, shown(&read.name));
    assert_eq!(again.kind, entry.kind);
    if entry.kind == EntryKind::File {
        assert_eq!(again.size, Some(entry.size));
    }
    assert_eq!(again.mode, Some(entry.mode));
}

/// What a server would have had to hold to describe this; `None` where no file system holds such a name.
fn entry(read: &RemoteEntry) -> Option<Entry> {
    if read.name.contains(&b'/') || read.is_listed_directory {
        return None;
    }
    Some(Entry {
        name: read.name.clone(),
        kind: read.kind,
        size: read.size.unwrap_or(0),
        modified: read.modified.unwrap_or(SystemTime::UNIX_EPOCH),
        mode: read.mode.unwrap_or(0) & 0o777,
        owner: 1000,
        group: 1000,
        links: 1,
        unique: None,
        incomplete: read.incomplete,
    })
}

/// A name as listings show it.
fn shown(name: &[u8]) -> Vec<u8> {
    let harmless = |byte: &u8| match byte {
        b'\r' | b'\n' | 0 => b'?',
        other => *other,
    };
    name.iter().map(harmless).collect()
}

/// Addresses that were read are read the same again when they are written.
pub(crate) fn address(text: &[u8]) {
    for found in [parse_port(text), parse_pasv(text)].into_iter().flatten() {
        let IpAddr::V4(ip) = found.ip() else {
            panic!("PORT and PASV are for IPv4, not {found}");
        };
        let port = format_port(ip, found.port());
        assert_eq!(parse_port(port.as_bytes()), Some(found));
        let pasv = format_pasv(ip, found.port());
        assert_eq!(parse_pasv(pasv.as_bytes()), Some(found));
    }
    if let Ok(found) = parse_eprt(text) {
        assert_eq!(parse_eprt(format_eprt(found).as_bytes()), Ok(found));
    }
    if let Some(port) = parse_epsv(text) {
        assert_ne!(port, 0);
        assert_eq!(parse_epsv(format_epsv(port).as_bytes()), Some(port));
    }
}

/// However it is written, a path stays below the root, and its names are names.
/// A LF separates the current directory from the argument.
pub(crate) fn path(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == b'\n');
    let (current, argument) = match end {
        Some(end) => (input.get(..end), input.get(end + 1..)),
        None => (None, Some(input)),
    };
    let current = VirtualPath::parse(current.unwrap_or_default());
    let Ok(current) = current else { return };
    let shown = escape_for_display(input);
    assert!(!shown.chars().any(char::is_control));
    let Ok(path) = current.resolve(argument.unwrap_or_default()) else {
        return;
    };
    assert!(
        path.as_bytes().first() == Some(&b'/') && path.as_bytes().len() <= VirtualPath::MAX_BYTES
    );
    for name in path.components() {
        assert!(!matches!(name, b"" | b"." | b"..") && name.len() <= FileName::MAX_BYTES);
        assert!(!name.contains(&0) && !name.contains(&b'/'));
    }
    assert_eq!(VirtualPath::parse(path.as_bytes()).as_ref(), Ok(&path));
    assert!(path.starts_with(&VirtualPath::root()));
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        assert!(path.starts_with(&parent) && !parent.starts_with(&path));
        if let Ok(name) = FileName::parse(name) {
            assert_eq!(parent.join(&name).as_ref(), Ok(&path));
        }
    }
}
