//! `wharf cat`.

use std::cell::Cell;
use std::io::{ErrorKind, Write as _};
use std::time::Duration;

use wharf_client::{ClientError, Found, UrlPath, stat};
use wharf_model::{EntryKind, VirtualPath};

use crate::cli::CliError;
use crate::cli::site::{Site, SiteArgs, UrlArgument, one_server, parse_all, run as run_on_site};

/// Options of `wharf cat`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    site: SiteArgs,
    /// Files whose content to write to standard output
    #[arg(required = true, value_name = "URL")]
    urls: Vec<UrlArgument>,
}

pub(crate) fn run(args: Args) -> Result<(), CliError> {
    let urls = parse_all(&args.urls)?;
    let paths: Vec<UrlPath> = urls.iter().map(|url| url.path.clone()).collect();
    run_on_site(&args.site, one_server(&urls)?, 1, async |site| {
        cat(site, &paths, false).await
    })
}

/// Writes the content of files to standard output, as it is. At a prompt, a
/// last line without an end gets one.
pub(super) async fn cat(site: &Site, paths: &[UrlPath], at_prompt: bool) -> Result<(), CliError> {
    let out = StandardOutput::default();
    let result = site
        .each(paths, async |path| {
            let found = site.find(path).await?;
            site.each(found, async |found| {
                if found.entry.kind == EntryKind::Directory {
                    return Err(CliError::at(&found.path, &ClientError::IsADirectory));
                }
                site.at(&found.path, cat_one(site, &found, &out)).await
            })
            .await
        })
        .await;
    if at_prompt && out.is_inside_line() {
        println!();
    }
    if out.is_closed() {
        // The reader has all it wanted, as with `| head`.
        return Ok(());
    }
    result
}

/// A connection that breaks is taken up again where it broke, as long as the
/// file is the one that it was.
async fn cat_one(site: &Site, found: &Found, out: &StandardOutput) -> Result<(), ClientError> {
    let path = &found.path;
    let mut offset = 0;
    let mut failures = 0;
    loop {
        let error = match cat_from(site, path, &mut offset, out).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        failures += 1;
        if !error.is_transient() || failures > site.retries {
            return Err(error);
        }
        let message = error.chain();
        site.output
            .aside(&format!("{path}: {message}; going on at byte {offset}"));
        tokio::time::sleep(PAUSE).await;
        let now = stat(&site.pool, path, site.retries).await?;
        if (now.size, now.modified) != (found.entry.size, found.entry.modified) {
            return Err(ClientError::SourceChanged);
        }
    }
}

async fn cat_from(
    site: &Site,
    path: &VirtualPath,
    offset: &mut u64,
    out: &StandardOutput,
) -> Result<(), ClientError> {
    let mut session = site.pool.lease().await?;
    let mut read = session.open_read(path, *offset).await?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = read.read(&mut buffer).await?;
        if count == 0 {
            return read.finish().await;
        }
        out.write(buffer.get(..count).unwrap_or_default())?;
        *offset += count as u64;
    }
}

/// Standard output, and how it stands.
#[derive(Default)]
struct StandardOutput {
    inside_line: Cell<bool>,
    closed: Cell<bool>,
}

impl StandardOutput {
    fn write(&self, bytes: &[u8]) -> Result<(), ClientError> {
        let mut out = std::io::stdout();
        let written = out.write_all(bytes).and_then(|()| out.flush());
        self.inside_line.set(bytes.last() != Some(&b'\n'));
        written.map_err(|source| {
            self.closed.set(source.kind() == ErrorKind::BrokenPipe);
            ClientError::Local {
                path: "standard output".to_owned(),
                source,
            }
        })
    }

    fn is_inside_line(&self) -> bool {
        self.inside_line.get()
    }

    fn is_closed(&self) -> bool {
        self.closed.get()
    }
}

const BUFFER_BYTES: usize = 256 * 1024;

const PAUSE: Duration = Duration::from_secs(1);
