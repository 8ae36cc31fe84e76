//! The edge end of a connection over QUIC.

use std::sync::Arc;

use quinn::ConnectionError;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::link::Link;
use super::outgoing::Outgoing;
use super::sessions::{Closing, FAREWELLS_AT_ONCE, Farewells, Request, Sessions};
use super::{AGENT, Cut, HELD, closed};
use crate::connect::RPC_SIGNATURE;
use crate::held::Holders;
use crate::rpc::{CALL_TIMEOUT, SessionServer};
use crate::session::{REGISTRATION_LIMIT, Session};
use crate::{Breach, Connection, Ended, Registrar, connection};

/// Serves one connection of an agent until it ends.
///
/// Dropping the future cuts the connection; [`Connection::close`] ends it.
pub async fn serve<R: Registrar>(connection: quinn::Connection, registrar: Arc<R>) -> Ended {
    let deadline = Instant::now() + REGISTRATION_LIMIT;
    let connection = Cut(connection);
    let mut session = Session::new(registrar);
    let reason = tokio::select! {
        biased;
        reason = control(&mut session, &connection.0, deadline) => reason,
        error = connection.0.closed() => closed(&error, AGENT),
    };
    // A lost connection shows first on the control stream, which knows no reason.
    let (reason, breach) = match connection.0.close_reason() {
        None | Some(ConnectionError::LocallyClosed) => (reason, None),
        Some(error) => (closed(&error, AGENT), Breach::of_quic(&error)),
    };
    drop(connection);
    Ended { reason: session.end(reason), breach }
}

/// Takes the control stream and serves it until the connection is to be closed.
async fn control<R: Registrar>(session: &mut Session<R>, connection: &quinn::Connection, deadline: Instant) -> String {
    let (send, recv) = match timeout_at(deadline, connection.accept_bi()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return closed(&error, AGENT),
        Err(_) => return "the agent did not open the control stream in time".into(),
    };
    let (sessions, farewells) = Sessions::new(connection.clone());
    let closing = Closing(Arc::clone(&sessions));
    let holders = Holders::new(HELD);
    let link = Link::new(connection.clone(), Arc::clone(&sessions), Arc::clone(&holders));
    let remote = connection.remote_address();
    let connect = |extensions| Connection::new(remote, extensions, connection::Link::Quic(link));
    tokio::select! {
        reason = session.run(tokio::io::join(recv, send), deadline, connect) => reason,
        error = carry(connection, &closing.0, farewells) => closed(&error, AGENT),
        never = holders.relieve() => match never {},
    }
}

/// Gives flows their datagrams, and tells and hears which sessions have ended.
async fn carry(connection: &quinn::Connection, sessions: &Arc<Sessions>, mut farewells: Farewells) -> ConnectionError {
    let (mut telling, mut hearing) = (JoinSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            request = sessions.next() => match request {
                // An edge is asked for none.
                Ok(Request::Registration(_)) => {}
                Err(error) => return error,
            },
            accepted = connection.accept_bi() => match accepted {
                Ok((send, recv)) => drop(hearing.spawn(listen(Arc::clone(sessions), send, recv))),
                Err(error) => return error,
            },
            session = farewells.next(), if telling.len() < FAREWELLS_AT_ONCE => {
                let sessions = Arc::clone(sessions);
                telling.spawn(async move { sessions.unregister(session, "the edge ended the flow").await });
            }
            Some(_) = telling.join_next() => {}
            Some(_) = hearing.join_next() => {}
        }
    }
}

/// Agents open further streams only to end UDP sessions.
async fn listen(sessions: Arc<Sessions>, send: quinn::SendStream, mut recv: quinn::RecvStream) {
    let listening = async {
        let mut signature = [0; RPC_SIGNATURE.len()];
        if recv.read_exact(&mut signature).await.is_err() || signature != RPC_SIGNATURE {
            // Dropping both sides refuses it.
            return drop(Outgoing::new(send));
        }
        let mut server = SessionServer::new(tokio::io::join(recv, send));
        while let Ok(Some((session, message))) = server.next().await {
            tracing::debug!(%session, message, "the agent ended a flow");
            sessions.end(session);
        }
    };
    // A stream for RPC is over after this time, whatever happens on it.
    let _ = timeout(CALL_TIMEOUT, listening).await;
}
