use bytes::Bytes;
use capnp_rpc::rpc_capnp::{call, disembargo, exception, message, message_target, promised_answer};
use uuid::Uuid;

use super::line::Line;
use super::message as outgoing;
use super::method::Method;
use super::params::{self, sentence};
use super::sessions::{self, UdpSession};
use super::{ProtocolError, Question};
use crate::registration::{Refused, Registered, Registration};
use crate::schema::{stream, tunnel_capnp as schema};

/// Questions that may be open at once: asked, and not yet finished by whoever asked. The reference has two.
pub const MAX_ANSWERS: usize = 32;

/// The one capability, as this end numbers it.
const BOOTSTRAP: u32 = 0;

/// Whose bootstrap capability is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `RegistrationServer`, which the reference also reaches as `TunnelServer`.
    Edge,
    /// `CloudflaredServer`.
    Agent,
    /// `SessionManager` of the edge, on streams that an agent opened.
    Sessions,
}

/// A call of the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerCall {
    /// To the edge. Takes [`Reply::Registered`].
    RegisterConnection(Box<Registration>),
    /// To the edge. Takes [`Reply::Done`].
    UnregisterConnection,
    /// To the edge: the agent's own configuration, JSON. Takes [`Reply::Done`].
    UpdateLocalConfiguration(Bytes),
    /// To the agent: version and configuration, JSON. Takes [`Reply::Configuration`].
    UpdateConfiguration(i32, Bytes),
    /// To the agent. Takes [`Reply::UdpSession`].
    RegisterUdpSession(UdpSession),
    /// To either: the session has ended, and why, for people. Takes [`Reply::Done`].
    UnregisterUdpSession(Uuid, String),
}

