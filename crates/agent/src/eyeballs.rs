//! Connecting to a name with several addresses (RFC 8305): families take turns, the next attempt starts when the one
//! before fails or takes too long, and the first that connects wins.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpSocket, TcpStream, lookup_host};

/// The pause before the next address is tried beside the one under way (RFC 8305 section 5 recommends 250 ms).
pub(crate) const STAGGER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried; more help nobody within a time-out.
const MAX_ADDRESSES: usize = 16;

/// Looks a host up; literal addresses answer at once.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let addresses = interleaved(lookup_host((bare, port)).await?.collect());
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{bare} has no address")));
    }
    Ok(addresses)
}

/// Connects to the first address that answers. Without `stagger` the addresses are tried strictly one after the other.
/// The error is that of the first address.
pub(crate) async fn connect<T, F>(
    addresses: &[SocketAddr],
    stagger: Option<Duration>,
    mut attempt: impl FnMut(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = addresses.iter().copied().take(MAX_ADDRESSES);
    let mut under_way = FuturesUnordered::new();
    let mut first_error = None;
    loop {
        let more = match waiting.next() {
            Some(address) => {
                under_way.push(attempt(address));
                true
            }
            None => false,
        };
        let outcome = match stagger {
            Some(pause) if more => match tokio::time::timeout(pause, under_way.next()).await {
                Ok(outcome) => outcome,
                Err(_) => continue,
            },
            _ => under_way.next().await,
        };
        match outcome {
            Some(Ok(connected)) => return Ok(connected),
            Some(Err(error)) => {
                first_error.get_or_insert(error);
            }
            None => {
                return Err(first_error.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no address")));
            }
        }
    }
}

/// Connects from a local address, if one is given.
pub(crate) async fn connect_from(bind: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(bind) = bind {
        socket.bind((bind, 0).into())?;
    }
    socket.connect(address).await
}

/// The order of the resolver, families taking turns.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return addresses };
    let (same, other): (Vec<_>, Vec<_>) = addresses.iter().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut other = other.into_iter();
    let mut result: Vec<SocketAddr> =
        same.into_iter().flat_map(|address| [Some(address), other.next()]).flatten().collect();
    result.extend(other);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns() {
        let mixed = addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        assert_eq!(interleaved(mixed), addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_costs_one_stagger() {
        let list = addresses(&["[::1]:1", "1.1.1.1:1"]);
        let started = tokio::time::Instant::now();
        let connected = connect(&list, Some(STAGGER), |address| async move {
            if address.is_ipv6() {
                std::future::pending::<()>().await;
            }
            Ok(address)
        });
        assert_eq!(connected.await.unwrap(), list[1]);
        assert_eq!(started.elapsed(), STAGGER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_moves_on_at_once_and_the_first_error_is_told() {
        let list = addresses(&["[::1]:1", "1.1.1.1:1"]);
        for stagger in [None, Some(STAGGER)] {
            let started = tokio::time::Instant::now();
            let error = connect(&list, stagger, |address| async move {
                let kind =
                    if address.is_ipv6() { io::ErrorKind::ConnectionRefused } else { io::ErrorKind::HostUnreachable };
                Err::<(), _>(io::Error::from(kind))
            });
            assert_eq!(error.await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            assert_eq!(started.elapsed(), Duration::ZERO);
        }
    }
}
