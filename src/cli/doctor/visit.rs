//! What is examined alike whatever a session speaks: a listing, and a small file up and down.

use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use wharf_client::{ClientError, ErrorKind, Remote, UrlPath, WriteStart};
use wharf_model::{Digest, FileName, Hasher, VirtualPath};

use super::report::{Finding, Report};
use super::{Stop, milliseconds, warn};

/// A session that can be opened anew.
pub(super) trait Examined: Sized {
    /// The session itself.
    fn remote(&mut self) -> &mut dyn Remote;

    /// Another session with the same server.
    async fn again(&self) -> Result<Self, ClientError>;

    /// Ends it politely.
    async fn close(self);
}

/// A session that is examined.
pub(super) struct Visit<'r, E> {
    pub(super) session: E,
    pub(super) cancel: &'r CancellationToken,
    pub(super) report: &'r mut Report,
}

impl<E: Examined> Visit<'_, E> {
    /// The steps that change something on the server, or only that there is none of them; then the end.
    pub(super) async fn conclude(mut self, directory: &VirtualPath, read_only: bool) {
        if read_only {
            let skipped = Finding::Skip("nothing is changed with --read-only".to_owned());
            self.report.tell("upload", Instant::now(), skipped);
        } else {
            self.round_trip(directory).await;
        }
        if !self.cancel.is_cancelled() {
            let idle = "servers do not tell after how long they close a session that does nothing";
            self.report
                .tell("idle", Instant::now(), Finding::Skip(idle.to_owned()));
        }
        self.session.close().await;
    }

    pub(super) fn directory(&mut self, path: &UrlPath) -> Result<VirtualPath, Stop> {
        let started = Instant::now();
        let home = self.session.remote().home().clone();
        match path.literal(&home) {
            Ok(directory) => {
                let detail = format!("the login leads to {home}");
                self.report.tell("directory", started, Finding::Ok(detail));
                Ok(directory)
            }
            Err(error) => {
                let advice = "name a directory without wildcards";
                self.report.fail_as(
                    "directory",
                    started,
                    ErrorKind::Usage,
                    &error.to_string(),
                    advice,
                );
                Err(Stop)
            }
        }
    }

    pub(super) async fn listing(&mut self, directory: &VirtualPath) {
        let started = Instant::now();
        let listed = self
            .attempt(async |session| session.list(directory).await)
            .await;
        match listed {
            Ok(entries) => {
                let detail = format!("{} entries in {directory}", entries.len());
                self.report.tell("list", started, Finding::Ok(detail));
            }
            Err(error) => self.report.fail("list", started, &error),
        }
    }

    /// A small file with a name that is not easy: up, looked at, down, and away.
    async fn round_trip(&mut self, directory: &VirtualPath) {
        let name = odd_name();
        let content = content();
        let file = FileName::parse(name.as_bytes()).expect("the odd name breaks no rule");
        let Ok(path) = directory.join(&file) else {
            // The directory's path is as long as paths may be.
            return;
        };
        let uploaded = self.until_interrupted(async |visit| visit.upload(&path, &content).await);
        match uploaded.await {
            Some(false) => return,
            Some(true) => {
                self.until_interrupted(async |visit| {
                    visit.clock(&path).await;
                    visit.name(directory, &name).await;
                    visit.digest(&path, &content).await;
                    visit.download(&path, &content).await;
                    visit.resume(&path, &content).await;
                })
                .await;
            }
            None => {}
        }
        self.delete(&path).await;
    }

    /// Does `work`. If it is interrupted meanwhile, the session is in the middle of something,
    /// and another one takes its place; an upload has ended with a reset before that one logs in.
    async fn until_interrupted<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> T) -> Option<T> {
        let cancel = self.cancel;
        let done = cancel.run_until_cancelled(work(self)).await;
        if done.is_none()
            && let Ok(session) = self.session.again().await
        {
            std::mem::replace(&mut self.session, session).close().await;
        }
        done
    }

    /// Whether something stands on the server now.
    async fn upload(&mut self, path: &VirtualPath, content: &[u8]) -> bool {
        let started = Instant::now();
        let uploaded = self.attempt(async |session| write(session, path, content).await);
        match uploaded.await {
            Ok(()) => {
                let detail = format!("{} bytes in {}", content.len(), milliseconds(started));
                self.report.tell("upload", started, Finding::Ok(detail));
                true
            }
            Err(error) if error.kind() == ErrorKind::Refused => {
                let detail = format!("the account may not write here: {}", error.chain());
                self.report.tell("upload", started, Finding::Skip(detail));
                false
            }
            Err(error) => {
                self.report.fail("upload", started, &error);
                // A begin of it may be there.
                let _ = self
                    .attempt(async |session| session.remove(path).await)
                    .await;
                false
            }
        }
    }

    async fn clock(&mut self, path: &VirtualPath) {
        let started = Instant::now();
        let now = SystemTime::now();
        match self.attempt(async |session| session.stat(path).await).await {
            Ok(entry) => self
                .report
                .tell("clock", started, judge_clock(entry.modified, now)),
            Err(error) => self.report.fail("clock", started, &error),
        }
    }

    async fn name(&mut self, directory: &VirtualPath, name: &str) {
        let started = Instant::now();
        match self
            .attempt(async |session| session.list(directory).await)
            .await
        {
            Ok(entries) if entries.iter().any(|entry| entry.name == name.as_bytes()) => {
                let detail = format!("{name:?} is listed as it was sent");
                self.report.tell("names", started, Finding::Ok(detail));
            }
            Ok(_) => {
                let advice = "names with blanks, quotes or letters beyond ASCII may not survive; have the server use UTF-8";
                let detail = format!("{name:?} is not listed by that name");
                self.report.tell("names", started, warn(detail, advice));
            }
            Err(error) => self.report.fail("names", started, &error),
        }
    }

    async fn digest(&mut self, path: &VirtualPath, content: &[u8]) {
        let started = Instant::now();
        let Some(algorithm) = self.session.remote().abilities().best_digest() else {
            let detail = "the server makes none; copies are compared by their size";
            return self
                .report
                .tell("digest", started, Finding::Skip(detail.to_owned()));
        };
        let made = self.attempt(async |session| session.digest(path, algorithm, None).await);
        match made.await {
            Ok(digest) => {
                let mut hasher = Hasher::new(algorithm);
                hasher.update(content);
                self.compare("digest", started, &hasher.finish(), &digest);
            }
            Err(error) => self.report.fail("digest", started, &error),
        }
    }

    fn compare(&mut self, step: &str, started: Instant, local: &Digest, remote: &Digest) {
        if local == remote {
            let detail = format!("{} is the same on both sides", local.algorithm());
            return self.report.tell(step, started, Finding::Ok(detail));
        }
        let error = ClientError::DigestMismatch {
            algorithm: local.algorithm(),
            local: local.to_string(),
            remote: remote.to_string(),
        };
        self.report.fail(step, started, &error);
    }

    async fn download(&mut self, path: &VirtualPath, content: &[u8]) {
        let started = Instant::now();
        let read = self
            .attempt(async |session| read(session, path, 0).await)
            .await;
        self.judge_copy("download", started, read, content);
    }

    async fn resume(&mut self, path: &VirtualPath, content: &[u8]) {
        let started = Instant::now();
        if !self.session.remote().abilities().restarts {
            let detail = "the server cannot start in the middle of a file (REST STREAM)";
            return self
                .report
                .tell("resume", started, Finding::Skip(detail.to_owned()));
        }
        let (_, rest) = content.split_at(content.len() / 2);
        let offset = (content.len() - rest.len()) as u64;
        let read = self
            .attempt(async |session| read(session, path, offset).await)
            .await;
        self.judge_copy("resume", started, read, rest);
    }

    fn judge_copy(
        &mut self,
        step: &str,
        started: Instant,
        read: Result<Vec<u8>, ClientError>,
        expected: &[u8],
    ) {
        match read {
            Ok(copy) if copy == expected => {
                let detail = format!("{} bytes in {}", copy.len(), milliseconds(started));
                self.report.tell(step, started, Finding::Ok(detail));
            }
            Ok(copy) => {
                let detail = format!(
                    "{} bytes came, and they are not those that were sent",
                    copy.len()
                );
                let advice = "have the server transfer files as they are (TYPE I in FTP), and see what changes them on the way";
                self.report
                    .fail_as(step, started, ErrorKind::Verification, &detail, advice);
            }
            Err(error) => self.report.fail(step, started, &error),
        }
    }

    async fn delete(&mut self, path: &VirtualPath) {
        let started = Instant::now();
        match self
            .attempt(async |session| session.remove(path).await)
            .await
        {
            Ok(()) => self.report.tell(
                "delete",
                started,
                Finding::Ok("the file is gone".to_owned()),
            ),
            Err(error) if error.kind() == ErrorKind::Refused => {
                let advice = format!("remove {path} by hand");
                self.report
                    .tell("delete", started, warn(error.chain(), &advice));
            }
            Err(error) => self.report.fail("delete", started, &error),
        }
    }

    /// Does `work` in the session, or in a new one where the old one is of no more use.
    async fn attempt<T>(
        &mut self,
        work: impl AsyncFn(&mut dyn Remote) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        if !self.session.remote().is_usable() {
            self.session = self.session.again().await?;
        }
        match work(self.session.remote()).await {
            // The TLS tickets have run out, as they do in every session with such a server.
            Err(ClientError::NotResumed { may_pass: true, .. }) => {
                self.session = self.session.again().await?;
                work(self.session.remote()).await
            }
            result => result,
        }
    }
}

