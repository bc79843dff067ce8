//! What the client reads beside the wire: URLs and the files of its user.

use wharf_client::{
    Fingerprint, Known, RemoteUrl, UrlComponent, find_in_netrc, find_known, known_line, server_name,
};
use wharf_model::VirtualPath;

/// A URL that was read names the same thing again when it is written, and
/// nothing in it can forge a command.
pub(crate) fn url(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(url) = RemoteUrl::parse(text) else {
        return;
    };
    let home = VirtualPath::parse(b"/home/alice").expect("a path");
    let harmless = |bytes: &[u8]| !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    assert!(url.user.as_deref().is_none_or(harmless));
    let password = url.password.as_ref().map(|password| password.expose());
    assert!(password.is_none_or(|password| harmless(password)));
    let path = url.path.literal(&home);
    assert!(path.as_ref().is_ok_and(|path| harmless(path.as_bytes())) || path.is_err());

    let written = url.to_string();
    let again = RemoteUrl::parse(&written).expect("what was written is a URL");
    assert_eq!(again.to_string(), written);
    assert_eq!((again.scheme, &again.user), (url.scheme, &url.user));
    assert_eq!((&again.host, again.port), (&url.host, url.port));
    assert_eq!(again.path.names_directory(), url.path.names_directory());
    assert_eq!(again.path.literal(&home), path);
    assert_eq!(again.path.has_wildcards(), url.path.has_wildcards());
    for (component, other) in url.path.components().iter().zip(again.path.components()) {
        let glob = |component: &UrlComponent| {
            let pattern = component.pattern.as_ref();
            pattern.map(|pattern| pattern.glob().to_string())
        };
        assert_eq!(glob(component), glob(other));
    }
}

/// Any text is a `.netrc`; an entry for the user who is asked for is theirs.
/// The first line is the host, the second the user.
pub(crate) fn netrc(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut parts = text.splitn(3, '\n');
    let (host, user) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let text = parts.next().unwrap_or_default();
    find_in_netrc(text, host, None);
    if let Some(entry) = find_in_netrc(text, host, Some(user)) {
        assert!(entry.login.is_none_or(|login| login == user));
    }
}

/// Whatever the file holds already, a server that is added to it is found.
/// The first line is a URL of the server.
pub(crate) fn known_hosts(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (url, text) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(url) = RemoteUrl::parse(url) else {
        find_known(text, url);
        return;
    };
    let server = server_name(&url.host, url.port);
    if let Some((_, Known::ByFingerprint(known))) = find_known(text, &server) {
        assert_eq!(known.to_string().parse::<Fingerprint>(), Ok(known));
    }
    let some = format!("sha256:{:064x}", text.len());
    let some = some.parse().expect("a fingerprint");
    for known in [Known::ByAuthority, Known::ByFingerprint(some)] {
        let line = known_line(&server, known);
        assert_eq!(line.lines().count(), 1);
        let all = format!("{text}\n{line}");
        let last = all.lines().count();
        assert_eq!(find_known(&all, &server), Some((last, known)));
    }
}
