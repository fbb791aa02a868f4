//! Content codings (RFC 9110, 8.4 and 12.5.3): which one a client asks for, and the encoders.
//!
//! The encoders are deterministic: the same text gives the same bytes in every process of a build, so that the entity
//! tag, a hash of these bytes, holds over restarts and is the same on every replica.

use std::io::{self, Write};

use brotli::CompressorWriter;
use flate2::Compression;
use flate2::write::GzEncoder;

/// Shorter bodies are not worth encoding.
pub(crate) const MIN_ENCODED_LENGTH: usize = 1024;

const GZIP_LEVEL: u32 = 6;
const BROTLI_QUALITY: u32 = 5;
const BROTLI_WINDOW: u32 = 22;
const BROTLI_BUFFER: usize = 4096;

/// How a body is encoded, in the order of our liking.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Coding {
    /// `br`
    Brotli,
    /// `gzip`
    Gzip,
    /// Not at all.
    Identity,
}

impl Coding {
    /// The name in `Content-Encoding`; the identity has none.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Brotli => Some("br"),
            Self::Gzip => Some("gzip"),
            Self::Identity => None,
        }
    }
}

/// What a client takes, from its `Accept-Encoding` lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AcceptedCodings {
    /// The one to use for a body worth encoding.
    best: Coding,
    /// Whether a short body may go as it is.
    identity: bool,
}

impl AcceptedCodings {
    /// Reads the header lines; members that do not parse are passed over.
    ///
    /// The greatest quality wins, ties go to br, then gzip. The identity counts as least wanted unless it is named. A
    /// client that accepts nothing we have gets the identity: the header is a preference, not a demand (12.4.1).
    pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut brotli, mut gzip, mut identity, mut any) = (None, None, None, None);
        for member in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
            let Some((name, quality)) = parse_member(member) else {
                continue;
            };
            let slot = match name.as_str() {
                "br" => &mut brotli,
                "gzip" | "x-gzip" => &mut gzip,
                "identity" => &mut identity,
                "*" => &mut any,
                _ => continue,
            };
            *slot = (*slot).max(Some(quality));
        }
        let offers = [
            (Coding::Brotli, brotli.or(any).unwrap_or(0)),
            (Coding::Gzip, gzip.or(any).unwrap_or(0)),
            (Coding::Identity, identity.or(any).unwrap_or(0)),
        ];
        let best = offers
            .into_iter()
            .filter(|(_, quality)| *quality > 0)
            .reduce(|best, offer| if offer.1 > best.1 { offer } else { best })
            .map_or(Coding::Identity, |(coding, _)| coding);
        Self {
            best,
            identity: identity.or(any) != Some(0),
        }
    }

    /// The coding for a body of that many bytes.
    pub(crate) fn for_length(self, length: usize) -> Coding {
        if length < MIN_ENCODED_LENGTH && self.identity {
            Coding::Identity
        } else {
            self.best
        }
    }
}

/// A coding's name in lower case and its quality in thousandths.
fn parse_member(member: &[u8]) -> Option<(String, u16)> {
    let text = std::str::from_utf8(member).ok()?;
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
    let quality = match parts.next() {
        None => 1000,
        Some(weight) => parse_quality(weight)?,
    };
    parts.next().is_none().then_some((name, quality))
}

/// `q=` and a `qvalue` of RFC 9110, 12.4.2.
fn parse_quality(weight: &str) -> Option<u16> {
    let (key, value) = weight.split_once('=')?;
    if !key.eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let is_short_number = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if !is_short_number || !matches!(whole, "0" | "1") {
        return None;
    }
    let thousandths: u16 = format!("{whole}{fraction:0<3}").parse().ok()?;
    (thousandths <= 1000).then_some(thousandths)
}

/// Encodes a body piece by piece.
#[expect(
    clippy::large_enum_variant,
    reason = "one lives for one response, on the stack of one thread"
)]
pub(crate) enum Encoder {
    Brotli(CompressorWriter<Vec<u8>>),
    Gzip(GzEncoder<Vec<u8>>),
    Identity(Vec<u8>),
}

