//! A door in front of PostgreSQL that can be shut: connections through it break, and new ones are refused.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

pub(crate) struct Gate {
    address: SocketAddr,
    target: SocketAddr,
    forwarding: Option<JoinHandle<()>>,
}

impl Gate {
    /// Opens one, and gives the URL that leads through it.
    pub(crate) async fn open_before(url: &str) -> (Self, String) {
        let (before, rest) = url.split_once('@').expect("a URL with a user");
        let (target, database) = rest.split_once('/').expect("a URL with a database");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let mut gate = Self {
            address,
            target: target.parse().expect("an address"),
            forwarding: None,
        };
        gate.forward(listener);
        (gate, format!("{before}@{address}/{database}"))
    }

    pub(crate) async fn shut(&mut self) {
        let forwarding = self.forwarding.take().expect("open");
        forwarding.abort();
        assert!(forwarding.await.expect_err("it forwards for ever").is_cancelled());
    }

    pub(crate) async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the same port");
        self.forward(listener);
    }

    fn forward(&mut self, listener: TcpListener) {
        let target = self.target;
        self.forwarding = Some(tokio::spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.expect("a connection");
                connections.spawn(async move {
                    let mut server = TcpStream::connect(target).await.expect("PostgreSQL");
                    drop(copy_bidirectional(&mut client, &mut server).await);
                });
            }
        }));
    }
}
