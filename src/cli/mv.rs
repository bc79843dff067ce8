//! `wharf mv`.

use serde_json::json;
use wharf_client::{ClientError, Found, UrlPath, stat};
use wharf_model::{EntryKind, FileName, VirtualPath};

use crate::cli::CliError;
use crate::cli::site::{Site, SiteArgs, UrlArgument, one_server, parse_all, run as run_on_site};
use crate::cli::text;

/// Options of `wharf mv`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    /// What to rename, and at the end the new name or the directory that it goes to
    #[arg(required = true, num_args = 2.., value_name = "URL")]
    urls: Vec<UrlArgument>,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let urls = parse_all(&args.urls)?;
    let paths: Vec<UrlPath> = urls.iter().map(|url| url.path.clone()).collect();
    run_on_site(&args.site, one_server(&urls)?, 1, async |site| {
        mv(site, &paths).await
    })
}

/// Renames what all of `paths` but the last stand for: to the last, or into it where it is a directory.
pub(super) async fn mv(site: &Site, paths: &[UrlPath]) -> Result<(), CliError> {
    let Some((target, sources)) = paths.split_last() else {
        return Err(CliError::Usage("nothing to rename".to_owned()));
    };
    let mut found = Vec::new();
    for source in sources {
        found.extend(site.find(source).await?);
    }
    let target_path = site.literal(target)?;
    let standing = stat(&site.pool, &target_path, site.retries);
    let into = match site.at(&target_path, standing).await {
        Ok(entry) => entry.kind == EntryKind::Directory,
        Err(CliError::Client(wharf_client::ErrorKind::NotFound, _)) => false,
        Err(error) => return Err(error),
    };
    if !into && (found.len() > 1 || target.names_directory()) {
        return Err(CliError::at(&target_path, &ClientError::NotADirectory));
    }
    for Found { path, .. } in found {
        let to = if into {
            inside(&target_path, &path)?
        } else {
            target_path.clone()
        };
        let rename = async { site.pool.lease().await?.rename(&path, &to).await };
        site.at(&path, rename).await?;
        site.output.note(
            &format!("{path}: renamed to {to}"),
            || json!({"event": "renamed", "from": text::json_name(path.as_bytes()), "to": text::json_name(to.as_bytes())}),
        );
    }
    Ok(())
}

fn inside(directory: &VirtualPath, path: &VirtualPath) -> Result<VirtualPath, CliError> {
    let name = path.file_name().unwrap_or_default();
    FileName::parse(name)
        .and_then(|name| directory.join(&name))
        .map_err(|error| CliError::Usage(format!("{path}: {error}")))
}
