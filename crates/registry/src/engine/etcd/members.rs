use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream;
use http::uri::{Authority, PathAndQuery};
use prost::Message;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use super::fault::{Fault, explain};
use super::message::{AuthenticateRequest, AuthenticateResponse, WatchOrder, WatchRequest, WatchResponse};
use super::settings::{BadEtcdSettings, EtcdLogin, EtcdSettings, EtcdTls};

/// A member within reach answers in well under a second; one that is stuck is found before our own callers give up.
const CALL: Duration = Duration::from_secs(4);
/// Together with a call this stays below what the registry waits for a change. An election takes 1 to 3 s.
const LEADERLESS: Duration = Duration::from_secs(5);
/// Between two rounds over the members, on average.
const ROUND: Duration = Duration::from_millis(150);
/// TCP and TLS, each; below [`CALL`], so that a member that cannot be reached is known as such.
const CONNECT: Duration = Duration::from_millis(1500);
/// etcd ends connections that ask more often than every 5 s.
const KEEP_ALIVE: Duration = Duration::from_secs(6);
/// Then a connection with a stream on it is lost.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(2);
/// Questions under way on a watch's stream: its creation and one about its progress.
const ORDERS: usize = 4;
/// The largest answer: several pages, or one transaction of the largest size that etcd's manual recommends (10 MiB).
const MAX_ANSWER: usize = 32 << 20;

/// Whether a request may be sent again when nobody knows what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It reads.
    Always,
    /// It writes.
    IfUntaken,
}

/// The cluster, as far as it can be reached: a connection to each member, made when it is needed.
pub(super) struct Members {
    members: Vec<Member>,
    /// Who answered last; at first anyone, so that many nodes do not all ask the same.
    preferred: AtomicUsize,
    login: Option<EtcdLogin>,
    pass: Mutex<Pass>,
}

struct Member {
    name: String,
    channel: Channel,
}

/// What etcd gave us for the login.
#[derive(Clone)]
enum Pass {
    Unasked,
    /// It has no users, and wants nothing.
    Unneeded,
    Token(MetadataValue<Ascii>),
}

/// A watch that a member has taken up.
pub(super) struct Watching {
    /// Its first answer.
    pub(super) created: WatchResponse,
    /// The others.
    pub(super) answers: Streaming<WatchResponse>,
    /// What is asked on the same stream.
    pub(super) orders: mpsc::Sender<WatchRequest>,
    /// Who it is.
    pub(super) member: String,
}

impl Members {
    /// Nothing is dialled yet.
    pub(super) fn new(settings: &EtcdSettings) -> Result<Self, BadEtcdSettings> {
        settings.check_plaintext()?;
        let tls = settings.tls.as_ref().map(tls_config).transpose()?;
        let members = settings.members.iter().map(|authority| {
            let channel = endpoint(authority, tls.as_ref())?.connect_lazy();
            Ok(Member { name: authority.to_string(), channel })
        });
        let members = members.collect::<Result<Vec<_>, BadEtcdSettings>>()?;
        let preferred = AtomicUsize::new(rand::random_range(0..members.len()));
        Ok(Self { members, preferred, login: settings.login.clone(), pass: Mutex::new(Pass::Unasked) })
    }

    /// Asks one member after the other until one has an answer, for as long as nobody refuses.
    pub(super) async fn call<Q, A>(&self, path: &'static str, request: &Q, repeat: Repeat) -> Result<A, Fault>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let give_up = Instant::now() + LEADERLESS;
        let mut last = no_member();
        loop {
            for index in self.order() {
                if Instant::now() >= give_up {
                    return Err(last);
                }
                let member = &self.members[index];
                let mut outcome = self.ask(member, path, request.clone()).await;
                if matches!(outcome, Err(Fault::Token)) {
                    outcome = self.ask(member, path, request.clone()).await;
                }
                match self.judge(index, outcome, repeat) {
                    ControlFlow::Break(settled) => return settled,
                    ControlFlow::Continue(fault) => last = fault,
                }
            }
            tokio::time::sleep(jitter(ROUND)).await;
        }
    }

    /// Opens a watch at the first member that takes it up.
    pub(super) async fn watch(&self, path: &'static str, create: &WatchOrder) -> Result<Watching, Fault> {
        let mut last = no_member();
        for index in self.order() {
            let member = &self.members[index];
            let mut outcome = self.watch_at(member, path, create.clone()).await;
            if matches!(outcome, Err(Fault::Token)) {
                outcome = self.watch_at(member, path, create.clone()).await;
            }
            match self.judge(index, outcome, Repeat::Always) {
                ControlFlow::Break(settled) => return settled,
                ControlFlow::Continue(fault) => last = fault,
            }
        }
        Err(last)
    }

