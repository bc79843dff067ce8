//! What a server says it can do (RFC 2389 §3).

use wharf_model::DigestAlgorithm;
use wharf_proto::ftp::command::Iac;

use crate::remote::{Abilities, PREFERENCE};

/// The features that this client has a use for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Features {
    pub(super) utf8: bool,
    /// MLST, and MLSD with it (RFC 3659 §7.8).
    pub(super) facts: bool,
    /// What OPTS MLST has to say so that the facts that matter are sent; empty if nothing.
    pub(super) fact_wishes: String,
    pub(super) size: bool,
    pub(super) mdtm: bool,
    pub(super) mfmt: bool,
    /// MFF: the server is a ProFTPD. No other is known to have it.
    pub(super) mff: bool,
    pub(super) restart: bool,
    pub(super) range: bool,
    /// Algorithms of HASH.
    pub(super) hash: Vec<DigestAlgorithm>,
    /// The one that HASH uses if it is not told another.
    pub(super) hash_chosen: Option<DigestAlgorithm>,
    /// Algorithms of the X commands, with the command.
    pub(super) own_commands: Vec<(DigestAlgorithm, &'static str)>,
    /// SITE PARTIAL: the server is a Wharf.
    pub(super) partials: bool,
}

/// Something that a server does not offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingFeature {
    /// Its name in the reply to FEAT.
    pub name: &'static str,
    /// How the client does without.
    pub cost: &'static str,
}

impl Features {
    /// Reads the lines of a FEAT reply.
    pub(super) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut features = Self::default();
        for line in lines {
            let line = String::from_utf8_lossy(line);
            // lavv17/lftp ftpclass.cc: some servers put the code before every feature.
            let line = line.trim();
            let line = line.strip_prefix("211-").unwrap_or(line).trim_start();
            let (name, parameters) = line.split_once(' ').unwrap_or((line, ""));
            features.take(&name.to_ascii_uppercase(), parameters.trim());
        }
        features
    }

    fn take(&mut self, name: &str, parameters: &str) {
        match name {
            "UTF8" => self.utf8 = true,
            "MLST" | "MLSD" => {
                self.facts = true;
                if !parameters.is_empty() {
                    self.fact_wishes = wishes(parameters);
                }
            }
            "SIZE" => self.size = true,
            "MDTM" => self.mdtm = true,
            "MFMT" => self.mfmt = true,
            "MFF" => self.mff = true,
            "REST" => self.restart = parameters.to_ascii_uppercase().contains("STREAM"),
            "RANG" => self.range = parameters.to_ascii_uppercase().contains("STREAM"),
            "HASH" => self.take_hash(parameters),
            "SITE" => {
                self.partials = parameters
                    .split([' ', ';'])
                    .any(|word| word.eq_ignore_ascii_case("PARTIAL"));
            }
            _ => {
                let row = OWN_COMMANDS.iter().find(|(_, verb)| *verb == name);
                self.own_commands.extend(row.copied());
            }
        }
    }

    fn take_hash(&mut self, parameters: &str) {
        for word in parameters.split(';') {
            let name = word.trim().trim_end_matches('*');
            let Ok(algorithm) = name.parse() else {
                continue;
            };
            self.hash.push(algorithm);
            if word.trim().ends_with('*') {
                self.hash_chosen = Some(algorithm);
            }
        }
    }

    /// The verb of an algorithm's own command.
    pub(super) fn own_command(&self, algorithm: DigestAlgorithm) -> Option<&'static str> {
        self.own_commands
            .iter()
            .find(|(known, _)| *known == algorithm)
            .map(|(_, verb)| *verb)
    }

    /// What the client would use and the server does not list.
    pub(super) fn missing(&self) -> Vec<MissingFeature> {
        let row = |is_there: bool, name, cost| (!is_there).then_some(MissingFeature { name, cost });
        let has_digest = !self.abilities().digests.is_empty();
        [
            row(
                self.facts,
                "MLSD",
                "sizes and times are read from LIST, as people are shown them",
            ),
            row(self.size, "SIZE", "sizes are taken from listings"),
            row(
                self.mdtm || self.facts,
                "MDTM",
                "files that have changed are told by their size only",
            ),
            row(
                self.mfmt || self.mdtm,
                "MFMT",
                "uploads get the time of the upload",
            ),
            row(
                self.restart,
                "REST STREAM",
                "cut transfers start again at the first byte",
            ),
            row(has_digest, "HASH", "copies are compared by their size only"),
            row(
                self.abilities().digests_of_ranges,
                "RANG",
                "the begin of a cut transfer is not proven before it is resumed",
            ),
            row(
                self.utf8,
                "UTF8",
                "names that are not ASCII may come out wrong",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// How the server reads a byte 0xFF: a Wharf and ProFTPD take Telnet out of
    /// their lines and would lose a single one before 240 to 255; vsftpd and
    /// Pure-FTPd take names as they come and would keep both of two.
    pub(super) fn iac(&self) -> Iac {
        if self.partials || self.mff {
            Iac::Doubled
        } else {
            Iac::AsIs
        }
    }

    /// What of this matters above FTP.
    pub(super) fn abilities(&self) -> Abilities {
        let digests: Vec<_> = PREFERENCE
            .into_iter()
            .filter(|algorithm| {
                self.hash.contains(algorithm) || self.own_command(*algorithm).is_some()
            })
            .collect();
        let best_is_hash = digests.first().is_some_and(|best| self.hash.contains(best));
        Abilities {
            // The X commands take a range as their second and third argument.
            digests_of_ranges: !digests.is_empty() && (!best_is_hash || self.range),
            digests,
            tells_partials: self.partials,
            restarts: self.restart,
            exact_listings: self.facts,
        }
    }
}

/// `type;size;…` if a fact that matters is known to the server and not chosen.
fn wishes(parameters: &str) -> String {
    let known: Vec<(&str, bool)> = parameters
        .split(';')
        .map(|fact| {
            (
                fact.trim_end_matches('*').trim(),
                fact.trim().ends_with('*'),
            )
        })
        .collect();
    let wanted = |name: &str| {
        WANTED_FACTS
            .iter()
            .any(|fact| fact.eq_ignore_ascii_case(name))
    };
    if known.iter().all(|(name, chosen)| *chosen || !wanted(name)) {
        return String::new();
    }
    known
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, _)| format!("{name};"))
        .collect()
}

