//! `wharf mkdir`.

use serde_json::json;
use wharf_client::{ClientError, UrlPath, make_directories};
use wharf_model::VirtualPath;

use crate::cli::CliError;
use crate::cli::site::{Site, SiteArgs, UrlArgument, one_server, parse_all, run as run_on_site};
use crate::cli::text;

/// Options of `wharf mkdir`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    flags: Flags,
    /// Directories to make
    #[arg(required = true, value_name = "URL")]
    urls: Vec<UrlArgument>,
}

/// How directories are made; for the shell's `mkdir` too.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct Flags {
    /// Those above too; one that exists is no error
    #[arg(short, long)]
    parents: bool,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let urls = parse_all(&args.urls)?;
    let paths: Vec<UrlPath> = urls.iter().map(|url| url.path.clone()).collect();
    run_on_site(&args.site, one_server(&urls)?, 1, async |site| {
        mkdir(site, &args.flags, &paths).await
    })
}

/// Makes directories.
pub(super) async fn mkdir(site: &Site, flags: &Flags, paths: &[UrlPath]) -> Result<(), CliError> {
    for path in paths {
        let path = site.literal(path)?;
        let made = site.at(&path, make(site, flags, &path)).await?;
        if !made {
            continue;
        }
        site.output.note(
            &format!("{path}: made directory"),
            || json!({"event": "made", "side": "remote", "name": text::json_name(path.as_bytes())}),
        );
    }
    Ok(())
}

/// Whether anything had to be made.
async fn make(site: &Site, flags: &Flags, path: &VirtualPath) -> Result<bool, ClientError> {
    if flags.parents {
        return Ok(make_directories(&site.pool, path).await? > 0);
    }
    site.pool.lease().await?.make_directory(path).await?;
    Ok(true)
}
