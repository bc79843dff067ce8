//! `ls`.

use std::io;
use std::time::SystemTime;

use wharf_model::{Entry, EntryKind, Refusal, VirtualPath};
use wharf_vfs::Listing;

use super::interpreter::Interpreter;
use super::quote::quoted_if_needed;
use super::table::{Arguments, Context, Outcome, Spec, Syntax, flag, optional, valued};
use super::walk::MAX_PENDING_BYTES;
use super::{ExitStatus, moment};

/// Most entries of one directory that are sorted. A longer listing comes in the order of
/// the storage, as with `-U`, and says so: it would not fit into memory for every client
/// that asks for it.
const MAX_SORTED: usize = 50_000;

pub(super) static LS: Spec = Spec {
    name: "ls",
    operands: "[FILE]...",
    about: "List directories and files. Times are in UTC, owners are numbers.",
    syntax: Syntax::Options(&[
        flag("a", "all", "names that begin with a dot too"),
        flag("A", "almost-all", "the same without . and .."),
        flag("l", "", "with mode, owner, size and time"),
        flag("n", "numeric-uid-gid", "the same"),
        flag("g", "", "the same without the owner"),
        flag("o", "", "the same without the group"),
        flag(
            "d",
            "directory",
            "directories themselves, not what is in them",
        ),
        flag("R", "recursive", "directories below too"),
        flag("h", "human-readable", "sizes as 1.5K, 2M"),
        flag("t", "", "newest first"),
        flag("S", "", "largest first"),
        flag("U", "", "in the order of the storage"),
        flag("f", "", "the same, and all names"),
        flag("r", "reverse", "in the opposite order"),
        flag(
            "F",
            "classify",
            "with / behind directories, * behind programs, @ behind links",
        ),
        flag("p", "", "with / behind directories"),
        flag("i", "inode", "with the number of the file"),
        flag("L", "dereference", "links as what they lead to"),
        flag("1C", "", "accepted; there is one name in a line"),
        flag("kqNb", "literal", "accepted"),
        valued("I", "ignore", "PATTERN", "without names like this"),
        valued("", "time-style", "STYLE", "full-iso, long-iso or locale"),
        flag("", "full-time", "-l with times as full-iso"),
        flag("", "group-directories-first", "directories before files"),
        optional("color", "WHEN", "accepted; there are no colours"),
    ]),
    misuse: ExitStatus::USAGE,
    run: |context, arguments| Box::pin(ls(context, arguments)),
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Name,
    Time,
    Size,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hidden {
    Left,
    Shown,
    WithDots,
}

#[derive(Debug, Clone, Copy)]
enum TimeStyle {
    Short,
    LongIso,
    FullIso,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    Directories,
    All,
}

/// How entries are shown.
struct Form {
    long: bool,
    owner: bool,
    group: bool,
    order: Order,
    reverse: bool,
    directories_first: bool,
    hidden: Hidden,
    human: bool,
    number: bool,
    mark: Mark,
    times: TimeStyle,
    follow: bool,
    ignored: Option<wharf_proto::exec::pattern::Pattern>,
    /// Names are quoted for a terminal.
    quote: bool,
    now: SystemTime,
}

impl Form {
    fn of(arguments: &Arguments, quote: bool) -> Result<Self, String> {
        let style = match arguments.value("time-style") {
            _ if arguments.has("full-time") => TimeStyle::FullIso,
            None | Some(b"locale") => TimeStyle::Short,
            Some(b"long-iso") => TimeStyle::LongIso,
            Some(b"full-iso") => TimeStyle::FullIso,
            Some(other) => {
                let shown = super::quote::quoted(other);
                return Err(format!("invalid argument {shown} for 'time style'"));
            }
        };
        let order = match arguments.last_of(&["t", "S", "U", "f"]) {
            Some(("t", _)) => Order::Time,
            Some(("S", _)) => Order::Size,
            Some(_) => Order::None,
            None => Order::Name,
        };
        let hidden = match arguments.last_of(&["a", "A", "f"]) {
            Some(("A", _)) => Hidden::Shown,
            Some(_) => Hidden::WithDots,
            None => Hidden::Left,
        };
        let mark = match arguments.last_of(&["F", "p"]) {
            Some(("F", _)) => Mark::All,
            Some(_) => Mark::Directories,
            None => Mark::None,
        };
        let long = ["l", "n", "g", "o", "full-time"];
        Ok(Self {
            long: long.iter().any(|key| arguments.has(key)),
            owner: !arguments.has("g"),
            group: !arguments.has("o"),
            order,
            reverse: arguments.has("r"),
            directories_first: arguments.has("group-directories-first"),
            hidden,
            human: arguments.has("h"),
            number: arguments.has("i"),
            mark,
            times: style,
            follow: arguments.has("L"),
            ignored: arguments
                .value("I")
                .map(wharf_proto::exec::pattern::Pattern::parse),
            quote,
            now: SystemTime::now(),
        })
    }

    fn shows(&self, name: &[u8]) -> bool {
        let hidden = self.hidden == Hidden::Left && name.starts_with(b".");
        let ignored = self
            .ignored
            .as_ref()
            .is_some_and(|ignored| ignored.matches(name));
        !hidden && !ignored
    }

    fn sort(&self, entries: &mut [Entry]) {
        match self.order {
            Order::None => {}
            Order::Name => entries.sort_by(|a, b| a.name.cmp(&b.name)),
            Order::Time => entries.sort_by(|a, b| {
                b.modified
                    .cmp(&a.modified)
                    .then_with(|| a.name.cmp(&b.name))
            }),
            Order::Size => {
                entries.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
            }
        }
        if self.reverse && self.order != Order::None {
            entries.reverse();
        }
        if self.directories_first {
            entries.sort_by_key(|entry| entry.kind != EntryKind::Directory);
        }
    }

    fn size(&self, entry: &Entry) -> String {
        if self.human {
            human(entry.size)
        } else {
            entry.size.to_string()
        }
    }

    fn line(&self, entry: &Entry, widths: Widths, out: &mut Vec<u8>) {
        if self.number {
            let number = entry.unique.map_or(0, |(_, inode)| inode);
            out.extend_from_slice(format!("{number:>width$} ", width = widths.number).as_bytes());
        }
        if self.long {
            let mut fields = format!(
                "{} {:>width$} ",
                mode_text(entry),
                entry.links,
                width = widths.links
            );
            if self.owner {
                fields.push_str(&format!("{:<width$} ", entry.owner, width = widths.owner));
            }
            if self.group {
                fields.push_str(&format!("{:<width$} ", entry.group, width = widths.group));
            }
            let size = self.size(entry);
            let time = match self.times {
                TimeStyle::Short => moment::short(entry.modified, self.now),
                TimeStyle::LongIso => moment::long_iso(entry.modified),
                TimeStyle::FullIso => moment::full_iso(entry.modified),
            };
            fields.push_str(&format!("{size:>width$} {time} ", width = widths.size));
            out.extend_from_slice(fields.as_bytes());
        }
        if self.quote {
            out.extend_from_slice(quoted_if_needed(&entry.name).as_bytes());
        } else {
            out.extend_from_slice(&entry.name);
        }
        out.extend_from_slice(self.mark_of(entry));
        out.push(b'\n');
    }

    fn mark_of(&self, entry: &Entry) -> &'static [u8] {
        match (self.mark, entry.kind) {
            (Mark::None, _) => b"",
            (_, EntryKind::Directory) => b"/",
            (Mark::Directories, _) => b"",
            (Mark::All, EntryKind::Symlink) => {
                if self.long {
                    b""
                } else {
                    b"@"
                }
            }
            (Mark::All, EntryKind::File) if entry.mode & 0o111 != 0 => b"*",
            (Mark::All, _) => b"",
        }
    }
}

