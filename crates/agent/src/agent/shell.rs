//! The task that does what the supervisor decides.

use std::collections::HashMap;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use wire::registration::Registration;

use super::connection::{ConnectionTask, Report};
use super::running::Stop;
use super::tell;
use crate::dial::Dialer;
use crate::edge::{Discovery, EdgeName, IpVersion, Place, find};
use crate::event::{Event, FallbackReason, Status};
use crate::handler::Requests;
use crate::memory;
use crate::supervisor::{Action, Places, Plan, Protocol, Supervisor, Way};

/// Names are looked up again at most this often, and only while something fails.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(30);
/// Limit for such a look-up.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(2);
/// Pauses between look-ups at start, while nothing resolves: from, up to.
const LOOK_UP_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Reports that wait for the supervisor: each connection has at most two under way.
const REPORTS: usize = 64;

/// Everything the task needs.
pub(super) struct Shell {
    pub(super) registration: Registration,
    pub(super) discovery: Option<Discovery>,
    pub(super) names: Vec<EdgeName>,
    pub(super) ip_version: IpVersion,
    pub(super) connections: NonZeroU8,
    pub(super) protocol: Protocol,
    pub(super) retries: Option<u32>,
    pub(super) max_edge_addr_retries: Option<u32>,
    pub(super) memory: Option<PathBuf>,
    pub(super) remembered: Option<Duration>,
    pub(super) dialer: Arc<Dialer>,
    pub(super) requests: Arc<Requests>,
    pub(super) status: watch::Sender<Status>,
    pub(super) stop: watch::Receiver<Stop>,
    pub(super) cut: CancellationToken,
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
        let (bind, proxies) = (self.dialer.bind, &self.dialer.proxies);
        find(self.discovery.as_ref(), &self.names, self.ip_version, bind, proxies).await
    }

    async fn supervise(&mut self, mut places: Vec<Place>) {
        let mut supervisor = self.supervisor(&places);
        let (reports, mut inbox) = mpsc::channel(REPORTS);
        let mut tasks = Tasks::default();
        let mut looked_up = Instant::now();
        let mut trouble = false;
        loop {
            while let Some(action) = supervisor.poll_action(Instant::now()) {
                match action {
                    Action::Dial { index, place, way, previous_attempts } => {
                        let task = self.connection(index, &places[place], way, previous_attempts, reports.clone());
                        tasks.spawn(index, task);
                    }
                    Action::FellBack => self.fell_back().await,
                    Action::QuicWorks => self.quic_works().await,
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
                    supervisor.replace_places(regions(&found), &moved(&places, &found));
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
                index = tasks.failed() => {
                    self.status.send_modify(|status| status.connections.retain(|other| other.index != index));
                    supervisor.dial_failed(index, Instant::now());
                    supervisor.lost(index, false, Instant::now());
                }
                () = sleep_until_some(wake) => {}
            }
        }
        // Each task stops by itself; reports are no longer read, so they must not block.
        drop(inbox);
        tasks.ended().await;
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
        let plan = Plan {
            protocol: self.protocol,
            connections: self.connections.get(),
            retries: self.retries,
            max_edge_addr_retries: self.max_edge_addr_retries,
            fallback: remembered,
        };
        Supervisor::new(&plan, regions(places), rand::random(), Instant::now())
    }

    async fn fell_back(&self) {
        tell(&self.requests, Event::FellBack { reason: FallbackReason::QuicBlocked });
        if let Some(path) = &self.memory {
            memory::store(path, SystemTime::now()).await;
        }
    }

    async fn quic_works(&self) {
        if let Some(path) = &self.memory {
            memory::forget(path).await;
        }
    }

    fn connection(
        &self,
        index: u8,
        place: &Place,
        way: Way,
        previous_attempts: u8,
        reports: mpsc::Sender<Report>,
    ) -> ConnectionTask {
        let mut registration = self.registration.clone();
        registration.connection_index = index;
        registration.previous_attempts = previous_attempts;
        ConnectionTask {
            index,
            place: place.clone(),
            way,
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

/// The tasks of connections that are dialled or registered.
#[derive(Default)]
struct Tasks {
    running: JoinSet<()>,
    indexes: HashMap<Id, u8>,
}

impl Tasks {
    fn spawn(&mut self, index: u8, task: ConnectionTask) {
        let id = self.running.spawn(task.run()).id();
        self.indexes.insert(id, index);
    }

    /// The index of the next task that ends by a fault of this program. The others have said in reports how they ended.
    async fn failed(&mut self) -> u8 {
        while let Some(ended) = self.running.join_next_with_id().await {
            match ended {
                Ok((id, ())) => {
                    self.indexes.remove(&id);
                }
                Err(error) => {
                    if let Some(index) = self.indexes.remove(&error.id()) {
                        tracing::error!(%error, index, "the task of a connection failed");
                        return index;
                    }
                }
            }
        }
        std::future::pending().await
    }

    /// Waits until all have ended.
    async fn ended(mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Where each of the old places is among those that were found.
fn moved(places: &[Place], found: &[Place]) -> Vec<Option<usize>> {
    places.iter().map(|old| found.iter().position(|place| place == old)).collect()
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
        Report::Refused { index, transport, refusal } => supervisor.refused(index, transport, refusal, now),
        Report::Lost { index, silent } => supervisor.lost(index, silent, now),
        Report::Registered { index, transport } => {
            supervisor.registered(index, transport, now);
            return false;
        }
        Report::QuicJudged { passes } => {
            supervisor.quic_judged(passes, now);
            return false;
        }
    }
    true
}