/// The answer to a call; which one is said at [`ServerCall`].
#[derive(Debug, Clone, Copy)]
pub enum Reply<'a> {
    /// To a registration.
    Registered(&'a Result<Registered, Refused>),
    /// There are no results.
    Done,
    /// The version in force, and if the push was refused, why.
    Configuration(&'a Result<i32, (i32, String)>),
    /// The session is there; if it was refused, why.
    UdpSession(Result<(), &'a str>),
    /// To any call: it failed, and why.
    Exception(&'a str),
}

/// What happened on the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// Wants [`Server::reply`].
    Call(Question, ServerCall),
    /// The other end ended the conversation, and why.
    Ended(String),
}

/// The serving end of an RPC stream, without I/O.
///
/// Each question goes through these states; a question that is asked again before it is done ends the conversation.
///
/// ```text
///   Bootstrap ─▶ Capability ──Finish──▶ done
///   Call ─▶ Pending ──reply──▶ Returned ──Finish──▶ done
///              └──Finish──▶ Abandoned ──reply──▶ done
/// ```
#[derive(Debug)]
pub struct Server {
    role: Role,
    pub(super) line: Line,
    answers: Vec<(u32, State)>,
    /// How often the other end holds the bootstrap capability.
    references: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Capability,
    Pending,
    Returned,
    Abandoned,
}

/// Why a call gets an exception.
struct Refusal(exception::Type, String);

impl From<capnp::Error> for Refusal {
    fn from(error: capnp::Error) -> Self {
        ProtocolError::from(error).into()
    }
}

impl From<ProtocolError> for Refusal {
    fn from(ProtocolError(text): ProtocolError) -> Self {
        Self(exception::Type::Failed, text)
    }
}

impl Refusal {
    fn unimplemented(text: impl Into<String>) -> Self {
        Self(exception::Type::Unimplemented, text.into())
    }
}

impl Server {
    /// A fresh stream.
    pub fn new(role: Role) -> Self {
        Self { role, line: Line::default(), answers: Vec::new(), references: 0 }
    }

    /// Takes bytes of the other end. They are read by [`Server::poll_event`]; poll it until it has nothing more, and send
    /// what there is to send, before the next input, and memory is bounded.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.line.receive(bytes);
    }

    /// The next thing that happened. After an error the conversation is over; what is to be sent says so to the other end.
    pub fn poll_event(&mut self) -> Result<Option<ServerEvent>, ProtocolError> {
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

    /// Answers a call. Without effect when there is no such call, or it has been answered.
    pub fn reply(&mut self, question: Question, reply: Reply<'_>) {
        let Question(question) = question;
        if self.line.has_ended() {
            return;
        }
        let Some(index) = self
            .answers
            .iter()
            .position(|(open, state)| *open == question && matches!(state, State::Pending | State::Abandoned))
        else {
            return;
        };
        if self.answers[index].1 == State::Abandoned {
            self.answers.swap_remove(index);
        } else {
            self.answers[index].1 = State::Returned;
        }
        self.line.send(match reply {
            Reply::Registered(answer) => {
                outgoing::results(question, |content| params::write_registered(answer, content))
            }
            Reply::Done => outgoing::results(question, |content| {
                content.init_as::<schema::empty::Builder<'_>>();
            }),
            Reply::Configuration(answer) => {
                outgoing::results(question, |content| params::write_update_result(answer, content.init_as()))
            }
            Reply::UdpSession(answer) => {
                outgoing::results(question, |content| sessions::write_session_result(answer, content.init_as()))
            }
            Reply::Exception(reason) => outgoing::exception(question, exception::Type::Failed, reason),
        });
    }

    fn take(&mut self, bytes: &Bytes) -> Result<Option<ServerEvent>, ProtocolError> {
        let incoming = stream::read(bytes)?;
        let root: message::Reader<'_> = incoming.get_root()?;
        match root.which() {
            Ok(message::Bootstrap(bootstrap)) => {
                let question = bootstrap?.get_question_id();
                self.open(question, State::Capability)?;
                // Bounded, since each of these is asked for by a message of its own.
                self.references = self.references.saturating_add(1);
                self.line.send(outgoing::bootstrap_return(question));
            }
            Ok(message::Call(call)) => return self.take_call(bytes, call?),
            Ok(message::Finish(finish)) => {
                let finish = finish?;
                self.finish(finish.get_question_id(), finish.get_release_result_caps());
            }
            Ok(message::Release(release)) => {
                let release = release?;
                if release.get_id() != BOOTSTRAP || release.get_reference_count() > self.references {
                    return Err(ProtocolError::new("a capability is released that is not held"));
                }
                self.references -= release.get_reference_count();
            }
            Ok(message::Disembargo(disembargo)) => self.take_disembargo(disembargo?, root)?,
            Ok(message::Abort(exception)) => {
                self.line.end();
                return Ok(Some(ServerEvent::Ended(sentence(exception?.get_reason()?))));
            }
            // Of what is sent here nothing needs a reaction when it is not understood.
            Ok(message::Unimplemented(_)) => {}
            _ => self.line.send(outgoing::unimplemented(root)?),
        }
        Ok(None)
    }

    fn open(&mut self, question: u32, state: State) -> Result<(), ProtocolError> {
        if self.answers.iter().any(|(open, _)| *open == question) {
            return Err(ProtocolError::new(format!("question {question} is asked while it is still open")));
        }
        if self.answers.len() >= MAX_ANSWERS {
            return Err(ProtocolError::new(format!("more than {MAX_ANSWERS} questions are open")));
        }
        self.answers.push((question, state));
        Ok(())
    }

    fn finish(&mut self, question: u32, release_result_caps: bool) {
        let Some(index) = self.answers.iter().position(|(open, _)| *open == question) else { return };
        match self.answers[index].1 {
            State::Pending => self.answers[index].1 = State::Abandoned,
            State::Abandoned => {}
            State::Returned => drop(self.answers.swap_remove(index)),
            State::Capability => {
                self.answers.swap_remove(index);
                if release_result_caps {
                    self.references = self.references.saturating_sub(1);
                }
            }
        }
    }

    fn take_call(&mut self, bytes: &Bytes, call: call::Reader<'_>) -> Result<Option<ServerEvent>, ProtocolError> {
        let question = call.get_question_id();
        self.open(question, State::Pending)?;
        let reply = match self.accept(bytes, call) {
            Ok(call) => return Ok(Some(ServerEvent::Call(Question(question), call))),
            Err(Refusal(kind, reason)) => outgoing::exception(question, kind, &reason),
        };
        self.line.send(reply);
        if let Some((_, state)) = self.answers.iter_mut().find(|(open, _)| *open == question) {
            *state = State::Returned;
        }
        Ok(None)
    }

    fn accept(&self, bytes: &Bytes, call: call::Reader<'_>) -> Result<ServerCall, Refusal> {
        self.check_target(call.get_target()?)?;
        if !matches!(call.get_send_results_to().which(), Ok(call::send_results_to::Caller(()))) {
            return Err(Refusal::unimplemented("results can only go to the caller"));
        }
        let payload = call.get_params()?;
        if !payload.get_cap_table()?.is_empty() {
            return Err(Refusal::unimplemented("no method takes a capability"));
        }
        let content = payload.get_content();
        let method = Method { interface: call.get_interface_id(), ordinal: call.get_method_id() };
        let config = |config: &[u8]| if config.is_empty() { Bytes::new() } else { bytes.slice_ref(config) };
        Ok(match (self.role, method) {
            (Role::Edge, Method::REGISTER_CONNECTION) => {
                let registration = params::read_registration(content.get_as()?)?;
                ServerCall::RegisterConnection(Box::new(registration))
            }
            (Role::Edge, Method::UNREGISTER_CONNECTION) => ServerCall::UnregisterConnection,
            (Role::Edge, Method::UPDATE_LOCAL_CONFIGURATION) => {
                let params: schema::update_local_configuration_params::Reader<'_> = content.get_as()?;
                ServerCall::UpdateLocalConfiguration(config(params.get_config()?))
            }
            (Role::Agent, Method::UPDATE_CONFIGURATION) => {
                let params: schema::update_configuration_params::Reader<'_> = content.get_as()?;
                ServerCall::UpdateConfiguration(params.get_version(), config(params.get_config()?))
            }
            (Role::Agent, Method::REGISTER_UDP_SESSION) => {
                ServerCall::RegisterUdpSession(sessions::read_session(content.get_as()?)?)
            }
            (Role::Agent | Role::Sessions, Method::UNREGISTER_UDP_SESSION) => {
                let params: schema::unregister_udp_session_params::Reader<'_> = content.get_as()?;
                let session = params::uuid("session id", params.get_session_id()?)?;
                ServerCall::UnregisterUdpSession(session, sentence(params.get_message()?))
            }
            (_, Method { interface, ordinal }) => {
                return Err(Refusal::unimplemented(format!(
                    "there is no method {ordinal} of interface {interface:#018x}"
                )));
            }
        })
    }

    fn check_target(&self, target: message_target::Reader<'_>) -> Result<(), Refusal> {
        let known = match target.which() {
            Ok(message_target::ImportedCap(id)) => id == BOOTSTRAP && self.references > 0,
            Ok(message_target::PromisedAnswer(answer)) => {
                let answer = answer?;
                let question = answer.get_question_id();
                self.answers.contains(&(question, State::Capability)) && is_whole(answer)?
            }
            Err(_) => false,
        };
        if known {
            Ok(())
        } else {
            Err(Refusal(exception::Type::Failed, "the target of the call is not a capability held here".into()))
        }
    }

    fn take_disembargo(
        &mut self,
        disembargo: disembargo::Reader<'_>,
        root: message::Reader<'_>,
    ) -> Result<(), ProtocolError> {
        self.line.send(match disembargo.get_context().which() {
            Ok(disembargo::context::SenderLoopback(id)) => outgoing::disembargo(disembargo.get_target()?, id)?,
            _ => outgoing::unimplemented(root)?,
        });
        Ok(())
    }
}

/// Whether a promise means the answer as it is and no field within it.
fn is_whole(answer: promised_answer::Reader<'_>) -> capnp::Result<bool> {
    let mut transform = answer.get_transform()?.iter();
    Ok(transform.all(|op| matches!(op.which(), Ok(promised_answer::op::Noop(())))))
}
