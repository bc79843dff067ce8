//! The digest commands: md5sum, sha1sum, sha256sum, sha512sum, b3sum, crc32.
//!
//! Of files the digest comes from the storage, which remembers it; standard input is
//! hashed as it comes. Lines are those of GNU coreutils: a name with a line end, a
//! carriage return or a backslash is escaped, and its line begins with a backslash.

use std::io;

use wharf_model::{Digest, DigestAlgorithm, Hasher, Refusal};

use super::ExitStatus;
use super::interpreter::Interpreter;
use super::quote::quoted_if_needed;
use super::streams::{Input, InputLine, PIECE_BYTES, Source};
use super::table::{Arguments, Choice, Context, Outcome, Run, Spec, Syntax, flag};

/// Longest line of a list of digests: the longest path, each byte escaped, and the digest.
const MAX_LINE_BYTES: usize = 16 * 1024;

const CHOICES: &[Choice] = &[
    flag("c", "check", "read digests from files and check them"),
    flag("b", "binary", "mark the lines with '*'"),
    flag("t", "text", "accepted; content is never changed"),
    flag("z", "zero", "end lines with a NUL byte, and escape nothing"),
    flag("w", "warn", "with -c, name lines that are none"),
    flag("", "tag", "lines as BSD writes them"),
    flag("", "quiet", "with -c, say nothing of files that are right"),
    flag("", "status", "with -c, say nothing at all"),
    flag("", "strict", "with -c, fail for lines that are none"),
    flag(
        "",
        "ignore-missing",
        "with -c, pass over files that are not there",
    ),
];

const fn sum(name: &'static str, about: &'static str, run: Run) -> Spec {
    Spec {
        name,
        operands: "[FILE]...",
        about,
        syntax: Syntax::Options(CHOICES),
        misuse: ExitStatus::FAILURE,
        run,
    }
}

pub(super) static MD5SUM: Spec = sum(
    "md5sum",
    "Print or check MD5 digests.",
    |context, arguments| Box::pin(run(context, arguments, DigestAlgorithm::Md5)),
);
pub(super) static SHA1SUM: Spec = sum(
    "sha1sum",
    "Print or check SHA-1 digests.",
    |context, arguments| Box::pin(run(context, arguments, DigestAlgorithm::Sha1)),
);
pub(super) static SHA256SUM: Spec = sum(
    "sha256sum",
    "Print or check SHA-256 digests.",
    |context, arguments| Box::pin(run(context, arguments, DigestAlgorithm::Sha256)),
);
pub(super) static SHA512SUM: Spec = sum(
    "sha512sum",
    "Print or check SHA-512 digests.",
    |context, arguments| Box::pin(run(context, arguments, DigestAlgorithm::Sha512)),
);
pub(super) static B3SUM: Spec = sum(
    "b3sum",
    "Print or check BLAKE3 digests.",
    |context, arguments| Box::pin(run(context, arguments, DigestAlgorithm::Blake3)),
);
pub(super) static CRC32: Spec = sum(
    "crc32",
    "Print or check CRC-32 sums.",
    |context, arguments| Box::pin(run(context, arguments, DigestAlgorithm::Crc32)),
);

async fn run(
    mut context: Context<'_>,
    arguments: Arguments,
    algorithm: DigestAlgorithm,
) -> Outcome {
    if arguments.has("c") {
        return check(context, arguments, algorithm).await;
    }
    let form = Form {
        algorithm,
        tag: arguments.has("tag"),
        binary: arguments.has("b"),
        zero: arguments.has("z"),
    };
    let mut success = true;
    for operand in arguments.operands_or(b"-") {
        match digest_of(&mut context, &operand, algorithm).await? {
            Ok(digest) => context.print(&form.line(&digest, &operand)).await?,
            Err(refusal) => {
                success = false;
                context.refuse("", &operand, &refusal).await?;
            }
        }
    }
    Ok(ExitStatus::of(success))
}