    /// Another member is asked first from now on: this one, though connected, says nothing more.
    pub(super) fn avoid(&self, member: &str) {
        if let Some(index) = self.members.iter().position(|known| known.name == member) {
            self.preferred.store((index + 1) % self.members.len(), Ordering::Relaxed);
        }
    }

    /// Every member once, the preferred one first.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let (first, count) = (self.preferred.load(Ordering::Relaxed), self.members.len());
        (0..count).map(move |step| (first + step) % count)
    }

    /// Whether another member is to be asked after this outcome.
    fn judge<T>(
        &self,
        index: usize,
        outcome: Result<T, Fault>,
        repeat: Repeat,
    ) -> ControlFlow<Result<T, Fault>, Fault> {
        let is_working = !matches!(outcome, Err(Fault::Elsewhere(_) | Fault::Unknown(_)));
        let preferred = if is_working { index } else { (index + 1) % self.members.len() };
        self.preferred.store(preferred, Ordering::Relaxed);
        match outcome {
            Err(fault @ Fault::Elsewhere(_)) => ControlFlow::Continue(fault),
            Err(fault @ Fault::Unknown(_)) if repeat == Repeat::Always => ControlFlow::Continue(fault),
            // Tried twice, with a new token the second time.
            Err(Fault::Token) => ControlFlow::Break(Err(Fault::Refused(match self.login {
                None => "it wants a user and a password, and was given none".into(),
                Some(_) => "it does not take its own token for the user; see whether its members agree".into(),
            }))),
            settled => ControlFlow::Break(settled),
        }
    }

    async fn ask<Q, A>(&self, member: &Member, path: &'static str, request: Q) -> Result<A, Fault>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        in_time(member, async {
            let request = self.signed(member, request).await?;
            self.unary(member, path, request).await
        })
        .await
    }

    async fn watch_at(&self, member: &Member, path: &'static str, create: WatchOrder) -> Result<Watching, Fault> {
        in_time(member, async {
            let (orders, receiver) = mpsc::channel(ORDERS);
            let first = orders.try_send(WatchRequest { order: Some(create) });
            first.expect("the channel is new and has room");
            let requests = stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
            let request = self.signed(member, requests).await?;
            let mut grpc = ready(member).await?;
            let opened = grpc.streaming(request, PathAndQuery::from_static(path), ProstCodec::default()).await;
            let mut answers: Streaming<WatchResponse> =
                opened.map_err(|status| self.fault(member, &status))?.into_inner();
            let created = answers.message().await.map_err(|status| self.fault(member, &status))?;
            let created = created.ok_or_else(|| Fault::Unknown(format!("{}: it ended the watch", member.name)))?;
            Ok(Watching { created, answers, orders, member: member.name.clone() })
        })
        .await
    }

    async fn unary<Q, A>(&self, member: &Member, path: &'static str, request: Request<Q>) -> Result<A, Fault>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = ready(member).await?;
        let answer = grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::default()).await;
        Ok(answer.map_err(|status| self.fault(member, &status))?.into_inner())
    }

    /// With what every request carries: that it is for a member that knows a leader, and who we are.
    async fn signed<Q>(&self, member: &Member, request: Q) -> Result<Request<Q>, Fault> {
        let mut request = for_led_members(request);
        if let Some(login) = &self.login {
            let known = self.pass().clone();
            let pass = match known {
                Pass::Unasked => self.log_in(member, login).await?,
                known => known,
            };
            if let Pass::Token(token) = pass {
                request.metadata_mut().insert("token", token);
            }
        }
        Ok(request)
    }

    async fn log_in(&self, member: &Member, login: &EtcdLogin) -> Result<Pass, Fault> {
        let request = AuthenticateRequest { name: login.user.clone(), password: login.password.clone() };
        let answer = self.unary(member, "/etcdserverpb.Auth/Authenticate", for_led_members(request)).await;
        let pass = match answer {
            Ok(AuthenticateResponse { token }) => {
                let token = token.parse().map_err(|_| Fault::Refused("its token for the user is not text".into()))?;
                Pass::Token(token)
            }
            Err(Fault::Refused(said)) if said.contains("authentication is not enabled") => Pass::Unneeded,
            Err(Fault::Refused(said)) => return Err(Fault::Refused(format!("the user {}: {said}", login.user))),
            Err(fault) => return Err(fault),
        };
        *self.pass() = pass.clone();
        Ok(pass)
    }

    fn fault(&self, member: &Member, status: &tonic::Status) -> Fault {
        match Fault::of(status) {
            Fault::Elsewhere(problem) => Fault::Elsewhere(format!("{}: {problem}", member.name)),
            Fault::Unknown(problem) => Fault::Unknown(format!("{}: {problem}", member.name)),
            Fault::Token => {
                *self.pass() = Pass::Unasked;
                Fault::Token
            }
            other => other,
        }
    }

    fn pass(&self) -> MutexGuard<'_, Pass> {
        self.pass.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_member() -> Fault {
    Fault::Elsewhere("it has no members".into())
}