/// How wide the columns of a long listing are.
#[derive(Debug, Clone, Copy, Default)]
struct Widths {
    number: usize,
    links: usize,
    owner: usize,
    group: usize,
    size: usize,
}

impl Widths {
    /// Wide enough for what comes without having been seen before.
    const UNSEEN: Self = Self {
        number: 8,
        links: 3,
        owner: 5,
        group: 5,
        size: 12,
    };

    fn of(entries: &[Entry], form: &Form) -> Self {
        let mut widths = Self::default();
        for entry in entries {
            let number = entry.unique.map_or(0, |(_, inode)| inode);
            widths.number = widths.number.max(number.to_string().len());
            widths.links = widths.links.max(entry.links.to_string().len());
            widths.owner = widths.owner.max(entry.owner.to_string().len());
            widths.group = widths.group.max(entry.group.to_string().len());
            widths.size = widths.size.max(form.size(entry).len());
        }
        widths
    }
}

/// `drwxr-xr-x`.
pub(super) fn mode_text(entry: &Entry) -> String {
    let mut text = String::from(match entry.kind {
        EntryKind::File => "-",
        EntryKind::Directory => "d",
        EntryKind::Symlink => "l",
        EntryKind::Other => "?",
    });
    for (shift, special, letters) in [(6, 0o4000, "sS"), (3, 0o2000, "sS"), (0, 0o1000, "tT")] {
        let bits = entry.mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        let (with, without) = letters.split_at(1);
        text.push_str(match (entry.mode & special != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => "x",
            (false, false) => "-",
        });
    }
    text
}

