//! Files of known hosts: OpenSSH's (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"), and Wharf's own.
//!
//! Pure: the caller reads the files. A line that is not understood is passed over.

use hmac::{Hmac, KeyInit as _, Mac as _};
use russh::keys::ssh_encoding::base64::{Base64, Encoding as _};
use sha1::Sha1;

use super::host_key::{HostKey, KnownAs, KnownKey};
use super::pattern::matches_list;

/// The keys that a file of OpenSSH's has for `server`. `place` is the file as a person knows it.
///
/// Lines for authorities (`@cert-authority`) are passed over: certificates of hosts are not asked for.
pub fn find_host_keys(text: &str, place: &str, server: &KnownAs) -> Vec<KnownKey> {
    let name = server.openssh_name();
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let mut words = line.split_ascii_whitespace();
            let mut hosts = words.next().filter(|word| !word.starts_with('#'))?;
            let is_revoked = hosts == "@revoked";
            if is_revoked {
                hosts = words.next()?;
            } else if hosts.starts_with('@') {
                return None;
            }
            known_key(&mut words, is_revoked, place, index).filter(|_| is_for(hosts, &name))
        })
        .collect()
}

/// The keys that Wharf's own file has for `server`: lines of `host:port ssh-ed25519 AAAA…`.
pub fn find_pinned_keys(text: &str, place: &str, server: &KnownAs) -> Vec<KnownKey> {
    let name = server.own_name();
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(index, line)| {
            let mut words = line.split_ascii_whitespace();
            let is_for_server = words.next() == Some(&name);
            known_key(&mut words, false, place, index).filter(|_| is_for_server)
        })
        .collect()
}

/// The line of Wharf's own file that remembers a key, with its end.
pub fn pinned_line(server: &KnownAs, key: &HostKey) -> String {
    format!("{} {}\n", server.own_name(), key.to_line())
}

fn known_key<'a>(
    words: &mut impl Iterator<Item = &'a str>,
    is_revoked: bool,
    place: &str,
    index: usize,
) -> Option<KnownKey> {
    let algorithm = words.next()?.to_owned();
    let base64 = words.next()?.to_owned();
    let is_key = ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|begin| algorithm.starts_with(begin));
    is_key.then(|| KnownKey {
        algorithm,
        base64,
        is_revoked,
        place: format!("{place} line {}", index + 1),
    })
}

fn is_for(hosts: &str, name: &str) -> bool {
    match hosts.strip_prefix(HASHED) {
        Some(hashed) => is_hash_of(hashed, name).unwrap_or(false),
        None => matches_list(hosts.split(','), name),
    }
}

/// `salt|hash`, both in base64: HMAC-SHA-1 of the name under the salt.
fn is_hash_of(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let salt = Base64::decode_vec(salt).ok()?;
    let hash = Base64::decode_vec(hash).ok()?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&salt).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&hash).is_ok())
}

/// What a hashed name begins with (ssh-keygen(1), -H).
const HASHED: &str = "|1|";

#[cfg(test)]
mod tests {
    use super::*;

    // The first two lines are what `ssh-keygen -H` made of `files.example` and
    // `[files.example]:2222`, with other keys.
    const FILE: &str = "\
|1|fhB75yYjlih2juDHsHEr8KvKR2g=|/7tQL8g4TAD/fTbsW67AEbuMNFI= ssh-ed25519 AAAAhashed
|1|gjrS1dr8dZnXcCI0TxCYJwcdfg4=|GAQViCOpX3QfleHjDlCuMNpM+PY= ssh-ed25519 AAAAhashedport
# files.example ssh-ed25519 AAAAcomment
*.example,!bad.example ssh-rsa AAAApattern comment of it
other.example,192.0.2.7 ecdsa-sha2-nistp256 AAAAaddress
[files.example]:2222 ssh-ed25519 AAAAport
@revoked files.example ssh-ed25519 AAAArevoked
@cert-authority *.example ssh-ed25519 AAAAauthority
files.example
";

    fn found(host: &str, port: u16) -> Vec<(String, bool)> {
        let server = KnownAs {
            host: host.to_owned(),
            port: Some(port),
        };
        find_host_keys(FILE, "known_hosts", &server)
            .into_iter()
            .map(|key| (key.base64, key.is_revoked))
            .collect()
    }

    fn keys(of: &[&str]) -> Vec<(String, bool)> {
        of.iter().map(|key| ((*key).to_owned(), false)).collect()
    }

    #[test]
    fn names_patterns_addresses_and_ports_are_found() {
        assert_eq!(found("bad.example", 22), []);
        assert_eq!(found("192.0.2.7", 22), keys(&["AAAAaddress"]));
        assert_eq!(
            found("other.example", 22),
            keys(&["AAAApattern", "AAAAaddress"])
        );
        assert_eq!(
            found("files.example", 2222),
            keys(&["AAAAhashedport", "AAAAport"])
        );
        let mut expected = keys(&["AAAAhashed", "AAAApattern"]);
        expected.push(("AAAArevoked".to_owned(), true));
        assert_eq!(found("files.example", 22), expected);
        assert_eq!(found("files.example", 2223), []);
    }

    #[test]
    fn wharfs_own_lines_are_read_as_they_are_written_and_others_are_left_alone() {
        let server = KnownAs {
            host: "files.example".to_owned(),
            port: Some(22),
        };
        let text = "files.example:22 tls authority\nfiles.example:22 ssh-ed25519 AAAA\nfiles.example:2222 ssh-rsa BBBB\n";
        let found = find_pinned_keys(text, "pins", &server);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].base64, "AAAA");
        assert_eq!(found[0].place, "pins line 2");
    }
}
