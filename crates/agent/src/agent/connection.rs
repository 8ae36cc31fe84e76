//! The task that does what the supervisor decides, and one task for each connection.

use std::collections::HashMap;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use wire::registration::{Refused, Registration};
use wire::{AgentConnection, ConnectError, Transport};

use super::running::Stop;
use super::tell;
use crate::dial::{DialError, Dialer};
use crate::edge::{EdgeName, IpVersion, Place, look_up};
use crate::event::{ConnectionStatus, Event, FallbackReason, Status};
use crate::handler::Requests;
use crate::memory;
use crate::supervisor::{Action, Places, Protocol, Refusal, Supervisor};

/// Names are looked up again at most this often, and only while something fails.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(30);
/// Limit for such a look-up.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(2);
/// Pauses between look-ups at start, while nothing resolves: from, up to.
const LOOK_UP_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long the edge may take to confirm that it sends nothing new; requests under way have the rest of the grace period anyway.
const UNREGISTER_LIMIT: Duration = Duration::from_secs(5);
/// How often a stopping connection is asked whether its last request is done.
const IDLE_CHECK: Duration = Duration::from_millis(25);
/// What the edge sent before it learned of the stop arrives within this time.
const STRAGGLERS: Duration = Duration::from_millis(100);
/// Reports that wait for the supervisor: each connection has at most two under way.
const REPORTS: usize = 64;

/// Everything the task needs.
pub(super) struct Shell {
    pub(super) registration: Registration,
    pub(super) names: Vec<EdgeName>,
    pub(super) ip_version: IpVersion,
    pub(super) connections: NonZeroU8,
    pub(super) protocol: Protocol,
    pub(super) memory: Option<PathBuf>,
    pub(super) remembered: Option<Duration>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) requests: Arc<Requests>,
    pub(super) status: watch::Sender<Status>,
    pub(super) stop: watch::Receiver<Stop>,
    pub(super) cut: CancellationToken,
}

/// What a connection's task tells the supervisor.
enum Report {
    DialFailed { index: u8 },
    Refused { index: u8, refusal: Refusal },
    Registered { index: u8 },
    Lost { index: u8 },
}

impl Shell {
    pub(super) async fn run(mut self) {
        let Some(places) = self.first_look_up().await else { return };
        self.supervise(places).await;
        self.dialer.flush().await;
    }

    /// Looks the edge up until that works; `None` when the agent is to stop.
    async fn first_look_up(&mut self) -> Option<Vec<Place>> {
        let mut pause = LOOK_UP_PAUSES.0;
        loop {
            let attempt = async {
                let reason = match self.look_up().await {
                    Ok(places) => return Some(places),
                    Err(reason) => reason,
                };
                tell(&self.requests, Event::LookUpFailed { reason });
                sleep(pause).await;
                None
            };
            let mut stop = self.stop.clone();
            tokio::select! {
                biased;
                () = self.cut.cancelled() => return None,
                _ = stop.wait_for(|stop| *stop != Stop::No) => return None,
                places = attempt => if places.is_some() {
                    return places;
                },
            }
            pause = (pause * 2).min(LOOK_UP_PAUSES.1);
        }
    }

    async fn look_up(&self) -> Result<Vec<Place>, String> {
        look_up(&self.names, self.ip_version, self.dialer.bind, &self.dialer.proxies).await
    }

    async fn supervise(&mut self, mut places: Vec<Place>) {
        let mut supervisor = self.supervisor(&places);
        let (reports, mut inbox) = mpsc::channel(REPORTS);
        let mut tasks = JoinSet::new();
        let mut indexes: HashMap<Id, u8> = HashMap::new();
        let mut looked_up = Instant::now();
        let mut trouble = false;
        loop {
            while let Some(action) = supervisor.poll_action(Instant::now()) {
                match action {
                    Action::Dial { index, place, transport, previous_attempts } => {
                        let task =
                            self.connection(index, &places[place], transport, previous_attempts, reports.clone());
                        let id = tasks.spawn(task.run()).id();
                        indexes.insert(id, index);
                    }
                    Action::FellBack => self.fell_back().await,
                    Action::QuicWorks => {
                        if let Some(path) = &self.memory {
                            memory::forget(path).await;
                        }
                    }
                }
            }
            if trouble && looked_up.elapsed() >= LOOK_UP_AGAIN {
                looked_up = Instant::now();
                trouble = false;
                // Bounded, for the supervisor waits meanwhile.
                let found = tokio::select! {
                    () = self.cut.cancelled() => break,
                    found = timeout(LOOK_UP_LIMIT, self.look_up()) => found,
                };
                if let Ok(Ok(found)) = found
                    && found != places
                {
                    supervisor.replace_places(regions(&found));
                    places = found;
                    continue;
                }
            }
            let wake = supervisor.poll_timeout();
            tokio::select! {
                biased;
                () = self.cut.cancelled() => break,
                _ = self.stop.wait_for(|stop| *stop != Stop::No) => break,
                Some(report) = inbox.recv() => {
                    trouble |= take(&mut supervisor, &report);
                }
                Some(ended) = tasks.join_next_with_id() => {
                    let id = match &ended {
                        Ok((id, ())) => *id,
                        Err(error) => error.id(),
                    };
                    let index = indexes.remove(&id);
                    // Its reports are in the inbox already, unless it ended by a fault of this program.
                    if let (Err(error), Some(index)) = (ended, index) {
                        tracing::error!(%error, index, "the task of a connection failed");
                        supervisor.dial_failed(index, Instant::now());
                        supervisor.lost(index, Instant::now());
                    }
                }
                () = sleep_until_some(wake) => {}
            }
        }
        // Each task stops by itself; reports are no longer read, so they must not block.
        drop(inbox);
        while tasks.join_next().await.is_some() {}
    }

