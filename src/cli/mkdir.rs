//! `wharf mkdir`.

use serde_json::json;
use wharf_client::{ClientError, RemoteUrl, UrlPath, make_directories};
use wharf_model::VirtualPath;

use crate::cli::CliError;
use crate::cli::site::{Site, SiteArgs, one_server, parse_url, run as run_on_site};

/// Options of `wharf mkdir`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    flags: Flags,
    /// Directories to make
    #[arg(required = true, value_name = "URL", value_parser = parse_url)]
    urls: Vec<RemoteUrl>,
}

/// How directories are made; for the shell's `mkdir` too.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct Flags {
    /// Those above too; one that exists is no error
    #[arg(short, long)]
    parents: bool,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let paths: Vec<UrlPath> = args.urls.iter().map(|url| url.path.clone()).collect();
    run_on_site(&args.site, one_server(&args.urls)?, 1, async |site| {
        mkdir(site, &args.flags, &paths).await
    })
}

/// Makes directories.
pub(super) async fn mkdir(site: &Site, flags: &Flags, paths: &[UrlPath]) -> Result<(), CliError> {
    for path in paths {
        let path = site.literal(path)?;
        site.at(&path, make(site, flags, &path)).await?;
        site.output.note(
            &format!("{path}: made directory"),
            || json!({"event": "made", "side": "remote", "name": path.to_string()}),
        );
    }
    Ok(())
}

async fn make(site: &Site, flags: &Flags, path: &VirtualPath) -> Result<(), ClientError> {
    if flags.parents {
        make_directories(&site.pool, path).await.map(drop)
    } else {
        site.pool.lease().await?.make_directory(path).await
    }
}
