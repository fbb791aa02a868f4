//! Reading a body that may never end.

use bytes::{Bytes, BytesMut};

/// What is set aside before anything was received, whatever `Content-Length` promises.
const INITIAL_CAPACITY: u64 = 64 * 1024;

/// A body, or as much of it as was read.
#[derive(Default)]
pub(super) struct Body {
    /// At most the limit; empty when the body was cut.
    pub(super) bytes: Bytes,
    /// Bytes received or declared when reading stopped.
    pub(super) seen: u64,
    /// Whether there is more than the limit.
    pub(super) is_cut: bool,
}

/// Reads at most `limit` bytes.
///
/// A declared length over the limit ends it before anything is read, a longer body with the piece that crosses the
/// limit. The connection of a cut body is closed.
pub(super) async fn read(mut response: reqwest::Response, limit: u64) -> Result<Body, reqwest::Error> {
    let declared = response.content_length().unwrap_or_default();
    if declared > limit {
        return Ok(cut(declared));
    }
    let capacity = declared.min(INITIAL_CAPACITY);
    let mut bytes = BytesMut::with_capacity(usize::try_from(capacity).unwrap_or_default());
    while let Some(piece) = response.chunk().await? {
        let seen = (bytes.len() + piece.len()) as u64;
        if seen > limit {
            return Ok(cut(seen));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(Body {
        seen: bytes.len() as u64,
        bytes: bytes.freeze(),
        is_cut: false,
    })
}

fn cut(seen: u64) -> Body {
    Body {
        bytes: Bytes::new(),
        seen,
        is_cut: true,
    }
}
