//! Commands that tell facts: stat, du, df.

use std::io;

use wharf_model::{Entry, EntryKind, Refusal, VirtualPath};

use super::ExitStatus;
use super::files::below;
use super::interpreter::Interpreter;
use super::list::{human, mode_text};
use super::moment::{full_iso, since_epoch};
use super::quote::{quoted, quoted_if_needed};
use super::table::{Arguments, Context, Outcome, Spec, Syntax, flag, valued};
use super::walk::{Step, Walk};

pub(super) static STAT: Spec = Spec {
    name: "stat",
    operands: "FILE...",
    about: "Print the facts of files.",
    syntax: Syntax::Options(&[
        valued(
            "c",
            "format",
            "FORMAT",
            "print this for each file, with %n %s %Y %F %a and so on",
        ),
        valued(
            "",
            "printf",
            "FORMAT",
            "the same without a line end, with \\n and \\t",
        ),
        flag("L", "dereference", "follow links"),
        flag("t", "terse", "in one line"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(stat(context, arguments)),
};

/// The format of `stat` without options, as GNU's but for what is not known here.
const LONG_FORMAT: &[u8] = b"  File: %N\n  Size: %-10s\tBlocks: %-10b IO Block: %-6o %F\n\
    Device: %d\tInode: %-11i Links: %h\n\
    Access: (%04a/%A)  Uid: (%5u/%8U)   Gid: (%5g/%8G)\n\
    Modify: %y\n";

const TERSE_FORMAT: &[u8] = b"%n %s %b %f %u %g %D %i %h 0 0 %X %Y %Z %W %o\n";

async fn stat(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    if arguments.operands.is_empty() {
        return context.misused("missing operand").await;
    }
    let format = match arguments.last_of(&["c", "printf"]) {
        Some(("c", format)) => [format, b"\n"].concat(),
        Some((_, format)) => unescape(format),
        None if arguments.has("t") => TERSE_FORMAT.to_vec(),
        None => LONG_FORMAT.to_vec(),
    };
    let mut success = true;
    for operand in &arguments.operands {
        let found = match context.path(operand) {
            Ok(path) if arguments.has("L") => context.shell.vfs().metadata(&path).await,
            Ok(path) => context.shell.vfs().link_metadata(&path).await,
            Err(refusal) => Err(refusal),
        };
        match found {
            Ok(entry) => {
                let line = formatted(&format, operand, &entry);
                context.print(&line).await?;
            }
            Err(refusal) => {
                success = false;
                context.refuse("cannot statx", operand, &refusal).await?;
            }
        }
    }
    Ok(ExitStatus::of(success))
}

fn formatted(format: &[u8], name: &[u8], entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = format;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let flags = length_while(rest, |byte| matches!(byte, b'-' | b'0'));
        let (flags, after) = rest.split_at_checked(flags).unwrap_or_default();
        let digits = length_while(after, |byte| byte.is_ascii_digit());
        let (digits, after) = after.split_at_checked(digits).unwrap_or_default();
        let [directive, after @ ..] = after else {
            out.push(b'%');
            continue;
        };
        rest = after;
        let value = directive_value(*directive, name, entry);
        pad(&value, flags, digits, &mut out);
    }
    out
}

fn length_while(text: &[u8], accepts: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|byte| accepts(**byte)).count()
}

/// Widest field of a format.
const MAX_WIDTH: usize = 256;

fn pad(value: &[u8], flags: &[u8], digits: &[u8], out: &mut Vec<u8>) {
    let width = str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok());
    let missing = width
        .unwrap_or(0)
        .min(MAX_WIDTH)
        .saturating_sub(value.len());
    if flags.contains(&b'-') {
        out.extend_from_slice(value);
        out.extend(std::iter::repeat_n(b' ', missing));
    } else {
        let filler = if flags.contains(&b'0') { b'0' } else { b' ' };
        out.extend(std::iter::repeat_n(filler, missing));
        out.extend_from_slice(value);
    }
}

