//! The edge end of a connection over QUIC.

use std::sync::Arc;

use quinn::ConnectionError;
use tokio::time::{Instant, timeout_at};

use super::link::Link;
use super::outgoing::Outgoing;
use super::{AGENT, Cut, closed};
use crate::session::{REGISTRATION_LIMIT, Session};
use crate::{Connection, Registrar, connection};

/// Serves one connection of an agent until it ends; answers why it ended.
///
/// Dropping the future cuts the connection; [`Connection::close`] ends it.
pub async fn serve<R: Registrar>(connection: quinn::Connection, registrar: Arc<R>) -> String {
    let deadline = Instant::now() + REGISTRATION_LIMIT;
    let connection = Cut(connection);
    let mut session = Session::new(registrar);
    let reason = tokio::select! {
        biased;
        reason = control(&mut session, &connection.0, deadline) => reason,
        error = connection.0.closed() => closed(&error, AGENT),
    };
    // A lost connection shows first on the control stream, which knows no reason.
    let reason = match connection.0.close_reason() {
        None | Some(ConnectionError::LocallyClosed) => reason,
        Some(error) => closed(&error, AGENT),
    };
    drop(connection);
    session.end(reason)
}

/// Takes the control stream and serves it until the connection is to be closed.
async fn control<R: Registrar>(session: &mut Session<R>, connection: &quinn::Connection, deadline: Instant) -> String {
    let (send, recv) = match timeout_at(deadline, connection.accept_bi()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return closed(&error, AGENT),
        Err(_) => return "the agent did not open the control stream in time".into(),
    };
    let link = Link::new(connection.clone());
    let remote = connection.remote_address();
    let connect = |extensions| Connection::new(remote, extensions, connection::Link::Quic(link));
    tokio::select! {
        reason = session.run(tokio::io::join(recv, send), deadline, connect) => reason,
        error = refuse_streams(connection) => closed(&error, AGENT),
    }
}

/// Agents open further streams only to end UDP sessions, which need no answer: they end with the connection, too.
async fn refuse_streams(connection: &quinn::Connection) -> ConnectionError {
    loop {
        match connection.accept_bi().await {
            // Dropping the receiving side stops it.
            Ok((send, _)) => drop(Outgoing::new(send)),
            Err(error) => return error,
        }
    }
}
