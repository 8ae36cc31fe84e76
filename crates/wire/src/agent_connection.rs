use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::flight::Flights;
use crate::registration::{Refused, Registered, Registration};
use crate::rpc::{CallError, ControlClient, RegisterError};

/// Calls that may wait for the one before them: there are two kinds, each made once or twice in a connection's life.
const WAITING_CALLS: usize = 4;

/// Why a connection could not be registered.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The edge answered the registration with a refusal.
    #[error("the edge refused the connection: {0}")]
    Refused(#[source] Refused),
    /// The registration call failed, was answered with nonsense, or was not answered in time.
    #[error("registration with the edge failed: {0}")]
    Rpc(String),
    /// The connection ended before the registration was answered.
    #[error("the connection to the edge was lost during registration: {0}")]
    Lost(String),
}

/// The agent's handle on one registered connection. Requests on it go to the handler until the connection ends.
///
/// Dropping it closes the connection.
pub struct AgentConnection {
    calls: mpsc::Sender<Call>,
    ended: watch::Receiver<Option<String>>,
    flights: Flights,
    driver: Driver,
    control: AbortHandle,
}

/// The task that serves a connection; dropping it cuts the connection.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is asked of the edge on the control stream.
enum Call {
    LocalConfiguration(Bytes, oneshot::Sender<Result<(), String>>),
    Unregister(Duration, oneshot::Sender<Result<(), String>>),
}

impl AgentConnection {
    /// Reports the agent's own configuration to the edge (section 11.3). JSON.
    pub async fn update_local_configuration(&self, configuration: Bytes) -> Result<(), String> {
        self.call(|answer| Call::LocalConfiguration(configuration, answer)).await
    }

    /// Waits for the end of the connection; answers why it ended. May be called any number of times.
    pub async fn closed(&self) -> String {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the connection was closed".into(),
        }
    }

    /// Asks the edge to send nothing new (section 10), waiting at most `limit` for its answer.
    ///
    /// Requests go on being served until the edge closes the connection: await [`AgentConnection::closed`].
    pub async fn unregister(&self, limit: Duration) -> Result<(), String> {
        self.call(|answer| Call::Unregister(limit, answer)).await
    }

    /// Requests under way, WebSockets and streams included.
    pub fn in_flight(&self) -> usize {
        self.flights.count()
    }

    /// Closes at once; requests under way are cancelled.
    pub fn close(&self) {
        self.driver.0.abort();
    }

    async fn call(&self, call: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Call) -> Result<(), String> {
        const GONE: &str = "the control stream has ended";
        let (answer, answered) = oneshot::channel();
        self.calls.send(call(answer)).await.map_err(|_| GONE)?;
        answered.await.map_err(|_| GONE)?
    }
}

impl Drop for AgentConnection {
    fn drop(&mut self) {
        self.control.abort();
    }
}

/// Registers on the control stream that `opened` brings, while `driver` serves the connection in a task of its own.
pub(crate) async fn start<T, D>(
    driver: D,
    opened: oneshot::Receiver<T>,
    flights: Flights,
    registration: &Registration,
    rpc_timeout: Duration,
) -> Result<(Registered, AgentConnection), ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: Future<Output = String> + Send + 'static,
{
    let (end, mut ended) = watch::channel(None);
    let driver = tokio::spawn(async move {
        let reason = driver.await;
        end.send_replace(Some(reason));
    });
    let driver = Driver(driver.abort_handle());

    let registering = async {
        let Ok(io) = opened.await else { return std::future::pending().await };
        let mut control = ControlClient::new(io, rpc_timeout);
        let registered = control.register(registration).await;
        (control, registered)
    };
    let (control, registered) = tokio::select! {
        registered = timeout(rpc_timeout, registering) => match registered {
            Ok(registered) => registered,
            Err(_) => return Err(ConnectError::Rpc(format!("no answer within {rpc_timeout:?}"))),
        },
        reason = ended.wait_for(Option::is_some) => {
            let reason = reason.ok().and_then(|reason| reason.clone()).unwrap_or_default();
            return Err(ConnectError::Lost(reason));
        }
    };
    let registered = match registered {
        Ok(registered) => registered,
        Err(error) => {
            // Ends the conversation as the protocol has it; the edge closes the connection.
            let _ = timeout(rpc_timeout, control.shutdown()).await;
            return Err(match error {
                RegisterError::Refused(refused) => ConnectError::Refused(refused),
                RegisterError::Call(CallError::Lost(reason)) => ConnectError::Lost(reason),
                RegisterError::Call(error) => ConnectError::Rpc(error.to_string()),
            });
        }
    };
    let (calls, called) = mpsc::channel(WAITING_CALLS);
    let control = tokio::spawn(converse(control, called)).abort_handle();
    Ok((registered, AgentConnection { calls, ended, flights, driver, control }))
}

/// Makes the calls on the control stream, one after the other, until the agent has left or the stream has ended.
async fn converse<T: AsyncRead + AsyncWrite + Unpin>(mut control: ControlClient<T>, mut called: mpsc::Receiver<Call>) {
    loop {
        tokio::select! {
            call = called.recv() => match call {
                None => return control.shutdown().await,
                Some(Call::LocalConfiguration(configuration, answer)) => {
                    let done = control.update_local_configuration(&configuration).await;
                    // Nobody listening means that the caller has lost interest.
                    let _ = answer.send(done.map_err(|error| error.to_string()));
                }
                Some(Call::Unregister(limit, answer)) => {
                    let done = control.unregister(limit).await;
                    let _ = answer.send(done.map_err(|error| error.to_string()));
                    return control.shutdown().await;
                }
            },
            end = control.ended() => {
                // As the reference: requests are served until the connection itself ends.
                tracing::debug!(reason = %end, "the edge ended the control stream");
                return;
            }
        }
    }
}
