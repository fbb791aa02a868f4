//! The end of a process: the first SIGTERM or SIGINT asks for it, the second enforces it.
//!
//! What the services do when asked: turn not ready, stop accepting, finish the running change set or requests,
//! release the lease, close pools, write one last line.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT; a second one ends the process at once.
///
/// Must be called within the runtime.
///
/// # Errors
///
/// The operating system must let the signals be caught.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let asked = shutdown.clone();
    tokio::spawn(async move {
        let first = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = first.name, "shutting down");
        asked.cancel();
        let second = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(signal = second.name, "second signal, exiting at once");
        std::process::exit(second.exit_code);
    });
    Ok(shutdown)
}

struct Caught {
    name: &'static str,
    /// 128 and the signal's number, as shells report it.
    exit_code: i32,
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> Caught {
    tokio::select! {
        _ = terminate.recv() => Caught { name: "SIGTERM", exit_code: 128 + 15 },
        _ = interrupt.recv() => Caught { name: "SIGINT", exit_code: 128 + 2 },
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn is_asked_for_by_the_first_signal() {
        let shutdown = on_signal().unwrap();
        assert!(!shutdown.is_cancelled());
        raise(Signal::SIGTERM).unwrap();
        shutdown.cancelled().await;
    }

    #[test]
    fn is_enforced_by_the_second_signal() {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "shutdown::tests::two_signals"])
            .output()
            .unwrap()
            .status;
        assert_eq!(status.code(), Some(128 + 2));
    }

    #[tokio::test]
    #[ignore = "ends its process; is_enforced_by_the_second_signal runs it in one of its own"]
    async fn two_signals() {
        let shutdown = on_signal().unwrap();
        raise(Signal::SIGTERM).unwrap();
        shutdown.cancelled().await;
        raise(Signal::SIGINT).unwrap();
        std::future::pending::<()>().await;
    }
}
