//! A probe from outside the process: what `healthcheck` commands do, without a shell or an HTTP client in the image.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the service may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 16 * 1024;

/// Why the service is not well.
#[derive(Debug, Error)]
pub enum HealthcheckError {
    /// It cannot be reached, or the connection broke.
    #[error("{address} cannot be asked: {source}")]
    Connection {
        /// The admin port.
        address: SocketAddr,
        /// What happened.
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("{address} did not answer within {} s", PATIENCE.as_secs())]
    Timeout {
        /// The admin port.
        address: SocketAddr,
    },
    /// It answered, but not with 200.
    #[error("{address} answered: {answer}")]
    Unwell {
        /// The admin port.
        address: SocketAddr,
        /// The answer's first and last line.
        answer: String,
    },
}

/// Asks the admin port of a service on this machine for `/livez`.
///
/// # Errors
/// When it does not answer with 200 within two seconds.
pub async fn check(listen: SocketAddr) -> Result<(), HealthcheckError> {
    let address = reachable(listen);
    let answer = timeout(PATIENCE, ask(address))
        .await
        .or(Err(HealthcheckError::Timeout { address }))?;
    let answer = answer.map_err(|source| HealthcheckError::Connection { address, source })?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let answer = format!("{status} {}", answer.lines().last().unwrap_or_default());
    Err(HealthcheckError::Unwell { address, answer })
}

/// Where a service that listens on all addresses can be reached.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::admin;
    use crate::readiness::Readiness;

    #[tokio::test]
    async fn a_service_that_listens_everywhere_is_asked_on_loopback() {
        let readiness = Readiness::new(CancellationToken::new());
        let admin = admin::bind("0.0.0.0:0".parse().unwrap(), readiness, Registry::new()).unwrap();
        let address = admin.address;
        let running = tokio::spawn(admin.server);
        check(address).await.unwrap();
        running.abort();
    }

    #[tokio::test]
    async fn nobody_there_is_unwell() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        assert!(matches!(check(free).await, Err(HealthcheckError::Connection { .. })));
    }

    #[tokio::test]
    async fn silence_is_unwell() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        assert!(matches!(check(address).await, Err(HealthcheckError::Timeout { .. })));
    }
}
