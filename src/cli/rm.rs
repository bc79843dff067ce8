//! `wharf rm`, and the shell's `rmdir`.

use serde_json::json;
use wharf_client::{
    ClientError, ErrorKind, Event, Filter, Found, LeftOut, Observer, UrlPath, WalkOptions, below,
    walk_remote,
};
use wharf_model::{EntryKind, VirtualPath};

use crate::cli::CliError;
use crate::cli::output::Output;
use crate::cli::site::{Site, SiteArgs, UrlArgument, one_server, parse_all, run as run_on_site};
use crate::cli::text;

/// Options of `wharf rm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    flags: Flags,
    /// What to remove
    #[arg(required = true, value_name = "URL")]
    urls: Vec<UrlArgument>,
}

/// What may be removed; for the shell's `rm` too.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct Flags {
    /// Directories with all that is in them
    #[arg(short, long)]
    recursive: bool,
    /// What does not exist is no error
    #[arg(short, long)]
    force: bool,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let urls = parse_all(&args.urls)?;
    let paths: Vec<UrlPath> = urls.iter().map(|url| url.path.clone()).collect();
    run_on_site(&args.site, one_server(&urls)?, 1, async |site| {
        rm(site, &args.flags, &paths).await
    })
}

/// Removes what `paths` stand for.
pub(super) async fn rm(site: &Site, flags: &Flags, paths: &[UrlPath]) -> Result<(), CliError> {
    site.each(paths, async |path| {
        let found = match site.find(path).await {
            Err(CliError::Client(ErrorKind::NotFound, _)) if flags.force => return Ok(()),
            other => other?,
        };
        site.each(found, async |Found { path, entry }| {
            if entry.kind != EntryKind::Directory {
                remove(site, &path, false).await
            } else if flags.recursive {
                remove_tree(site, &path).await
            } else {
                Err(CliError::Usage(format!(
                    "{path} is a directory; add -r to remove it with all that is in it"
                )))
            }
        })
        .await
    })
    .await
}

/// Removes empty directories.
pub(super) async fn rmdir(site: &Site, paths: &[UrlPath]) -> Result<(), CliError> {
    site.each(paths, async |path| {
        let found = site.find(path).await?;
        site.each(found, async |Found { path, entry }| {
            if entry.kind == EntryKind::Directory {
                remove(site, &path, true).await
            } else {
                Err(CliError::at(&path, &ClientError::NotADirectory))
            }
        })
        .await
    })
    .await
}

async fn remove_tree(site: &Site, root: &VirtualPath) -> Result<(), CliError> {
    let everything = Filter::default();
    let options = WalkOptions {
        parallel: 1,
        retries: site.retries,
    };
    let left = Left(&site.output);
    let walk = walk_remote(&site.pool, root, &everything, options, &left);
    let mut entries = site.at(root, walk).await?;
    // Directories come before what is in them; removing goes the other way.
    entries.reverse();
    for entry in entries {
        let path = below(root, &entry.path)?;
        remove(site, &path, entry.kind == EntryKind::Directory).await?;
    }
    if root.is_root() {
        return Ok(());
    }
    remove(site, root, true).await
}

/// Tells of entries that stay because this client cannot name them. Links and the like go.
struct Left<'o>(&'o Output);

impl Observer for Left<'_> {
    fn observe(&self, event: Event<'_>) {
        if let Event::LeftOut {
            reason: LeftOut::UnsafeName | LeftOut::TooDeep,
            ..
        } = event
        {
            self.0.observe(event);
        }
    }
}

async fn remove(site: &Site, path: &VirtualPath, is_directory: bool) -> Result<(), CliError> {
    let removal = async {
        let mut session = site.pool.lease().await?;
        if is_directory {
            session.remove_directory(path).await
        } else {
            session.remove(path).await
        }
    };
    site.at(path, removal).await?;
    site.output.note(
        &format!("{path}: removed"),
        || json!({"event": "removed", "side": "remote", "name": text::json_name(path.as_bytes())}),
    );
    Ok(())
}
