//! Commands that change names and directories: mkdir, rmdir, rm, mv, cp, touch, chmod.

use std::io;
use std::time::SystemTime;

use wharf_model::{Entry, EntryKind, Refusal, VirtualPath};
use wharf_vfs::{Disposition, UploadOptions};

use super::ExitStatus;
use super::interpreter::Interpreter;
use super::moment::{parse_date, parse_stamp};
use super::quote::quoted;
use super::refusal;
use super::table::{Arguments, Context, Outcome, Spec, Syntax, flag, log, valued};
use super::walk::{Step, Walk};

pub(super) static MKDIR: Spec = Spec {
    name: "mkdir",
    operands: "DIRECTORY...",
    about: "Make directories.",
    syntax: Syntax::Options(&[
        flag(
            "p",
            "parents",
            "those above too, and no error if there is one",
        ),
        flag("v", "verbose", "print each one"),
        valued("m", "mode", "MODE", "with this mode, in octal"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(mkdir(context, arguments)),
};

async fn mkdir(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let mode = match arguments.value("m").map(parse_mode).transpose() {
        Ok(mode) => mode,
        Err(why) => return context.misused(&why).await,
    };
    if arguments.operands.is_empty() {
        return context.misused("missing operand").await;
    }
    let mut success = true;
    for operand in &arguments.operands {
        let made = match context.path(operand) {
            Ok(path) if arguments.has("p") => make_all(context.shell, &path, mode).await,
            Ok(path) => make_one(context.shell, &path, mode).await.map(|()| true),
            Err(refusal) => Err(refusal),
        };
        match made {
            Ok(made) => {
                if made && arguments.has("v") {
                    let line = format!("mkdir: created directory {}\n", quoted(operand));
                    context.print(line.as_bytes()).await?;
                }
            }
            Err(refusal) => {
                success = false;
                context
                    .refuse("cannot create directory", operand, &refusal)
                    .await?;
            }
        }
    }
    Ok(ExitStatus::of(success))
}

async fn make_one(
    shell: &Interpreter,
    path: &VirtualPath,
    mode: Option<u32>,
) -> Result<(), Refusal> {
    let vfs = shell.vfs();
    vfs.make_directory(path).await?;
    match mode {
        Some(mode) => vfs.set_mode(path, mode).await,
        None => Ok(()),
    }
}

/// Makes `path` and what is missing above it; whether `path` itself was made.
async fn make_all(
    shell: &Interpreter,
    path: &VirtualPath,
    mode: Option<u32>,
) -> Result<bool, Refusal> {
    let vfs = shell.vfs();
    let mut missing = Vec::new();
    let mut at = Some(path.clone());
    while let Some(path) = at {
        match vfs.enter(&path).await {
            Ok(()) => break,
            Err(Refusal::NotFound) => {
                at = path.parent();
                missing.push(path);
            }
            Err(Refusal::NotADirectory) if missing.is_empty() => {
                return Err(Refusal::AlreadyExists);
            }
            Err(refusal) => return Err(refusal),
        }
    }
    let made = !missing.is_empty();
    while let Some(next) = missing.pop() {
        let mode = mode.filter(|_| missing.is_empty());
        match make_one(shell, &next, mode).await {
            // Somebody else made it meanwhile.
            Err(Refusal::AlreadyExists) => vfs.enter(&next).await?,
            made => made?,
        }
    }
    Ok(made)
}

pub(super) static RMDIR: Spec = Spec {
    name: "rmdir",
    operands: "DIRECTORY...",
    about: "Remove empty directories.",
    syntax: Syntax::Options(&[flag("v", "verbose", "print each one")]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(rmdir(context, arguments)),
};

async fn rmdir(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    if arguments.operands.is_empty() {
        return context.misused("missing operand").await;
    }
    let mut success = true;
    for operand in &arguments.operands {
        let removed = match context.path(operand) {
            Ok(path) => context.shell.vfs().remove_directory(&path).await,
            Err(refusal) => Err(refusal),
        };
        match removed {
            Ok(()) if arguments.has("v") => {
                let line = format!("rmdir: removing directory, {}\n", quoted(operand));
                context.print(line.as_bytes()).await?;
            }
            Ok(()) => {}
            Err(refusal) => {
                success = false;
                context
                    .refuse("failed to remove", operand, &refusal)
                    .await?;
            }
        }
    }
    Ok(ExitStatus::of(success))
}

pub(super) static RM: Spec = Spec {
    name: "rm",
    operands: "FILE...",
    about: "Remove files, and with -r directories with all that is in them.",
    syntax: Syntax::Options(&[
        flag("rR", "recursive", "directories too"),
        flag("f", "force", "no error for what is not there"),
        flag("d", "dir", "empty directories too"),
        flag("v", "verbose", "print each name"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(rm(context, arguments)),
};

async fn rm(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let force = arguments.has("f");
    if arguments.operands.is_empty() && !force {
        return context.misused("missing operand").await;
    }
    let mut success = true;
    for operand in &arguments.operands {
        success &= remove(&mut context, operand, &arguments).await?;
    }
    Ok(ExitStatus::of(success))
}

/// Removes one argument; whether that went well.
async fn remove(
    context: &mut Context<'_>,
    operand: &[u8],
    arguments: &Arguments,
) -> io::Result<bool> {
    let verbose = arguments.has("v");
    if names_itself(operand) {
        let what = format!(
            "refusing to remove '.' or '..' directory: skipping {}",
            quoted(operand)
        );
        context.complain(&what).await?;
        return Ok(false);
    }
    let path = match context.path(operand) {
        Ok(path) if path.is_root() => {
            context
                .complain("it is dangerous to operate recursively on '/'; remove what is in it")
                .await?;
            return Ok(false);
        }
        Ok(path) => path,
        Err(refusal) => {
            context.refuse("cannot remove", operand, &refusal).await?;
            return Ok(false);
        }
    };
    let vfs = context.shell.vfs().clone();
    let removed = match vfs.remove_file(&path).await {
        Err(Refusal::IsADirectory) if arguments.has("r") => {
            return remove_tree(context, path, operand, verbose).await;
        }
        Err(Refusal::IsADirectory) if arguments.has("d") => vfs.remove_directory(&path).await,
        other => other,
    };
    match removed {
        Ok(()) => {
            if verbose {
                let line = format!("removed {}\n", quoted(operand));
                context.print(line.as_bytes()).await?;
            }
            Ok(true)
        }
        Err(Refusal::NotFound | Refusal::NotADirectory) if arguments.has("f") => Ok(true),
        Err(refusal) => {
            context.refuse("cannot remove", operand, &refusal).await?;
            Ok(false)
        }
    }
}

/// Whether the last component is `.` or `..`.
fn names_itself(operand: &[u8]) -> bool {
    let mut components = operand.rsplit(|byte| *byte == b'/');
    let last = components.find(|component| !component.is_empty());
    matches!(last, Some(b"." | b".."))
}

async fn remove_tree(
    context: &mut Context<'_>,
    start: VirtualPath,
    operand: &[u8],
    verbose: bool,
) -> io::Result<bool> {
    let vfs = context.shell.vfs().clone();
    let mut success = true;
    let mut walk = Walk::new(&vfs, start.clone(), usize::MAX);
    while let Some(step) = walk.next().await {
        let (path, removed, what) = match step {
            Step::Found { entry, .. } if entry.kind == EntryKind::Directory => continue,
            Step::Found { path, .. } => {
                let removed = vfs.remove_file(&path).await;
                (path, removed, "")
            }
            Step::Left { path, .. } => {
                let removed = vfs.remove_directory(&path).await;
                (path, removed, "directory ")
            }
            Step::Refused { path, refusal } => (path, Err(refusal), ""),
        };
        let shown = below(operand, &start, &path);
        match removed {
            Ok(()) if verbose => {
                let line = format!("removed {what}{}\n", quoted(&shown));
                context.print(line.as_bytes()).await?;
            }
            // Gone is gone, whoever did it.
            Ok(()) | Err(Refusal::NotFound) => {}
            // What is left of it was named already.
            Err(Refusal::NotEmpty) if !success => {}
            Err(refusal) => {
                success = false;
                context.refuse("cannot remove", &shown, &refusal).await?;
            }
        }
    }
    Ok(success)
}

/// `path`, which is `start` or below it, as somebody would type it who typed `operand` for `start`.
pub(super) fn below(operand: &[u8], start: &VirtualPath, path: &VirtualPath) -> Vec<u8> {
    let head = if start.is_root() {
        &b""[..]
    } else {
        start.as_bytes()
    };
    let rest = path.as_bytes().strip_prefix(head).unwrap_or_default();
    let rest = rest.strip_prefix(b"/").unwrap_or(rest);
    if rest.is_empty() {
        return operand.to_vec();
    }
    let separator: &[u8] = if operand.ends_with(b"/") { b"" } else { b"/" };
    [operand, separator, rest].concat()
}

pub(super) static MV: Spec = Spec {
    name: "mv",
    operands: "SOURCE... DESTINATION",
    about: "Rename, or move into a directory.",
    syntax: Syntax::Options(&[
        flag("f", "force", "accepted; nobody is asked"),
        flag("n", "no-clobber", "leave what is there already"),
        flag("v", "verbose", "print each name"),
        flag(
            "T",
            "no-target-directory",
            "take the destination for the new name",
        ),
        valued(
            "t",
            "target-directory",
            "DIRECTORY",
            "move all into this directory",
        ),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(mv(context, arguments)),
};

pub(super) static CP: Spec = Spec {
    name: "cp",
    operands: "SOURCE... DESTINATION",
    about: "Copy files, and with -r directories. Links are followed or left out.",
    syntax: Syntax::Options(&[
        flag("rR", "recursive", "directories with all that is in them"),
        flag("a", "archive", "the same as -r -p"),
        flag("p", "preserve", "with times and modes"),
        flag("f", "force", "accepted; nobody is asked"),
        flag("n", "no-clobber", "leave what is there already"),
        flag("v", "verbose", "print each name"),
        flag(
            "T",
            "no-target-directory",
            "take the destination for the new name",
        ),
        valued(
            "t",
            "target-directory",
            "DIRECTORY",
            "copy all into this directory",
        ),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(cp(context, arguments)),
};

/// Where something goes.
struct Move {
    /// As typed.
    source: Vec<u8>,
    destination: Vec<u8>,
}

/// Why it is not known where something goes.
enum NoDestination {
    Misuse(String),
    /// Several things go to one place that is no directory.
    Target(Vec<u8>, Refusal),
}

impl NoDestination {
    async fn tell(self, context: &mut Context<'_>) -> Outcome {
        match self {
            Self::Misuse(why) => context.misused(&why).await,
            Self::Target(name, refusal) => {
                context.refuse("target", &name, &refusal).await?;
                Ok(ExitStatus::FAILURE)
            }
        }
    }
}

/// Reads `SOURCE... DESTINATION`, as `mv` and `cp` do.
async fn moves(shell: &Interpreter, arguments: &Arguments) -> Result<Vec<Move>, NoDestination> {
    let misuse = |why: String| Err(NoDestination::Misuse(why));
    let mut sources = arguments.operands.clone();
    let into = arguments.value("t").map(<[u8]>::to_vec);
    let (destination, entered) = match into {
        Some(directory) => {
            let entered = enter(shell, &directory).await;
            (directory, Some(entered))
        }
        None => {
            let Some(destination) = sources.pop() else {
                return misuse("missing file operand".to_owned());
            };
            if sources.is_empty() {
                let shown = quoted(&destination);
                return misuse(format!("missing destination file operand after {shown}"));
            }
            let entered = if arguments.has("T") {
                None
            } else {
                Some(enter(shell, &destination).await)
            };
            (destination, entered)
        }
    };
    if sources.is_empty() {
        return misuse("missing file operand".to_owned());
    }
    let into_directory = matches!(entered, Some(Ok(())));
    if !into_directory && (sources.len() > 1 || arguments.has("t")) {
        return match entered {
            Some(Err(refusal)) => Err(NoDestination::Target(destination, refusal)),
            _ => misuse(format!("extra operand {}", quoted(&destination))),
        };
    }
    let moves = sources.into_iter().map(|source| {
        let destination = if into_directory {
            let name = last_component(&source);
            let separator: &[u8] = if destination.ends_with(b"/") {
                b""
            } else {
                b"/"
            };
            [destination.as_slice(), separator, name].concat()
        } else {
            destination.clone()
        };
        Move {
            source,
            destination,
        }
    });
    Ok(moves.collect())
}

async fn enter(shell: &Interpreter, operand: &[u8]) -> Result<(), Refusal> {
    let path = shell.path(operand)?;
    shell.vfs().enter(&path).await
}

fn last_component(path: &[u8]) -> &[u8] {
    let mut components = path.rsplit(|byte| *byte == b'/');
    components
        .find(|component| !component.is_empty())
        .unwrap_or_default()
}

async fn mv(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let moves = match moves(context.shell, &arguments).await {
        Ok(moves) => moves,
        Err(no) => return no.tell(&mut context).await,
    };
    let mut success = true;
    for one in moves {
        match rename(context.shell, &one, arguments.has("n")).await {
            Ok(true) if arguments.has("v") => {
                let (from, to) = (quoted(&one.source), quoted(&one.destination));
                context
                    .print(format!("renamed {from} -> {to}\n").as_bytes())
                    .await?;
            }
            Ok(_) => {}
            Err(refusal) => {
                success = false;
                two_names(&mut context, "cannot move", &one, &refusal).await?;
            }
        }
    }
    Ok(ExitStatus::of(success))
}

/// Whether it was renamed, and not left for what stands there.
async fn rename(shell: &Interpreter, one: &Move, keep: bool) -> Result<bool, Refusal> {
    let (from, to) = (shell.path(&one.source)?, shell.path(&one.destination)?);
    let vfs = shell.vfs();
    if keep && vfs.link_metadata(&to).await.is_ok() {
        return Ok(false);
    }
    vfs.rename(&from, &to).await.map(|()| true)
}

/// What was being done to a file that could not be copied.
fn copying(refusal: &Refusal, one: &Move) -> String {
    match refusal {
        // The source was there a moment ago, so it is the destination's directory.
        Refusal::NotFound | Refusal::NotADirectory => {
            format!("cannot create regular file {}", quoted(&one.destination))
        }
        _ => {
            let (from, to) = (quoted(&one.source), quoted(&one.destination));
            format!("cannot copy {from} to {to}")
        }
    }
}

async fn two_names(
    context: &mut Context<'_>,
    doing: &str,
    one: &Move,
    refusal: &Refusal,
) -> io::Result<()> {
    log(context.spec.name, &one.source, refusal);
    let why = refusal::text(refusal);
    let (from, to) = (quoted(&one.source), quoted(&one.destination));
    let line = match refusal {
        Refusal::NotFound if doing == "cannot move" => format!("cannot stat {from}: {why}"),
        _ => format!("{doing} {from} to {to}: {why}"),
    };
    context.complain(&line).await
}

/// How `cp` copies.
struct Copy {
    recursive: bool,
    preserve: bool,
    keep: bool,
    verbose: bool,
}

async fn cp(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let copy = Copy {
        recursive: arguments.has("r") || arguments.has("a"),
        preserve: arguments.has("p") || arguments.has("a"),
        keep: arguments.has("n"),
        verbose: arguments.has("v"),
    };
    let moves = match moves(context.shell, &arguments).await {
        Ok(moves) => moves,
        Err(no) => return no.tell(&mut context).await,
    };
    let mut success = true;
    for one in moves {
        success &= copy.argument(&mut context, &one).await?;
    }
    Ok(ExitStatus::of(success))
}

impl Copy {
    async fn argument(&self, context: &mut Context<'_>, one: &Move) -> io::Result<bool> {
        let vfs = context.shell.vfs().clone();
        let source = match context.path(&one.source) {
            Ok(path) => vfs.metadata(&path).await.map(|entry| (path, entry)),
            Err(refusal) => Err(refusal),
        };
        let (from, entry) = match source {
            Ok(found) => found,
            Err(refusal) => {
                context.refuse("cannot stat", &one.source, &refusal).await?;
                return Ok(false);
            }
        };
        let to = match context.path(&one.destination) {
            Ok(path) => path,
            Err(refusal) => {
                two_names(context, "cannot copy", one, &refusal).await?;
                return Ok(false);
            }
        };
        if entry.kind != EntryKind::Directory {
            return self.file(context, &from, &to, &entry, one).await;
        }
        let shown = quoted(&one.source);
        if !self.recursive {
            let line = format!("-r not specified; omitting directory {shown}");
            context.complain(&line).await?;
            return Ok(false);
        }
        if to.starts_with(&from) {
            let to = quoted(&one.destination);
            let line = format!("cannot copy a directory, {shown}, into itself, {to}");
            context.complain(&line).await?;
            return Ok(false);
        }
        self.tree(context, &from, &to, &entry, one).await
    }

    async fn tree(
        &self,
        context: &mut Context<'_>,
        from: &VirtualPath,
        to: &VirtualPath,
        start: &Entry,
        one: &Move,
    ) -> io::Result<bool> {
        let vfs = context.shell.vfs().clone();
        let mut success = self.directory(context, to, one).await?;
        if !success {
            return Ok(false);
        }
        // A link can lead the copy into what is copied.
        let copy = vfs.metadata(to).await.ok().and_then(|entry| entry.unique);
        let mut walk = Walk::new(&vfs, from.clone(), usize::MAX);
        while let Some(step) = walk.next().await {
            let at = |path: &VirtualPath| {
                let source = below(&one.source, from, path);
                let destination = below(&one.destination, from, path);
                let target = below(to.as_bytes(), from, path);
                (
                    Move {
                        source,
                        destination,
                    },
                    VirtualPath::parse(&target),
                )
            };
            match step {
                Step::Found { path, entry, .. } if copy.is_some() && entry.unique == copy => {
                    walk.prune();
                    success = false;
                    let (from, to) = (quoted(&one.source), quoted(&at(&path).0.source));
                    let line = format!("cannot copy a directory, {from}, into itself, {to}");
                    context.complain(&line).await?;
                }
                Step::Found { path, entry, .. } => {
                    let (names, target) = at(&path);
                    success &= match target {
                        Ok(target) => self.found(context, &path, &target, &entry, &names).await?,
                        Err(error) => {
                            let refusal = Refusal::InvalidName(error);
                            two_names(context, "cannot copy", &names, &refusal).await?;
                            false
                        }
                    };
                }
                Step::Left { path, .. } if self.preserve => {
                    // Last, since what was copied into it has changed its time.
                    let facts = if path == *from {
                        Ok(start.clone())
                    } else {
                        vfs.link_metadata(&path).await
                    };
                    if let (Ok(facts), (_, Ok(target))) = (facts, at(&path)) {
                        self.keep_facts(context.shell, &target, &facts).await;
                    }
                }
                Step::Left { .. } => {}
                Step::Refused { path, refusal } => {
                    success = false;
                    let (names, _) = at(&path);
                    context
                        .refuse("cannot access", &names.source, &refusal)
                        .await?;
                }
            }
        }
        Ok(success)
    }

    async fn found(
        &self,
        context: &mut Context<'_>,
        from: &VirtualPath,
        to: &VirtualPath,
        entry: &Entry,
        names: &Move,
    ) -> io::Result<bool> {
        match entry.kind {
            EntryKind::Directory => self.directory(context, to, names).await,
            EntryKind::File => self.file(context, from, to, entry, names).await,
            EntryKind::Symlink | EntryKind::Other => {
                let line = format!("not copied, since it is no file: {}", quoted(&names.source));
                context.complain(&line).await?;
                Ok(false)
            }
        }
    }

    async fn directory(
        &self,
        context: &mut Context<'_>,
        to: &VirtualPath,
        names: &Move,
    ) -> io::Result<bool> {
        let vfs = context.shell.vfs();
        let made = match vfs.make_directory(to).await {
            Err(Refusal::AlreadyExists) => vfs.enter(to).await,
            made => made,
        };
        match made {
            Ok(()) => {
                self.announce(context, names).await?;
                Ok(true)
            }
            Err(refusal) => {
                let name = &names.destination;
                context
                    .refuse("cannot create directory", name, &refusal)
                    .await?;
                Ok(false)
            }
        }
    }

    async fn file(
        &self,
        context: &mut Context<'_>,
        from: &VirtualPath,
        to: &VirtualPath,
        entry: &Entry,
        names: &Move,
    ) -> io::Result<bool> {
        let vfs = context.shell.vfs().clone();
        if self.keep && vfs.link_metadata(to).await.is_ok() {
            return Ok(true);
        }
        if is_same(&vfs, entry, from, to).await {
            let (from, to) = (quoted(&names.source), quoted(&names.destination));
            context
                .complain(&format!("{from} and {to} are the same file"))
                .await?;
            return Ok(false);
        }
        if let Err(refusal) = vfs.copy(from, to).await {
            log(context.spec.name, &names.source, &refusal);
            let what = copying(&refusal, names);
            let line = format!("{what}: {}", refusal::text(&refusal));
            context.complain(&line).await?;
            return Ok(false);
        }
        if self.preserve {
            self.keep_facts(context.shell, to, entry).await;
        }
        self.announce(context, names).await?;
        Ok(true)
    }

    /// Sets time and mode like the source's; where the account may not, the copy stands as it is.
    async fn keep_facts(&self, shell: &Interpreter, to: &VirtualPath, facts: &Entry) {
        let vfs = shell.vfs();
        for kept in [
            vfs.set_mode(to, facts.mode & 0o777).await,
            vfs.set_modified(to, facts.modified).await,
        ] {
            if let Err(refusal) = kept {
                log("cp", to.as_bytes(), &refusal);
            }
        }
    }

    async fn announce(&self, context: &mut Context<'_>, names: &Move) -> io::Result<()> {
        if !self.verbose {
            return Ok(());
        }
        let (from, to) = (quoted(&names.source), quoted(&names.destination));
        context.print(format!("{from} -> {to}\n").as_bytes()).await
    }
}

/// Whether both names lead to one file.
async fn is_same(
    vfs: &wharf_vfs::Vfs,
    entry: &Entry,
    from: &VirtualPath,
    to: &VirtualPath,
) -> bool {
    if from == to {
        return true;
    }
    let Ok(there) = vfs.metadata(to).await else {
        return false;
    };
    entry.unique.is_some() && entry.unique == there.unique
}

pub(super) static TOUCH: Spec = Spec {
    name: "touch",
    operands: "FILE...",
    about: "Set the modification time of files, and make those that are not there.",
    syntax: Syntax::Options(&[
        flag("c", "no-create", "make nothing"),
        flag(
            "m",
            "",
            "accepted; the time of modification is the only one",
        ),
        flag(
            "a",
            "",
            "accepted; the time of modification is the only one",
        ),
        valued("t", "", "STAMP", "to [[CC]YY]MMDDhhmm[.ss], in UTC"),
        valued(
            "d",
            "date",
            "DATE",
            "to a date such as '2024-02-29 12:00:00' or @SECONDS",
        ),
        valued("r", "reference", "FILE", "to the time of this file"),
    ]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(touch(context, arguments)),
};

async fn touch(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    if arguments.operands.is_empty() {
        return context.misused("missing file operand").await;
    }
    let now = SystemTime::now();
    let time = match arguments.last_of(&["t", "d", "r"]) {
        None => now,
        Some(("r", name)) => match reference_time(context.shell, name).await {
            Ok(time) => time,
            Err(refusal) => {
                context
                    .refuse("failed to get attributes of", name, &refusal)
                    .await?;
                return Ok(ExitStatus::FAILURE);
            }
        },
        Some((key, text)) => {
            let parsed = str::from_utf8(text).ok().and_then(|text| match key {
                "t" => parse_stamp(text, now),
                _ => parse_date(text, now),
            });
            let Some(time) = parsed else {
                context
                    .complain(&format!("invalid date format {}", quoted(text)))
                    .await?;
                return Ok(ExitStatus::FAILURE);
            };
            time
        }
    };
    let mut success = true;
    for operand in &arguments.operands {
        let touched = match context.path(operand) {
            Ok(path) => touch_one(context.shell, &path, time, &arguments).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = touched {
            success = false;
            context.refuse("cannot touch", operand, &refusal).await?;
        }
    }
    Ok(ExitStatus::of(success))
}

async fn reference_time(shell: &Interpreter, name: &[u8]) -> Result<SystemTime, Refusal> {
    let path = shell.path(name)?;
    Ok(shell.vfs().metadata(&path).await?.modified)
}

async fn touch_one(
    shell: &Interpreter,
    path: &VirtualPath,
    time: SystemTime,
    arguments: &Arguments,
) -> Result<(), Refusal> {
    let vfs = shell.vfs();
    match vfs.set_modified(path, time).await {
        Err(Refusal::NotFound) if arguments.has("c") => return Ok(()),
        Err(Refusal::NotFound) => {}
        // An account that may upload and no more may make a file all the same.
        Err(Refusal::NotPermitted) if matches!(vfs.enter(path).await, Err(Refusal::NotFound)) => {}
        done => return done,
    }
    let options = UploadOptions {
        // Not in the place of what may have come there meanwhile.
        disposition: Disposition::Append,
        announced_bytes: None,
        digest: None,
    };
    vfs.create(path, options).await?.commit().await?;
    if arguments.last_of(&["t", "d", "r"]).is_some() {
        vfs.set_modified(path, time).await?;
    }
    Ok(())
}

pub(super) static CHMOD: Spec = Spec {
    name: "chmod",
    operands: "MODE FILE...",
    about: "Set the permission bits of files, in octal.",
    syntax: Syntax::Options(&[flag(
        "R",
        "recursive",
        "directories with all that is in them",
    )]),
    misuse: ExitStatus::FAILURE,
    run: |context, arguments| Box::pin(chmod(context, arguments)),
};

async fn chmod(mut context: Context<'_>, arguments: Arguments) -> Outcome {
    let Some((mode, operands)) = arguments.operands.split_first() else {
        return context.misused("missing operand").await;
    };
    let mode = match parse_mode(mode) {
        Ok(mode) => mode,
        Err(why) => return context.misused(&why).await,
    };
    if operands.is_empty() {
        return context.misused("missing operand").await;
    }
    let vfs = context.shell.vfs().clone();
    let mut success = true;
    for operand in operands {
        let set = match context.path(operand) {
            Ok(path) => vfs.set_mode(&path, mode).await.map(|()| path),
            Err(refusal) => Err(refusal),
        };
        let start = match set {
            Ok(path) => path,
            Err(refusal) => {
                success = false;
                context.refuse("cannot access", operand, &refusal).await?;
                continue;
            }
        };
        if !arguments.has("R") || vfs.enter(&start).await.is_err() {
            continue;
        }
        let mut walk = Walk::new(&vfs, start.clone(), usize::MAX);
        while let Some(step) = walk.next().await {
            let (path, set) = match step {
                Step::Found { entry, .. } if entry.kind == EntryKind::Symlink => continue,
                Step::Found { path, .. } => {
                    let set = vfs.set_mode(&path, mode).await;
                    (path, set)
                }
                Step::Left { .. } => continue,
                Step::Refused { path, refusal } => (path, Err(refusal)),
            };
            if let Err(refusal) = set {
                success = false;
                let shown = below(operand, &start, &path);
                context.refuse("cannot access", &shown, &refusal).await?;
            }
        }
    }
    Ok(ExitStatus::of(success))
}

fn parse_mode(text: &[u8]) -> Result<u32, String> {
    str::from_utf8(text)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)))
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("invalid mode: {} (octal digits are needed)", quoted(text)))
}