/// `1.5K`: at most three digits, rounded up, in powers of 1024, as GNU writes it.
pub(super) fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1024 {
        return bytes.to_string();
    }
    let bytes = u128::from(bytes);
    let mut factor = 1024_u128;
    for (at, unit) in UNITS.iter().enumerate() {
        let tenths = (bytes * 10).div_ceil(factor);
        if tenths < 100 {
            return format!("{}.{}{unit}", tenths / 10, tenths % 10);
        }
        let whole = bytes.div_ceil(factor);
        if whole < 1024 || at + 1 == UNITS.len() {
            return format!("{whole}{unit}");
        }
        factor *= 1024;
    }
    String::new()
}

/// What the run of one `ls` remembers.
struct Run {
    form: Form,
    /// The worst that happened: 0, 1 (minor), 2 (an argument).
    status: ExitStatus,
    /// Whether a directory is announced by its name.
    titles: bool,
    /// Whether something was printed, so that an empty line belongs before the next directory.
    printed: bool,
    recursive: bool,
}

/// Names of the directories in a directory, as far as they are wanted and there is room.
#[derive(Default)]
struct Below {
    wanted: bool,
    names: Vec<Vec<u8>>,
    bytes: usize,
}

impl Below {
    fn push(&mut self, entry: &Entry) {
        let dots = matches!(entry.name.as_slice(), b"." | b"..");
        if !self.wanted || dots || entry.kind != EntryKind::Directory {
            return;
        }
        self.bytes += entry.name.len();
        if !self.is_full() {
            self.names.push(entry.name.clone());
        }
    }

    fn is_full(&self) -> bool {
        self.bytes > MAX_PENDING_BYTES
    }
}

async fn ls(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let form = match Form::of(&arguments, context.streams.shows_to_person()) {
        Ok(form) => form,
        Err(why) => return context.misused(&why).await,
    };
    let operands = arguments.operands_or(b".");
    let recursive = arguments.has("R");
    let mut run = Run {
        form,
        status: ExitStatus::SUCCESS,
        titles: operands.len() > 1 || recursive,
        printed: false,
        recursive,
    };
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for operand in operands {
        match facts(context.shell, &operand, &run.form).await {
            Ok((path, mut entry)) => {
                entry.name = operand;
                if entry.kind == EntryKind::Directory && !arguments.has("d") {
                    directories.push((path, entry));
                } else {
                    files.push(entry);
                }
            }
            Err(refusal) => {
                run.status = ExitStatus::USAGE;
                context.refuse("cannot access", &operand, &refusal).await?;
            }
        }
    }
    run.form.sort(&mut files);
    let mut lines = Vec::new();
    let widths = Widths::of(&files, &run.form);
    for entry in &files {
        run.form.line(entry, widths, &mut lines);
    }
    context.print(&lines).await?;
    run.printed = !files.is_empty();
    directories.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
    if run.form.reverse {
        directories.reverse();
    }
    for (path, entry) in directories {
        run.show_tree(&mut context, path, entry.name).await?;
    }
    Ok(run.status)
}

/// The facts of an argument. A link is shown itself in a long listing, and else followed
/// to a directory, as by GNU.
async fn facts(
    shell: &Interpreter,
    operand: &[u8],
    form: &Form,
) -> Result<(VirtualPath, Entry), Refusal> {
    let path = shell.path(operand)?;
    let vfs = shell.vfs();
    let itself = form.long && !form.follow && !operand.ends_with(b"/");
    let entry = if itself {
        vfs.link_metadata(&path).await?
    } else {
        vfs.metadata(&path).await?
    };
    Ok((path, entry))
}

