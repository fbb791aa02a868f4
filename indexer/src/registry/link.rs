//! The `Link` header that leads to the next page of a list (RFC 8288, and the distribution specification).

use reqwest::header::{HeaderMap, LINK};

/// The target of the first link whose relation is `next`, as written: absolute, relative or an opaque cursor.
///
/// Several links in one header and several headers are understood; the relation in any case, quoted or not, alone
/// or among others.
pub(super) fn next(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(next_in)
}

fn next_in(mut rest: &str) -> Option<&str> {
    loop {
        let (_, after_open) = rest.split_once('<')?;
        let (target, after_target) = after_open.split_once('>')?;
        let (parameters, after_link) = split_at_unquoted(after_target, ',');
        if is_next(parameters) {
            return Some(target.trim());
        }
        rest = after_link;
    }
}

fn is_next(mut parameters: &str) -> bool {
    while !parameters.is_empty() {
        let (parameter, rest) = split_at_unquoted(parameters, ';');
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            return value
                .trim()
                .trim_matches('"')
                .split_ascii_whitespace()
                .any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        parameters = rest;
    }
    false
}

/// Splits at the first `separator` outside a quoted string; without one everything is before it.
fn split_at_unquoted(text: &str, separator: char) -> (&str, &str) {
    let mut quoted = false;
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => {
                return (&text[..index], &text[index + character.len_utf8()..]);
            }
            _ => {}
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_the_next_page_however_it_is_written() {
        for (header, expected) in [
            (
                r#"</v2/_catalog?last=z&n=100>; rel="next""#,
                Some("/v2/_catalog?last=z&n=100"),
            ),
            (r#"<https://a/x?n=1>;rel=next"#, Some("https://a/x?n=1")),
            (r#"</p>; rel="prev", </n>; rel="next""#, Some("/n")),
            (r#"</n>; title="a, \"b; c"; REL="last Next""#, Some("/n")),
            (r#"</a,b;c>; rel=next"#, Some("/a,b;c")),
            (r#"</n>"#, None),
            (r#"</n>; rel="nexter""#, None),
            (r#"</n>; rel="prev"; rel="next""#, None),
            (r#"</n; rel="next""#, None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, header.parse().expect("valid"));
            assert_eq!(next(&headers), expected, "{header}");
        }
    }

    #[test]
    fn looks_into_every_header() {
        let mut headers = HeaderMap::new();
        headers.append(LINK, "</p>; rel=prev".parse().expect("valid"));
        headers.append(LINK, "</n>; rel=next".parse().expect("valid"));
        assert_eq!(next(&headers), Some("/n"));
    }

    proptest! {
        #[test]
        fn ends_on_any_input(text in "[<>;,=\"\\\\a rel next]{0,60}") {
            let found = next_in(&text);
            prop_assert!(found.is_none_or(|target| text.contains(target)));
        }
    }
}
