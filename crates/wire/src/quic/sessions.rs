//! The datagrams of one connection, and the flows that they belong to (section 8).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quinn::{ConnectionError, SendDatagramError};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use uuid::Uuid;

use super::closed;
use crate::connect::RPC_SIGNATURE;
use crate::datagram::{Version, v2, v3};
use crate::rpc::{CALL_TIMEOUT, SessionClient, UdpSession};
use crate::{Backlog, Budget, Dropped, Inlet};

/// Bytes of one flow's datagrams that wait to be taken: a burst of some hundred. The rest is dropped.
const INBOX: usize = 128 << 10;

/// Bytes that wait for all flows of a connection: so many bursts at once, and no more memory than a stream's window.
const INBOXES: usize = 16 << 20;

/// Registrations by RPC under way: each has a stream of its own, of which our agents serve 16 at once. With
/// [`FAREWELLS_AT_ONCE`] and a configuration there is room to spare.
const REGISTRATIONS_AT_ONCE: usize = 8;

/// Farewells by RPC under way. An agent takes each in a moment.
pub(super) const FAREWELLS_AT_ONCE: usize = 4;

/// Sessions that have ended here and of which the other end has to be told. What finds no room there ends by being idle.
const FAREWELLS: usize = 256;

/// A registration of version 3 that is not answered is sent again after this time.
const AGAIN: Duration = Duration::from_millis(500);

/// The flows of a connection that use its datagrams.
pub(crate) struct Sessions {
    connection: quinn::Connection,
    version: OnceLock<Version>,
    table: Mutex<Table>,
    /// For the inboxes of all flows.
    budget: Arc<Budget>,
    registrations: Semaphore,
    farewells: mpsc::Sender<Uuid>,
}

#[derive(Default)]
struct Table {
    open: HashMap<Uuid, Entry>,
    /// Registrations of version 3 without an answer.
    asked: HashMap<Uuid, oneshot::Sender<v3::Response>>,
    /// The connection is gone.
    closed: bool,
}

struct Entry {
    inbox: Inlet,
    lost: Arc<AtomicU64>,
}

/// Sessions that have ended at this end.
pub(super) struct Farewells(mpsc::Receiver<Uuid>);

impl Farewells {
    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Uuid {
        match self.0.recv().await {
            Some(session) => session,
            None => std::future::pending().await,
        }
    }
}

/// What came in datagrams and is not for a flow.
pub(super) enum Request {
    /// An edge asks for a session (version 3).
    Registration(v3::Registration),
}

impl Sessions {
    pub(super) fn new(connection: quinn::Connection) -> (Arc<Self>, Farewells) {
        let (farewells, receiver) = mpsc::channel(FAREWELLS);
        let sessions = Self {
            connection,
            version: OnceLock::new(),
            table: Mutex::default(),
            budget: Budget::new(INBOXES),
            registrations: Semaphore::new(REGISTRATIONS_AT_ONCE),
            farewells,
        };
        (Arc::new(sessions), Farewells(receiver))
    }

    /// Sets the version; only the first call counts.
    pub(super) fn speak(&self, version: Version) {
        let _ = self.version.set(version);
    }

