//! A certificate as a person wants to know it.

use time::OffsetDateTime;
use wharf_model::escape_for_display;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// What a certificate says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Whom it is for, its other names, who made it.
    pub(super) words: String,
    /// Until it expires; negative since then.
    pub(super) days_left: i64,
}

/// Reads a certificate in DER form; `None` if it is damaged.
pub(super) fn summary(der: &[u8], now: OffsetDateTime) -> Option<Summary> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject().to_string();
    let issuer = certificate.issuer().to_string();
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|extension| extension.value.general_names.iter());
    let names: Vec<String> = names.into_iter().flatten().filter_map(name).collect();
    let days_left = (certificate.validity().not_after.to_datetime() - now).whole_days();
    let made_by = if subject == issuer {
        "itself".to_owned()
    } else {
        issuer
    };
    let words = format!(
        "certificate of {subject} for {}, made by {made_by}",
        if names.is_empty() {
            "no name".to_owned()
        } else {
            names.join(", ")
        }
    );
    Some(Summary {
        words: escape_for_display(words.as_bytes()),
        days_left,
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets)
                .map(|octets| std::net::Ipv4Addr::from(octets).to_string());
            let v6 = <[u8; 16]>::try_from(*octets)
                .map(|octets| std::net::Ipv6Addr::from(octets).to_string());
            v4.or(v6).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    #[test]
    fn a_certificate_tells_its_names_its_maker_and_its_days() {
        let names = ["files.example".to_owned(), "192.0.2.7".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "evil\x1b[2J");
        params.not_after = rcgen::date_time_ymd(2026, 1, 31);
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("made");
        let now = rcgen::date_time_ymd(2026, 1, 1);
        let summary = summary(made.der(), now).expect("is whole");
        assert_eq!(summary.days_left, 30);
        assert!(
            summary
                .words
                .contains("files.example, 192.0.2.7, made by itself"),
            "{summary:?}"
        );
        assert!(!summary.words.contains('\x1b'), "{summary:?}");
        assert_eq!(super::summary(b"no certificate", now), None);
    }
}