async fn digest_of(
    context: &mut Context<'_>,
    operand: &[u8],
    algorithm: DigestAlgorithm,
) -> io::Result<Result<Digest, Refusal>> {
    if operand == b"-" {
        let mut hasher = Hasher::new(algorithm);
        while let Some(piece) = context.streams.input.piece(PIECE_BYTES).await? {
            hasher.update(&piece);
        }
        return Ok(Ok(hasher.finish()));
    }
    let path = match context.path(operand) {
        Ok(path) => path,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let digest = context.shell.vfs().digest(&path, algorithm, None).await;
    Ok(digest.map(|(digest, _)| digest))
}

/// How a line of a digest is written.
struct Form {
    algorithm: DigestAlgorithm,
    tag: bool,
    binary: bool,
    zero: bool,
}

impl Form {
    fn line(&self, digest: &Digest, name: &[u8]) -> Vec<u8> {
        let mut line = Vec::new();
        let escaped = if self.zero { None } else { escape(name) };
        if escaped.is_some() {
            line.push(b'\\');
        }
        let name = escaped.as_deref().unwrap_or(name);
        if self.tag {
            line.extend_from_slice(tag(self.algorithm).as_bytes());
            line.extend_from_slice(b" (");
            line.extend_from_slice(name);
            line.extend_from_slice(format!(") = {digest}").as_bytes());
        } else {
            let mark = if self.binary { '*' } else { ' ' };
            line.extend_from_slice(format!("{digest} {mark}").as_bytes());
            line.extend_from_slice(name);
        }
        line.push(if self.zero { 0 } else { b'\n' });
        line
    }
}

/// The name of an algorithm in a line of BSD's form, as GNU writes it.
fn tag(algorithm: DigestAlgorithm) -> &'static str {
    match algorithm {
        DigestAlgorithm::Blake3 => "BLAKE3",
        DigestAlgorithm::Sha512 => "SHA512",
        DigestAlgorithm::Sha256 => "SHA256",
        DigestAlgorithm::Sha1 => "SHA1",
        DigestAlgorithm::Md5 => "MD5",
        DigestAlgorithm::Crc32 => "CRC32",
    }
}

/// `name` with escapes; `None` where it needs none.
fn escape(name: &[u8]) -> Option<Vec<u8>> {
    if !name
        .iter()
        .any(|byte| matches!(byte, b'\n' | b'\r' | b'\\'))
    {
        return None;
    }
    let mut escaped = Vec::with_capacity(name.len() + 8);
    for byte in name {
        match byte {
            b'\n' => escaped.extend_from_slice(b"\\n"),
            b'\r' => escaped.extend_from_slice(b"\\r"),
            b'\\' => escaped.extend_from_slice(b"\\\\"),
            other => escaped.push(*other),
        }
    }
    Some(escaped)
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name.iter();
    while let Some(byte) = rest.next() {
        plain.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b'\\' => b'\\',
                _ => return None,
            },
            other => *other,
        });
    }
    Some(plain)
}

/// One line of a list of digests; `None` for what is none of this algorithm.
fn parse_line(line: &[u8], algorithm: DigestAlgorithm) -> Option<(Digest, Vec<u8>)> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (escaped, line) = match line.strip_prefix(b"\\") {
        Some(rest) => (true, rest),
        None => (false, line),
    };
    let (digest, name) = parse_tagged(line, algorithm).or_else(|| parse_plain(line, algorithm))?;
    let name = if escaped {
        unescape(name)?
    } else {
        name.to_vec()
    };
    (!name.is_empty()).then_some((digest, name))
}

fn parse_tagged(line: &[u8], algorithm: DigestAlgorithm) -> Option<(Digest, &[u8])> {
    let rest = line.strip_prefix(tag(algorithm).as_bytes())?;
    let rest = rest.strip_prefix(b" (")?;
    let behind = rest.len().checked_sub(algorithm.digest_bytes() * 2)?;
    let (name, digest) = rest.split_at_checked(behind)?;
    let name = name.strip_suffix(b") = ")?;
    let digest = Digest::parse_hex(algorithm, str::from_utf8(digest).ok()?)?;
    Some((digest, name))
}

