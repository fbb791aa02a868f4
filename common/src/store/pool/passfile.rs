//! Password files, as libpq reads them (PostgreSQL documentation, "The Password File").
//!
//! Lines `hostname:port:database:username:password`; `*` alone matches anything; `\` keeps `:` and `\` from meaning
//! something. The first line that matches wins.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::conninfo::{Conninfo, ServerAddress};

/// Permissions that others than the owner must not have.
const FOREIGN_PERMISSIONS: u32 = 0o077;

/// The password that the file has for a server; `None` without such a file or line.
pub(super) fn look_up(conninfo: &Conninfo, server: &ServerAddress) -> Option<String> {
    let path = conninfo.passfile.as_deref()?;
    let host = if server.host == "/var/run/postgresql" {
        "localhost"
    } else {
        &server.host
    };
    let port = server.port.to_string();
    find(&read(path)?, [host, &port, &conninfo.database, &conninfo.user])
}

fn read(path: &Path) -> Option<String> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file.path = %path.display(), error = %error, "password file cannot be read");
            return None;
        }
    };
    if !metadata.is_file() {
        tracing::warn!(file.path = %path.display(), "password file is no plain file, and is ignored");
        return None;
    }
    if metadata.mode() & FOREIGN_PERMISSIONS != 0 {
        tracing::warn!(
            file.path = %path.display(),
            "password file is open to group or others, and is ignored; its permissions should be 0600"
        );
        return None;
    }
    match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) => {
            tracing::warn!(file.path = %path.display(), error = %error, "password file cannot be read");
            None
        }
    }
}

fn find(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .find_map(|line| password_if_matching(line, wanted))
}

fn password_if_matching(line: &str, wanted: [&str; 4]) -> Option<String> {
    let mut rest = line;
    for value in wanted {
        let end = end_of_field(rest)?;
        let field = &rest[..end];
        if field != "*" && unescape(field) != value {
            return None;
        }
        rest = &rest[end + 1..];
    }
    // A colon may stand in the password as it is; most programs that write such files escape it.
    Some(unescape(rest))
}

/// Where the first `:` without a `\` before it is.
fn end_of_field(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b':' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            _ => plain.push(character),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const WANTED: [&str; 4] = ["db.example", "5432", "flagstate", "reader"];

    #[test]
    fn finds_the_first_line_that_matches() {
        for (text, password) in [
            ("db.example:5432:flagstate:reader:pw", Some("pw")),
            ("*:*:*:*:pw", Some("pw")),
            ("db.example:*:flagstate:*:pw", Some("pw")),
            ("#db.example:5432:flagstate:reader:no\n*:*:*:*:pw", Some("pw")),
            ("other:*:*:*:no\n\n*:*:*:*:pw\n*:*:*:*:later", Some("pw")),
            ("*:*:*:*:p\\:w\\\\", Some("p:w\\")),
            ("*:*:*:*:p:w", Some("p:w")),
            ("*:*:*:*: p w ", Some(" p w ")),
            ("*:*:*:*:pw\r\n", Some("pw")),
            ("*:*:*:*:", Some("")),
            ("db\\.example:5432:flagstate:reader:pw", Some("pw")),
            ("\\*:*:*:*:no", None),
            ("db.example*:*:*:*:no", None),
            ("db.example:5432:flagstate:other:no", None),
            ("*:5433:*:*:no", None),
            ("*:*:*:*", None),
            ("", None),
        ] {
            assert_eq!(find(text, WANTED).as_deref(), password, "{text:?}");
        }
        let escaped = find("::1:5432:*:*:no\n\\:\\:1:5432:*:*:pw", ["::1", "5432", "d", "u"]);
        assert_eq!(escaped.as_deref(), Some("pw"));
    }

    #[test]
    fn ignores_a_file_that_others_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        assert_eq!(read(&path), None);
        fs::write(&path, "*:*:*:*:pw").unwrap();
        for (mode, is_read) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).is_some(), is_read, "{mode:o}");
        }
        assert_eq!(read(folder.path()), None);
    }
}
