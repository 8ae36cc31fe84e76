use std::convert::Infallible;

use futures_util::future::join_all;

/// Tells whoever comes over QUIC that nobody is taken any more, so that they need not wait for an answer in vain. Goes on
/// until it is dropped.
pub(crate) async fn refuse_newcomers(endpoints: &[quinn::Endpoint]) -> Infallible {
    join_all(endpoints.iter().map(refuse)).await;
    std::future::pending().await
}

async fn refuse(endpoint: &quinn::Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        incoming.refuse();
    }
}
