//! What is said to a proxy before it passes bytes on.

use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest answer head of a proxy.
const MAX_HEAD: usize = 16 * 1024;

/// HTTP CONNECT (RFC 9110 section 9.3.6), with Basic authentication.
pub(super) async fn connect(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    destination: &str,
    credentials: Option<(&str, &str)>,
) -> io::Result<()> {
    let mut request = format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n");
    if let Some((user, password)) = credentials {
        let token = STANDARD.encode(format!("{user}:{password}"));
        request.push_str(&format!("Proxy-Authorization: Basic {token}\r\n"));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte, so that nothing of what follows the head is taken; it is short, and read once in a connection's
    // life.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(io::Error::other(format!("its answer is longer than {MAX_HEAD} bytes")));
        }
        head.push(stream.read_u8().await?);
    }
    let line = String::from_utf8_lossy(head.split(|byte| *byte == b'\r').next().unwrap_or_default()).into_owned();
    let mut words = line.split(' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().and_then(|status| status.parse::<u16>().ok());
    match status.filter(|_| version.starts_with("HTTP/1.")) {
        Some(200..=299) => Ok(()),
        Some(407) => Err(io::Error::other("it wants a user name and password: write http://USER:PASSWORD@HOST:PORT")),
        Some(status) => Err(io::Error::other(format!("it refused with status {status} to connect to {destination}"))),
        None => Err(io::Error::other("its answer is not HTTP")),
    }
}

/// SOCKS5 (RFC 1928), with user name and password (RFC 1929). Names are looked up by the proxy.
pub(super) async fn socks5(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    destination: &str,
    credentials: Option<(&str, &str)>,
) -> io::Result<()> {
    let request = socks5_request(destination)?;
    socks5_method(stream, credentials).await?;
    stream.write_all(&request).await?;
    let [_, reply, _, kind] = read(stream).await?;
    if reply != 0 {
        return Err(io::Error::other(format!("it cannot connect to {destination}: {}", socks_reason(reply))));
    }
    let length = match kind {
        SOCKS5_V4 => 4,
        SOCKS5_V6 => 16,
        SOCKS5_NAME => {
            let [length] = read(stream).await?;
            usize::from(length)
        }
        _ => return Err(io::Error::other("its answer is not SOCKS5")),
    };
    // The bound address and port, which nobody needs.
    stream.read_exact(&mut vec![0; length + 2]).await?;
    Ok(())
}

const SOCKS5: u8 = 5;
const SOCKS5_V4: u8 = 1;
const SOCKS5_NAME: u8 = 3;
const SOCKS5_V6: u8 = 4;

/// Agrees on who we are.
async fn socks5_method(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    credentials: Option<(&str, &str)>,
) -> io::Result<()> {
    const NO_AUTHENTICATION: u8 = 0;
    const PASSWORD: u8 = 2;
    let greeting: &[u8] =
        if credentials.is_some() { &[SOCKS5, 2, NO_AUTHENTICATION, PASSWORD] } else { &[SOCKS5, 1, NO_AUTHENTICATION] };
    stream.write_all(greeting).await?;
    let [version, method] = read(stream).await?;
    if version != SOCKS5 {
        return Err(io::Error::other("it does not speak SOCKS5"));
    }
    match (method, credentials) {
        (NO_AUTHENTICATION, _) => Ok(()),
        (PASSWORD, Some((user, password))) => {
            let mut request = vec![1];
            push_short(&mut request, user)?;
            push_short(&mut request, password)?;
            stream.write_all(&request).await?;
            match read(stream).await? {
                [_, 0] => Ok(()),
                [_, _] => Err(io::Error::other("it refused the user name or password")),
            }
        }
        _ => Err(io::Error::other("it wants a user name and password: write socks5://USER:PASSWORD@HOST:PORT")),
    }
}

/// Asks for a connection.
fn socks5_request(destination: &str) -> io::Result<Vec<u8>> {
    const CONNECT: u8 = 1;
    let malformed = || io::Error::other(format!("{destination:?} is no host:port"));
    let (host, port) = destination.rsplit_once(':').ok_or_else(malformed)?;
    let port: u16 = port.parse().map_err(|_| malformed())?;
    let mut request = vec![SOCKS5, CONNECT, 0];
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => {
            request.push(SOCKS5_V4);
            request.extend(address.octets());
        }
        Ok(IpAddr::V6(address)) => {
            request.push(SOCKS5_V6);
            request.extend(address.octets());
        }
        Err(_) => {
            request.push(SOCKS5_NAME);
            push_short(&mut request, host)?;
        }
    }
    request.extend(port.to_be_bytes());
    Ok(request)
}

async fn read<const N: usize>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

fn push_short(request: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length =
        u8::try_from(text.len()).map_err(|_| io::Error::other("a name or password is longer than 255 bytes"))?;
    request.push(length);
    request.extend(text.as_bytes());
    Ok(())
}

fn socks_reason(reply: u8) -> &'static str {
    match reply {
        2 => "its rules forbid it",
        3 => "no network there",
        4 => "no host there",
        5 => "connection refused",
        6 => "time-to-live exceeded",
        7 => "it cannot connect for others",
        8 => "it does not know this kind of address",
        _ => "general failure",
    }
}
