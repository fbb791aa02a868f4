//! Free loopback ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context as _, Result};
use rand::RngExt as _;

/// Below the range from which the kernel takes source ports, so that no outgoing connection sits on a port that a
/// server gave up for a moment.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// An address on 127.0.0.1 that nothing listens on.
///
/// # Errors
/// When a hundred random ports were all taken.
pub fn free() -> Result<SocketAddr> {
    let mut random = rand::rng();
    (0..100)
        .map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, random.random_range(RANGE))))
        .find(|address| TcpListener::bind(address).is_ok())
        .context("no free port on 127.0.0.1")
}

/// Whether something accepts connections there.
pub async fn is_open(address: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}
