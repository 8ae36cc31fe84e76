//! One attempt to connect, and the connection that comes of it, in a task of its own.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wire::registration::{Refused, Registration};
use wire::{AgentConnection, ConnectError, Transport};

use super::running::Stop;
use super::tell;
use crate::dial::{DialError, Dialer, Dialled};
use crate::edge::Place;
use crate::event::{ConnectionStatus, Event, Status};
use crate::handler::Requests;
use crate::metrics::{Method, Metrics};
use crate::supervisor::{Refusal, Way};

/// How long the edge may take to confirm that it sends nothing new; requests under way have the rest of the grace
/// period anyway.
const UNREGISTER_LIMIT: Duration = Duration::from_secs(5);
/// How often a stopping connection is asked whether its last request is done.
const IDLE_CHECK: Duration = Duration::from_millis(25);
/// What the edge sent before it learned of the stop arrives within this time.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// What a connection's task tells the supervisor.
pub(super) enum Report {
    DialFailed {
        index: u8,
    },
    Refused {
        index: u8,
        transport: Transport,
        refusal: Refusal,
    },
    Registered {
        index: u8,
        transport: Transport,
    },
    /// After HTTP/2 has won a race: whether QUIC gets through as well.
    QuicJudged {
        passes: bool,
    },
    /// `silent`: nothing was heard on it any more.
    Lost {
        index: u8,
        silent: bool,
    },
}

/// One attempt, and the connection that comes of it.
pub(super) struct ConnectionTask {
    pub(super) index: u8,
    pub(super) place: Place,
    pub(super) way: Way,
    pub(super) registration: Registration,
    pub(super) dialer: Arc<Dialer>,
    pub(super) requests: Arc<Requests>,
    pub(super) status: watch::Sender<Status>,
    pub(super) stop: watch::Receiver<Stop>,
    pub(super) cut: CancellationToken,
    pub(super) reports: mpsc::Sender<Report>,
}

impl ConnectionTask {
    pub(super) async fn run(mut self) {
        let (dialer, place) = (Arc::clone(&self.dialer), self.place.clone());
        let dial = dialer.dial(&place, self.way, self.registration.clone(), Arc::clone(&self.requests));
        let mut dial = pin!(dial);
        let outcome = tokio::select! {
            biased;
            () = self.cut.cancelled() => return dialer.abandon(self.index),
            // Not yet registered: there is nothing to finish.
            _ = self.stop.wait_for(|stop| *stop != Stop::No) => return dialer.abandon(self.index),
            outcome = &mut dial => outcome,
        };
        match outcome {
            Ok(dialled) => self.registered(dialled).await,
            Err(failures) => self.not_registered(&failures).await,
        }
    }

    async fn not_registered(&self, failures: &[(Transport, DialError)]) {
        let mut report = None;
        for (transport, error) in failures {
            if matches!(error, DialError::Connect(_)) {
                let fail = &self.requests.metrics.register_fail;
                fail.with_label_values(&[fail_label(error), "registerConnection"]).inc();
            }
            // Of the two of a race none has reached the edge, so that either report says it all.
            report = Some(self.failed(*transport, error));
        }
        if let Some(report) = report {
            self.report(report).await;
        }
    }

    async fn registered(&mut self, dialled: Dialled<'_>) {
        let metrics = Arc::clone(&self.requests.metrics);
        metrics.register_success.with_label_values(&["registerConnection"]).inc();
        let status = ConnectionStatus {
            index: self.index,
            id: dialled.registered.connection,
            location: dialled.registered.location.clone(),
            transport: dialled.transport,
            edge: self.place.to_string(),
            remotely_managed: dialled.registered.remotely_managed,
        };
        if let Some(quic) = &dialled.quic {
            metrics.quic_opened(self.index, quic.clone());
        }
        if let Some(pem) = &dialled.registered.origin_ca {
            self.requests.configuration.learn_origin_ca(pem);
        }
        let reports_configuration = self.index == 0 && !status.remotely_managed;
        self.enter(status.clone());
        self.report(Report::Registered { index: self.index, transport: dialled.transport }).await;
        tell(&self.requests, Event::Connected(status));

        let reports = self.reports.clone();
        let judging = async {
            if let Some(passes) = dialled.quic_passes {
                let _ = reports.send(Report::QuicJudged { passes: passes.await }).await;
            }
            std::future::pending().await
        };
        let reason = tokio::select! {
            reason = self.serve(&dialled.connection, reports_configuration) => reason,
            () = judging => unreachable!("it never ends"),
        };

        self.leave();
        if dialled.quic.is_some() {
            metrics.quic_ended(self.index);
        }
        tell(&self.requests, Event::Disconnected { index: self.index, reason });
        let silent = dialled.quic.and_then(|quic| quic.close_reason()) == Some(quinn::ConnectionError::TimedOut);
        self.report(Report::Lost { index: self.index, silent }).await;
    }

    /// Serves until the connection ends; answers why it did.
    async fn serve(&mut self, connection: &AgentConnection, reports_configuration: bool) -> String {
        let reporting = async {
            if reports_configuration {
                report_configuration(connection, self.requests.configuration.local_report(), &self.requests).await;
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
            _ = timeout(grace, finish(connection, grace, &self.requests.metrics)) => {}
        }
        connection.close();
        "stopped".to_owned()
    }

    fn failed(&self, transport: Transport, error: &DialError) -> Report {
        let index = self.index;
        let (report, permanent) = match error {
            DialError::Unreachable(_) => (Report::DialFailed { index }, false),
            DialError::Connect(ConnectError::Refused(refused)) => {
                let refusal = refusal(refused);
                (Report::Refused { index, transport, refusal }, refusal == Refusal::Permanent)
            }
            DialError::Connect(ConnectError::Rpc(_) | ConnectError::Lost(_)) => {
                (Report::Refused { index, transport, refusal: Refusal::NoAnswer }, false)
            }
        };
        let event = Event::ConnectFailed {
            index,
            edge: self.place.to_string(),
            transport,
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

/// The orderly end (section 10). The edge closes the connection after the last request; when it is idle, there is no
/// need to wait for that.
async fn finish(connection: &AgentConnection, grace: Duration, metrics: &Metrics) {
    let unregistering = connection.unregister(grace.min(UNREGISTER_LIMIT));
    if let Err(error) = metrics.rpc_client.observe(Method::UNREGISTER, unregistering).await {
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
        let reporting = connection.update_local_configuration(report);
        let calls = &requests.metrics.rpc_client;
        if let Err(error) = calls.observe(Method::LOCAL_CONFIGURATION, reporting).await {
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
        DialError::Connect(ConnectError::Refused(_)) => "server_error",
        DialError::Connect(ConnectError::Rpc(_)) => "rpc",
        DialError::Connect(ConnectError::Lost(_)) => "lost",
    }
}
