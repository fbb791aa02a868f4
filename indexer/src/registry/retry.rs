//! Waiting: between the tries of one call, and as the whole client when the registry asks for it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The first wait between two tries, before jitter.
const BACKOFF: Duration = Duration::from_millis(200);

/// The pause after a 429 that does not say how long.
pub(super) const DEFAULT_PAUSE: Duration = Duration::from_secs(1);

/// How long to wait after try number `tries`, counted from 1: doubling, between half and one and a half of it.
pub(super) fn backoff(tries: u32) -> Duration {
    let doubled = BACKOFF * 2_u32.saturating_pow(tries.saturating_sub(1));
    doubled.mul_f64(rand::random_range(0.5..1.5))
}

/// `Retry-After` in seconds or as a date (RFC 9110, 10.2.3); `None` when it is missing or nonsense.
///
/// A date in the past is no wait.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// A time until which nothing is sent, shared by all calls of a client.
#[derive(Debug, Default)]
pub(super) struct Pause {
    until: Mutex<Option<Instant>>,
}

impl Pause {
    /// Nothing is sent for `duration` from now, or for longer if that was said already.
    pub(super) fn extend(&self, duration: Duration) {
        let Some(until) = Instant::now().checked_add(duration) else {
            return;
        };
        let mut current = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(current.map_or(until, |current| current.max(until)));
    }

    /// Returns when no pause is in force.
    pub(super) async fn is_over(&self) {
        while let Some(left) = self.left() {
            tokio::time::sleep(left).await;
        }
    }

    fn left(&self) -> Option<Duration> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let left = until?.checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_seconds_and_dates_and_nothing_else() {
        let now = httpdate::parse_http_date("Fri, 31 Dec 1999 23:59:00 GMT").expect("valid");
        for (text, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 5 ", Some(5)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Fri, 31 Dec 1999 23:59:59 GMT", Some(59)),
            ("Fri, 31 Dec 1999 23:00:00 GMT", Some(0)),
            ("-1", None),
            ("1e9", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().expect("valid"));
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn waits_grow_and_are_never_the_same() {
        for tries in 1..4 {
            let expected = BACKOFF * 2_u32.pow(tries - 1);
            let waits: Vec<Duration> = (0..20).map(|_| backoff(tries)).collect();
            assert!(waits.iter().all(|wait| *wait >= expected / 2));
            assert!(waits.iter().all(|wait| *wait <= expected * 3 / 2));
            assert!(waits.iter().any(|wait| *wait != waits[0]));
        }
    }

    #[test]
    fn a_pause_is_never_shortened() {
        let pause = Pause::default();
        assert_eq!(pause.left(), None);
        pause.extend(Duration::from_secs(60));
        pause.extend(Duration::from_secs(1));
        assert!(pause.left().is_some_and(|left| left > Duration::from_secs(30)));
    }
}
