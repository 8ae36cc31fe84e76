//! The edge's side of the control stream from registration to the end (sections 9 and 10), the same on both transports.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::phase::{Phase, unavailable};
use crate::registration::{Refused, Registration};
use crate::rpc::{CallError, ControlCall, ControlServer, Question};
use crate::{Connection, Extensions, Registrar};

/// From the start of a connection to the answer to its registration. Twice what an agent waits for one call.
pub(crate) const REGISTRATION_LIMIT: Duration = Duration::from_secs(10);

/// How long the agent is given to take the last answer off the control stream before the connection is closed. A stock
/// agent ends the control stream as soon as it has read the answer, so only a slow one is ever waited for.
const PARTING_LIMIT: Duration = Duration::from_secs(2);

/// One connection's dealings with the registrar. Says [`Registrar::closed`] when it is dropped, if it has to.
pub(crate) struct Session<R: Registrar> {
    registrar: Arc<R>,
    connection: Option<Connection>,
    accepted: Option<Uuid>,
    refused: Option<String>,
    reason: String,
}

impl<R: Registrar> Session<R> {
    pub(crate) fn new(registrar: Arc<R>) -> Self {
        Self { registrar, connection: None, accepted: None, refused: None, reason: "the connection was cut".into() }
    }

    /// Serves a control stream until the connection is to be closed; answers why.
    ///
    /// `connect` makes the handle for an agent with these extensions.
    pub(crate) async fn run<T>(
        &mut self,
        io: T,
        deadline: Instant,
        connect: impl FnOnce(Extensions) -> Connection,
    ) -> String
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let mut control = ControlServer::new(io);
        let registered = timeout_at(deadline, self.register(&mut control, connect)).await;
        match registered {
            Err(_) => "the agent did not register in time".into(),
            Ok(Err(reason)) => reason,
            Ok(Ok(None)) => "the agent left without registering".into(),
            Ok(Ok(Some(Err(refused)))) => {
                let _ = timeout(PARTING_LIMIT, ended(&mut control)).await;
                refused
            }
            Ok(Ok(Some(Ok(connection)))) => {
                let id = self.accepted.expect("a registration that was not refused was accepted");
                let mut phase = connection.phase();
                tokio::select! {
                    biased;
                    reason = closed(&mut phase) => reason,
                    reason = serve(&mut control, &*self.registrar, id, &connection) => reason,
                }
            }
        }
    }

    /// Nothing is under way on the connection.
    pub(crate) fn is_idle(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.in_flight() == 0)
    }

    /// Says why the connection ended, and answers it. A refusal is the reason even if the agent was quicker to close.
    pub(crate) fn end(mut self, reason: String) -> String {
        self.reason = self.refused.take().unwrap_or(reason);
        self.reason.clone()
    }

    async fn register<T>(
        &mut self,
        control: &mut ControlServer<T>,
        connect: impl FnOnce(Extensions) -> Connection,
    ) -> Result<Option<Result<Connection, String>>, String>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let Some((question, registration)) = first_registration(control).await.map_err(lost)? else { return Ok(None) };
        let connection = connect(Extensions::from_features(registration.features.iter().map(String::as_str)));
        connection.announced(&registration.features);
        self.connection = Some(connection.clone());
        let answer = self.registrar.register(*registration, connection.clone()).await;
        match &answer {
            Ok(registered) => self.accepted = Some(registered.connection),
            Err(refused) => {
                let reason = format!("the registration was refused: {refused}");
                connection.close(&reason);
                self.refused = Some(reason);
            }
        }
        control.reply_register(question, &answer).await.map_err(lost)?;
        Ok(Some(match self.refused.clone() {
            Some(reason) => Err(reason),
            None => Ok(connection),
        }))
    }
}

impl<R: Registrar> Drop for Session<R> {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.close(&self.reason);
        }
        if let Some(id) = self.accepted {
            self.registrar.closed(id, &self.reason);
        }
    }
}

/// Reads the agent's registration; anything it asks before is refused.
async fn first_registration<T>(
    control: &mut ControlServer<T>,
) -> Result<Option<(Question, Box<Registration>)>, CallError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    loop {
        match control.next().await? {
            None => return Ok(None),
            Some(ControlCall::Register(question, registration)) => return Ok(Some((question, registration))),
            Some(ControlCall::LocalConfiguration(question, _) | ControlCall::Unregister(question)) => {
                control.reply_done(question, Err("the connection is not registered")).await?;
            }
        }
    }
}

/// Serves a registered connection's control stream until nothing new may be sent and the last request is done.
async fn serve<T, R>(control: &mut ControlServer<T>, registrar: &R, id: Uuid, connection: &Connection) -> String
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
    R: Registrar,
{
    let mut phase = connection.phase();
    // Why the connection drains, once it does.
    let mut reason = None;
    loop {
        tokio::select! {
            call = control.next() => match answer(control, registrar, id, call).await {
                Ok(Answered::Call) => {}
                Ok(Answered::Unregister) => {
                    connection.drain();
                    let _ = timeout(PARTING_LIMIT, ended(control)).await;
                    connection.flights().landed().await;
                    return "the agent unregistered".into();
                }
                Err(end) => {
                    connection.drain();
                    connection.flights().landed().await;
                    return reason.unwrap_or(end);
                }
            },
            _ = unavailable(&mut phase), if reason.is_none() => {
                reason = Some("the edge drained the connection".to_owned());
            }
            () = connection.flights().landed(), if reason.is_some() => return reason.unwrap_or_default(),
        }
    }
}

enum Answered {
    Call,
    /// The agent leaves.
    Unregister,
}

/// Answers one call; the error says why there are no more.
async fn answer<T, R>(
    control: &mut ControlServer<T>,
    registrar: &R,
    id: Uuid,
    call: Result<Option<ControlCall>, CallError>,
) -> Result<Answered, String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
    R: Registrar,
{
    match call.map_err(lost)? {
        None => Err("the agent ended the control stream".into()),
        Some(ControlCall::Register(question, _)) => {
            let again = Refused { cause: "the connection is registered already".into(), retry_after: None };
            control.reply_register(question, &Err(again)).await.map_err(lost)?;
            Ok(Answered::Call)
        }
        Some(ControlCall::LocalConfiguration(question, configuration)) => {
            let answer = registrar.local_configuration(id, configuration).await;
            let answer = answer.as_ref().copied().map_err(String::as_str);
            control.reply_done(question, answer).await.map_err(lost)?;
            Ok(Answered::Call)
        }
        Some(ControlCall::Unregister(question)) => {
            // The agent leaves whether it gets the answer or not.
            let _ = control.reply_done(question, Ok(())).await;
            Ok(Answered::Unregister)
        }
    }
}

/// Waits until a connection is closed outright, and says why.
async fn closed(phase: &mut watch::Receiver<Phase>) -> String {
    let closed = phase.wait_for(|phase| matches!(phase, Phase::Closed(_))).await;
    match closed.as_deref() {
        Ok(Phase::Closed(reason)) => reason.clone(),
        Ok(Phase::Open | Phase::Draining) | Err(_) => "the connection is gone".into(),
    }
}

/// Waits for the end of the control stream, whatever the agent still asks.
async fn ended<T>(control: &mut ControlServer<T>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    while let Ok(Some(_)) = control.next().await {}
}

fn lost(error: CallError) -> String {
    format!("the control stream failed: {error}")
}
