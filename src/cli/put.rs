//! `wharf put`.

use std::path::PathBuf;

use wharf_client::{
    ClientError, Direction, Listed, MirrorEnds, MirrorOptions, RemoteUrl, Summary, Upload, UrlPath,
    Work, make_directories, mirror, run_batch, stat,
};
use wharf_model::{EntryKind, VirtualPath};

use crate::cli::CliError;
use crate::cli::local::{self, Source};
use crate::cli::site::{Site, SiteArgs, TransferArgs, UrlArgument, run as run_on_site};

/// Options of `wharf put`.
#[derive(clap::Args)]
#[command(after_help = "\
The copies' digests are compared where the server makes any. An upload that was cut is resumed by the same command, \
once the server's digest proves what is there. Standard input comes once, so that such an upload is not resumed, and \
not tried again.

Examples:
  wharf put big.iso ftp://alice@files.example/
  tar cz photos | wharf put - sftp://alice@files.example/photos.tar.gz
  wharf put -r photos ftp://alice@files.example/archive/   (makes archive)")]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    flags: Flags,
    /// What to upload; - is standard input
    #[arg(required = true, value_name = "LOCAL")]
    sources: Vec<PathBuf>,
    /// Where to: a directory, or a new name
    #[arg(value_name = "URL")]
    target: UrlArgument,
}

/// How files are sent; for the shell's `put` too.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct Flags {
    /// Folders with all that is in them
    #[arg(short, long)]
    recursive: bool,
    #[command(flatten)]
    transfer: TransferArgs,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let jobs = args.flags.transfer.jobs();
    let target = args.target.parse()?;
    if args.sources.iter().any(|source| source.as_os_str() == "-") {
        return put_standard_input(&args, &target);
    }
    // Before the login: a wrong local name should cost nothing.
    let sources = find_sources(&args.flags, &args.sources)?;
    run_on_site(&args.site, &target, jobs, async |site| {
        put(site, &args.flags, sources, Some(&target.path)).await
    })
}

/// Uploads what comes through standard input.
fn put_standard_input(args: &Args, target: &RemoteUrl) -> Result<(), CliError> {
    if args.sources.len() > 1 {
        return Err(CliError::Usage(
            "- is standard input and goes alone; ./- is a file of that name".to_owned(),
        ));
    }
    let no_name = || {
        CliError::Usage(format!(
            "{target}: standard input has no name; let the URL end in the name of the file"
        ))
    };
    if target.path.names_directory() {
        return Err(no_name());
    }
    run_on_site(&args.site, target, 1, async |site| {
        let Place::Named(path) = place(site, Some(&target.path), 1).await? else {
            return Err(no_name());
        };
        let transfers = site.transfers(&args.flags.transfer);
        let uploaded = transfers
            .upload_stream(std::io::stdin(), "standard input", &path)
            .await;
        // The error was told when it came.
        uploaded
            .map(drop)
            .map_err(|error| CliError::Told(error.kind()))
    })
}

/// Finds what is to be uploaded.
pub(super) fn find_sources(flags: &Flags, given: &[PathBuf]) -> Result<Vec<Source>, CliError> {
    let sources = given
        .iter()
        .map(|path| Source::find(path))
        .collect::<Result<Vec<_>, _>>()?;
    match sources.iter().find(|source| source.is_directory) {
        Some(source) if !flags.recursive => Err(CliError::Usage(format!(
            "{} is a folder; add -r to upload it with all that is in it",
            source.given.display()
        ))),
        _ => Ok(sources),
    }
}

/// Uploads `sources` to `target`: a directory, or the name of the one copy;
/// `None` is the site's directory.
pub(super) async fn put(
    site: &Site,
    flags: &Flags,
    sources: Vec<Source>,
    target: Option<&UrlPath>,
) -> Result<(), CliError> {
    let transfers = site.transfers(&flags.transfer);
    let place = place(site, target, sources.len()).await?;
    let targets: Vec<VirtualPath> = sources
        .iter()
        .map(|source| place.of(source))
        .collect::<Result<_, _>>()?;
    local::no_two_alike(targets.iter().map(VirtualPath::as_bytes))?;
    let mut summary = Summary::default();
    let mut files = Vec::new();
    for (source, remote) in sources.into_iter().zip(targets) {
        if source.is_directory {
            let ends = MirrorEnds {
                direction: Direction::Upload,
                remote,
                tree: source.tree,
                local: source.path,
            };
            let options = MirrorOptions {
                parallel: flags.transfer.jobs(),
                ..MirrorOptions::default()
            };
            let copied = mirror(&transfers, &ends, &options)
                .await
                .map_err(|error| CliError::at(source.given.display(), &error))?;
            summary.add(&copied);
        } else {
            files.push(Work::Upload(Upload {
                tree: source.tree,
                local: source.path,
                remote,
                listed: Listed::Unknown,
            }));
        }
    }
    if !files.is_empty() {
        summary.add(&run_batch(&transfers, files, flags.transfer.jobs()).await);
    }
    site.output.summary(&summary);
    CliError::from_summary(&summary)
}

/// Where uploads go.
enum Place {
    /// Into this directory, under their own names.
    Into(VirtualPath),
    /// Under this name.
    Named(VirtualPath),
}

impl Place {
    fn of(&self, source: &Source) -> Result<VirtualPath, CliError> {
        match (self, &source.name) {
            (Self::Into(directory), Some(name)) => directory
                .join(name)
                .map_err(|error| CliError::Usage(format!("{}: {error}", source.given.display()))),
            (Self::Into(path) | Self::Named(path), _) => Ok(path.clone()),
        }
    }
}

/// What `target` means for `count` things. One that ends in a slash is made if it is missing.
async fn place(site: &Site, target: Option<&UrlPath>, count: usize) -> Result<Place, CliError> {
    let Some(target) = target else {
        return Ok(Place::Into(site.directory.clone()));
    };
    let path = site.literal(target)?;
    if target.names_directory() {
        if !target.components().is_empty() {
            site.at(&path, make_directories(&site.pool, &path)).await?;
        }
        return Ok(Place::Into(path));
    }
    let standing = async {
        match stat(&site.pool, &path, site.retries).await {
            Ok(entry) => Ok(Some(entry)),
            Err(ClientError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    };
    match site.at(&path, standing).await? {
        Some(entry) if entry.kind == EntryKind::Directory => Ok(Place::Into(path)),
        _ if count == 1 => Ok(Place::Named(path)),
        _ => Err(CliError::Usage(format!(
            "{path} is no directory, and {count} things are to be put there; end it in a slash to make one"
        ))),
    }
}
