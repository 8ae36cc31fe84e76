use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Room for the largest datagram.
const DATAGRAM: usize = 65_536;

/// Pairs of ports that are tried until TCP and UDP are free on one number.
const ATTEMPTS: usize = 50;

/// What a [`Relay`] lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    /// Everything.
    All,
    /// TCP; datagrams are lost.
    Tcp,
    /// Nothing: connections stay, and not a byte moves on them, nor is an end passed on.
    Nothing,
    /// Connections are reset, those that stand and those that come.
    Reset,
}

/// A way between an agent and an edge that can go dead: TCP and UDP on one port of loopback, passed on to another
/// address.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    passing: watch::Sender<Passing>,
    tcp: Arc<AtomicUsize>,
    tasks: [AbortHandle; 2],
}

impl Relay {
    /// Starts it towards an address.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start(towards: SocketAddr, passing: Passing) -> Self {
        let (listener, socket) = bind().await;
        let address = listener.local_addr().expect("a bound socket has an address");
        let passing = watch::Sender::new(passing);
        let tcp = Arc::new(AtomicUsize::new(0));
        let tasks = [
            tokio::spawn(streams(listener, towards, passing.subscribe(), Arc::clone(&tcp))).abort_handle(),
            tokio::spawn(datagrams(Arc::new(socket), towards, passing.subscribe())).abort_handle(),
        ];
        Self { address, passing, tcp, tasks }
    }

    /// Where it takes connections and datagrams.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What goes through from now on.
    pub fn pass(&self, passing: Passing) {
        self.passing.send_replace(passing);
    }

    /// TCP connections taken so far.
    pub fn tcp_connections(&self) -> usize {
        self.tcp.load(Ordering::SeqCst)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn bind() -> (TcpListener, UdpSocket) {
    for _ in 0..ATTEMPTS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        if let Ok(socket) = UdpSocket::bind(address).await {
            return (listener, socket);
        }
    }
    panic!("no port is free for TCP and UDP");
}

async fn streams(
    listener: TcpListener,
    towards: SocketAddr,
    passing: watch::Receiver<Passing>,
    count: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    while let Ok((mut near, _)) = listener.accept().await {
        count.fetch_add(1, Ordering::SeqCst);
        let mut passing = passing.clone();
        connections.spawn(async move {
            open(&mut passing).await;
            if *passing.borrow() == Passing::Reset {
                let _ = near.set_zero_linger();
                return;
            }
            let Ok(mut far) = TcpStream::connect(towards).await else { return };
            let mut reset = passing.clone();
            let (near_read, near_write) = near.split();
            let (far_read, far_write) = far.split();
            // Either way's end ends the other: a reset must arrive as one.
            tokio::select! {
                _ = pump(near_read, far_write, passing.clone()) => {}
                _ = pump(far_read, near_write, passing.clone()) => {}
                _ = reset.wait_for(|passing| *passing == Passing::Reset) => {}
            }
            if *passing.borrow() == Passing::Reset {
                let _ = near.set_zero_linger();
                let _ = far.set_zero_linger();
            }
            open(&mut passing).await;
        });
    }
}

async fn open(passing: &mut watch::Receiver<Passing>) {
    // A relay that is gone aborts this task.
    let _ = passing.wait_for(|passing| *passing != Passing::Nothing).await;
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut passing: watch::Receiver<Passing>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        open(&mut passing).await;
        let read = from.read(&mut buffer).await?;
        open(&mut passing).await;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

async fn datagrams(socket: Arc<UdpSocket>, towards: SocketAddr, passing: watch::Receiver<Passing>) {
    let mut ways: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut answers = JoinSet::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // A port of a client that is gone comes back as an error of the next call.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        if *passing.borrow() != Passing::All {
            continue;
        }
        let way = match ways.get(&from) {
            Some(way) => Arc::clone(way),
            None => {
                let Ok(way) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await else { continue };
                if way.connect(towards).await.is_err() {
                    continue;
                }
                let way = Arc::new(way);
                answers.spawn(answer(Arc::clone(&way), Arc::clone(&socket), from, passing.clone()));
                ways.insert(from, Arc::clone(&way));
                way
            }
        };
        let _ = way.send(&buffer[..length]).await;
    }
}

async fn answer(way: Arc<UdpSocket>, socket: Arc<UdpSocket>, to: SocketAddr, passing: watch::Receiver<Passing>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let Ok(length) = way.recv(&mut buffer).await else {
            // The error of an earlier datagram, which a closed port sent back; a later one may find it open.
            tokio::task::yield_now().await;
            continue;
        };
        if *passing.borrow() == Passing::All {
            let _ = socket.send_to(&buffer[..length], to).await;
        }
    }
}
