//! `wharf cat`.

use std::io::Write as _;

use serde_json::Value;
use wharf_client::{ClientError, RemoteUrl, UrlPath};
use wharf_model::{EntryKind, VirtualPath};

use crate::cli::CliError;
use crate::cli::site::{Site, SiteArgs, one_server, parse_url, run as run_on_site};

/// Options of `wharf cat`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    /// Files whose content to write to standard output
    #[arg(required = true, value_name = "URL", value_parser = parse_url)]
    urls: Vec<RemoteUrl>,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let paths: Vec<UrlPath> = args.urls.iter().map(|url| url.path.clone()).collect();
    run_on_site(&args.site, one_server(&args.urls)?, 1, async |site| {
        cat(site, &paths).await
    })
}

/// Writes the content of files to standard output, as it is.
pub(super) async fn cat(site: &Site, paths: &[UrlPath]) -> Result<(), CliError> {
    for path in paths {
        for found in site.find(path).await? {
            if found.entry.kind == EntryKind::Directory {
                return Err(CliError::at(&found.path, &ClientError::IsADirectory));
            }
            site.at(&found.path, cat_one(site, &found.path)).await?;
        }
    }
    Ok(())
}

/// A connection that breaks is taken up again where it broke.
async fn cat_one(site: &Site, path: &VirtualPath) -> Result<(), ClientError> {
    let mut offset = 0;
    let mut failures = 0;
    loop {
        let before = offset;
        match cat_from(site, path, &mut offset).await {
            Err(error) if error.is_transient() && failures < site.retries => {
                failures = if offset > before { 1 } else { failures + 1 };
                let message = error.chain();
                site.output.trouble(
                    &format!("{path}: {message}; going on at byte {offset}"),
                    || Value::Null,
                );
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn cat_from(site: &Site, path: &VirtualPath, offset: &mut u64) -> Result<(), ClientError> {
    let mut session = site.pool.lease().await?;
    let mut read = session.open_read(path, *offset).await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = read.read(&mut buffer).await?;
        if count == 0 {
            return read.finish().await;
        }
        let bytes = buffer.get(..count).unwrap_or_default();
        std::io::stdout()
            .write_all(bytes)
            .map_err(|source| ClientError::Local {
                path: "standard output".to_owned(),
                source,
            })?;
        *offset += count as u64;
    }
}

const BUFFER_BYTES: usize = 256 * 1024;

const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