fn parse_plain(line: &[u8], algorithm: DigestAlgorithm) -> Option<(Digest, &[u8])> {
    let (digest, rest) = line.split_at_checked(algorithm.digest_bytes() * 2)?;
    let digest = Digest::parse_hex(algorithm, str::from_utf8(digest).ok()?)?;
    let name = match rest {
        [b' ', b' ' | b'*', name @ ..] => name,
        // Some programs write one blank.
        [b' ', name @ ..] => name,
        _ => return None,
    };
    Some((digest, name))
}

/// What a check has come to.
#[derive(Default)]
struct Tally {
    improper: u64,
    proper: u64,
    unreadable: u64,
    different: u64,
    right: u64,
}

async fn check(
    mut context: Context<'_>,
    arguments: Arguments,
    algorithm: DigestAlgorithm,
) -> Outcome {
    let mut success = true;
    for operand in arguments.operands_or(b"-") {
        let list = match open_list(context.shell, &operand).await {
            Ok(list) => list,
            Err(refusal) => {
                success = false;
                context.refuse("", &operand, &refusal).await?;
                continue;
            }
        };
        let tally = check_list(&mut context, list, &operand, &arguments, algorithm).await?;
        success &= report(&mut context, &tally, &operand, &arguments).await?;
    }
    Ok(ExitStatus::of(success))
}

async fn open_list(shell: &Interpreter, operand: &[u8]) -> Result<Option<Input>, Refusal> {
    if operand == b"-" {
        return Ok(None);
    }
    let path = shell.path(operand)?;
    let download = shell.vfs().open(&path).await?;
    Ok(Some(Input::new(Source::File {
        download,
        offset: 0,
    })))
}

async fn check_list(
    context: &mut Context<'_>,
    mut list: Option<Input>,
    list_name: &[u8],
    arguments: &Arguments,
    algorithm: DigestAlgorithm,
) -> io::Result<Tally> {
    let mut tally = Tally::default();
    let mut number = 0_u64;
    loop {
        let input = list.as_mut().unwrap_or(&mut context.streams.input);
        number += 1;
        let parsed = match input.line(MAX_LINE_BYTES).await? {
            InputLine::End => return Ok(tally),
            InputLine::TooLong => None,
            InputLine::Whole(line) => parse_line(&line, algorithm),
        };
        let Some((expected, name)) = parsed else {
            tally.improper += 1;
            if arguments.has("w") {
                let list_name = quoted_if_needed(list_name);
                let line = format!(
                    "{list_name}: {number}: improperly formatted {} checksum line",
                    tag(algorithm)
                );
                context.complain(&line).await?;
            }
            continue;
        };
        tally.proper += 1;
        check_one(context, &expected, &name, arguments, &mut tally).await?;
    }
}

async fn check_one(
    context: &mut Context<'_>,
    expected: &Digest,
    name: &[u8],
    arguments: &Arguments,
    tally: &mut Tally,
) -> io::Result<()> {
    let silent = arguments.has("status");
    let found = match context.path(name) {
        Ok(path) => {
            let vfs = context.shell.vfs();
            vfs.digest(&path, expected.algorithm(), None)
                .await
                .map(|(digest, _)| digest)
        }
        Err(refusal) => Err(refusal),
    };
    let verdict = match found {
        Ok(digest) if digest == *expected => {
            tally.right += 1;
            if arguments.has("quiet") {
                return Ok(());
            }
            "OK"
        }
        Ok(_) => {
            tally.different += 1;
            "FAILED"
        }
        Err(Refusal::NotFound) if arguments.has("ignore-missing") => return Ok(()),
        Err(refusal) => {
            tally.unreadable += 1;
            context.refuse("", name, &refusal).await?;
            "FAILED open or read"
        }
    };
    if silent {
        return Ok(());
    }
    let (mark, shown) = match escape(name) {
        Some(escaped) => ("\\", escaped),
        None => ("", name.to_vec()),
    };
    let line = [mark.as_bytes(), &shown, b": ", verdict.as_bytes(), b"\n"].concat();
    context.print(&line).await
}