    fn supervisor(&mut self, places: &[Place]) -> Supervisor {
        let covered = places.iter().any(|place| self.dialer.proxies.covers(place.host()));
        let mut remembered = self.remembered.filter(|_| self.protocol == Protocol::Auto);
        if covered && self.protocol == Protocol::Auto {
            self.protocol = Protocol::Http2;
            remembered = None;
            tell(&self.requests, Event::FellBack { reason: FallbackReason::Proxy });
        }
        if remembered.is_some() {
            tell(&self.requests, Event::FellBack { reason: FallbackReason::Remembered });
        }
        let seed = rand::random();
        Supervisor::new(self.protocol, self.connections.get(), regions(places), remembered, seed, Instant::now())
    }

    async fn fell_back(&self) {
        tell(&self.requests, Event::FellBack { reason: FallbackReason::QuicBlocked });
        if let Some(path) = &self.memory {
            memory::store(path, SystemTime::now()).await;
        }
    }

    fn connection(
        &self,
        index: u8,
        place: &Place,
        transport: Transport,
        previous_attempts: u8,
        reports: mpsc::Sender<Report>,
    ) -> ConnectionTask {
        let mut registration = self.registration.clone();
        registration.connection_index = index;
        registration.previous_attempts = previous_attempts;
        ConnectionTask {
            index,
            place: place.clone(),
            transport,
            registration,
            dialer: Arc::clone(&self.dialer),
            requests: Arc::clone(&self.requests),
            status: self.status.clone(),
            stop: self.stop.clone(),
            cut: self.cut.clone(),
            reports,
        }
    }
}

fn regions(places: &[Place]) -> Places {
    Places::new(places.iter().map(|place| place.region).collect())
}

