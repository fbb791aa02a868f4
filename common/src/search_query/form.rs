//! The form encoding of query strings (WHATWG URL, "application/x-www-form-urlencoded"), read strictly.
//!
//! The standard reader mends what is broken; ours refuses it, for a query that was damaged on its way must not be
//! answered as if it were another one.

use super::error::{QueryError, Quoted};

/// The decoded pairs in their order. A piece without `=` has an empty value; empty pieces are none.
pub(super) fn decode(query_string: &str) -> Result<Vec<(String, String)>, QueryError> {
    query_string
        .split('&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            Ok((decode_text(name, name)?, decode_text(name, value)?))
        })
        .collect()
}

/// Decodes a name or value; `name` is the encoded name of the parameter it belongs to, for the error.
fn decode_text(name: &str, encoded: &str) -> Result<String, QueryError> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => match (rest.next().and_then(hex_digit), rest.next().and_then(hex_digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => {
                    return Err(QueryError::PercentEncoding {
                        parameter: Quoted::new(name),
                    });
                }
            },
            plain => plain,
        });
    }
    String::from_utf8(bytes).or(Err(QueryError::NotUtf8 {
        parameter: Quoted::new(name),
    }))
}

fn hex_digit(digit: u8) -> Option<u8> {
    let value = char::from(digit).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_forms() {
        for (text, pairs) in [
            ("", vec![]),
            ("&&", vec![]),
            ("a", vec![("a", "")]),
            ("a=", vec![("a", "")]),
            ("=v", vec![("", "v")]),
            ("a=b=c&d=e&", vec![("a", "b=c"), ("d", "e")]),
            ("a+b=c+%2B%26%3d", vec![("a b", "c +&=")]),
            ("%c3%A9=é%F0%9F%A6%80", vec![("é", "é🦀")]),
        ] {
            let expected = pairs
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(decode(text), Ok(expected.collect()), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_damaged() {
        let parameter = || Quoted::new("a%");
        for text in ["a%=1", "x=1&a%", "a%=%4"] {
            assert_eq!(
                decode(text),
                Err(QueryError::PercentEncoding { parameter: parameter() }),
                "{text}"
            );
        }
        for text in ["a=%", "a=%4", "a=%4g", "a=%+1", "a=%-1", "a=100%&b=1", "a=%é1"] {
            assert_eq!(
                decode(text),
                Err(QueryError::PercentEncoding {
                    parameter: Quoted::new("a")
                }),
                "{text}"
            );
        }
        for text in ["a=%ff", "a=%C3", "a=%ED%A0%80", "a=%C0%80"] {
            assert_eq!(
                decode(text),
                Err(QueryError::NotUtf8 {
                    parameter: Quoted::new("a")
                }),
                "{text}"
            );
        }
    }
}
