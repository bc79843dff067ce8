//! Addresses of data connections: PORT, EPRT and the replies 227 and 229.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Parses `h1,h2,h3,h4,p1,p2` (RFC 959 §4.1.2). Each number is 0 to 255.
pub fn parse_port(text: &[u8]) -> Option<SocketAddr> {
    let mut numbers = [0_u8; 6];
    let mut parts = text.trim_ascii().split(|byte| *byte == b',');
    for number in &mut numbers {
        *number = decimal(parts.next()?.trim_ascii())?;
    }
    if parts.next().is_some() {
        return None;
    }
    let [a, b, c, d, high, low] = numbers;
    let port = u16::from_be_bytes([high, low]);
    Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port))
}

/// Writes `h1,h2,h3,h4,p1,p2`.
pub fn format_port(address: Ipv4Addr, port: u16) -> String {
    let [a, b, c, d] = address.octets();
    let [high, low] = port.to_be_bytes();
    format!("{a},{b},{c},{d},{high},{low}")
}

/// Why an EPRT argument was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EprtError {
    /// Not of the form `|family|address|port|`.
    Syntax,
    /// A family other than 1 (IPv4) and 2 (IPv6).
    Family,
}

/// Parses `|family|address|port|` with any delimiter from `!` to `~` (RFC 2428 §2).
///
/// # Errors
/// [`EprtError`].
pub fn parse_eprt(text: &[u8]) -> Result<SocketAddr, EprtError> {
    let text = std::str::from_utf8(text.trim_ascii()).map_err(|_| EprtError::Syntax)?;
    let delimiter = text
        .chars()
        .next()
        .filter(char::is_ascii_graphic)
        .ok_or(EprtError::Syntax)?;
    let parts: Vec<&str> = text.split(delimiter).collect();
    let ["", family, address, port, ""] = parts.as_slice() else {
        return Err(EprtError::Syntax);
    };
    if !matches!(*family, "1" | "2") {
        return Err(EprtError::Family);
    }
    let address: IpAddr = address.parse().map_err(|_| EprtError::Syntax)?;
    let port: u16 = decimal(port.as_bytes()).ok_or(EprtError::Syntax)?;
    match (*family, address) {
        ("1", IpAddr::V4(_)) | ("2", IpAddr::V6(_)) => Ok(SocketAddr::new(address, port)),
        _ => Err(EprtError::Syntax),
    }
}

/// Writes `|family|address|port|`.
pub fn format_eprt(address: SocketAddr) -> String {
    let family = if address.is_ipv4() { 1 } else { 2 };
    format!("|{family}|{}|{}|", address.ip(), address.port())
}

/// The text of a 227 reply (RFC 959 §5.4).
pub fn format_pasv(address: Ipv4Addr, port: u16) -> String {
    format!("Entering Passive Mode ({}).", format_port(address, port))
}

/// Finds the six numbers in the text of a 227 reply, with or without parentheses (RFC 1123 §4.1.2.6).
pub fn parse_pasv(text: &[u8]) -> Option<SocketAddr> {
    let inside = match text.iter().position(|byte| *byte == b'(') {
        Some(open) => {
            let rest = text.get(open + 1..)?;
            rest.get(..rest.iter().position(|byte| *byte == b')')?)?
        }
        None => {
            let first_comma = text.iter().position(|byte| *byte == b',')?;
            let start = text
                .get(..first_comma)?
                .iter()
                .rposition(|byte| !byte.is_ascii_digit())
                .map_or(0, |before| before + 1);
            let rest = text.get(start..)?;
            let length = rest
                .iter()
                .position(|byte| !byte.is_ascii_digit() && *byte != b',')
                .unwrap_or(rest.len());
            rest.get(..length)?
        }
    };
    parse_port(inside)
}

/// The text of a 229 reply, exactly as RFC 2428 §3 writes it.
pub fn format_epsv(port: u16) -> String {
    format!("Entering Extended Passive Mode (|||{port}|)")
}

/// Finds the port in the text of a 229 reply.
pub fn parse_epsv(text: &[u8]) -> Option<u16> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let rest = text.get(open + 1..)?;
    let inside = rest.get(..rest.iter().position(|byte| *byte == b')')?)?;
    let [first, second, third, port @ .., last] = inside else {
        return None;
    };
    if !first.is_ascii_graphic() || [second, third, last].into_iter().any(|byte| byte != first) {
        return None;
    }
    decimal(port).filter(|port| *port != 0)
}

/// Digits only, within the type's range.
fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn port_takes_six_numbers_of_one_byte() {
        assert_eq!(
            parse_port(b"127,0,0,1,4,1"),
            Some(address("127.0.0.1:1025"))
        );
        for bad in [
            "127,0,0,1,4",
            "127,0,0,1,4,1,1",
            "256,0,0,1,4,1",
            "127,0,0,1,4,-1",
            "127.0.0.1,4,1",
            "",
            "+1,0,0,1,4,1",
        ] {
            assert_eq!(parse_port(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn eprt_takes_the_examples_of_the_standard() {
        assert_eq!(
            parse_eprt(b"|1|132.235.1.2|6275|"),
            Ok(address("132.235.1.2:6275"))
        );
        assert_eq!(
            parse_eprt(b"|2|1080::8:800:200C:417A|5282|"),
            Ok(address("[1080::8:800:200C:417A]:5282"))
        );
        assert_eq!(parse_eprt(b"!1!10.0.0.1!21!"), Ok(address("10.0.0.1:21")));
        assert_eq!(parse_eprt(b"|3|10.0.0.1|21|"), Err(EprtError::Family));
        for bad in [
            "",
            "|1|10.0.0.1|21",
            "|1|::1|21|",
            "|2|10.0.0.1|21|",
            "|1|10.0.0.1|65536|",
            "|1|host|21|",
        ] {
            assert_eq!(parse_eprt(bad.as_bytes()), Err(EprtError::Syntax), "{bad}");
        }
        assert_eq!(format_eprt(address("[::1]:5282")), "|2|::1|5282|");
    }

    #[test]
    fn passive_replies_read_back_in_the_dialects_that_servers_speak() {
        let expected = Some(address("10.1.2.3:50001"));
        for text in [
            "Entering Passive Mode (10,1,2,3,195,81).",
            "Entering Passive Mode. 10,1,2,3,195,81",
            "=10,1,2,3,195,81",
        ] {
            assert_eq!(parse_pasv(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(
            format_pasv(Ipv4Addr::new(10, 1, 2, 3), 50001),
            "Entering Passive Mode (10,1,2,3,195,81)."
        );
        assert_eq!(
            parse_epsv(b"Entering Extended Passive Mode (|||6446|)"),
            Some(6446)
        );
        assert_eq!(parse_epsv(b"Entering Extended Passive Mode (|||0|)"), None);
        assert_eq!(parse_epsv(b"(||6446|)"), None);
        assert_eq!(
            format_epsv(6446),
            "Entering Extended Passive Mode (|||6446|)"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (parse_port(&text), parse_eprt(&text), parse_pasv(&text), parse_epsv(&text));
        }
    }
}
