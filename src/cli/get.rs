//! `wharf get`.

use std::path::Path;

use wharf_client::{
    Direction, Download, Found, LocalTree, MirrorEnds, MirrorOptions, RemoteEntry, Summary,
    Transfers, UrlPath, Work, mirror, run_batch,
};
use wharf_model::{EntryKind, FileName, VirtualPath};

use crate::cli::CliError;
use crate::cli::local;
use crate::cli::site::{
    Site, SiteArgs, TransferArgs, UrlArgument, one_server, parse_all, run as run_on_site,
};

/// Options of `wharf get`.
#[derive(clap::Args)]
#[command(after_help = "\
A download is written beside its target, compared with the server's digest where the server makes one, and renamed \
into place. One that was cut is resumed by the same command, once the server's digest proves what is there.

Examples:
  wharf get ftp://alice@files.example/big.iso
  wharf get sftp://files.example/big.iso
  wharf get -r -j 8 'ftp://alice@files.example/photos/2026-*' pictures/")]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    flags: Flags,
    /// What to download, and at the end, unless it is the current folder, where to: a folder or a new name
    #[arg(required = true, value_name = "URL|LOCAL")]
    arguments: Vec<UrlArgument>,
}

/// How files are fetched; for the shell's `get` too.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct Flags {
    /// Directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    transfer: TransferArgs,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let mut arguments = args.arguments;
    let target = arguments
        .pop_if(|last| !last.looks_like_url())
        .map(UrlArgument::into_path);
    let urls = parse_all(&arguments)?;
    let paths: Vec<UrlPath> = urls.iter().map(|url| url.path.clone()).collect();
    let jobs = args.flags.transfer.jobs();
    run_on_site(&args.site, one_server(&urls)?, jobs, async |site| {
        get(site, &args.flags, &paths, target.as_deref()).await
    })
}

/// Downloads what `paths` stand for to `target`: a folder, or the name of the one copy.
pub(super) async fn get(
    site: &Site,
    flags: &Flags,
    paths: &[UrlPath],
    target: Option<&Path>,
) -> Result<(), CliError> {
    let mut found = Vec::new();
    for path in paths {
        found.extend(site.find(path).await?);
    }
    if !flags.recursive {
        let directory = |found: &&Found| found.entry.kind == EntryKind::Directory;
        if let Some(Found { path, .. }) = found.iter().find(directory) {
            return Err(CliError::Usage(format!(
                "{path} is a directory; add -r to download it with all that is in it"
            )));
        }
    }
    local::no_two_alike(found.iter().filter_map(|found| found.path.file_name()))?;
    let place = local::Place::of(target.unwrap_or(Path::new(".")), found.len())?;
    let transfers = site.transfers(&flags.transfer);
    let mut summary = Summary::default();
    let mut files = Vec::new();
    for Found { path, entry } in found {
        let name = path.file_name().map(FileName::parse).transpose();
        let name = name.map_err(|error| CliError::Usage(format!("{path}: {error}")))?;
        if entry.kind == EntryKind::Directory {
            let (tree, local) = place.directory(name.as_ref())?;
            let ends = MirrorEnds {
                direction: Direction::Download,
                remote: path,
                tree,
                local,
            };
            summary.add(&copy_tree(&transfers, &ends, flags).await?);
        } else if let Some(name) = name {
            let (tree, local) = place.file(&name)?;
            files.push(work(path, entry, tree, local));
        }
    }
    if !files.is_empty() {
        summary.add(&run_batch(&transfers, files, flags.transfer.jobs()).await);
    }
    site.output.summary(&summary);
    CliError::from_summary(&summary)
}

fn work(remote: VirtualPath, entry: RemoteEntry, tree: LocalTree, local: VirtualPath) -> Work {
    let exact = entry.size.is_some() && entry.precision == wharf_client::Precision::Second;
    Work::Download(Download {
        remote,
        listed: Some(entry).filter(|entry| exact && entry.modified.is_some()),
        tree,
        local,
    })
}

/// Copies a directory; nothing is removed.
pub(super) async fn copy_tree(
    transfers: &Transfers,
    ends: &MirrorEnds,
    flags: &Flags,
) -> Result<Summary, CliError> {
    let options = MirrorOptions {
        parallel: flags.transfer.jobs(),
        ..MirrorOptions::default()
    };
    mirror(transfers, ends, &options)
        .await
        .map_err(|error| CliError::at(&ends.remote, &error))
}
