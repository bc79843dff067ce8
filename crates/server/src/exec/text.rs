//! Commands that show the content of files: cat, head, tail, wc.

use std::io;

use bytes::Bytes;
use wharf_model::{EntryKind, Refusal};
use wharf_vfs::Download;

use super::interpreter::Interpreter;
use super::quote::{quoted, quoted_if_needed};
use super::streams::{PIECE_BYTES, Streams};
use super::table::{Arguments, Context, Outcome, Spec, Syntax, flag, log, optional, valued};
use super::{ExitStatus, refusal};

/// Most bytes that `tail` keeps of what it cannot read backwards.
const MAX_KEPT_BYTES: usize = 16 * 1024 * 1024;

/// What a command reads: standard input, or a file from an offset on.
pub(super) enum Reader {
    Input,
    File { download: Download, offset: u64 },
}

impl Reader {
    /// `-` is standard input.
    pub(super) async fn open(shell: &Interpreter, operand: &[u8]) -> Result<Self, Refusal> {
        if operand == b"-" {
            return Ok(Self::Input);
        }
        let path = shell.path(operand)?;
        let download = shell.vfs().open(&path).await?;
        Ok(Self::File {
            download,
            offset: 0,
        })
    }

    /// The next piece; `None` at the end. The outer error is that of a stream to the client.
    pub(super) async fn piece(
        &mut self,
        streams: &mut Streams,
    ) -> io::Result<Result<Option<Bytes>, Refusal>> {
        match self {
            Self::Input => streams.input.piece(PIECE_BYTES).await.map(Ok),
            Self::File { download, offset } => {
                let piece = download.read_at(*offset, PIECE_BYTES).await;
                Ok(piece.map(|piece| {
                    *offset += length_of(&piece);
                    (!piece.is_empty()).then_some(piece)
                }))
            }
        }
    }
}

fn length_of(piece: &[u8]) -> u64 {
    u64::try_from(piece.len()).unwrap_or(u64::MAX)
}

/// Says why a file could not be read, in the words of `cat`.
async fn refuse(context: &mut Context<'_>, operand: &[u8], refusal: &Refusal) -> io::Result<()> {
    context.refuse("", operand, refusal).await
}