fn directive_value(directive: u8, name: &[u8], entry: &Entry) -> Vec<u8> {
    let (seconds, _) = since_epoch(entry.modified);
    let (device, inode) = entry.unique.unwrap_or((0, 0));
    let text = match directive {
        b'n' => return name.to_vec(),
        b'N' => quoted(name),
        b's' => entry.size.to_string(),
        b'F' => kind_text(entry).to_owned(),
        b'a' => format!("{:o}", entry.mode),
        b'A' => mode_text(entry),
        b'f' => format!("{:x}", kind_bits(entry.kind) | entry.mode),
        b'h' => entry.links.to_string(),
        b'i' => inode.to_string(),
        b'd' => device.to_string(),
        b'D' => format!("{device:x}"),
        b'u' | b'U' => entry.owner.to_string(),
        b'g' | b'G' => entry.group.to_string(),
        // The storage knows one time; the others are told as the same.
        b'X' | b'Y' | b'Z' => seconds.to_string(),
        b'x' | b'y' | b'z' => full_iso(entry.modified),
        b'w' => "-".to_owned(),
        b'W' => "0".to_owned(),
        b'b' => entry.size.div_ceil(512).to_string(),
        b'B' => "512".to_owned(),
        b'o' => "4096".to_owned(),
        b't' | b'T' => "0".to_owned(),
        b'm' => "/".to_owned(),
        b'%' => "%".to_owned(),
        _ => "?".to_owned(),
    };
    text.into_bytes()
}

fn kind_text(entry: &Entry) -> &'static str {
    match entry.kind {
        EntryKind::File if entry.size == 0 => "regular empty file",
        EntryKind::File => "regular file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symbolic link",
        EntryKind::Other => "special file",
    }
}

/// The bits of `st_mode` (POSIX.1-2024 sys/stat.h) as Linux numbers them.
fn kind_bits(kind: EntryKind) -> u32 {
    match kind {
        EntryKind::File => 0o100_000,
        EntryKind::Directory => 0o040_000,
        EntryKind::Symlink => 0o120_000,
        EntryKind::Other => 0,
    }
}

/// `\n`, `\t` and `\\` of `stat --printf`.
fn unescape(format: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(format.len());
    let mut rest = format.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => match rest.next() {
                Some(b'n') => out.push(b'\n'),
                Some(b't') => out.push(b'\t'),
                Some(b'0') => out.push(0),
                Some(other) => out.push(*other),
                None => out.push(b'\\'),
            },
            other => out.push(*other),
        }
    }
    out
}

