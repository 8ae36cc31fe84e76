//! Whether a real etcd sends what is calculated here.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::{LIMIT, until};
use jiff::Timestamp;
use registry::{Engine as _, Etcd, EtcdSettings, Registry};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::engine::{Pop, Store};
use crate::world::{connection, join};

/// Connections that come and go.
const CONNECTIONS: usize = 500;

/// Bytes that a node is sent for so many connections that come, and go: as calculated, and by etcd, if that is installed.
pub(crate) async fn compare() -> Option<(u64, u64)> {
    let etcd = harness::Etcd::start(1).await?;
    let address: SocketAddr = etcd.addresses().parse().unwrap();
    let received = Arc::new(AtomicU64::new(0));
    let counted = counting(address, Arc::clone(&received)).await;
    let open = async |address: SocketAddr| {
        let engine = Etcd::open(&EtcdSettings::parse(&format!("etcd://{address}/snicket")).unwrap()).await.unwrap();
        Registry::open(engine, Timestamp::now()).await.unwrap()
    };
    let (teller, listener) = (open(address).await, open(counted).await);
    join(&teller, 0);
    join(&listener, 1);
    let met = async || [&teller, &listener].iter().all(|registry| registry.snapshot().nodes().count() == 2);
    until(LIMIT, "both nodes know each other", met).await;
    let quiet = received.load(Ordering::Relaxed);
    let tunnel = Uuid::new_v4();
    come_and_go(&teller, tunnel, async || listener.snapshot().connections(tunnel).count()).await;
    let by_etcd = received.load(Ordering::Relaxed) - quiet;

    let store = Store::new();
    let teller = Registry::open(Pop::new(&store, None), Timestamp::now()).await.unwrap();
    join(&teller, 0);
    let listed = async || store.engine.live().load().await.unwrap().entries.len();
    until(LIMIT, "the node is listed", async || listed().await == 1).await;
    let before = *store.traffic.lock().unwrap();
    come_and_go(&teller, tunnel, async || listed().await - 1).await;
    let calculated = store.traffic.lock().unwrap().since(before).bytes;
    Some((calculated, by_etcd))
}

/// `seen` tells how many of the connections have been told of.
async fn come_and_go(teller: &Registry, tunnel: Uuid, seen: impl AsyncFn() -> usize) {
    let present: Vec<_> =
        (0..CONNECTIONS).map(|index| teller.connect(connection(tunnel, Uuid::new_v4(), index % 4))).collect();
    until(LIMIT, "all have come", async || seen().await == CONNECTIONS).await;
    drop(present);
    until(LIMIT, "all are gone", async || seen().await == 0).await;
}

/// A way to there on which the bytes that come back are counted.
async fn counting(to: SocketAddr, received: Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let here = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let received = Arc::clone(&received);
            tokio::spawn(async move {
                let (mut from_node, mut to_node) = stream.into_split();
                let (mut from_etcd, mut to_etcd) = TcpStream::connect(to).await?.into_split();
                tokio::spawn(async move { copy(&mut from_node, &mut to_etcd).await });
                let mut piece = vec![0; 1 << 16];
                loop {
                    let read = from_etcd.read(&mut piece).await?;
                    if read == 0 {
                        return Ok::<_, std::io::Error>(());
                    }
                    received.fetch_add(read as u64, Ordering::Relaxed);
                    to_node.write_all(&piece[..read]).await?;
                }
            });
        }
    });
    here
}