fn for_led_members<Q>(request: Q) -> Request<Q> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

async fn in_time<T>(member: &Member, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let late = |_| Fault::Unknown(format!("{}: no answer within {CALL:?}", member.name));
    timeout(CALL, work).await.map_err(late)?
}

async fn ready(member: &Member) -> Result<Grpc<Channel>, Fault> {
    let mut grpc = Grpc::new(member.channel.clone()).max_decoding_message_size(MAX_ANSWER);
    // Nothing was sent yet.
    grpc.ready().await.map_err(|error| Fault::Elsewhere(format!("{}: {}", member.name, explain(&error))))?;
    Ok(grpc)
}

/// So that nodes which lost the same member do not come back in step.
pub(super) fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.5..1.5))
}

fn endpoint(authority: &Authority, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, BadEtcdSettings> {
    let bad = |error: tonic::transport::Error| BadEtcdSettings::Tls { problem: explain(&error) };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{authority}"))
        .map_err(bad)?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        // etcd counts questions without a stream against us.
        .keep_alive_while_idle(false);
    let Some(tls) = tls else { return Ok(endpoint) };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    endpoint.tls_config(tls.clone().domain_name(host)).map_err(bad)
}

fn tls_config(tls: &EtcdTls) -> Result<ClientTlsConfig, BadEtcdSettings> {
    let bad = |problem: &str| BadEtcdSettings::Tls { problem: problem.to_owned() };
    let config = ClientTlsConfig::new().timeout(CONNECT);
    let config = match &tls.ca {
        None => config.with_native_roots(),
        Some(pem) if has_certificate(pem) => config.ca_certificate(Certificate::from_pem(pem)),
        Some(_) => return Err(bad("the authority's file has no certificate in PEM")),
    };
    match &tls.identity {
        None => Ok(config),
        Some(identity) if !has_certificate(&identity.certificate) => {
            Err(bad("the node's file has no certificate in PEM"))
        }
        Some(identity) if PrivateKeyDer::from_pem_slice(&identity.key).is_err() => {
            Err(bad("the node's key is no private key in PEM"))
        }
        Some(identity) => Ok(config.identity(Identity::from_pem(&identity.certificate, &identity.key))),
    }
}

/// One at least, and nothing that is broken.
fn has_certificate(pem: &[u8]) -> bool {
    let mut certificates = CertificateDer::pem_slice_iter(pem).peekable();
    certificates.peek().is_some() && certificates.all(|certificate| certificate.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::etcd::settings::EtcdIdentity;

    fn refused(tls: EtcdTls) -> String {
        let settings = EtcdSettings::parse("etcd://etcd.example").unwrap().with_tls(tls);
        Members::new(&settings).err().unwrap().to_string()
    }

    #[test]
    fn certificates_that_are_none_are_refused_by_their_role() {
        let none = || b"no certificate".to_vec();
        let said = refused(EtcdTls { ca: Some(none()), identity: None });
        assert!(said.contains("authority"), "{said}");
        let signed = rcgen::generate_simple_self_signed(["node".to_owned()]).unwrap();
        let certificate = signed.cert.pem().into_bytes();
        let ca = Some(certificate.clone());
        let said =
            refused(EtcdTls { ca: ca.clone(), identity: Some(EtcdIdentity { certificate: none(), key: none() }) });
        assert!(said.contains("node's file"), "{said}");
        let said = refused(EtcdTls { ca, identity: Some(EtcdIdentity { certificate, key: none() }) });
        assert!(said.contains("key"), "{said}");
    }
}