impl Run {
    /// Lists a directory, and with `-R` all below it.
    async fn show_tree(
        &mut self,
        context: &mut Context<'_>,
        path: VirtualPath,
        name: Vec<u8>,
    ) -> io::Result<()> {
        let mut pending_bytes = 0;
        let mut pending = vec![(path, name)];
        while let Some((path, name)) = pending.pop() {
            pending_bytes -= usize::min(pending_bytes, path.as_bytes().len() + name.len());
            let below = match self.show(context, &path, &name).await? {
                Ok(below) => below,
                Err(refusal) => {
                    self.status = ExitStatus::USAGE;
                    context
                        .refuse("cannot open directory", &name, &refusal)
                        .await?;
                    continue;
                }
            };
            let mut full = below.is_full();
            for child in below.names.into_iter().rev() {
                let Ok(child_path) = path.resolve(&child) else {
                    continue;
                };
                let separator = if name.ends_with(b"/") { &b""[..] } else { b"/" };
                let child_name = [name.as_slice(), separator, &child].concat();
                pending_bytes += child_path.as_bytes().len() + child_name.len();
                full |= pending_bytes > MAX_PENDING_BYTES;
                pending.push((child_path, child_name));
            }
            if full {
                self.status = ExitStatus::USAGE;
                context
                    .complain("too many directories to list at one time")
                    .await?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lists one directory and returns the directories in it.
    async fn show(
        &mut self,
        context: &mut Context<'_>,
        path: &VirtualPath,
        name: &[u8],
    ) -> io::Result<Result<Below, Refusal>> {
        let vfs = context.shell.vfs().clone();
        let listed = if self.form.follow {
            vfs.list(path).await
        } else {
            vfs.list_links(path).await
        };
        let mut listing = match listed {
            Ok(listing) => listing,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.title(context, name).await?;
        let mut entries = Vec::new();
        if self.form.hidden == Hidden::WithDots {
            for (dot, at) in [(&b"."[..], Some(path.clone())), (b"..", path.parent())] {
                let at = at.unwrap_or_else(VirtualPath::root);
                if let Ok(mut entry) = vfs.metadata(&at).await {
                    entry.name = dot.to_vec();
                    entries.push(entry);
                }
            }
        }
        let complete = match self.gather(&mut listing, &mut entries).await {
            Ok(complete) => complete,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if complete {
            self.form.sort(&mut entries);
        }
        let widths = if complete {
            Widths::of(&entries, &self.form)
        } else {
            Widths::UNSEEN
        };
        if self.form.long && complete {
            let total = total_of(&entries, &self.form);
            context.print(format!("total {total}\n").as_bytes()).await?;
        }
        let mut below = Below {
            wanted: self.recursive,
            ..Below::default()
        };
        self.print(context, &entries, widths, &mut below).await?;
        if complete {
            return Ok(Ok(below));
        }
        if self.form.order != Order::None {
            let why = "too many entries to sort; they come as the storage has them";
            context.complain(why).await?;
        }
        drop(entries);
        loop {
            match listing.next_batch().await {
                Ok(Some(mut batch)) => {
                    batch.retain(|entry| self.form.shows(&entry.name));
                    self.print(context, &batch, widths, &mut below).await?;
                }
                Ok(None) => return Ok(Ok(below)),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
    }

    async fn title(&mut self, context: &mut Context<'_>, name: &[u8]) -> io::Result<()> {
        let before: &[u8] = if std::mem::replace(&mut self.printed, true) {
            b"\n"
        } else {
            b""
        };
        if !self.titles {
            return Ok(());
        }
        let shown = if self.form.quote {
            quoted_if_needed(name).into_bytes()
        } else {
            name.to_vec()
        };
        context.print(&[before, &shown, b":\n"].concat()).await
    }

    /// Takes entries in up to the bound; whether that was all.
    async fn gather(
        &self,
        listing: &mut Listing,
        entries: &mut Vec<Entry>,
    ) -> Result<bool, Refusal> {
        let most = if self.form.order == Order::None && !self.form.long {
            0
        } else {
            MAX_SORTED
        };
        while let Some(batch) = listing.next_batch().await? {
            entries.extend(
                batch
                    .into_iter()
                    .filter(|entry| self.form.shows(&entry.name)),
            );
            if entries.len() > most.max(2) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn print(
        &self,
        context: &mut Context<'_>,
        entries: &[Entry],
        widths: Widths,
        below: &mut Below,
    ) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            self.form.line(entry, widths, &mut lines);
            below.push(entry);
            if lines.len() > super::streams::PIECE_BYTES {
                context.print(&lines).await?;
                lines.clear();
            }
        }
        context.print(&lines).await
    }
}

/// The sum of the sizes in KiB, each file rounded up: the disk's own blocks are not known.
fn total_of(entries: &[Entry], form: &Form) -> String {
    let kibibytes = entries.iter().map(|entry| entry.size.div_ceil(1024));
    let total = kibibytes.fold(0, u64::saturating_add);
    if form.human {
        human(total.saturating_mul(1024))
    } else {
        total.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people_are_those_of_gnu() {
        // By `truncate -s N f; ls -sh --apparent-size`, and `ls -lh`.
        for (bytes, expected) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1025, "1.1K"),
            (10_137, "9.9K"),
            (10_138, "10K"),
            (10_240, "10K"),
            (10_241, "11K"),
            (1_047_552, "1023K"),
            (1_047_553, "1.0M"),
            (1_048_576, "1.0M"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(human(bytes), expected, "{bytes}");
        }
    }
}
