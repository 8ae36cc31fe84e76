use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use registry::Port;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::{ByteStream, Destination, ExchangeError, StreamRequest};

use super::visitor::Visitor;
use super::{Setting, proxy_header};
use crate::defence::Defence;
use crate::dispatch::{Carrier as _, Pool as _};
use crate::listen::{accept, tune};
use crate::metrics::StreamEnd;

/// A visitor's machine that answers nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// Longer than agents try to connect (30 s), so that visitors wait no longer for what nobody tries any more.
const CONNECT: Duration = Duration::from_secs(35);

/// One port that listens.
#[derive(Clone)]
pub(super) struct PublicPort {
    pub(super) number: u16,
    /// Connections right now.
    pub(super) open: Arc<AtomicUsize>,
    pub(super) setting: Arc<Setting>,
}

/// A connection that counts until this is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PublicPort {
    /// Serves visitors until the port closes or the node stops. Those that are connected stay so.
    pub(super) async fn serve(self, listener: TcpListener, closing: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = closing.cancelled() => return,
                accepted = accept(&listener, &self.setting.stop) => accepted,
            };
            let Some((stream, remote)) = accepted else { return };
            tune(&stream, SILENCE);
            let visitor = Visitor::new(stream);
            if let Err(defence) = self.admit(visitor, remote) {
                self.setting.metrics.defended(defence);
                tracing::debug!(visitor = %remote, port = self.number, limit = defence.label(), "a visitor is refused");
            }
        }
    }

    /// Serves a visitor if there is room, and it may come here.
    fn admit(&self, visitor: Visitor, remote: SocketAddr) -> Result<(), Defence> {
        let snapshot = self.setting.registry.snapshot();
        let port = snapshot.port(self.number).ok_or(Defence::NotAllowed)?;
        let allowed = snapshot.access(port.tunnel).is_none_or(|access| {
            // Who has to say a PIN or a password cannot do so here.
            access.allows(remote.ip()) && access.pin.is_none() && access.basic.is_empty()
        });
        if !allowed {
            return Err(Defence::NotAllowed);
        }
        let place = self.setting.places.take(remote.ip())?;
        let counted = Counted(Arc::clone(&self.open));
        if counted.0.fetch_add(1, Ordering::Relaxed) >= port.options.max_connections {
            return Err(Defence::PortFull);
        }
        let (this, port) = (self.clone(), port.value.clone());
        self.setting.stop.spawn(async move {
            let present = this.setting.metrics.visitor();
            let end = this.carry(visitor, remote, &port).await;
            this.setting.metrics.stream(end);
            drop((place, counted, present));
        });
        Ok(())
    }

    async fn carry(&self, visitor: Visitor, remote: SocketAddr, port: &Port) -> StreamEnd {
        let here = visitor.local_address();
        let request =
            StreamRequest { destination: Destination::Service(port.service.clone()), flow: remote.to_string() };
        let mut stream = match timeout(CONNECT, self.connect(port, &request)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err((end, reason))) => {
                tracing::info!(port = port.number, tunnel = %port.tunnel, %reason, "a visitor's connection leads nowhere");
                return end;
            }
            Err(_) => return StreamEnd::Failed,
        };
        if let (Some(version), Ok(here)) = (port.options.proxy_protocol, here) {
            let header = proxy_header::header(version, remote, here);
            if stream.write_all(&header).await.is_err() {
                return StreamEnd::Cut;
            }
        }
        let activity = visitor.activity();
        let idle = Duration::from_secs(port.options.idle_seconds);
        tokio::select! {
            relayed = ByteStream::wrap(visitor).relay(stream) => match relayed {
                Ok(_) => StreamEnd::Ended,
                Err(_) => StreamEnd::Cut,
            },
            () = activity.pause_of(idle), if !idle.is_zero() => StreamEnd::Idle,
        }
    }

    /// Connects over some connection of the tunnel. Nothing of the visitor's is under way yet, so any may be tried.
    async fn connect(&self, port: &Port, request: &StreamRequest) -> Result<ByteStream, (StreamEnd, String)> {
        let limits = &self.setting.limits;
        let pool = self.setting.tunnels.pool(port.tunnel);
        let mut tried = Vec::new();
        let mut reason = "no connector of its tunnel is connected".to_owned();
        for _ in 0..limits.attempts {
            let picked = match pool.pick(&tried) {
                Some(picked) => Some(picked),
                None => pool.await_one(&tried, limits.reconnect_wait).await,
            };
            let Some(carrier) = picked else { break };
            tried.push(carrier.identity());
            match carrier.connect_stream(request).await {
                Ok(stream) => return Ok(stream),
                Err(ExchangeError::Origin(error)) => return Err((StreamEnd::Failed, error.text)),
                Err(error) => reason = error.to_string(),
            }
        }
        Err((StreamEnd::NoConnector, reason))
    }
}
