//! An edge that falls silent without a word, as after a power cut: every packet towards it is swallowed, nothing comes
//! back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agent::{Event, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use crate::edge::Edge;
use crate::origin::Origin;
use crate::{config, event, everything_to, started};

type Silence = Arc<AtomicBool>;

/// The ten seconds that the design sets, and what a busy machine adds.
const FOUND_WITHIN: Duration = Duration::from_secs(14);

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, silent: Silence) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let Ok(read @ 1..) = from.read(&mut bytes).await else { return };
        if !silent.load(Ordering::SeqCst) && to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

/// Passes TCP connections on until it falls silent; then it reads on and says nothing, as a peer behind a dead path.
async fn tcp_relay(edge: SocketAddr, silent: Silence) -> Origin {
    Origin::raw(move |stream| {
        let silent = silent.clone();
        async move {
            let (from_agent, to_agent) = stream.into_split();
            let (from_edge, to_edge) = TcpStream::connect(edge).await.unwrap().into_split();
            tokio::join!(pass(from_agent, to_edge, silent.clone()), pass(from_edge, to_agent, silent));
        }
    })
    .await
}

/// The same for one UDP flow at a time.
async fn udp_relay(edge: SocketAddr, silent: Silence) -> SocketAddr {
    let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    inside.connect(edge).await.unwrap();
    let address = outside.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 2048], vec![0; 2048]);
        let mut agent = None;
        loop {
            tokio::select! {
                Ok((read, from)) = outside.recv_from(&mut up) => {
                    agent = Some(from);
                    if !silent.load(Ordering::SeqCst) {
                        let _ = inside.send(&up[..read]).await;
                    }
                }
                Ok(read) = inside.recv(&mut down) => {
                    if let (Some(agent), false) = (agent, silent.load(Ordering::SeqCst)) {
                        let _ = outside.send_to(&down[..read], agent).await;
                    }
                }
            }
        }
    });
    address
}

#[tokio::test]
async fn a_silent_edge_is_found_and_left_and_found_again() {
    let mut tests = tokio::task::JoinSet::new();
    for protocol in [Protocol::Http2, Protocol::Quic] {
        tests.spawn(async move {
            let edge = Edge::start().await;
            let silent = Silence::default();

            let tcp = tcp_relay(edge.address, silent.clone()).await;
            let udp = udp_relay(edge.address, silent.clone()).await;
            let relay = if protocol == Protocol::Quic { udp } else { tcp.address };
            let mut config = config(&[&edge], &everything_to("http_status:200", ""));
            config.edge = vec![relay.to_string().parse().unwrap()];
            config.protocol = protocol;
            let agent = started(config).await;
            assert_eq!(edge.get("/").await.0, 200);
            let mut events = agent.events();
            let begun = Instant::now();
            silent.store(true, Ordering::SeqCst);
            event(&mut events, |event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
            assert!(begun.elapsed() < FOUND_WITHIN, "{protocol:?}: found after {:?}", begun.elapsed());
            edge.has(0).await;
            silent.store(false, Ordering::SeqCst);
            edge.has(1).await;
            assert_eq!(edge.get("/").await.0, 200);
        });
    }
    while let Some(ended) = tests.join_next().await {
        ended.unwrap();
    }
}