/// Warns of what was not right; whether all was.
async fn report(
    context: &mut Context<'_>,
    tally: &Tally,
    list_name: &[u8],
    arguments: &Arguments,
) -> io::Result<bool> {
    let shown = if list_name == b"-" {
        "'standard input'".to_owned()
    } else {
        quoted_if_needed(list_name)
    };
    if tally.proper == 0 {
        let line = format!("{shown}: no properly formatted checksum lines found");
        context.complain(&line).await?;
        return Ok(false);
    }
    if !arguments.has("status") {
        let plural = |count: u64, one: &'static str, many: &'static str| {
            if count == 1 { one } else { many }
        };
        for (count, what) in [
            (
                tally.improper,
                plural(
                    tally.improper,
                    "line is improperly formatted",
                    "lines are improperly formatted",
                ),
            ),
            (
                tally.unreadable,
                plural(
                    tally.unreadable,
                    "listed file could not be read",
                    "listed files could not be read",
                ),
            ),
            (
                tally.different,
                plural(
                    tally.different,
                    "computed checksum did NOT match",
                    "computed checksums did NOT match",
                ),
            ),
        ] {
            if count > 0 {
                context
                    .complain(&format!("WARNING: {count} {what}"))
                    .await?;
            }
        }
        if arguments.has("ignore-missing") && tally.right == 0 {
            context
                .complain(&format!("{shown}: no file was verified"))
                .await?;
        }
    }
    let improper = arguments.has("strict") && tally.improper > 0;
    let unverified = arguments.has("ignore-missing") && tally.right == 0;
    Ok(!improper && !unverified && tally.unreadable == 0 && tally.different == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MD5_OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";

    fn md5(line: &str) -> Option<Vec<u8>> {
        let (digest, name) = parse_line(line.as_bytes(), DigestAlgorithm::Md5)?;
        assert_eq!(digest.to_string(), MD5_OF_NOTHING);
        Some(name)
    }

    #[test]
    fn lines_of_gnu_and_bsd_are_read() {
        for (line, name) in [
            (format!("{MD5_OF_NOTHING}  a b"), &b"a b"[..]),
            (format!("{MD5_OF_NOTHING} *a"), b"a"),
            (format!("{MD5_OF_NOTHING}  a\r"), b"a"),
            (format!("\\{MD5_OF_NOTHING}  a\\nb\\\\"), b"a\nb\\"),
            (format!("MD5 (a (b) = c) = {MD5_OF_NOTHING}"), b"a (b) = c"),
            (MD5_OF_NOTHING.to_uppercase() + "  a", b"a"),
        ] {
            assert_eq!(md5(&line).as_deref(), Some(name), "{line}");
        }
        for line in [
            "",
            MD5_OF_NOTHING,
            &format!("{MD5_OF_NOTHING}  "),
            &format!("\\{MD5_OF_NOTHING}  a\\q"),
            &format!("x{}  a", &MD5_OF_NOTHING[1..]),
            &format!("SHA1 (a) = {MD5_OF_NOTHING}"),
        ] {
            assert_eq!(md5(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_read_back(
            name in proptest::collection::vec(1_u8.., 1..20),
            tag: bool,
            binary: bool,
        ) {
            let algorithm = DigestAlgorithm::Crc32;
            let form = Form { algorithm, tag, binary, zero: false };
            let digest = Digest::parse_hex(algorithm, "cbf43926").expect("digits");
            let mut line = form.line(&digest, &name);
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(parse_line(&line, algorithm), Some((digest, name)));
        }

        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            for algorithm in DigestAlgorithm::ALL {
                let _ = parse_line(&line, algorithm);
            }
        }
    }
}