async fn write(
    session: &mut dyn Remote,
    path: &VirtualPath,
    content: &[u8],
) -> Result<(), ClientError> {
    let mut write = session.open_write(path, WriteStart::Replace).await?;
    write.write(content).await?;
    write.finish().await
}

/// What stands at `path` from `offset` on; a little more than was written at most.
async fn read(
    session: &mut dyn Remote,
    path: &VirtualPath,
    offset: u64,
) -> Result<Vec<u8>, ClientError> {
    let mut read = session.open_read(path, offset).await?;
    let mut content = Vec::new();
    let mut buffer = vec![0; 4096];
    while content.len() <= 2 * CONTENT_BYTES {
        match read.read(&mut buffer).await? {
            0 => {
                read.finish().await?;
                break;
            }
            count => content.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(content)
}

/// `modified` is the server's time of a moment ago.
fn judge_clock(modified: Option<SystemTime>, now: SystemTime) -> Finding {
    let Some(modified) = modified else {
        return Finding::Skip("the server tells no times".to_owned());
    };
    let (apart, direction) = match modified.duration_since(now) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(error) => (error.duration(), "behind"),
    };
    if apart <= CLOCK_TOLERANCE {
        return Finding::Ok(format!("at most {} s apart", apart.as_secs() + 1));
    }
    let seconds = apart.as_secs();
    let detail = format!("the server's clock is {seconds} s {direction} this machine's");
    let past_quarter = seconds % 900;
    let advice =
        if seconds >= 900 && past_quarter.min(900 - past_quarter) <= CLOCK_TOLERANCE.as_secs() {
            "it looks like a time zone: the server should tell times in UTC (RFC 3659 §2.3)"
        } else {
            "set both by NTP: what is newer cannot be told otherwise"
        };
    warn(detail, advice)
}

/// Blanks, quotes and letters of two bytes: what careless servers trip over.
fn odd_name() -> String {
    let mut random = [0; 4];
    // Without randomness the name is the same each time, and as good.
    let _ = getrandom::fill(&mut random);
    format!("wharf doctor 'é' \"ü\" {:08x}", u32::from_be_bytes(random))
}

/// All bytes, and line ends of every kind: what a transfer in the wrong type changes.
fn content() -> Vec<u8> {
    (0..=u8::MAX)
        .chain(*b"\r\n\n\r")
        .cycle()
        .take(CONTENT_BYTES)
        .collect()
}

const CONTENT_BYTES: usize = 10_000;

/// Servers keep whole seconds, and the upload took a while.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::words;

    #[test]
    fn clocks_that_differ_are_told_and_time_zones_are_recognised() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let judged = |seconds: i64| {
            let seconds = u64::try_from(1_000_000 + seconds).expect("after the epoch");
            words(judge_clock(
                Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)),
                now,
            ))
        };
        assert!(judged(-1).starts_with("ok"));
        assert!(judged(7200).contains("7200 s ahead of") && judged(7200).contains("time zone"));
        assert!(judged(-3601).contains("3601 s behind") && judged(-3601).contains("time zone"));
        assert!(judged(-100).contains("NTP"));
        assert!(words(judge_clock(None, now)).starts_with("skip"));
    }

    #[test]
    fn the_content_holds_what_wrong_types_change() {
        let content = content();
        assert_eq!(content.len(), CONTENT_BYTES);
        assert!(content.windows(2).any(|pair| pair == b"\r\n"));
        assert!(content.contains(&0) && content.contains(&0xff));
    }
}
