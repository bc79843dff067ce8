//! `wharf ls`.

use serde_json::{Value, json};
use wharf_client::{Found, RemoteEntry, UrlPath, list as list_directory};
use wharf_model::{EntryKind, VirtualPath};

use crate::cli::CliError;
use crate::cli::site::{Site, SiteArgs, UrlArgument, one_server, parse_all, run as run_on_site};
use crate::cli::text;

/// Options of `wharf ls`.
#[derive(clap::Args)]
#[command(after_help = "\
Times are UTC. Wildcards (*, ?, [a-z]) in the URL stand for what matches; quote them from your shell.

Example:
  wharf ls 'ftp://alice@files.example/photos/*.jpg'")]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    flags: Flags,
    /// What to list
    #[arg(required = true, value_name = "URL")]
    urls: Vec<UrlArgument>,
}

/// How entries are listed; for the shell's `ls` too.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct Flags {
    /// Names only, one a line
    #[arg(short = '1', long)]
    names: bool,
    /// Sizes in KiB, MiB and so on instead of bytes
    #[arg(short = 'H', long)]
    human_readable: bool,
    /// Directories themselves, not what is in them
    #[arg(short = 'd', long)]
    directory: bool,
    /// Newest first
    #[arg(short = 't', long)]
    by_time: bool,
    /// Largest first
    #[arg(short = 'S', long, conflicts_with = "by_time")]
    by_size: bool,
    /// The other way round
    #[arg(short = 'r', long)]
    reverse: bool,
    /// Does nothing: listings are long, and show all
    #[arg(short = 'l', hide = true)]
    _long: bool,
    /// Does nothing: listings are long, and show all
    #[arg(short = 'a', hide = true)]
    _all: bool,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let urls = parse_all(&args.urls)?;
    let paths: Vec<UrlPath> = urls.iter().map(|url| url.path.clone()).collect();
    run_on_site(&args.site, one_server(&urls)?, 1, async |site| {
        ls(site, &args.flags, &paths).await
    })
}

/// Lists what `paths` stand for: files, and the entries of directories.
pub(super) async fn ls(site: &Site, flags: &Flags, paths: &[UrlPath]) -> Result<(), CliError> {
    let mut alone = Vec::new();
    let mut directories = Vec::new();
    for path in paths {
        for found in site.find(path).await? {
            if found.entry.kind == EntryKind::Directory && !flags.directory {
                directories.push(found);
            } else {
                alone.push(found);
            }
        }
    }
    let with_headings = directories.len() + usize::from(!alone.is_empty()) > 1;
    for found in &alone {
        show(
            site,
            flags,
            &found.path,
            &found.entry,
            found.path.as_bytes(),
        );
    }
    for (index, Found { path, .. }) in directories.iter().enumerate() {
        if with_headings && !site.output.is_json() {
            let gap = if index == 0 && alone.is_empty() {
                ""
            } else {
                "\n"
            };
            site.output.result(&format!("{gap}{path}:"), || Value::Null);
        }
        let listing = list_directory(&site.pool, path, site.retries);
        let mut entries = site.at(path, listing).await?;
        sort(&mut entries, flags);
        for entry in &entries {
            show(site, flags, path, entry, &entry.name);
        }
    }
    Ok(())
}

fn sort(entries: &mut [RemoteEntry], flags: &Flags) {
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    if flags.by_time {
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.modified));
    } else if flags.by_size {
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.size));
    }
    if flags.reverse {
        entries.reverse();
    }
}

fn show(site: &Site, flags: &Flags, at: &VirtualPath, entry: &RemoteEntry, name: &[u8]) {
    let shown = text::shown_name(name, entry.kind);
    let line = if flags.names {
        shown.clone()
    } else {
        text::long_line(entry, &shown, !flags.human_readable)
    };
    site.output.result(&line, || entry_json(at, entry, name));
}

/// One entry for a program. A name that is no text is told in hexadecimal as well.
pub(super) fn entry_json(at: &VirtualPath, entry: &RemoteEntry, name: &[u8]) -> Value {
    let mut value = json!({
        "name": text::json_name(name),
        "directory": text::json_name(at.as_bytes()),
        "kind": text::kind_name(entry.kind),
        "size": entry.size,
        "modified": entry.modified.map(text::time_for_machines),
        "mode": entry.mode.map(|mode| format!("{mode:04o}")),
        "incomplete": entry.incomplete,
    });
    if let (Err(_), Some(object)) = (std::str::from_utf8(name), value.as_object_mut()) {
        let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        object.insert("name_hex".to_owned(), json!(hex));
    }
    value
}
