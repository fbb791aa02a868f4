//! Free loopback ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use rand::RngExt as _;

/// Below the range from which the kernel takes source ports, so that no outgoing connection sits on a port that a
/// server gave up for a moment.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// What this process was given. A server comes and goes on its port; the UDP port of the same number stays bound until
/// this process ends, and tells all others who look for a port that this one is taken.
static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// An address on 127.0.0.1 that nothing listens on, and that nobody else is given.
///
/// # Errors
/// When a hundred random ports were all taken.
pub fn free() -> Result<SocketAddr> {
    let mut random = rand::rng();
    (0..100)
        .map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, random.random_range(RANGE))))
        .find(|address| take(*address))
        .context("no free port on 127.0.0.1")
}

fn take(address: SocketAddr) -> bool {
    let Ok(mark) = UdpSocket::bind(address) else {
        return false;
    };
    if TcpListener::bind(address).is_err() {
        return false;
    }
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
    true
}

/// Whether something accepts connections there.
pub async fn is_open(address: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_was_given_is_not_given_again_and_can_be_listened_on() {
        let address = free().unwrap();
        assert!(!take(address));
        TcpListener::bind(address).unwrap();
    }
}
