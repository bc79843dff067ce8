//! Verbs about the session itself: FEAT, HELP, OPTS, CLNT, TYPE, ALLO, REST, RANG.

use wharf_model::{ByteRange, DigestAlgorithm, cut_for_display, escape_for_display};
use wharf_proto::ftp::command::{OptsArgument, TransferType};
use wharf_proto::ftp::facts::FactSet;
use wharf_proto::ftp::reply::{Reply, ReplyCode};
use wharf_proto::ftp::verb::{FEATURES_WITHOUT_VERB, SITE_COMMANDS, VERBS, Verb, VerbInfo};

use crate::ftp::session::{Outcome, Session};

impl Session {
    pub(in crate::ftp) fn feat(&self) -> Outcome {
        let mut features: Vec<String> = VERBS.iter().filter_map(|row| self.feature(row)).collect();
        features.extend(FEATURES_WITHOUT_VERB.map(str::to_owned));
        features.sort_unstable();
        let lines = features
            .into_iter()
            .map(|feature| format!(" {feature}").into_bytes());
        Reply::multiline(ReplyCode::SYSTEM_STATUS, "Features:", lines, "End").into()
    }

    fn feature(&self, row: &VerbInfo) -> Option<String> {
        let feature = row.feature?;
        let tls = self.shared.config.tls.as_ref();
        let is_served = match row.verb {
            Verb::Auth | Verb::Pbsz | Verb::Prot => tls.is_some(),
            Verb::Ccc => tls.is_some_and(|tls| tls.may_clear_control),
            _ => true,
        };
        is_served.then(|| match row.verb {
            Verb::Mlst => self.facts.feature(),
            Verb::Hash => self.hash_feature(),
            _ => feature.to_owned(),
        })
    }

    /// `HASH SHA-256*;SHA-512;…` (draft-bryan-ftpext-hash §4).
    fn hash_feature(&self) -> String {
        let names = DigestAlgorithm::ALL.map(|algorithm| {
            let star = if algorithm == self.hash_algorithm {
                "*"
            } else {
                ""
            };
            format!("{algorithm}{star};")
        });
        format!("HASH {}", names.concat())
    }

    pub(in crate::ftp) fn help(&self, topic: &[u8]) -> Outcome {
        let topic = topic.trim_ascii();
        if topic.is_empty() {
            let lines = VERBS.chunks(8).map(|rows| {
                let names: Vec<&str> = rows.iter().map(VerbInfo::name).collect();
                format!(" {}", names.join(" ")).into_bytes()
            });
            return Reply::multiline(
                ReplyCode::HELP,
                "Verbs:",
                lines,
                "HELP <verb> explains one.",
            )
            .into();
        }
        if topic.eq_ignore_ascii_case(b"SITE") {
            return self.site_help();
        }
        let Some(row) = VerbInfo::find(topic) else {
            let text = format!("No verb is called {}.", escape_for_display(topic));
            return Reply::new(ReplyCode::NOT_IMPLEMENTED, text).into();
        };
        let form = format!("{} {}", row.name(), row.syntax);
        let text = format!("{}: {} ({})", form.trim_end(), row.help, row.source);
        Reply::new(ReplyCode::HELP, text).into()
    }

    pub(in crate::ftp) fn site_help(&self) -> Outcome {
        let lines = SITE_COMMANDS
            .iter()
            .map(|row| format!(" SITE {} {}: {}", row.name, row.syntax, row.help).into_bytes());
        Reply::multiline(ReplyCode::HELP, "SITE commands:", lines, "End").into()
    }

    pub(in crate::ftp) fn opts(&mut self, option: OptsArgument) -> Outcome {
        match option {
            OptsArgument::Utf8(true) => Reply::new(ReplyCode::OK, "UTF8 is on.").into(),
            OptsArgument::Utf8(false) => Reply::new(
                ReplyCode::PARAMETER_NOT_IMPLEMENTED,
                "Names are bytes; UTF8 is always on.",
            )
            .into(),
            OptsArgument::Mlst(facts) => {
                self.facts = FactSet::parse(&facts);
                Reply::new(ReplyCode::OK, format!("MLST OPTS {}", self.facts.names())).into()
            }
            OptsArgument::Hash(None) => {
                Reply::new(ReplyCode::OK, self.hash_algorithm.name()).into()
            }
            OptsArgument::Hash(Some(algorithm)) => {
                self.hash_algorithm = algorithm;
                self.hash_uploads = true;
                Reply::new(ReplyCode::OK, algorithm.name()).into()
            }
        }
    }

    pub(in crate::ftp) fn clnt(&self, client: &[u8]) -> Outcome {
        let client = cut_for_display(client);
        tracing::info!(client, "client named itself");
        Reply::new(ReplyCode::OK, "Noted.").into()
    }

    pub(in crate::ftp) fn set_type(&mut self, transfer_type: TransferType) -> Outcome {
        self.transfer_type = transfer_type;
        let text = match transfer_type {
            TransferType::Ascii => "Type is ASCII.",
            TransferType::Image => "Type is binary.",
        };
        Reply::new(ReplyCode::OK, text).into()
    }

    /// 200 and not 202, on which some cameras hang up.
    pub(in crate::ftp) fn allo(&mut self, bytes: u64) -> Outcome {
        self.announced = Some(bytes);
        Reply::new(
            ReplyCode::OK,
            "Noted; the next upload is checked against your quota.",
        )
        .into()
    }

    pub(in crate::ftp) fn rest(&mut self, offset: u64) -> Outcome {
        if offset > 0 && self.transfer_type == TransferType::Ascii {
            let text = "An offset means nothing while line ends are translated; send TYPE I first.";
            return Reply::new(ReplyCode::INVALID_ARGUMENT, text).into();
        }
        self.restart = offset;
        self.range = None;
        let text = format!("The next transfer starts at byte {offset}.");
        Reply::new(ReplyCode::NEED_MORE, text).into()
    }

    pub(in crate::ftp) fn rang(&mut self, range: Option<ByteRange>) -> Outcome {
        self.range = range;
        self.restart = 0;
        let text = match range {
            Some(range) => format!(
                "The next RETR or HASH covers {} bytes from {}.",
                range.length(),
                range.start
            ),
            None => "The next RETR or HASH covers the whole file.".to_owned(),
        };
        Reply::new(ReplyCode::NEED_MORE, text).into()
    }
}
