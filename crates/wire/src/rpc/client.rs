use bytes::Bytes;
use capnp::any_pointer;
use capnp_rpc::rpc_capnp::{cap_descriptor, message, payload, return_};
use uuid::Uuid;

use super::line::Line;
use super::message::{self as outgoing, Target};
use super::method::Method;
use super::params::{self, sentence};
use super::sessions::{self, UdpSession};
use super::{CallError, ProtocolError, Question, SHUTDOWN};
use crate::registration::{Refused, Registered, Registration};
use crate::schema::{stream, tunnel_capnp as schema};

/// Calls under way at once. Callers here make one at a time.
const MAX_QUESTIONS: usize = 16;

/// A call on the other end's bootstrap capability.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    /// Agent to edge. Brings [`Answer::Registered`].
    RegisterConnection(&'a Registration),
    /// Agent to edge. Brings [`Answer::Done`].
    UnregisterConnection,
    /// Agent to edge: its own configuration, JSON. Brings [`Answer::Done`].
    UpdateLocalConfiguration(&'a [u8]),
    /// Edge to agent: version and configuration, JSON. Brings [`Answer::Configuration`].
    UpdateConfiguration(i32, &'a [u8]),
    /// Edge to agent. Brings [`Answer::UdpSession`].
    RegisterUdpSession(&'a UdpSession),
    /// Either way: the session has ended, and why. Brings [`Answer::Done`].
    UnregisterUdpSession(Uuid, &'a str),
}

/// What a call brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Of `registerConnection`.
    Registered(Result<Registered, Refused>),
    /// Of calls without results.
    Done,
    /// Of `updateConfiguration`: the version in force, and if the push was refused, why.
    Configuration(Result<i32, (i32, String)>),
    /// Of `registerUdpSession`; if it was refused, why.
    UdpSession(Result<(), String>),
}

/// What happened on the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The answer to a call, or why there is none.
    Answer(Question, Result<Answer, CallError>),
    /// The other end ended the conversation, and why.
    Ended(String),
}

/// The calling end of an RPC stream, without I/O.
///
/// ```text
///          call: Bootstrap, Call            Return of the bootstrap: Finish
///  Fresh ───────────────────────▶ Promised ─────────────────────────────────▶ Imported ──shutdown──▶ ended
///                                     └───────────────── exception ─────────▶ Failed
/// ```
#[derive(Debug)]
pub struct Client {
    pub(super) line: Line,
    state: State,
    open: Vec<(u32, Asked)>,
    /// Question ids to use again, the one freed last first, as the reference does.
    free: Vec<u32>,
    next: u32,
}

#[derive(Debug)]
enum State {
    Fresh,
    Promised(u32),
    Imported { id: u32, references: u32 },
    Failed(String),
}

/// What a question is about, which decides how its results are read.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Bootstrap,
    Register,
    Nothing,
    Configuration,
    UdpSession,
}

impl Client {
    /// A fresh stream; the first call asks for the bootstrap capability on its way.
    pub fn new() -> Self {
        Self { line: Line::default(), state: State::Fresh, open: Vec::new(), free: Vec::new(), next: 0 }
    }

    /// Starts a call. Its answer comes as an event.
    pub fn call(&mut self, call: Call<'_>) -> Result<Question, CallError> {
        if self.line.has_ended() {
            return Err(CallError::Lost("the conversation has ended".into()));
        }
        if self.open.len() >= MAX_QUESTIONS {
            return Err(CallError::Protocol(format!("{MAX_QUESTIONS} calls are still without an answer")));
        }
        let target = match &self.state {
            State::Fresh => {
                let question = self.ask(Asked::Bootstrap);
                self.line.send(outgoing::bootstrap(question));
                self.state = State::Promised(question);
                Target::Promised(question)
            }
            State::Promised(question) => Target::Promised(*question),
            State::Imported { id, .. } => Target::Imported(*id),
            State::Failed(reason) => return Err(CallError::Exception(reason.clone())),
        };
        let (method, asked) = match call {
            Call::RegisterConnection(_) => (Method::REGISTER_CONNECTION, Asked::Register),
            Call::UnregisterConnection => (Method::UNREGISTER_CONNECTION, Asked::Nothing),
            Call::UpdateLocalConfiguration(_) => (Method::UPDATE_LOCAL_CONFIGURATION, Asked::Nothing),
            Call::UpdateConfiguration(..) => (Method::UPDATE_CONFIGURATION, Asked::Configuration),
            Call::RegisterUdpSession(_) => (Method::REGISTER_UDP_SESSION, Asked::UdpSession),
            Call::UnregisterUdpSession(..) => (Method::UNREGISTER_UDP_SESSION, Asked::Nothing),
        };
        let question = self.ask(asked);
        self.line.send(outgoing::call(question, target, method, |content| write_params(call, content)));
        Ok(Question(question))
    }

    /// Takes bytes of the other end. They are read by [`Client::poll_event`]; poll it until it has nothing more before
    /// the next input, and memory is bounded.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.line.receive(bytes);
    }

    /// The next thing that happened. After an error the conversation is over; what is to be sent says so to the other end.
    pub fn poll_event(&mut self) -> Result<Option<ClientEvent>, ProtocolError> {
        while let Some(bytes) = self.line.next()? {
            match self.take(&bytes) {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(error) => return Err(self.line.fail(error)),
            }
        }
        Ok(None)
    }

    /// Bytes for the other end.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.line.transmit()
    }

    /// Ends the conversation in order.
    pub fn shutdown(&mut self) {
        if self.line.has_ended() {
            return;
        }
        if let State::Imported { id, references } = self.state {
            self.line.send(outgoing::release(id, references));
        }
        self.line.send(outgoing::abort(SHUTDOWN));
        self.line.end();
    }

    fn ask(&mut self, asked: Asked) -> u32 {
        let question = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.open.push((question, asked));
        question
    }

    fn answered(&mut self, question: u32) -> Option<Asked> {
        let index = self.open.iter().position(|(open, _)| *open == question)?;
        self.free.push(question);
        Some(self.open.swap_remove(index).1)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<Option<ClientEvent>, ProtocolError> {
        let incoming = stream::read(bytes)?;
        let root: message::Reader<'_> = incoming.get_root()?;
        match root.which() {
            Ok(message::Return(answer)) => self.take_return(answer?),
            Ok(message::Abort(exception)) => {
                self.line.end();
                Ok(Some(ClientEvent::Ended(sentence(exception?.get_reason()?))))
            }
            Ok(message::Unimplemented(original)) => self.take_unimplemented(original?),
            _ => {
                self.line.send(outgoing::unimplemented(root)?);
                Ok(None)
            }
        }
    }

    fn take_return(&mut self, answer: return_::Reader<'_>) -> Result<Option<ClientEvent>, ProtocolError> {
        let question = answer.get_answer_id();
        let asked = self.answered(question).ok_or_else(|| {
            ProtocolError::new(format!("there is an answer to question {question}, which was not asked"))
        })?;
        let results = match answer.which() {
            Ok(return_::Results(results)) => Ok(results?),
            Ok(return_::Exception(exception)) => Err(sentence(exception?.get_reason()?)),
            Ok(return_::Canceled(())) => Err("the call was cancelled".into()),
            _ => return Err(ProtocolError::new("there is an answer of a kind that was not asked for")),
        };
        if !answer.get_no_finish_needed() {
            // Results of calls hold no capabilities; should there be some, they go back at once.
            let surplus = match (&results, asked) {
                (Err(_), _) | (_, Asked::Bootstrap) => false,
                (Ok(results), _) => !results.get_cap_table()?.is_empty(),
            };
            self.line.send(outgoing::finish(question, surplus));
        }
        if matches!(asked, Asked::Bootstrap) {
            self.state = match results {
                Ok(results) => State::Imported { id: bootstrap_capability(results)?, references: 1 },
                Err(reason) => State::Failed(reason),
            };
            return Ok(None);
        }
        let answer = match results {
            Ok(results) => read_results(asked, results.get_content()).map_err(CallError::from),
            Err(reason) => Err(CallError::Exception(reason)),
        };
        Ok(Some(ClientEvent::Answer(Question(question), answer)))
    }

    fn take_unimplemented(&mut self, original: message::Reader<'_>) -> Result<Option<ClientEvent>, ProtocolError> {
        const REASON: &str = "the other end does not know such a message";
        let question = match original.which() {
            Ok(message::Bootstrap(bootstrap)) => bootstrap?.get_question_id(),
            Ok(message::Call(call)) => call?.get_question_id(),
            // An answer to something that needs none.
            _ => return Ok(None),
        };
        match self.answered(question) {
            None => Err(ProtocolError::new(format!("question {question} is called unknown but was not asked"))),
            Some(Asked::Bootstrap) => {
                self.state = State::Failed(REASON.into());
                Ok(None)
            }
            Some(_) => {
                let answer = Err(CallError::Exception(REASON.into()));
                Ok(Some(ClientEvent::Answer(Question(question), answer)))
            }
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

fn write_params(call: Call<'_>, content: any_pointer::Builder<'_>) {
    match call {
        Call::RegisterConnection(registration) => params::write_registration(registration, content.init_as()),
        Call::UnregisterConnection => {
            content.init_as::<schema::empty::Builder<'_>>();
        }
        Call::UpdateLocalConfiguration(config) => {
            content.init_as::<schema::update_local_configuration_params::Builder<'_>>().set_config(config);
        }
        Call::UpdateConfiguration(version, config) => {
            let mut params = content.init_as::<schema::update_configuration_params::Builder<'_>>();
            params.set_version(version);
            params.set_config(config);
        }
        Call::RegisterUdpSession(session) => sessions::write_session(session, content.init_as()),
        Call::UnregisterUdpSession(session, message) => {
            let mut params = content.init_as::<schema::unregister_udp_session_params::Builder<'_>>();
            params.set_session_id(session.as_bytes());
            params.set_message(message);
        }
    }
}

fn read_results(asked: Asked, content: any_pointer::Reader<'_>) -> Result<Answer, ProtocolError> {
    match asked {
        Asked::Register => params::read_registered(content.get_as()?).map(Answer::Registered),
        Asked::Configuration => params::read_update_result(content.get_as()?).map(Answer::Configuration),
        Asked::UdpSession => sessions::read_session_result(content.get_as()?).map(Answer::UdpSession),
        Asked::Nothing | Asked::Bootstrap => Ok(Answer::Done),
    }
}

/// The export id of the one capability in the answer to Bootstrap.
fn bootstrap_capability(results: payload::Reader<'_>) -> Result<u32, ProtocolError> {
    let table = results.get_cap_table()?;
    let first = (!table.is_empty()).then(|| table.get(0).which());
    match first {
        Some(Ok(cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id))) => Ok(id),
        _ => Err(ProtocolError::new("the answer to Bootstrap holds no capability of the other end")),
    }
}
