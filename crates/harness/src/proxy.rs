use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// The first byte of SOCKS5 (RFC 1928).
const SOCKS5: u8 = 5;

/// A proxy that agents dial out through: HTTP CONNECT and SOCKS5 on one port of loopback, without passwords.
#[derive(Debug)]
pub struct ForwardProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    server: AbortHandle,
}

impl ForwardProxy {
    /// Starts it.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&asked);
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let record = Arc::clone(&record);
                // A connection that breaks is the test's business.
                connections.spawn(async move { serve(stream, &record).await.ok() });
            }
        });
        Self { address, asked, server: server.abort_handle() }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it was asked for so far: the protocol and `host:port`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let first = stream.read_u8().await?;
    let (protocol, target) = match first {
        SOCKS5 => ("socks5", socks5(&mut stream).await?),
        first => ("connect", connect(&mut stream, first).await?),
    };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{protocol} {target}"));
    let mut far = TcpStream::connect(&target).await?;
    match first {
        SOCKS5 => stream.write_all(&[SOCKS5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?,
        _ => stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?,
    }
    tokio::io::copy_bidirectional(&mut stream, &mut far).await?;
    Ok(())
}

async fn connect(stream: &mut TcpStream, first: u8) -> io::Result<String> {
    let mut head = vec![first];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    target.map(str::to_owned).ok_or_else(|| io::Error::other("this proxy knows only CONNECT"))
}

async fn socks5(stream: &mut TcpStream) -> io::Result<String> {
    let methods = stream.read_u8().await?;
    stream.read_exact(&mut vec![0; methods.into()]).await?;
    stream.write_all(&[SOCKS5, 0]).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let host = match head[3] {
        1 => {
            let mut address = [0; 4];
            stream.read_exact(&mut address).await?;
            Ipv4Addr::from(address).to_string()
        }
        3 => {
            let length = stream.read_u8().await?;
            let mut name = vec![0; length.into()];
            stream.read_exact(&mut name).await?;
            String::from_utf8_lossy(&name).into_owned()
        }
        kind => return Err(io::Error::other(format!("this proxy knows no addresses of kind {kind}"))),
    };
    Ok(format!("{host}:{}", stream.read_u16().await?))
}
