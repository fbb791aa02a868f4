//! An HTTP/1.1 client that sends exactly what it is told and shows exactly what came back.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer, its transfer coding undone and its content coding not.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The only value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self
            .headers
            .iter()
            .filter(|(found, _)| found.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "one {name} only: {:?}", self.headers);
        value
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The only tag of each image that was found.
    pub(crate) fn tags(&self) -> Vec<String> {
        let json = self.json();
        let results = json["Results"].as_array().expect("Results");
        let images = results
            .iter()
            .flat_map(|result| result["Images"].as_array().expect("Images"));
        let tags = images.flat_map(|image| image["Tags"].as_array().expect("Tags"));
        tags.map(|tag| tag.as_str().expect("a tag").to_owned()).collect()
    }

    fn parse(bytes: &[u8], is_head: bool) -> Self {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a head");
        let head = std::str::from_utf8(&bytes[..end]).expect("a head in ASCII");
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
        let headers = lines
            .map(|line| line.split_once(": ").expect("a header"))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Self {
            status: status.parse().expect("a status"),
            headers,
            body: bytes[end + 4..].to_vec(),
        };
        if is_head || answer.status == 304 {
            assert!(answer.body.is_empty(), "no body: {answer:?}");
        } else if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = unchunk(&answer.body);
        } else if let Some(length) = answer.header("content-length") {
            assert_eq!(length, answer.body.len().to_string());
        }
        answer
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes
            .windows(2)
            .position(|window| window == b"\r\n")
            .expect("a chunk's size");
        let size = std::str::from_utf8(&bytes[..end]).expect("a number");
        let size = usize::from_str_radix(size, 16).expect("a number");
        bytes = &bytes[end + 2..];
        if size == 0 {
            assert_eq!(bytes, b"\r\n", "the end of the body");
            return body;
        }
        body.extend_from_slice(&bytes[..size]);
        bytes = &bytes[size + 2..];
    }
}

/// Sends one request on a connection of its own.
pub(crate) async fn request(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut head = format!("{method} {target} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += "Host: flagstate.test\r\n";
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream
        .write_all(format!("{head}\r\n{body}").as_bytes())
        .await
        .expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("an answer");
    Answer::parse(&bytes, method == "HEAD")
}