    pub(super) fn version(&self) -> Version {
        self.version.get().copied().unwrap_or_default()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A flow's way through datagrams; `None`: there is such a session, or the connection is gone. `stock`: it is a session
    /// as the reference has it, with the bounds of that, whose end the other end has to be told.
    pub(crate) fn open(self: &Arc<Self>, id: Uuid, stock: Option<Stock>) -> Option<Datagrams> {
        let mut table = self.table();
        if table.closed || table.open.contains_key(&id) {
            return None;
        }
        let (inlet, inbox) = Backlog::open(INBOX, &self.budget);
        let lost = Arc::new(AtomicU64::new(0));
        table.open.insert(id, Entry { inbox: inlet, lost: Arc::clone(&lost) });
        drop(table);
        Some(Datagrams { sessions: Arc::clone(self), id, stock, inbox, lost })
    }

    /// Ends a session, as the other end wants it.
    pub(super) fn end(&self, id: Uuid) {
        self.table().open.remove(&id);
    }

    pub(super) fn is_open(&self, id: Uuid) -> bool {
        self.table().open.contains_key(&id)
    }

    /// Ends all of them, and lets none begin.
    pub(super) fn close(&self) {
        self.registrations.close();
        let mut table = self.table();
        table.closed = true;
        table.open.clear();
        table.asked.clear();
    }

    /// Gives flows their datagrams until there is one that is not for a flow. Cancel safe.
    pub(super) async fn next(&self) -> Result<Request, ConnectionError> {
        loop {
            let datagram = self.connection.read_datagram().await?;
            let read = match self.version() {
                Version::V2 => v2::Datagram::decode(datagram).map(|datagram| match datagram {
                    v2::Datagram::Payload(id, payload) => Some(v3::Datagram::Payload(id, payload)),
                    v2::Datagram::Packet(_) | v2::Datagram::TracedPacket(..) | v2::Datagram::Spans(..) => None,
                }),
                Version::V3 => v3::Datagram::decode(datagram).map(Some),
            };
            // A flood of them holds nobody else up.
            tokio::task::consume_budget().await;
            match read {
                Ok(Some(v3::Datagram::Payload(id, payload))) => self.deliver(id, payload),
                Ok(Some(v3::Datagram::Registration(registration))) => return Ok(Request::Registration(registration)),
                Ok(Some(v3::Datagram::Response(response))) => {
                    if let Some(asked) = self.table().asked.remove(&response.session) {
                        // Whoever asked may have given up.
                        let _ = asked.send(response);
                    }
                }
                Ok(Some(v3::Datagram::Packet(_)) | None) => {}
                Err(error) => tracing::trace!(%error, "a datagram is dropped"),
            }
        }
    }

    fn deliver(&self, id: Uuid, payload: Bytes) {
        let table = self.table();
        let Some(entry) = table.open.get(&id) else { return };
        if entry.inbox.push(payload).is_err() {
            entry.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn send(&self, id: Uuid, payload: &[u8]) -> Result<(), Dropped> {
        let (overhead, version) = match self.version() {
            Version::V2 => (v2::OVERHEAD, Version::V2),
            Version::V3 => (v3::OVERHEAD, Version::V3),
        };
        let length = overhead + payload.len();
        if self.connection.max_datagram_size().is_none_or(|most| length > most) {
            return Err(Dropped::TooLarge);
        }
        // Beyond it the library would drop what waits, of whichever flow.
        if self.connection.datagram_send_buffer_space() < length {
            return Err(Dropped::Full);
        }
        let datagram = match version {
            Version::V2 => v2::payload(id, payload),
            Version::V3 => v3::payload(id, payload),
        };
        self.connection.send_datagram(datagram).map_err(|error| match error {
            SendDatagramError::TooLarge | SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => {
                Dropped::TooLarge
            }
            SendDatagramError::ConnectionLost(_) => Dropped::Ended,
        })
    }

    /// Answers a registration (version 3).
    pub(super) fn respond(&self, session: Uuid, code: v3::Code, text: &str) {
        let text = Bytes::copy_from_slice(&text.as_bytes()[..text.len().min(512)]);
        let response = v3::Datagram::Response(v3::Response { session, code, text });
        // The edge asks again if it does not arrive.
        let _ = self.connection.send_datagram(response.encode());
    }

    /// Has the agent make a session for datagrams to this address; the error says why it does not.
    pub(super) async fn register(&self, session: &UdpSession) -> Result<Result<(), String>, String> {
        match self.version() {
            Version::V2 => self.register_by_rpc(session).await,
            Version::V3 => self.register_by_datagram(session).await,
        }
    }

    /// Waits for its turn, which has no time limit in here.
    async fn register_by_rpc(&self, session: &UdpSession) -> Result<Result<(), String>, String> {
        let _turn = self.registrations.acquire().await.map_err(|_| "the connection is gone".to_owned())?;
        let mut client = self.rpc().await?;
        let answer = client.register(session).await.map_err(|error| error.to_string());
        client.shutdown().await;
        answer
    }

    async fn register_by_datagram(&self, session: &UdpSession) -> Result<Result<(), String>, String> {
        let UdpSession { id, destination, idle } = *session;
        let registration = v3::Datagram::Registration(v3::Registration {
            session: id,
            destination,
            idle,
            traced: false,
            bundled: None,
        });
        let registration = registration.encode();
        let (answer, mut answered) = oneshot::channel();
        self.table().asked.insert(id, answer);
        let asking = async {
            loop {
                let sent = self.connection.send_datagram(registration.clone());
                sent.map_err(|error| format!("the session cannot be asked for: {error}"))?;
                if let Ok(answer) = timeout(AGAIN, &mut answered).await {
                    return answer.map_err(|_| "the connection is gone".to_owned());
                }
            }
        };
        let answer = timeout(CALL_TIMEOUT, asking).await;
        self.table().asked.remove(&id);
        let v3::Response { code, text, .. } =
            answer.unwrap_or_else(|_| Err(format!("the agent did not answer within {CALL_TIMEOUT:?}")))?;
        let text = String::from_utf8_lossy(&text).replace(char::is_control, " ");
        Ok(match code {
            v3::Code::Ready => Ok(()),
            v3::Code::Unreachable => Err(format!("the agent cannot reach {destination} {text}")),
            v3::Code::NoSocket => Err(format!("the agent has no socket for {destination} {text}")),
            v3::Code::TooMany => Err(format!("the agent has as many flows as it may have {text}")),
            v3::Code::Other => Err(format!("the agent refused the flow: {text}")),
        })
    }

    /// Tells the other end that a session has ended. Version 3 has no such message.
    pub(super) async fn unregister(&self, session: Uuid, message: &str) {
        if self.version() == Version::V3 {
            return;
        }
        if let Ok(mut client) = self.rpc().await {
            // Advice only: it ends there by being idle, too.
            let _ = client.unregister(session, message).await;
            client.shutdown().await;
        }
    }

    async fn rpc(&self) -> Result<SessionClient<tokio::io::Join<quinn::RecvStream, quinn::SendStream>>, String> {
        let opening = async {
            let (mut send, recv) = self.connection.open_bi().await.map_err(|error| closed(&error, "the other end"))?;
            send.write_all(&RPC_SIGNATURE).await.map_err(|error| error.to_string())?;
            Ok(SessionClient::new(tokio::io::join(recv, send)))
        };
        timeout(CALL_TIMEOUT, opening).await.unwrap_or_else(|_| Err("no stream could be opened in time".to_owned()))
    }
}

/// How a session differs that the reference has as well.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stock {
    /// Bytes of a payload.
    pub(super) largest: usize,
    /// Whether the other end is told when it ends here.
    pub(super) farewell: bool,
}

/// A flow's way through datagrams. Dropping it ends the session.
pub(crate) struct Datagrams {
    sessions: Arc<Sessions>,
    id: Uuid,
    stock: Option<Stock>,
    inbox: Backlog,
    lost: Arc<AtomicU64>,
}

impl Datagrams {
    pub(crate) fn send(&self, payload: &[u8]) -> Result<(), Dropped> {
        if self.stock.is_some_and(|stock| payload.len() > stock.largest) {
            return Err(Dropped::TooLarge);
        }
        self.sessions.send(self.id, payload)
    }

    /// The next one that comes in; `None`: the session has ended.
    pub(crate) fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.inbox.poll_recv(context)
    }

    /// How many found no room since this was asked last.
    pub(crate) fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        let was_open = self.sessions.table().open.remove(&self.id).is_some();
        if was_open && self.stock.is_some_and(|stock| stock.farewell) {
            let _ = self.sessions.farewells.try_send(self.id);
        }
    }
}

/// Ends all sessions when it is dropped.
pub(super) struct Closing(pub(super) Arc<Sessions>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// An address as sessions have it.
pub(super) fn session(id: Uuid, destination: SocketAddr, idle: Option<Duration>) -> UdpSession {
    UdpSession { id, destination, idle: idle.unwrap_or_default() }
}
