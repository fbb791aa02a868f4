//! Faults: which requests meet one, and what it does to the answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::reply::Reply;

/// Something that goes wrong.
#[derive(Clone)]
pub enum Fault {
    /// This status, with the specification's error document.
    Status(u16),
    /// This answer.
    Reply {
        /// The status.
        status: u16,
        /// Headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
    /// The right answer, with this header in place of its own.
    Header(String, String),
    /// The right answer without this header.
    NoHeader(String),
    /// The right answer with one bit of its body flipped.
    WrongByte,
    /// The right answer with the entries of its list changed.
    Entries(Arc<dyn Fn(Vec<String>) -> Vec<String> + Send + Sync>),
    /// A redirect (307) to this URL.
    Redirect(String),
    /// 429 or 503 with this `Retry-After`; requests that arrive before the pause is over are marked in the log.
    Pause {
        /// The status.
        status: u16,
        /// `Retry-After` as sent; none is sent without it.
        retry_after: Option<String>,
        /// How long requests are marked.
        marked: Duration,
    },
    /// The right answer, this much later.
    Delay(Duration),
    /// The right answer, so many bytes of its body at a time.
    Drip {
        /// Bytes at a time.
        bytes: usize,
        /// The time.
        every: Duration,
    },
    /// The right headers, then spaces without end, chunked.
    Endless,
    /// The right headers with this `Content-Length`, then spaces until that is reached.
    Declared(u64),
    /// The right headers, half of the body, then the connection is closed.
    Cut,
    /// The connection is closed without an answer.
    Drop,
}

impl Fault {
    /// A header that the answer has in place of its own.
    #[must_use]
    pub fn header(name: &str, value: &str) -> Self {
        Self::Header(name.to_owned(), value.to_owned())
    }

    /// A list whose entries are changed.
    pub fn entries(change: impl Fn(Vec<String>) -> Vec<String> + Send + Sync + 'static) -> Self {
        Self::Entries(Arc::new(change))
    }

    /// A complete answer with one header.
    pub fn reply(status: u16, header: (&str, &str), body: impl Into<Bytes>) -> Self {
        Self::Reply {
            status,
            headers: vec![(header.0.to_owned(), header.1.to_owned())],
            body: body.into(),
        }
    }

    /// What the fault makes of the right answer; what concerns the body's way to the client is left to the handler.
    pub(super) fn apply(&self, mut reply: Reply) -> Reply {
        match self {
            Self::Status(status) => Reply::error(*status, "FAULT"),
            Self::Reply { status, headers, body } => Reply {
                status: *status,
                headers: headers.clone(),
                body: body.clone(),
            },
            Self::Header(name, value) => reply.with(name, value),
            Self::NoHeader(name) => {
                reply.remove(name);
                reply
            }
            Self::WrongByte => {
                let mut body = reply.body.to_vec();
                if let Some(last) = body.last_mut() {
                    *last ^= 1;
                }
                reply.body = body.into();
                reply
            }
            Self::Entries(change) => change_entries(reply, change.as_ref()),
            Self::Redirect(to) => Reply::new(307, "text/plain", "").with("Location", to),
            Self::Pause {
                status, retry_after, ..
            } => {
                let reply = Reply::error(*status, "TOOMANYREQUESTS");
                match retry_after {
                    Some(retry_after) => reply.with("Retry-After", retry_after),
                    None => reply,
                }
            }
            Self::Delay(_) | Self::Drip { .. } | Self::Endless | Self::Declared(_) | Self::Cut | Self::Drop => reply,
        }
    }
}

fn change_entries(mut reply: Reply, change: &dyn Fn(Vec<String>) -> Vec<String>) -> Reply {
    let Ok(mut document) = serde_json::from_slice::<serde_json::Value>(&reply.body) else {
        return reply;
    };
    for key in ["repositories", "tags"] {
        if let Some(list) = document.get_mut(key) {
            let entries = serde_json::from_value(list.take()).unwrap_or_default();
            *list = change(entries).into();
        }
    }
    reply.body = document.to_string().into();
    reply
}

impl fmt::Debug for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Fault")
    }
}

/// Which requests meet a fault.
#[derive(Clone, Debug)]
pub struct Rule {
    path: String,
    method: Option<String>,
    times: Option<usize>,
    fault: Fault,
}

impl Rule {
    /// Requests whose path matches; `*` stands for any characters.
    #[must_use]
    pub fn on(path: &str, fault: Fault) -> Self {
        Self {
            path: path.to_owned(),
            method: None,
            times: None,
            fault,
        }
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only so many times.
    #[must_use]
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    /// The fault, if the request meets it; this counts.
    pub(super) fn meet(&mut self, method: &str, path: &str) -> Option<Fault> {
        let is_met = self.times != Some(0)
            && self.method.as_deref().is_none_or(|wanted| wanted == method)
            && matches(&self.path, path);
        if !is_met {
            return None;
        }
        self.times = self.times.map(|times| times - 1);
        Some(self.fault.clone())
    }
}

/// Whether `text` matches a pattern in which `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(text) = text.strip_prefix(start) else {
        return false;
    };
    text.char_indices()
        .map(|(index, _)| &text[index..])
        .chain([""])
        .any(|tail| matches(rest, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_globs() {
        for (pattern, text, expected) in [
            ("/v2/_catalog", "/v2/_catalog", true),
            ("/v2/_catalog", "/v2/_catalogue", false),
            ("/v2/*/tags/list", "/v2/a/b/tags/list", true),
            ("/v2/*/manifests/*", "/v2/a/manifests/latest", true),
            ("/v2/*/manifests/*", "/v2/a/blobs/latest", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_rule_is_used_up() {
        let mut rule = Rule::on("*", Fault::Drop).method("GET").times(1);
        assert!(rule.meet("HEAD", "/").is_none());
        assert!(rule.meet("GET", "/").is_some());
        assert!(rule.meet("GET", "/").is_none());
    }
}