pub(super) static CAT: Spec = Spec {
    name: "cat",
    operands: "[FILE]...",
    about: "Print files one after the other; standard input without a file or for '-'.",
    syntax: Syntax::Options(&[
        flag("n", "number", "number the lines"),
        flag("u", "", "accepted; output is not held back"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(cat(context, arguments)),
};

async fn cat(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let mut numbers = arguments.has("n").then(Numbers::default);
    let mut success = true;
    for operand in arguments.operands_or(b"-") {
        let read = match Reader::open(context.shell, &operand).await {
            Ok(reader) => pour(&mut context, reader, &mut numbers).await?,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = read {
            success = false;
            refuse(&mut context, &operand, &refusal).await?;
        }
    }
    Ok(ExitStatus::of(success))
}

async fn pour(
    context: &mut Context<'_>,
    mut reader: Reader,
    numbers: &mut Option<Numbers>,
) -> io::Result<Result<(), Refusal>> {
    let interactive = matches!(reader, Reader::Input);
    loop {
        let piece = match reader.piece(context.streams).await? {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(Ok(())),
            Err(refusal) => return Ok(Err(refusal)),
        };
        match numbers {
            Some(numbers) => context.print(&numbers.put_into(&piece)).await?,
            None => context.print(&piece).await?,
        }
        if interactive {
            context.streams.flush().await?;
        }
    }
}

/// The numbering of `cat -n`, which goes on from file to file.
#[derive(Default)]
struct Numbers {
    lines: u64,
    within_line: bool,
}

impl Numbers {
    fn put_into(&mut self, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(content.len() * 2);
        for piece in content.split_inclusive(|byte| *byte == b'\n') {
            if !self.within_line {
                self.lines += 1;
                out.extend_from_slice(format!("{:6}\t", self.lines).as_bytes());
            }
            out.extend_from_slice(piece);
            self.within_line = piece.last() != Some(&b'\n');
        }
        out
    }
}

pub(super) static HEAD: Spec = Spec {
    name: "head",
    operands: "[FILE]...",
    about: "Print the first 10 lines of files, or as many as asked for.",
    syntax: Syntax::CountedOptions(&[
        valued("n", "lines", "N", "print the first N lines"),
        valued(
            "c",
            "bytes",
            "N",
            "print the first N bytes; K, M and G are understood",
        ),
        flag("q", "quiet", "no names between files"),
        flag("v", "verbose", "names even with one file"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(head(context, arguments)),
};

pub(super) static TAIL: Spec = Spec {
    name: "tail",
    operands: "[FILE]...",
    about: "Print the last 10 lines of files, or as many as asked for.",
    syntax: Syntax::CountedOptions(&[
        valued(
            "n",
            "lines",
            "[+]N",
            "print the last N lines, or all from line N on",
        ),
        valued(
            "c",
            "bytes",
            "[+]N",
            "print the last N bytes, or all from byte N on",
        ),
        flag("q", "quiet", "no names between files"),
        flag("v", "verbose", "names even with one file"),
        flag("fF", "", "not offered: no file is followed"),
        optional("follow", "HOW", "the same"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(tail(context, arguments)),
};

/// How much of a file is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Amount {
    count: u64,
    unit: Unit,
    /// `+N`: not the last ones, but all from the Nth on.
    from_start: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Lines,
    Bytes,
}

impl Amount {
    fn of(arguments: &Arguments) -> Result<Self, String> {
        let Some((key, text)) = arguments.last_of(&["n", "c"]) else {
            return Ok(Self {
                count: 10,
                unit: Unit::Lines,
                from_start: false,
            });
        };
        let (unit, name) = match key {
            "n" => (Unit::Lines, "lines"),
            _ => (Unit::Bytes, "bytes"),
        };
        let (from_start, digits) = match text {
            [b'+', digits @ ..] => (true, digits),
            // To `tail` the sign says nothing, and `head` has none.
            [b'-', digits @ ..] => (false, digits),
            digits => (false, digits),
        };
        let count = parse_count(digits)
            .ok_or_else(|| format!("invalid number of {name}: {}", quoted(text)))?;
        Ok(Self {
            count,
            unit,
            from_start,
        })
    }
}

/// A number with one of GNU's suffixes.
pub(super) fn parse_count(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor = match suffix {
        "" => 1,
        "b" => 512,
        "kB" => 1000,
        "k" | "K" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "m" | "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The names between several files.
struct Titles {
    shown: bool,
    first: bool,
}

impl Titles {
    fn of(arguments: &Arguments, files: usize) -> Self {
        let shown = match arguments.last_of(&["q", "v"]) {
            Some((key, _)) => key == "v",
            None => files > 1,
        };
        Self { shown, first: true }
    }

    async fn print(&mut self, context: &mut Context<'_>, operand: &[u8]) -> io::Result<()> {
        if !self.shown {
            return Ok(());
        }
        let before = if std::mem::take(&mut self.first) {
            ""
        } else {
            "\n"
        };
        let name = if operand == b"-" {
            b"standard input"
        } else {
            operand
        };
        let title = [before.as_bytes(), b"==> ", name, b" <==\n"].concat();
        context.print(&title).await
    }
}

/// Whether the number has a minus: to `head`, all but the last ones.
fn is_negative(arguments: &Arguments) -> bool {
    let amount = arguments.last_of(&["n", "c"]);
    amount.is_some_and(|(_, text)| text.starts_with(b"-"))
}

async fn head(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    if is_negative(&arguments) {
        let why =
            "all but the last of a file (-N) is not offered; without a sign N counts the first";
        return context.misused(why).await;
    }
    let amount = match Amount::of(&arguments) {
        Ok(amount) if !amount.from_start => amount,
        Ok(_) => return context.misused("a number with '+' is for tail").await,
        Err(why) => {
            context.complain(&why).await?;
            return Ok(ExitStatus::FAILURE);
        }
    };
    let operands = arguments.operands_or(b"-");
    let mut titles = Titles::of(&arguments, operands.len());
    let mut success = true;
    for operand in operands {
        let read = match Reader::open(context.shell, &operand).await {
            Ok(reader) => {
                titles.print(&mut context, &operand).await?;
                first(&mut context, reader, amount).await?
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = read {
            success = false;
            cannot_open(&mut context, &operand, &refusal).await?;
        }
    }
    Ok(ExitStatus::of(success))
}

/// In the words of `head` and `tail`.
async fn cannot_open(
    context: &mut Context<'_>,
    operand: &[u8],
    refusal: &Refusal,
) -> io::Result<()> {
    log(context.spec.name, operand, refusal);
    let why = refusal::text(refusal);
    let line = format!("cannot open {} for reading: {why}", quoted(operand));
    context.complain(&line).await
}

async fn first(
    context: &mut Context<'_>,
    mut reader: Reader,
    amount: Amount,
) -> io::Result<Result<(), Refusal>> {
    let mut left = amount.count;
    while left > 0 {
        let piece = match reader.piece(context.streams).await? {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let length = skip(&piece, amount.unit, &mut left);
        context.print(piece.get(..length).unwrap_or(&piece)).await?;
    }
    Ok(Ok(()))
}

/// How many bytes of `piece` belong to the next `left` units, which are counted down.
fn skip(piece: &[u8], unit: Unit, left: &mut u64) -> usize {
    match unit {
        Unit::Bytes => {
            let length = usize::try_from(*left).map_or(piece.len(), |left| left.min(piece.len()));
            *left -= length_of(piece.get(..length).unwrap_or(piece));
            length
        }
        Unit::Lines => {
            for (at, byte) in piece.iter().enumerate() {
                if *left == 0 {
                    return at;
                }
                if *byte == b'\n' {
                    *left -= 1;
                }
            }
            piece.len()
        }
    }
}

async fn tail(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    if arguments.has("f") || arguments.has("follow") {
        let why =
            "following a file is not offered; `tail -c +N` shows what is new behind N - 1 bytes";
        return context.misused(why).await;
    }
    let amount = match Amount::of(&arguments) {
        Ok(amount) => amount,
        Err(why) => {
            context.complain(&why).await?;
            return Ok(ExitStatus::FAILURE);
        }
    };
    let operands = arguments.operands_or(b"-");
    let mut titles = Titles::of(&arguments, operands.len());
    let mut success = true;
    for operand in operands {
        let read = match Reader::open(context.shell, &operand).await {
            Ok(reader) => {
                titles.print(&mut context, &operand).await?;
                last(&mut context, reader, amount).await?
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = read {
            success = false;
            cannot_open(&mut context, &operand, &refusal).await?;
        }
    }
    Ok(ExitStatus::of(success))
}

async fn last(
    context: &mut Context<'_>,
    mut reader: Reader,
    amount: Amount,
) -> io::Result<Result<(), Refusal>> {
    if amount.from_start {
        return rest_from(context, reader, amount).await;
    }
    match &mut reader {
        Reader::Input => last_of_input(context, amount).await,
        Reader::File { download, offset } => {
            match start_of_last(download, amount).await {
                Ok(start) => *offset = start,
                Err(refusal) => return Ok(Err(refusal)),
            }
            pour(context, reader, &mut None).await
        }
    }
}

/// Everything from the Nth unit on; the first one has the number 1.
async fn rest_from(
    context: &mut Context<'_>,
    mut reader: Reader,
    amount: Amount,
) -> io::Result<Result<(), Refusal>> {
    let mut left = amount.count.saturating_sub(1);
    while left > 0 {
        let piece = match reader.piece(context.streams).await? {
            Ok(Some(piece)) => piece,
            Ok(None) => return Ok(Ok(())),
            Err(refusal) => return Ok(Err(refusal)),
        };
        let length = skip(&piece, amount.unit, &mut left);
        if left == 0 {
            context
                .print(piece.get(length..).unwrap_or_default())
                .await?;
        }
    }
    pour(context, reader, &mut None).await
}

/// Where the last units of a file begin, found from its end.
async fn start_of_last(download: &Download, amount: Amount) -> Result<u64, Refusal> {
    let size = download.entry().size;
    if amount.unit == Unit::Bytes {
        return Ok(size.saturating_sub(amount.count));
    }
    if amount.count == 0 {
        return Ok(size);
    }
    let mut left = amount.count;
    let mut end = size;
    while end > 0 {
        let piece_bytes = u64::try_from(PIECE_BYTES).unwrap_or(u64::MAX).min(end);
        let start = end - piece_bytes;
        let length = usize::try_from(piece_bytes).unwrap_or(PIECE_BYTES);
        let piece = read_exactly(download, start, length).await?;
        for (at, byte) in piece.iter().enumerate().rev() {
            let behind = start + u64::try_from(at).unwrap_or(u64::MAX) + 1;
            // The line end at the very end ends the last line and begins none.
            if *byte == b'\n' && behind < size {
                left -= 1;
                if left == 0 {
                    return Ok(behind);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// `length` bytes, or fewer where the file has become shorter.
async fn read_exactly(download: &Download, start: u64, length: usize) -> Result<Vec<u8>, Refusal> {
    let mut content = Vec::with_capacity(length);
    while content.len() < length {
        let offset = start.saturating_add(length_of(&content));
        let piece = download.read_at(offset, length - content.len()).await?;
        if piece.is_empty() {
            break;
        }
        content.extend_from_slice(&piece);
    }
    Ok(content)
}

/// Keeps the end of standard input, which cannot be read backwards.
async fn last_of_input(
    context: &mut Context<'_>,
    amount: Amount,
) -> io::Result<Result<(), Refusal>> {
    let mut kept = Vec::new();
    let mut searched_at = PIECE_BYTES;
    while let Some(piece) = context.streams.input.piece(PIECE_BYTES).await? {
        kept.extend_from_slice(&piece);
        // Searching costs as much as is kept, so not for each byte that comes alone.
        if kept.len() < searched_at {
            continue;
        }
        let start = start_of_kept(&kept, amount);
        // Moving what is kept costs as much as it is long.
        if start > kept.len() / 2 {
            kept.drain(..start);
        } else if kept.len() - start > MAX_KEPT_BYTES {
            return Ok(Err(Refusal::Io(io::Error::other(TooMuchToKeep))));
        }
        searched_at = kept.len() + PIECE_BYTES;
    }
    let start = start_of_kept(&kept, amount);
    context.print(kept.get(start..).unwrap_or_default()).await?;
    Ok(Ok(()))
}

fn start_of_kept(kept: &[u8], amount: Amount) -> usize {
    let count = usize::try_from(amount.count).unwrap_or(usize::MAX);
    if amount.unit == Unit::Bytes || count == 0 {
        return kept.len().saturating_sub(count);
    }
    let before_end = kept.len().saturating_sub(1);
    let ends = kept.iter().take(before_end).enumerate().rev();
    let mut ends = ends.filter(|(_, byte)| **byte == b'\n');
    ends.nth(count - 1).map_or(0, |(at, _)| at + 1)
}

/// The end of an input that was asked for is too long.
#[derive(Debug, thiserror::Error)]
#[error("more than {MAX_KEPT_BYTES} bytes of standard input would have to be kept")]
struct TooMuchToKeep;

pub(super) static WC: Spec = Spec {
    name: "wc",
    operands: "[FILE]...",
    about: "Count lines, words and bytes.",
    syntax: Syntax::Options(&[
        flag("l", "lines", "count line ends"),
        flag("w", "words", "count words"),
        flag("m", "chars", "count characters of UTF-8"),
        flag("c", "bytes", "count bytes"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(wc(context, arguments)),
};

/// What `wc` counts.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    lines: u64,
    words: u64,
    characters: u64,
    bytes: u64,
    within_word: bool,
}

impl Counts {
    fn take(&mut self, content: &[u8]) {
        self.bytes += length_of(content);
        for byte in content {
            self.lines += u64::from(*byte == b'\n');
            // Every byte of a character but its first has these two bits.
            self.characters += u64::from(byte & 0xc0 != 0x80);
            let space = byte.is_ascii_whitespace() || *byte == 0x0b;
            if !space && !self.within_word {
                self.words += 1;
            }
            self.within_word = !space;
        }
    }

    fn add(&mut self, other: Self) {
        self.lines += other.lines;
        self.words += other.words;
        self.characters += other.characters;
        self.bytes += other.bytes;
    }
}

/// Which counts are printed, and how wide.
struct Columns {
    lines: bool,
    words: bool,
    characters: bool,
    bytes: bool,
    width: usize,
}

impl Columns {
    fn of(arguments: &Arguments) -> Self {
        let (lines, words) = (arguments.has("l"), arguments.has("w"));
        let (characters, bytes) = (arguments.has("m"), arguments.has("c"));
        let usual = !(lines || words || characters || bytes);
        Self {
            lines: lines || usual,
            words: words || usual,
            characters,
            bytes: bytes || usual,
            width: 1,
        }
    }

    fn chosen(&self) -> usize {
        let all = [self.lines, self.words, self.characters, self.bytes];
        all.into_iter().filter(|chosen| *chosen).count()
    }

    fn line(&self, counts: Counts, name: Option<&[u8]>) -> Vec<u8> {
        let all = [
            (self.lines, counts.lines),
            (self.words, counts.words),
            (self.characters, counts.characters),
            (self.bytes, counts.bytes),
        ];
        let chosen = all.into_iter().filter(|(chosen, _)| *chosen);
        let fields: Vec<String> = chosen
            .map(|(_, count)| format!("{count:>width$}", width = self.width))
            .collect();
        let mut line = fields.join(" ").into_bytes();
        if let Some(name) = name {
            line.push(b' ');
            // A name cannot forge a line of counts (GNU quotes such names too).
            if name.contains(&b'\n') {
                line.extend_from_slice(quoted_if_needed(name).as_bytes());
            } else {
                line.extend_from_slice(name);
            }
        }
        line.push(b'\n');
        line
    }
}

async fn wc(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let mut columns = Columns::of(&arguments);
    let operands = arguments.operands_or(b"-");
    columns.width = if columns.chosen() == 1 && operands.len() == 1 {
        1
    } else {
        width_of_counts(context.shell, &operands).await
    };
    let mut success = true;
    let mut total = Counts::default();
    for operand in &operands {
        let counted = match Reader::open(context.shell, operand).await {
            Ok(reader) => count(&mut context, reader).await?,
            Err(refusal) => Err(refusal),
        };
        match counted {
            Ok(counts) => {
                total.add(counts);
                let name = (!arguments.operands.is_empty()).then_some(operand.as_slice());
                context.print(&columns.line(counts, name)).await?;
            }
            Err(refusal) => {
                success = false;
                refuse(&mut context, operand, &refusal).await?;
            }
        }
    }
    if operands.len() > 1 {
        context.print(&columns.line(total, Some(b"total"))).await?;
    }
    Ok(ExitStatus::of(success))
}

async fn count(
    context: &mut Context<'_>,
    mut reader: Reader,
) -> io::Result<Result<Counts, Refusal>> {
    let mut counts = Counts::default();
    loop {
        match reader.piece(context.streams).await? {
            Ok(Some(piece)) => counts.take(&piece),
            Ok(None) => return Ok(Ok(counts)),
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
}

/// Wide enough for the sizes of all files together; 7 where something is no file, as GNU has it.
async fn width_of_counts(shell: &Interpreter, operands: &[Vec<u8>]) -> usize {
    let (mut bytes, mut least) = (0_u64, 1);
    for operand in operands {
        if operand == b"-" {
            least = 7;
            continue;
        }
        let Ok(path) = shell.path(operand) else {
            continue;
        };
        match shell.vfs().metadata(&path).await {
            Ok(entry) if entry.kind == EntryKind::File => bytes = bytes.saturating_add(entry.size),
            Ok(_) => least = 7,
            Err(_) => {}
        }
    }
    bytes.to_string().len().max(least)
}
