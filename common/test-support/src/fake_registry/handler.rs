//! From an HTTP request to an HTTP answer: log, authentication, content, fault, and how the body travels.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use actix_web::body::{BodyStream, BoxBody, MessageBody as _, SizedStream};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};

use super::fault::Fault;
use super::log::{Kind, LoggedRequest};
use super::reply::{self, Reply};
use super::{Shared, upload};

/// A piece of a body without end.
const PIECE: usize = 16 * 1024;

pub(super) async fn handle(request: HttpRequest, body: Bytes, shared: web::Data<Shared>) -> HttpResponse {
    let shared = shared.into_inner();
    let logged = logged(&request);
    let (reply, fault) = decide(&shared, &logged, body);
    let _answering = Answering(Arc::clone(&shared));
    if let Some(Fault::Delay(delay)) = &fault {
        tokio::time::sleep(*delay).await;
    }
    respond(&shared, &logged.method, reply, fault)
}

struct Answering(Arc<Shared>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.lock().log.answered();
    }
}

fn logged(request: &HttpRequest) -> LoggedRequest {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    LoggedRequest {
        kind: Kind::of(request.method().as_str(), request.path()),
        method: request.method().to_string(),
        path: request.path().to_owned(),
        query: request.query_string().to_owned(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value.as_bytes())))
            .collect(),
        is_in_pause: false,
    }
}

fn decide(shared: &Shared, request: &LoggedRequest, body: Bytes) -> (Reply, Option<Fault>) {
    let mut state = shared.lock();
    state.log.arrived(request.clone());
    let (method, path) = (request.method.as_str(), request.path.as_str());
    let fault = state.rules.iter_mut().find_map(|rule| rule.meet(method, path));
    let reply = if request.kind == Kind::Token {
        let number = state.log.requests().len() as u64;
        state.auth.token(request, number)
    } else if let Some(refusal) = state.auth.refuse(request, &state.own_url) {
        refusal
    } else if request.kind == Kind::Write {
        let media_type = request.header("content-type").unwrap_or_default();
        upload::write(&mut state, method, path, &request.query, media_type, body)
    } else {
        reply::read(&state, path, &request.query)
    };
    if let Some(Fault::Pause { marked, .. }) = &fault {
        state.log.pause(*marked);
    }
    match &fault {
        Some(fault) => (fault.apply(reply), Some(fault.clone())),
        None => (reply, None),
    }
}

fn respond(shared: &Arc<Shared>, method: &str, reply: Reply, fault: Option<Fault>) -> HttpResponse {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponse::build(status);
    for header in reply.headers {
        response.append_header(header);
    }
    let length = reply.body.len() as u64;
    let body = match fault {
        Some(Fault::Drop) => BodyStream::new(broken(Bytes::new())).boxed(),
        _ if method == "HEAD" => SizedStream::new(length, nothing()).boxed(),
        Some(Fault::Endless) => BodyStream::new(spaces(shared, u64::MAX)).boxed(),
        Some(Fault::Declared(length)) => SizedStream::new(length, spaces(shared, length)).boxed(),
        Some(Fault::Cut) => {
            let half = reply.body.slice(..reply.body.len() / 2);
            SizedStream::new(length, broken(half)).boxed()
        }
        Some(Fault::Drip { bytes, every }) => SizedStream::new(length, drip(shared, reply.body, bytes, every)).boxed(),
        _ => {
            shared.produced.fetch_add(length, Ordering::Relaxed);
            BoxBody::new(reply.body)
        }
    };
    response.body(body)
}

fn nothing() -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::empty()
}

/// What was said so far, then a broken connection.
fn broken(start: Bytes) -> impl Stream<Item = Result<Bytes, io::Error>> {
    let start = (!start.is_empty()).then_some(Ok(start));
    let end = Err(io::Error::from(io::ErrorKind::ConnectionAborted));
    stream::iter(start).chain(stream::iter([end]))
}

fn spaces(shared: &Arc<Shared>, length: u64) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let shared = Arc::clone(shared);
    stream::unfold(length, move |left| {
        let piece = left.min(PIECE as u64);
        shared.produced.fetch_add(piece, Ordering::Relaxed);
        let bytes = Bytes::from(vec![b' '; usize::try_from(piece).unwrap_or(PIECE)]);
        let next = (piece > 0).then_some((Ok(bytes), left - piece));
        async move { next }
    })
}

fn drip(
    shared: &Arc<Shared>,
    body: Bytes,
    bytes: usize,
    every: Duration,
) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let shared = Arc::clone(shared);
    stream::unfold(body, move |mut body| {
        let shared = Arc::clone(&shared);
        async move {
            if body.is_empty() {
                return None;
            }
            tokio::time::sleep(every).await;
            let piece = body.split_to(bytes.clamp(1, body.len()));
            shared.produced.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Some((Ok(piece), body))
        }
    })
}
