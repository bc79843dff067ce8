//! The options that say where things are: flags over environment over file over defaults.

use std::path::{Path, PathBuf};

use crate::cli::CliError;
use crate::config::Config;

/// Where the configuration and the data are.
#[derive(clap::Args, Clone)]
pub(crate) struct Place {
    /// Configuration file [default: none; every key has a default]
    #[arg(long, env = "WHARF_CONFIG", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where the accounts and homes are [default: ./wharf-data]
    #[arg(long, env = "WHARF_DATA_DIR", value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

impl Place {
    /// The configuration file, if there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// What has another command look at the same place, to be put behind it:
    /// what was said on the command line and not by the environment.
    pub(crate) fn options(&self) -> String {
        let mut text = String::new();
        for (option, variable, said) in [
            ("--config", "WHARF_CONFIG", &self.config),
            ("--data-dir", "WHARF_DATA_DIR", &self.data_dir),
        ] {
            match said {
                Some(path) if std::env::var_os(variable).as_deref() != Some(path.as_os_str()) => {
                    text += &format!(" {option} {}", path.display());
                }
                _ => {}
            }
        }
        text
    }

    /// Reads the configuration.
    #[expect(
        clippy::disallowed_methods,
        reason = "the configuration file is the operator's, named on the command line"
    )]
    pub(crate) fn load(&self) -> Result<Config, CliError> {
        let mut config = match &self.config {
            None => Config::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    CliError::Usage(format!("cannot read {}: {error}", path.display()))
                })?;
                Config::parse(&text)
                    .map_err(|error| CliError::Usage(format!("{}: {error}", path.display())))?
            }
        };
        if let Some(data_dir) = &self.data_dir {
            config.data_dir.clone_from(data_dir);
        }
        Ok(config)
    }
}
