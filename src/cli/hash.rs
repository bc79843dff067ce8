//! `wharf hash`.

use serde_json::json;
use wharf_client::{ClientError, Found, UrlPath};
use wharf_model::{DigestAlgorithm, EntryKind};

use crate::cli::CliError;
use crate::cli::site::{Site, SiteArgs, UrlArgument, one_server, parse_all, run as run_on_site};
use crate::cli::text;

/// Options of `wharf hash`.
#[derive(clap::Args)]
#[command(after_help = "\
The server makes the digests (HASH, XSHA256, XMD5 and so on; over SSH check-file, or sha256sum and its like where the \
account may run commands); nothing is downloaded. One that offers none is told so: `wharf cat URL | sha256sum` makes \
one here.")]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    #[command(flatten)]
    flags: Flags,
    /// Files whose digest to print
    #[arg(required = true, value_name = "URL")]
    urls: Vec<UrlArgument>,
}

/// Which digest; for the shell's `hash` too.
#[derive(clap::Args, Debug, Clone)]
pub(super) struct Flags {
    /// How to make it, such as sha256 [default: the best that the server offers]
    #[arg(short, long, value_name = "NAME")]
    algorithm: Option<DigestAlgorithm>,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let urls = parse_all(&args.urls)?;
    let paths: Vec<UrlPath> = urls.iter().map(|url| url.path.clone()).collect();
    run_on_site(&args.site, one_server(&urls)?, 1, async |site| {
        hash(site, &args.flags, &paths).await
    })
}

/// Prints the server's digests of files.
pub(super) async fn hash(site: &Site, flags: &Flags, paths: &[UrlPath]) -> Result<(), CliError> {
    site.each(paths, async |path| {
        let found = site.find(path).await?;
        site.each(found, async |found| hash_one(site, flags, &found).await)
            .await
    })
    .await
}

async fn hash_one(site: &Site, flags: &Flags, found: &Found) -> Result<(), CliError> {
    if found.entry.kind == EntryKind::Directory {
        return Err(CliError::at(&found.path, &ClientError::IsADirectory));
    }
    let digest = async {
        let mut session = site.pool.lease().await?;
        session.learn_digests().await?;
        let offered = &session.abilities().digests;
        let algorithm = match flags.algorithm {
            Some(algorithm) if !offered.contains(&algorithm) => {
                return Err(ClientError::Unsupported("make that digest"));
            }
            Some(algorithm) => algorithm,
            None => session
                .abilities()
                .best_digest()
                .ok_or(ClientError::Unsupported("make digests"))?,
        };
        session.digest(&found.path, algorithm, None).await
    };
    let digest = site.at(&found.path, digest).await?;
    let algorithm = digest.algorithm();
    site.output.result(
        &format!("{digest}  {}  {algorithm}", found.path),
        || json!({"name": text::json_name(found.path.as_bytes()), "algorithm": algorithm.to_string(), "digest": digest.to_string()}),
    );
    Ok(())
}
