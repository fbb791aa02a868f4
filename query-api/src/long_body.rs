//! Bodies that are too long to be put together: made, encoded and sent piece by piece, as fast as the client reads.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::caching::{Coding, Encoder};

/// How many long bodies are sent at once, by one process; more are told to come back.
pub(crate) const MAX_LONG_BODIES: usize = 4;

/// How long a client may take to read one, so that slow ones do not keep the others out for ever.
const DEADLINE: Duration = Duration::from_secs(300);

/// Encoded pieces that wait for the client.
const PIECES_AHEAD: usize = 2;

struct Chunk {
    bytes: Bytes,
    is_last: bool,
}

/// Encodes the pieces on a blocking thread, which holds the permit until the end.
///
/// A body that cannot be sent to its end ends in an error, never as if it were complete.
pub(crate) fn send<I>(
    pieces: I,
    coding: Coding,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = io::Result<Bytes>> + use<I>
where
    I: Iterator<Item = Result<Vec<u8>, serde_json::Error>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let runtime = Handle::current();
    let deadline = Instant::now() + DEADLINE;
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        encode(pieces, coding, |chunk| {
            runtime
                .block_on(timeout_at(deadline, sender.send(chunk)))
                .is_ok_and(|sent| sent.is_ok())
        });
    });
    futures::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Ok(chunk)) => Some((Ok(chunk.bytes), (!chunk.is_last).then_some(receiver))),
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(io::ErrorKind::UnexpectedEof.into()), None)),
        }
    })
}

/// Stops at the first error, and when `deliver` says that nobody listens any more.
fn encode<I, F>(pieces: I, coding: Coding, mut deliver: F)
where
    I: Iterator<Item = Result<Vec<u8>, serde_json::Error>>,
    F: FnMut(io::Result<Chunk>) -> bool,
{
    let mut encoder = Encoder::new(coding);
    for piece in pieces {
        let encoded = piece.map_err(io::Error::from).and_then(|piece| encoder.push(&piece));
        let goes_on = encoded.is_ok();
        let has_news = encoded.as_ref().map_or(true, |bytes| !bytes.is_empty());
        let delivered = !has_news
            || deliver(encoded.map(|bytes| Chunk {
                bytes: bytes.into(),
                is_last: false,
            }));
        if !delivered || !goes_on {
            return;
        }
    }
    deliver(encoder.finish().map(|bytes| Chunk {
        bytes: bytes.into(),
        is_last: true,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use std::io::Read as _;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    async fn permit(turns: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        turns.clone().acquire_owned().await.expect("open")
    }

    #[tokio::test]
    async fn what_arrives_is_what_was_sent_and_the_turn_ends() {
        let turns = Arc::new(Semaphore::new(1));
        let pieces = || (0..100_u8).map(|byte| Ok(vec![byte; 1000]));
        let expected: Vec<u8> = (0..100_u8).flat_map(|byte| vec![byte; 1000]).collect();
        for coding in [Coding::Identity, Coding::Gzip, Coding::Brotli] {
            let chunks: Vec<_> = send(pieces(), coding, permit(&turns).await).collect().await;
            let body: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.expect("sent")).collect();
            let mut decoded = Vec::new();
            match coding {
                Coding::Identity => body.as_slice().read_to_end(&mut decoded),
                Coding::Gzip => flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut decoded),
                Coding::Brotli => brotli::Decompressor::new(body.as_slice(), 4096).read_to_end(&mut decoded),
            }
            .expect("complete");
            assert!(decoded == expected, "{coding:?}");
        }
        drop(permit(&turns).await);
    }

    #[tokio::test]
    async fn a_body_that_fails_does_not_look_complete() {
        let turns = Arc::new(Semaphore::new(1));
        let broken = || serde_json::from_str::<()>("").expect_err("no JSON");
        let pieces = vec![Ok(b"start".to_vec()), Err(broken()), Ok(b"end".to_vec())];
        let chunks: Vec<_> = send(pieces.into_iter(), Coding::Identity, permit(&turns).await)
            .collect()
            .await;
        assert_eq!(chunks.len(), 2);
        assert_eq!(chunks[0].as_ref().expect("sent").as_ref(), b"start");
        assert!(chunks[1].is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_loses_its_turn_and_sees_an_error() {
        let turns = Arc::new(Semaphore::new(1));
        let pieces = (0..10).map(|_| Ok(vec![0; 10]));
        let body = send(pieces, Coding::Identity, permit(&turns).await);
        tokio::time::advance(DEADLINE).await;
        drop(permit(&turns).await);
        let chunks: Vec<_> = body.collect().await;
        assert!(chunks.len() < 10);
        assert!(chunks.last().expect("a chunk").is_err());
    }
}