pub(super) static DU: Spec = Spec {
    name: "du",
    operands: "[FILE]...",
    about: "Print how much directories hold, by the lengths of files, as the quota counts them.",
    syntax: Syntax::Options(&[
        flag("s", "summarize", "only the sum of each argument"),
        flag("a", "all", "files too"),
        flag("c", "total", "a sum of all at the end"),
        flag("h", "human-readable", "as 1.5K, 2M"),
        flag("k", "", "in KiB, which is the default"),
        flag("m", "", "in MiB"),
        flag("b", "bytes", "in bytes"),
        flag("S", "separate-dirs", "directories without those below them"),
        flag("x", "one-file-system", "accepted"),
        flag(
            "",
            "apparent-size",
            "accepted; lengths are all that is known",
        ),
        flag("0", "null", "end lines with a NUL byte"),
        valued("d", "max-depth", "N", "only N levels below each argument"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(du(context, arguments)),
};

/// How `du` prints.
struct Sums {
    unit: SizeUnit,
    max_depth: usize,
    files: bool,
    separate: bool,
    line_end: u8,
}

#[derive(Debug, Clone, Copy)]
enum SizeUnit {
    Human,
    Bytes(u64),
}

impl SizeUnit {
    fn text(self, bytes: u64) -> String {
        match self {
            Self::Human => human(bytes),
            Self::Bytes(unit) => bytes.div_ceil(unit).to_string(),
        }
    }
}

async fn du(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let sums = match sums_of(&arguments) {
        Ok(sums) => sums,
        Err(why) => return context.misused(&why).await,
    };
    let mut success = true;
    let mut total = 0_u64;
    for operand in arguments.operands_or(b".") {
        let found = match context.path(&operand) {
            Ok(path) => context
                .shell
                .vfs()
                .link_metadata(&path)
                .await
                .map(|entry| (path, entry)),
            Err(refusal) => Err(refusal),
        };
        match found {
            Ok((path, entry)) if entry.kind == EntryKind::Directory => {
                let (bytes, whole) = sums.tree(&mut context, &operand, path).await?;
                total = total.saturating_add(bytes);
                success &= whole;
            }
            Ok((_, entry)) => {
                total = total.saturating_add(entry.size);
                sums.print(&mut context, entry.size, &operand).await?;
            }
            Err(refusal) => {
                success = false;
                context.refuse("cannot access", &operand, &refusal).await?;
            }
        }
    }
    if arguments.has("c") {
        sums.print(&mut context, total, b"total").await?;
    }
    Ok(ExitStatus::of(success))
}

fn sums_of(arguments: &Arguments) -> Result<Sums, String> {
    let unit = match arguments.last_of(&["h", "k", "m", "b"]) {
        Some(("h", _)) => SizeUnit::Human,
        Some(("m", _)) => SizeUnit::Bytes(1 << 20),
        Some(("b", _)) => SizeUnit::Bytes(1),
        _ => SizeUnit::Bytes(1 << 10),
    };
    let max_depth = match arguments.value("d") {
        _ if arguments.has("s") => 0,
        None => usize::MAX,
        Some(text) => str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| format!("invalid maximum depth {}", quoted(text)))?,
    };
    Ok(Sums {
        unit,
        max_depth,
        files: arguments.has("a"),
        separate: arguments.has("S"),
        line_end: if arguments.has("0") { 0 } else { b'\n' },
    })
}

impl Sums {
    /// Sums up a tree; the second value says whether all of it could be seen.
    async fn tree(
        &self,
        context: &mut Context<'_>,
        operand: &[u8],
        start: VirtualPath,
    ) -> io::Result<(u64, bool)> {
        let vfs = context.shell.vfs().clone();
        // One sum for each directory on the way down; the last is that of the deepest.
        let mut open: Vec<u64> = Vec::new();
        let mut whole = true;
        let mut total = 0;
        let mut walk = Walk::new(&vfs, start.clone(), usize::MAX);
        while let Some(step) = walk.next().await {
            match step {
                Step::Found { path, depth, entry } => {
                    open.resize(depth, 0);
                    if let Some(sum) = open.last_mut() {
                        *sum = sum.saturating_add(entry.size);
                    }
                    let is_directory = entry.kind == EntryKind::Directory;
                    if self.files && !is_directory && depth <= self.max_depth {
                        let name = below(operand, &start, &path);
                        self.print(context, entry.size, &name).await?;
                    }
                }
                Step::Left { path, depth } => {
                    open.resize(depth + 1, 0);
                    let sum = open.pop().unwrap_or(0);
                    if let (Some(above), false) = (open.last_mut(), self.separate) {
                        *above = above.saturating_add(sum);
                    }
                    total = if depth == 0 { sum } else { total };
                    if depth <= self.max_depth {
                        let name = below(operand, &start, &path);
                        self.print(context, sum, &name).await?;
                    }
                }
                Step::Refused { path, refusal } => {
                    whole = false;
                    let name = below(operand, &start, &path);
                    context
                        .refuse("cannot read directory", &name, &refusal)
                        .await?;
                }
            }
        }
        Ok((total, whole))
    }

    async fn print(&self, context: &mut Context<'_>, bytes: u64, name: &[u8]) -> io::Result<()> {
        let size = self.unit.text(bytes);
        let line = [size.as_bytes(), b"\t", name, &[self.line_end]].concat();
        context.print(&line).await
    }
}

pub(super) static DF: Spec = Spec {
    name: "df",
    operands: "[FILE]...",
    about: "Print how much room the account has: its quota, or the disk where there is none.",
    syntax: Syntax::Options(&[
        flag("h", "human-readable", "as 1.5K, 2M"),
        flag("k", "", "in KiB, which is the default"),
        flag("m", "", "in MiB"),
        flag("P", "portability", "with the titles that POSIX asks for"),
        flag("i", "inodes", "numbers of files instead of bytes"),
        flag("a", "all", "accepted"),
        valued(
            "B",
            "block-size",
            "SIZE",
            "in units of so many bytes, such as 1 or 1M",
        ),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(df(context, arguments)),
};

async fn df(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let mut success = true;
    for operand in arguments.operands_or(b".") {
        let found = match context.path(&operand) {
            // What may be entered may be asked about, also by who may not list it.
            Ok(path) => match context.shell.vfs().enter(&path).await {
                Err(Refusal::NotADirectory) => Ok(()),
                entered => entered,
            },
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = found {
            success = false;
            context.refuse("", &operand, &refusal).await?;
        }
    }
    if !success && arguments.operands.len() < 2 {
        return Ok(ExitStatus::FAILURE);
    }
    let table = match room(context.shell, &arguments).await {
        Ok(table) => table,
        Err(Unknown::Misuse(why)) => return context.misused(&why).await,
        Err(Unknown::Refused(refusal)) => {
            context.refuse("", b"/", &refusal).await?;
            return Ok(ExitStatus::FAILURE);
        }
    };
    context.print(table.as_bytes()).await?;
    Ok(ExitStatus::of(success))
}

enum Unknown {
    Misuse(String),
    Refused(Refusal),
}

async fn room(shell: &Interpreter, arguments: &Arguments) -> Result<String, Unknown> {
    let (unit, title) = df_unit(arguments).map_err(Unknown::Misuse)?;
    let report = shell.vfs().available().await.map_err(Unknown::Refused)?;
    let (titles, used, left) = if arguments.has("i") {
        let left = report
            .limits
            .files
            .map(|most| most.saturating_sub(report.usage.files));
        (
            [
                "Inodes".to_owned(),
                "IUsed".to_owned(),
                "IFree".to_owned(),
                "IUse%".to_owned(),
            ],
            report.usage.files,
            left,
        )
    } else {
        let left = report.bytes_left();
        let share = if arguments.has("P") {
            "Capacity"
        } else {
            "Use%"
        };
        let short = arguments.has("h");
        let titles = [
            title,
            "Used".to_owned(),
            if short { "Avail" } else { "Available" }.to_owned(),
            share.to_owned(),
        ];
        (
            titles,
            report.usage.bytes,
            (left != u64::MAX).then_some(left),
        )
    };
    let unit = if arguments.has("i") {
        SizeUnit::Bytes(1)
    } else {
        unit
    };
    // Where nothing limits it, there is as much as a program can count to that multiplies by 1024.
    let left = left.unwrap_or(i64::MAX.unsigned_abs() >> 1);
    let total = used.saturating_add(left);
    let share = used.saturating_mul(100).div_ceil(total.max(1));
    let values = [
        unit.text(total),
        unit.text(used),
        unit.text(left),
        format!("{share}%"),
    ];
    let mut lines = ["Filesystem".to_owned(), format!("{:<10}", "wharf")];
    for (title, value) in titles.iter().zip(&values) {
        let width = title.len().max(value.len());
        for (line, text) in lines.iter_mut().zip([title, value]) {
            line.push_str(&format!(" {text:>width$}"));
        }
    }
    let [titles, values] = lines;
    Ok(format!("{titles} Mounted on\n{values} /\n"))
}

fn df_unit(arguments: &Arguments) -> Result<(SizeUnit, String), String> {
    let posix = arguments.has("P");
    Ok(match arguments.last_of(&["h", "k", "m", "B"]) {
        Some(("h", _)) => (SizeUnit::Human, "Size".to_owned()),
        Some(("m", _)) => (SizeUnit::Bytes(1 << 20), "1M-blocks".to_owned()),
        Some(("B", text)) => {
            let one = if text.first().is_some_and(u8::is_ascii_digit) {
                text.to_vec()
            } else {
                [b"1", text].concat()
            };
            let unit = super::text::parse_count(&one)
                .filter(|unit| *unit > 0)
                .ok_or_else(|| format!("invalid -B argument {}", quoted(text)))?;
            (
                SizeUnit::Bytes(unit),
                format!("{}-blocks", quoted_if_needed(&one)),
            )
        }
        _ if posix => (SizeUnit::Bytes(1 << 10), "1024-blocks".to_owned()),
        _ => (SizeUnit::Bytes(1 << 10), "1K-blocks".to_owned()),
    })
}
