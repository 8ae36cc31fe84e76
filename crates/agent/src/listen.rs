//! The agent's own listeners: its endpoint and its inspector.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// The pause after a failed accept: out of descriptors, most likely, and the next would fail at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens at the address; without one at the first free of the usual ports on loopback, else at any port there.
pub(crate) async fn bind(address: Option<SocketAddr>, usual_ports: RangeInclusive<u16>) -> io::Result<TcpListener> {
    if let Some(address) = address {
        return TcpListener::bind(address).await;
    }
    for port in usual_ports {
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await {
            return Ok(listener);
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// The next connection, and its place, for which it waits first. Dropping the future loses none.
pub(crate) async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::debug!(%error, "a connection to a listener of the agent cannot be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}
