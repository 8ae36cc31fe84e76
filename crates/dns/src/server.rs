use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use registry::{Hostname, Registry};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::{Members, Signers};
use crate::book;
use crate::cookie::Cookies;
use crate::desk::{Desk, Reply, Sources};
use crate::metrics::{Metrics, Transport};
use crate::outside::Resolver;
use crate::sockets::Sockets;
use crate::{query, tcp, transfer, udp};

/// How a server runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The domain of the edge: the name servers of zones that say nothing else have names under it.
    pub domain: Hostname,
}

/// A server at work. Dropping it stops it, but waits for nothing; [`Server::shutdown`] does.
pub struct Server {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    counter: Arc<tcp::Counter>,
    sources: Arc<Sources>,
    metrics: Arc<Metrics>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    background: [AbortHandle; 4],
}

impl Server {
    /// Answers on these sockets from now on.
    ///
    /// # Errors
    /// A socket cannot be used, or a thread cannot be started.
    pub fn start(config: Config, sockets: Sockets, registry: Registry, members: Arc<dyn Members>) -> io::Result<Self> {
        let address = sockets.tcp.local_addr()?;
        let listener = TcpListener::from_std(sockets.tcp)?;
        for socket in &sockets.udp {
            udp::prepare(socket)?;
        }
        let book = book::open(&registry);
        let (outside, lookups) = Resolver::new();
        let sources = Arc::new(Sources {
            registry,
            book,
            domain: config.domain,
            members,
            outside,
            cookies: Cookies::default(),
            signers: Signers::default(),
        });
        let metrics = Arc::<Metrics>::default();
        let Sources { registry, book, .. } = &*sources;
        let background = [
            tokio::spawn(book::keep(registry.clone(), Arc::clone(book))).abort_handle(),
            tokio::spawn(lookups).abort_handle(),
            tokio::spawn(transfer::tell(Arc::clone(&sources), Arc::clone(&metrics), address.ip())).abort_handle(),
            tokio::spawn(transfer::keep_views(Arc::clone(&sources))).abort_handle(),
        ];
        let desk = Desk::new(Arc::clone(&sources));
        let transfers = transfer::Desk::new(Arc::clone(&sources), Arc::clone(&metrics));
        let mut server = Self {
            address,
            tls_address: None,
            counter: Arc::new(tcp::Counter::new(desk, transfers, Arc::clone(&metrics))),
            sources,
            metrics,
            over: Arc::default(),
            threads: Vec::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            background,
        };
        for socket in sockets.udp {
            let (desk, metrics, over) = (server.desk(), Arc::clone(&server.metrics), Arc::clone(&server.over));
            let thread = std::thread::Builder::new().name("dns".to_owned());
            server.threads.push(thread.spawn(move || udp::serve(&socket, desk, &metrics, &over))?);
        }
        server.listen(listener, None);
        Ok(server)
    }

    /// Answers on this socket, too, to those who speak TLS.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn answer_over_tls(&mut self, listener: std::net::TcpListener, tls: Arc<ServerConfig>) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        self.tls_address = Some(listener.local_addr()?);
        self.listen(listener, Some(TlsAcceptor::from(tls)));
        Ok(())
    }

    fn listen(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let (counter, stop, tasks) = (Arc::clone(&self.counter), self.stop.clone(), self.tasks.clone());
        self.tasks.spawn(tcp::serve(listener, tls, counter, stop, tasks));
    }

    /// What answers questions that come over HTTPS: the message, and for how many seconds it may be kept; `None`: it was no
    /// question.
    pub fn over_https(&self) -> impl Fn(&[u8], IpAddr) -> Option<(Vec<u8>, u32)> + Send + Sync + use<> {
        let counter = Arc::clone(&self.counter);
        move |packet, address| {
            let mut message = Vec::new();
            let from = tcp::From { address, transport: Transport::Https };
            let is_answered = matches!(counter.answer(packet, &from, &mut message), Reply::Answer { .. });
            is_answered.then(|| {
                let age = query::age(&message);
                (message, age)
            })
        }
    }

    /// Where it listens, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for those who speak TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// What it has counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Another place where questions are answered, for whoever brings them otherwise.
    pub fn desk(&self) -> Desk {
        Desk::new(Arc::clone(&self.sources))
    }

    /// Takes no more questions, and waits until those that came are answered.
    pub async fn shutdown(mut self) {
        self.end();
        self.tasks.wait().await;
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok())).await;
        if !matches!(joined, Ok(true)) {
            tracing::error!("a thread that answers questions has panicked");
        }
    }

    fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.stop.cancel();
        self.tasks.close();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        self.background.iter().for_each(AbortHandle::abort);
    }
}
