//! `wharf mirror`.

use std::path::Path;

use wharf_client::{
    Direction, Filter, LocalTree, MirrorEnds, MirrorOptions, UrlPath, mirror as mirror_trees, stat,
};
use wharf_model::VirtualPath;

use crate::cli::CliError;
use crate::cli::local::Source;
use crate::cli::site::{Site, SiteArgs, TransferArgs, UrlArgument, run as run_on_site};

/// Options of `wharf mirror`.
#[derive(clap::Args)]
#[command(after_help = "\
The target's content becomes like the source's: files that differ are transferred, missing directories made. \
Nothing is removed without --delete, and with it only once every transfer went well.

Examples:
  wharf mirror --dry-run --delete ftp://alice@files.example/site public/
  wharf mirror -x '*.tmp' -x .git/ work/ ftp://alice@files.example/work")]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    flags: Flags,
    /// Directory to copy from: a URL, or a local folder
    #[arg(value_name = "SOURCE")]
    source: UrlArgument,
    /// Directory to copy to: a local folder, or a URL
    #[arg(value_name = "TARGET")]
    target: UrlArgument,
}

/// How trees are made alike; for the shell's `mirror` too.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct Flags {
    /// Remove from the target what the source does not have
    #[arg(long)]
    delete: bool,
    /// Tell what would be done, and do nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Only files whose name, or path if it has a slash, matches
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<String>,
    /// All but files and directories whose name, or path if it has a slash, matches
    #[arg(short = 'x', long, value_name = "PATTERN")]
    exclude: Vec<String>,
    #[command(flatten)]
    transfer: TransferArgs,
}

impl Flags {
    /// Reads every pattern with `read`.
    pub(super) fn patterns_from(&mut self, read: impl Fn(&str) -> String) {
        for pattern in self.include.iter_mut().chain(&mut self.exclude) {
            *pattern = read(pattern);
        }
    }
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let (direction, url, folder) =
        match (args.source.looks_like_url(), args.target.looks_like_url()) {
            (true, false) => (Direction::Download, args.source.parse()?, args.target),
            (false, true) => (Direction::Upload, args.target.parse()?, args.source),
            (true, true) => {
                return Err(CliError::Usage(
                "both are URLs; mirror to a local folder first, and from there to the other server"
                    .to_owned(),
            ));
            }
            (false, false) => {
                return Err(CliError::Usage(
                    "neither is a URL; write one as ftp://user@host/path".to_owned(),
                ));
            }
        };
    let jobs = args.flags.transfer.jobs();
    let folder = folder.into_path();
    run_on_site(&args.site, &url, jobs, async |site| {
        mirror(site, &args.flags, direction, &url.path, &folder).await
    })
}

/// Makes the target's tree like the source's.
pub(super) async fn mirror(
    site: &Site,
    flags: &Flags,
    direction: Direction,
    remote: &UrlPath,
    folder: &Path,
) -> Result<(), CliError> {
    let options = MirrorOptions {
        parallel: flags.transfer.jobs(),
        delete: flags.delete,
        dry_run: flags.dry_run,
        filter: Filter::new(&flags.include, &flags.exclude)
            .map_err(|error| CliError::Usage(error.to_string()))?,
    };
    let remote = site.literal(remote)?;
    let nothing;
    let tree = match direction {
        Direction::Upload => source_tree(folder)?,
        Direction::Download => {
            // A source that is not there must not leave an empty target.
            site.at(&remote, stat(&site.pool, &remote, site.retries))
                .await?;
            if flags.dry_run && !folder.exists() {
                nothing = tempfile::tempdir().map_err(|error| CliError::failed(&error))?;
                LocalTree::open(nothing.path())?
            } else {
                LocalTree::open_or_create(folder)?
            }
        }
    };
    let ends = MirrorEnds {
        direction,
        remote,
        tree,
        local: VirtualPath::root(),
    };
    let transfers = site.transfers(&flags.transfer);
    let summary = mirror_trees(&transfers, &ends, &options)
        .await
        .map_err(|error| CliError::at(&ends.remote, &error))?;
    if !flags.dry_run {
        site.output.summary(&summary);
    }
    CliError::from_summary(&summary)
}

fn source_tree(folder: &Path) -> Result<LocalTree, CliError> {
    let source = Source::find(folder)?;
    if source.is_directory {
        return Ok(source.tree);
    }
    Err(CliError::Usage(format!(
        "{} is no folder; `wharf put` uploads files",
        folder.display()
    )))
}
