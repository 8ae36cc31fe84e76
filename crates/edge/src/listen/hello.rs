//! The first message of a TLS visitor, looked at without an answer.

use std::io;

use bytes::BytesMut;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// A first message that is longer is not looked into any further. Those of browsers have 2 KiB, with keys for all they know 4.
const MAX_HELLO: usize = 16 << 10;

/// Reads until the first message is whole, and answers the server's name in it, in lower case. What was read is in
/// `bytes`, also when it is no TLS.
pub(super) async fn server_name(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut BytesMut,
) -> io::Result<Option<String>> {
    let mut acceptor = Acceptor::default();
    loop {
        let seen = bytes.len();
        if stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
        let mut news = &bytes[seen..];
        while !news.is_empty() {
            if acceptor.read_tls(&mut news)? == 0 {
                return Ok(None);
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    return Ok(accepted.client_hello().server_name().map(str::to_ascii_lowercase));
                }
                Ok(None) => (),
                // Whoever serves it says what is wrong.
                Err(_) => return Ok(None),
            }
        }
        if bytes.len() >= MAX_HELLO {
            return Ok(None);
        }
    }
}
