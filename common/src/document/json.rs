//! JSON from strangers, made safe for PostgreSQL.
//!
//! PostgreSQL's text holds neither U+0000 nor lone surrogates, and serde_json refuses the latter. Both become U+FFFD
//! here, as invalid UTF-8 does, and the document is flagged; the raw bytes are kept elsewhere, unchanged.

use std::borrow::Cow;

use serde_json::Value;
use thiserror::Error;

/// A document that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Json {
    /// The value; the last of several equal keys won.
    pub value: Value,
    /// Whether some text was changed to make it storable.
    pub sanitised: bool,
}

/// Why a body is not usable as JSON.
#[derive(Debug, Error)]
pub enum JsonError {
    /// Nested deeper than the limit.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// The limit, in levels.
        limit: usize,
    },
    /// Not JSON.
    #[error("not JSON: {0}")]
    Syntax(#[from] serde_json::Error),
}

/// Reads a body as JSON.
///
/// # Errors
/// [`JsonError::TooDeep`] beyond `depth_limit` levels of objects and arrays (serde_json itself stops at 128),
/// [`JsonError::Syntax`] for anything that is not one JSON value.
pub fn parse(body: &[u8], depth_limit: usize) -> Result<Json, JsonError> {
    let text = String::from_utf8_lossy(body);
    let lossy = matches!(text, Cow::Owned(_));
    let (text, replaced) = replace_unstorable_escapes(&text, depth_limit)?;
    Ok(Json {
        value: serde_json::from_str(&text)?,
        sanitised: lossy || replaced,
    })
}

/// Replaces `\u0000` and lone surrogate escapes inside strings by `\ufffd`, and measures the nesting on the way.
fn replace_unstorable_escapes(text: &str, depth_limit: usize) -> Result<(Cow<'_, str>, bool), JsonError> {
    let bytes = text.as_bytes();
    let mut bad_escapes = Vec::new();
    let (mut depth, mut in_string, mut at) = (0_usize, false, 0);
    while at < bytes.len() {
        match (in_string, bytes[at]) {
            (true, b'\\') => {
                let (length, bad) = escape(bytes, at);
                if bad {
                    bad_escapes.push(at);
                }
                at += length;
                continue;
            }
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > depth_limit {
                    return Err(JsonError::TooDeep { limit: depth_limit });
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    if bad_escapes.is_empty() {
        return Ok((Cow::Borrowed(text), false));
    }
    let mut clean = text.to_owned();
    for at in bad_escapes {
        clean.replace_range(at..at + UNICODE_ESCAPE, r"\ufffd");
    }
    Ok((Cow::Owned(clean), true))
}

/// Bytes of `\uXXXX`.
const UNICODE_ESCAPE: usize = 6;

/// The length of the escape at `at`, and whether it stands for something that cannot be stored.
fn escape(bytes: &[u8], at: usize) -> (usize, bool) {
    match unicode_escape(bytes, at) {
        None => (2, false),
        Some(0) => (UNICODE_ESCAPE, true),
        Some(0xD800..=0xDBFF) => match unicode_escape(bytes, at + UNICODE_ESCAPE) {
            Some(0xDC00..=0xDFFF) => (2 * UNICODE_ESCAPE, false),
            _ => (UNICODE_ESCAPE, true),
        },
        Some(0xDC00..=0xDFFF) => (UNICODE_ESCAPE, true),
        Some(_) => (UNICODE_ESCAPE, false),
    }
}

/// The code unit of a well-formed `\uXXXX` at `at`.
fn unicode_escape(bytes: &[u8], at: usize) -> Option<u16> {
    let escape = bytes.get(at..at + UNICODE_ESCAPE)?;
    let digits = escape.strip_prefix(br"\u")?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(text: &[u8]) -> Json {
        parse(text, 128).expect("JSON")
    }

    #[test]
    fn replaces_what_postgresql_refuses() {
        for (body, expected) in [
            (&br#"{"a":"x\u0000y"}"#[..], json!({"a": "x\u{FFFD}y"})),
            (br#"{"a\u0000":"\ud800"}"#, json!({"a\u{FFFD}": "\u{FFFD}"})),
            (br#"["\udc00\ud83d"]"#, json!(["\u{FFFD}\u{FFFD}"])),
            (br#"["\ud800\ud83d\ude00"]"#, json!(["\u{FFFD}\u{1F600}"])),
            (b"[\"\xff\"]", json!(["\u{FFFD}"])),
        ] {
            assert_eq!(
                read(body),
                Json {
                    value: expected,
                    sanitised: true
                }
            );
        }
    }

    #[test]
    fn leaves_everything_else_alone() {
        for (body, expected) in [
            (&br#"["\ud83d\ude00"]"#[..], json!(["\u{1F600}"])),
            (br#"["\\u0000"]"#, json!([r"\u0000"])),
            (br#"["\\\\u0000 \" \u0041"]"#, json!([r#"\\u0000 " A"#])),
        ] {
            assert_eq!(
                read(body),
                Json {
                    value: expected,
                    sanitised: false
                }
            );
        }
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        assert_eq!(read(br#"{"a":1,"A":2,"a":3}"#).value, json!({"a": 3, "A": 2}));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(parse(&nested(127), 128).is_ok());
        for depth in [129, 100_000, 1_000_000] {
            assert!(matches!(
                parse(&nested(depth), 128),
                Err(JsonError::TooDeep { limit: 128 })
            ));
        }
        assert!(parse(br#"["[[[[[["]"#, 1).is_ok());
    }

    #[test]
    fn refuses_what_is_not_json() {
        for body in [
            &b""[..],
            b"\xef\xbb\xbf{}",
            b"{} x",
            b"{",
            br#"{"a":"\u00"}"#,
            b"[\"\x00\"]",
        ] {
            assert!(matches!(parse(body, 128), Err(JsonError::Syntax(_))), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn valid_text_comes_back_unchanged(text in "[^\u{0}]*") {
            let body = serde_json::to_vec(&json!([text])).expect("serialises");
            prop_assert_eq!(read(&body), Json { value: json!([text]), sanitised: false });
        }

        #[test]
        fn any_bytes_end_without_panic_and_never_hold_nul(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(json) = parse(&body, 128) {
                prop_assert!(!json.value.to_string().contains("\\u0000"));
            }
        }
    }
}