const WANTED_FACTS: [&str; 4] = ["type", "size", "modify", "UNIX.mode"];

/// FIELD practice rather than a standard: one command an algorithm.
const OWN_COMMANDS: [(DigestAlgorithm, &str); 6] = [
    (DigestAlgorithm::Sha256, "XSHA256"),
    (DigestAlgorithm::Sha512, "XSHA512"),
    (DigestAlgorithm::Sha1, "XSHA1"),
    (DigestAlgorithm::Sha1, "XSHA"),
    (DigestAlgorithm::Md5, "XMD5"),
    (DigestAlgorithm::Crc32, "XCRC"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(lines: &[&str]) -> Features {
        Features::parse(lines.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn a_wharf_server_offers_everything() {
        let features = parse(&[
            "Features:",
            " HASH SHA-256*;SHA-512;SHA-1;MD5;CRC32;BLAKE3",
            " MFMT",
            " MLST type*;size*;modify*;perm*;unique*;UNIX.mode*;UNIX.owner;UNIX.group;",
            " RANG STREAM",
            " REST STREAM",
            " SITE PARTIAL",
            " XSHA256",
            "End",
        ]);
        assert!(features.mfmt && features.facts && features.partials);
        assert_eq!(features.fact_wishes, "");
        assert_eq!(features.hash_chosen, Some(DigestAlgorithm::Sha256));
        let abilities = features.abilities();
        assert_eq!(abilities.best_range_digest(), Some(DigestAlgorithm::Blake3));
        assert!(abilities.restarts);
    }

    #[test]
    fn a_server_that_speaks_telnet_is_known_by_its_features() {
        let iac = |lines| parse(lines).iac();
        assert_eq!(
            iac(&[" MFF modify;UNIX.group;UNIX.mode;", " MFMT"]),
            Iac::Doubled
        );
        assert_eq!(iac(&[" SITE PARTIAL"]), Iac::Doubled);
        assert_eq!(iac(&[" MFMT", " TVFS"]), Iac::AsIs);
    }

    #[test]
    fn an_old_server_offers_little() {
        let features = parse(&[
            "Features:",
            " EPSV",
            " MDTM",
            " REST STREAM",
            " SIZE",
            "End",
        ]);
        assert!(features.mdtm && features.size && !features.facts && !features.mfmt);
        assert_eq!(features.abilities().best_digest(), None);
    }

    #[test]
    fn dialects_of_feature_lists_are_read() {
        let features = parse(&["211-Features:", "211-utf8", "211- XMD5", "211-rest stream"]);
        assert!(features.utf8 && features.restart);
        assert_eq!(
            features.abilities().best_range_digest(),
            Some(DigestAlgorithm::Md5)
        );
    }

    #[test]
    fn a_digest_without_ranges_proves_no_begin() {
        let abilities = parse(&[" HASH SHA-1;MD5*"]).abilities();
        assert_eq!(abilities.best_digest(), Some(DigestAlgorithm::Sha1));
        assert_eq!(abilities.best_range_digest(), None);
    }

    #[test]
    fn facts_that_are_known_and_not_chosen_are_asked_for() {
        assert_eq!(
            parse(&[" MLST Type*;Size*;Modify;Perm*;"]).fact_wishes,
            "Type;Size;Modify;"
        );
        assert_eq!(parse(&[" MLST type*;size*;modify*;"]).fact_wishes, "");
    }
}