impl Encoder {
    pub(crate) fn new(coding: Coding) -> Self {
        match coding {
            Coding::Brotli => Self::Brotli(CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            )),
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
            Coding::Identity => Self::Identity(Vec::new()),
        }
    }

    /// Takes a piece, and gives what is ready, which may be nothing yet.
    ///
    /// # Errors
    /// Never in practice: the encoders write to memory.
    pub(crate) fn push(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Brotli(encoder) => {
                encoder.write_all(piece)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Gzip(encoder) => {
                encoder.write_all(piece)?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Self::Identity(buffer) => {
                buffer.extend_from_slice(piece);
                Ok(std::mem::take(buffer))
            }
        }
    }

    /// The end of the encoded body.
    ///
    /// # Errors
    /// Never in practice: the encoders write to memory.
    pub(crate) fn finish(self) -> io::Result<Vec<u8>> {
        match self {
            Self::Brotli(encoder) => Ok(encoder.into_inner()),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Identity(buffer) => Ok(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn accepted(lines: &[&str]) -> AcceptedCodings {
        AcceptedCodings::parse(lines.iter().map(|line| line.as_bytes()))
    }

    #[test]
    fn the_greatest_quality_wins_and_ties_go_to_br() {
        use Coding::{Brotli, Gzip, Identity};
        for (lines, expected) in [
            (&[] as &[&str], Identity),
            (&[""], Identity),
            (&["gzip"], Gzip),
            (&["x-gzip"], Gzip),
            (&["GZIP"], Gzip),
            (&["br"], Brotli),
            (&["gzip, deflate, br"], Brotli),
            (&["gzip", "br"], Brotli),
            (&["br;q=0.5, gzip;q=0.8"], Gzip),
            (&["br;q=0.5,gzip ; q=0.500"], Brotli),
            (&["gzip;q=0.001"], Gzip),
            (&["gzip;q=0"], Identity),
            (&["gzip;q=0.000, br;Q=1.000"], Brotli),
            (&["identity, gzip;q=0.5"], Identity),
            (&["identity;q=0.5, gzip"], Gzip),
            (&["identity;q=0.5"], Identity),
            (&["*"], Brotli),
            (&["br;q=0, *"], Gzip),
            (&["br;q=0, gzip;q=0, *"], Identity),
            (&["gzip, *;q=0"], Gzip),
            (&["*;q=0"], Identity),
            (&["identity;q=0"], Identity),
            (&["deflate, zstd"], Identity),
            (&["gzip;q=1.5, gzip;q=x, gzip;level=9, gzip;q=0.1234"], Identity),
            (&["gzip;q=0.5;q=1"], Identity),
            (&[",,gzip,;q=1"], Gzip),
            (&["gzip;q=1.001"], Identity),
        ] {
            assert_eq!(accepted(lines).for_length(MIN_ENCODED_LENGTH), expected, "{lines:?}");
        }
    }

    #[test]
    fn short_bodies_stay_as_they_are_unless_the_identity_is_refused() {
        for (line, expected) in [
            ("gzip, br", Coding::Identity),
            ("gzip, identity;q=0", Coding::Gzip),
            ("br, *;q=0", Coding::Brotli),
            ("identity;q=0", Coding::Identity),
        ] {
            assert_eq!(accepted(&[line]).for_length(MIN_ENCODED_LENGTH - 1), expected, "{line}");
        }
    }

    fn encode(coding: Coding, pieces: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::new(coding);
        let mut encoded = Vec::new();
        for piece in pieces {
            encoded.extend(encoder.push(piece).expect("memory"));
        }
        encoded.extend(encoder.finish().expect("memory"));
        encoded
    }

    #[test]
    fn encodes_deterministically_and_back() {
        let text = b"flagstate ".repeat(10_000);
        let pieces: Vec<&[u8]> = text.chunks(777).collect();
        for coding in [Coding::Brotli, Coding::Gzip, Coding::Identity] {
            let encoded = encode(coding, &pieces);
            assert_eq!(encoded, encode(coding, &pieces), "{coding:?}");
            let mut decoded = Vec::new();
            match coding {
                Coding::Brotli => brotli::Decompressor::new(encoded.as_slice(), 4096).read_to_end(&mut decoded),
                Coding::Gzip => flate2::read::GzDecoder::new(encoded.as_slice()).read_to_end(&mut decoded),
                Coding::Identity => encoded.as_slice().read_to_end(&mut decoded),
            }
            .expect("well encoded");
            assert_eq!(decoded, text, "{coding:?}");
            assert_eq!(
                encoded.len() < text.len() / 10,
                coding != Coding::Identity,
                "{coding:?}"
            );
        }
    }
}
