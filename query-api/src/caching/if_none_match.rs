//! `If-None-Match` (RFC 9110, 13.1.2): does the client hold this representation already?

/// Whether the header lines name the entity tag, compared weakly; `*` names every tag.
///
/// Several lines are one list. Any error in it makes it as if the header were not there: the client gets the
/// representation, which is always right. `entity_tag` is ours, `"opaque"` with its quotes.
pub(super) fn names<'a>(lines: impl Iterator<Item = &'a [u8]>, entity_tag: &str) -> bool {
    let lines: Vec<&[u8]> = lines.collect();
    if let [line] = lines.as_slice()
        && line.trim_ascii() == b"*"
    {
        return true;
    }
    let mut named = false;
    for line in lines {
        let mut rest = line.trim_ascii();
        while !rest.is_empty() {
            if let Some(after_comma) = rest.strip_prefix(b",") {
                rest = after_comma.trim_ascii_start();
                continue;
            }
            let Some((tag, after_tag)) = split_entity_tag(rest) else {
                return false;
            };
            let after_tag = after_tag.trim_ascii_start();
            if !after_tag.is_empty() && !after_tag.starts_with(b",") {
                return false;
            }
            named |= tag == entity_tag.as_bytes();
            rest = after_tag;
        }
    }
    named
}

/// The first entity tag, without `W/` and with its quotes, and what follows it.
fn split_entity_tag(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quoted = text.strip_prefix(b"W/").unwrap_or(text);
    let opaque = quoted.strip_prefix(b"\"")?;
    let length = opaque.iter().position(|byte| !is_opaque(*byte))?;
    (opaque[length] == b'"').then(|| quoted.split_at(length + 2))
}

/// `etagc` of RFC 9110, 8.8.3.
fn is_opaque(byte: u8) -> bool {
    byte == 0x21 || (0x23..=0x7e).contains(&byte) || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "\"abc\"";

    fn check(lines: &[&str]) -> bool {
        names(lines.iter().map(|line| line.as_bytes()), OURS)
    }

    #[test]
    fn compares_weakly_over_lists_and_lines() {
        for lines in [
            &["\"abc\""] as &[&str],
            &["W/\"abc\""],
            &["  \"abc\"\t"],
            &["*"],
            &[" * "],
            &["\"x\", \"abc\""],
            &["\"x\",W/\"abc\",\"y\""],
            &["\"x,\", \"abc\""],
            &[",, \"abc\" ,"],
            &["\"x\"", "\"abc\""],
            &["\"\u{e4}\"", "W/\"abc\""],
        ] {
            assert!(check(lines), "{lines:?}");
        }
    }

    #[test]
    fn other_tags_are_no_match() {
        for lines in [
            &[] as &[&str],
            &[""],
            &["\"\""],
            &["\"ABC\""],
            &["\"abcd\"", "\"ab\""],
            &["\"W/abc\""],
            &["\"x, abc, y\""],
        ] {
            assert!(!check(lines), "{lines:?}");
        }
    }

    #[test]
    fn a_malformed_header_is_ignored_as_a_whole() {
        for lines in [
            &["abc"] as &[&str],
            &["\"abc"],
            &["abc\""],
            &["w/\"abc\""],
            &["W/ \"abc\""],
            &["\"abc\" \"x\""],
            &["\"abc\"x"],
            &["\"abc\", x"],
            &["*, \"abc\""],
            &["\"abc\"", "*"],
            &["'abc'"],
            &["\"a b\", \"abc\""],
        ] {
            assert!(!check(lines), "{lines:?}");
        }
    }

    #[test]
    fn a_huge_header_costs_one_pass() {
        let mut line = "W/\"xxxxxxxx\", ".repeat(100_000);
        line.push_str(OURS);
        assert!(names(std::iter::once(line.as_bytes()), OURS));
    }
}
