//! Verbs that change names and directories: PWD, CWD, MKD, RMD, DELE, RNFR, RNTO, SITE COPY.

use wharf_model::{Refusal, VirtualPath};
use wharf_proto::ftp::reply::{Reply, ReplyCode, quote_path};

use crate::ftp::session::{Outcome, Phase, Session};

impl Session {
    pub(in crate::ftp) fn pwd(&self) -> Result<Outcome, Refusal> {
        let mut text = quote_path(self.files()?.current.as_bytes());
        text.extend_from_slice(b" is the current directory.");
        Ok(Reply::new(ReplyCode::PATH_CREATED, text).into())
    }

    pub(in crate::ftp) async fn cwd(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let target = self.resolve(if path.is_empty() { b"/" } else { path })?;
        self.files()?.vfs.enter(&target).await?;
        let mut text = quote_path(target.as_bytes());
        text.extend_from_slice(b" is the current directory.");
        if let Phase::LoggedIn(login) = &mut self.phase {
            login.current = target;
        }
        Ok(Reply::new(ReplyCode::ACTION_OK, text).into())
    }

    pub(in crate::ftp) async fn mkd(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let target = self.resolve(path)?;
        self.files()?.vfs.make_directory(&target).await?;
        self.log_change("MKD", &target);
        let mut text = quote_path(target.as_bytes());
        text.extend_from_slice(b" created.");
        Ok(Reply::new(ReplyCode::PATH_CREATED, text).into())
    }

    pub(in crate::ftp) async fn rmd(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let target = self.resolve(path)?;
        self.files()?.vfs.remove_directory(&target).await?;
        self.log_change("RMD", &target);
        Ok(Reply::new(ReplyCode::ACTION_OK, "Directory removed.").into())
    }

    pub(in crate::ftp) async fn dele(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let target = self.resolve(path)?;
        self.files()?.vfs.remove_file(&target).await?;
        self.log_change("DELE", &target);
        Ok(Reply::new(ReplyCode::ACTION_OK, "File deleted.").into())
    }

    pub(in crate::ftp) async fn rnfr(&mut self, path: &[u8]) -> Result<Outcome, Refusal> {
        let source = self.resolve(path)?;
        self.files()?.vfs.exists(&source).await?;
        self.rename_from = Some(source);
        Ok(Reply::new(ReplyCode::NEED_MORE, "Now RNTO with the new name.").into())
    }

    pub(in crate::ftp) async fn rnto(
        &mut self,
        from: Option<VirtualPath>,
        path: &[u8],
    ) -> Result<Outcome, Refusal> {
        let Some(from) = from else {
            return Ok(Reply::new(ReplyCode::BAD_SEQUENCE, "Send RNFR right before RNTO.").into());
        };
        let to = self.resolve(path)?;
        self.files()?.vfs.rename(&from, &to).await?;
        tracing::info!(verb = "RNTO", %from, path = %to, "renamed");
        Ok(Reply::new(ReplyCode::ACTION_OK, "Renamed.").into())
    }

    pub(in crate::ftp) async fn copy(
        &mut self,
        from: &[u8],
        to: &[u8],
    ) -> Result<Outcome, Refusal> {
        let (from, to) = (self.resolve(from)?, self.resolve(to)?);
        self.files()?.vfs.copy(&from, &to).await?;
        tracing::info!(verb = "SITE COPY", %from, path = %to, "copied");
        Ok(Reply::new(ReplyCode::ACTION_OK, "Copied.").into())
    }

    fn log_change(&self, verb: &'static str, path: &VirtualPath) {
        tracing::info!(verb, %path, "done");
    }
}