async fn sleep_until_some(wake: Option<Instant>) {
    match wake {
        Some(at) => sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Gives a report to the supervisor. Answers whether it is trouble.
fn take(supervisor: &mut Supervisor, report: &Report) -> bool {
    let now = Instant::now();
    match *report {
        Report::DialFailed { index } => supervisor.dial_failed(index, now),
        Report::Refused { index, refusal } => supervisor.refused(index, refusal, now),
        Report::Lost { index } => supervisor.lost(index, now),
        Report::Registered { index } => {
            supervisor.registered(index, now);
            return false;
        }
    }
    true
}

/// One attempt, and the connection that comes of it.
struct ConnectionTask {
    index: u8,
    place: Place,
    transport: Transport,
    registration: Registration,
    dialer: Arc<Dialer>,
    requests: Arc<Requests>,
    status: watch::Sender<Status>,
    stop: watch::Receiver<Stop>,
    cut: CancellationToken,
    reports: mpsc::Sender<Report>,
}

impl ConnectionTask {
    async fn run(mut self) {
        let dial = self.dialer.dial(&self.place, self.transport, self.registration.clone(), Arc::clone(&self.requests));
        let outcome = tokio::select! {
            biased;
            () = self.cut.cancelled() => return,
            // Not yet registered: there is nothing to finish.
            _ = self.stop.wait_for(|stop| *stop != Stop::No) => return,
            outcome = dial => outcome,
        };
        let metrics = Arc::clone(&self.requests.metrics);
        let dialled = match outcome {
            Ok(dialled) => dialled,
            Err(error) => {
                if matches!(error, DialError::Connect(_)) {
                    metrics.register_fail.with_label_values(&[fail_label(&error), "registerConnection"]).inc();
                }
                let report = self.failed(&error);
                self.report(report).await;
                return;
            }
        };
        metrics.register_success.with_label_values(&["registerConnection"]).inc();
        let status = ConnectionStatus {
            index: self.index,
            id: dialled.registered.connection,
            location: dialled.registered.location.clone(),
            transport: self.transport,
            edge: self.place.to_string(),
            remotely_managed: dialled.registered.remotely_managed,
        };
        if let Some(quic) = &dialled.quic {
            metrics.quic_opened(self.index, quic.clone());
        }
        let index_label = self.index.to_string();
        let location = metrics.server_locations.with_label_values(&[index_label.as_str(), status.location.as_str()]);
        location.set(1);
        metrics.ha_connections.inc();
        let reports_configuration = self.index == 0 && !status.remotely_managed;
        self.enter(status.clone());
        self.report(Report::Registered { index: self.index }).await;
        tell(&self.requests, Event::Connected(status));

        let reason = self.serve(&dialled.connection, reports_configuration).await;

        self.leave();
        metrics.ha_connections.dec();
        location.set(0);
        if dialled.quic.is_some() {
            metrics.quic_ended(self.index);
        }
        tell(&self.requests, Event::Disconnected { index: self.index, reason });
        self.report(Report::Lost { index: self.index }).await;
    }

    /// Serves until the connection ends; answers why it did.
    async fn serve(&mut self, connection: &AgentConnection, reports_configuration: bool) -> String {
        let reporting = async {
            if reports_configuration {
                report_configuration(connection, self.requests.local_report(), &self.requests).await;
            }
            std::future::pending::<()>().await;
        };
        let grace = tokio::select! {
            biased;
            () = self.cut.cancelled() => {
                connection.close();
                return "cut".to_owned();
            }
            reason = connection.closed() => return reason,
            stop = self.stop.wait_for(|stop| *stop != Stop::No) => match stop.map(|stop| *stop) {
                Ok(Stop::Within(grace)) => grace,
                Ok(Stop::No) | Err(_) => Duration::ZERO,
            },
            () = reporting => unreachable!("it never ends"),
        };
        tokio::select! {
            () = self.cut.cancelled() => {}
            _ = timeout(grace, finish(connection, grace)) => {}
        }
        connection.close();
        "stopped".to_owned()
    }

    fn failed(&self, error: &DialError) -> Report {
        let index = self.index;
        let (report, permanent) = match error {
            DialError::Unreachable(_) => (Report::DialFailed { index }, false),
            DialError::Connect(ConnectError::Refused(refused)) => {
                let refusal = refusal(refused);
                (Report::Refused { index, refusal }, refusal == Refusal::Permanent)
            }
            DialError::Connect(ConnectError::Rpc(_) | ConnectError::Lost(_)) => {
                (Report::Refused { index, refusal: Refusal::NoAnswer }, false)
            }
        };
        let event = Event::ConnectFailed {
            index,
            edge: self.place.to_string(),
            transport: self.transport,
            reason: error.to_string(),
            permanent,
        };
        tell(&self.requests, event);
        report
    }

    async fn report(&self, report: Report) {
        // Nobody reads any more when the agent stops.
        let _ = self.reports.send(report).await;
    }

    fn enter(&self, connection: ConnectionStatus) {
        self.status.send_modify(|status| {
            status.connections.retain(|other| other.index != connection.index);
            status.connections.push(connection);
            status.connections.sort_by_key(|connection| connection.index);
        });
    }

    fn leave(&self) {
        self.status.send_modify(|status| status.connections.retain(|other| other.index != self.index));
    }
}

/// The orderly end (section 10). The edge closes the connection after the last request; when it is idle, there is no need to wait for that.
async fn finish(connection: &AgentConnection, grace: Duration) {
    if let Err(error) = connection.unregister(grace.min(UNREGISTER_LIMIT)).await {
        tracing::debug!(%error, "the edge did not confirm the end of a connection");
    }
    let idle = async {
        sleep(STRAGGLERS).await;
        while connection.in_flight() > 0 {
            sleep(IDLE_CHECK).await;
        }
    };
    tokio::select! {
        _ = connection.closed() => {}
        () = idle => {}
    }
}

/// Reports the local configuration to the edge, now and whenever it changes.
async fn report_configuration(connection: &AgentConnection, mut reports: watch::Receiver<Bytes>, requests: &Requests) {
    loop {
        let report = reports.borrow_and_update().clone();
        requests.metrics.config_pushes.inc();
        if let Err(error) = connection.update_local_configuration(report).await {
            requests.metrics.config_push_errors.inc();
            tracing::debug!(%error, "the edge did not take the local configuration");
        }
        if reports.changed().await.is_err() {
            return;
        }
    }
}

fn refusal(refused: &Refused) -> Refusal {
    if refused.cause == Refused::DUPLICATE {
        Refusal::Elsewhere
    } else if let Some(pause) = refused.retry_after {
        Refusal::Later(pause)
    } else if refused.is_unauthorized() {
        Refusal::Again
    } else {
        Refusal::Permanent
    }
}

/// A label of few values, whatever the edge says.
fn fail_label(error: &DialError) -> &'static str {
    match error {
        DialError::Unreachable(_) => "dial",
        DialError::Connect(ConnectError::Refused(refused)) if refused.cause == Refused::DUPLICATE => "dup_edge_conn",
        DialError::Connect(ConnectError::Refused(_)) => "refused",
        DialError::Connect(ConnectError::Rpc(_)) => "rpc",
        DialError::Connect(ConnectError::Lost(_)) => "lost",
    }
}
