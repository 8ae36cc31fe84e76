//! gRPC by `tonic`, visitor and origin: its health service has a unary and a streaming call, its reflection service one
//! that streams both ways.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt as _;
use harness::{Http, LIMIT, Stream, Visitor};
use http::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tonic::Code;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::rig::{Rig, Way};
use crate::visit::Over;

/// A gRPC origin over HTTP/2 without TLS, gone when dropped.
struct Origin {
    address: SocketAddr,
    /// Changes what the health service says, which its watchers are told.
    reporter: HealthReporter,
    server: AbortHandle,
}

impl Origin {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reporter, health) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let serving = Server::builder().add_service(health).add_service(reflection).serve_with_incoming(incoming);
        let server = tokio::spawn(async move { serving.await.expect("the gRPC origin serves") }).abort_handle();
        Self { address, reporter, server }
    }

    fn service(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Dials the edge, whatever name is asked for, with TLS of its own.
#[derive(Clone)]
struct Dialer(Visitor, Uri);

impl tower_service::Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Stream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self(visitor, uri) = self.clone();
        Box::pin(async move { Ok(TokioIo::new(visitor.dial(&uri).await)) })
    }
}

async fn channel(way: &Way<'_>) -> Channel {
    let uri = way.url("/");
    // The library refuses https without TLS of its own, whoever dials.
    let endpoint = Endpoint::from_static("http://dialled.test").origin(uri.clone()).timeout(LIMIT);
    let dialer = Dialer(way.edge.visitor().over(Http::Two), uri);
    endpoint.connect_with_connector(dialer).await.expect("a channel to the edge")
}

/// Over TLS, and with prior knowledge of HTTP/2 over none.
const OVER: [Over; 2] = [Over::Two, Over::Plain];

fn about(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn unary_calls_bring_an_answer_or_a_status() {
    let origin = Origin::start().await;
    origin.reporter.set_service_status("shop", ServingStatus::Serving).await;
    let rig = Rig::start(&origin.service()).await;
    for way in rig.ways_over(&OVER) {
        let mut client = HealthClient::new(channel(&way).await);
        let answer = client.check(about("shop")).await.unwrap_or_else(|status| panic!("{way}: {status}"));
        assert!(answer.metadata().contains_key("cf-ray"), "{way}");
        assert_eq!(answer.into_inner().status, ServingStatus::Serving as i32, "{way}");
        let error = client.check(about("nothing")).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::NotFound, "service not registered"), "{way}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_without_messages_is_one_frame() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    for way in rig.ways_over(&OVER) {
        let uri = way.url("/grpc.health.v1.Health/Check");
        let io = way.edge.visitor().over(Http::Two).dial(&uri).await;
        let (requests, connection) = h2::client::handshake(io).await.unwrap();
        let driving = tokio::spawn(connection);
        let request = Request::post(uri).header("content-type", "application/grpc").header("te", "trailers");
        let mut requests = requests.ready().await.unwrap();
        let (answer, mut question) = requests.send_request(request.body(()).unwrap(), false).unwrap();
        // A message of nine bytes: a service named "nothing".
        question.send_data(Bytes::from_static(b"\0\0\0\0\x09\x0a\x07nothing"), true).unwrap();
        let answer = tokio::time::timeout(LIMIT, answer).await.expect("an answer comes").unwrap();
        assert_eq!(answer.headers()["grpc-status"], "5", "{way}");
        assert!(answer.body().is_end_stream(), "{way}: the end is a frame of its own");
        driving.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_answers_comes_message_by_message() {
    let mut origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    for way in rig.ways_over(&OVER) {
        origin.reporter.set_service_status("shop", ServingStatus::Serving).await;
        let mut client = HealthClient::new(channel(&way).await);
        let mut watch = client.watch(about("shop")).await.unwrap().into_inner();
        for status in [ServingStatus::Serving, ServingStatus::NotServing, ServingStatus::Serving] {
            origin.reporter.set_service_status("shop", status).await;
            loop {
                // The status at the beginning may come twice.
                let message =
                    tokio::time::timeout(LIMIT, watch.next()).await.expect("a message comes").unwrap().unwrap();
                if message.status == status as i32 {
                    break;
                }
            }
        }
        // The end of the stream is a status in trailers.
        origin.reporter.clear_service_status("shop").await;
        let end = tokio::time::timeout(LIMIT, watch.collect::<Vec<_>>()).await.expect("the stream ends");
        assert!(end.iter().all(Result::is_ok), "{way}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_stream_both_ways_in_turn() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    for way in rig.ways_over(&OVER) {
        let mut client = ServerReflectionClient::new(channel(&way).await);
        let (questions, receiver) = mpsc::channel(1);
        let stream = futures_util::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<MessageRequest>| {
            let message = receiver.recv().await?;
            Some((ServerReflectionRequest { host: String::new(), message_request: Some(message) }, receiver))
        });
        let mut answers = client.server_reflection_info(stream).await.unwrap().into_inner();
        for round in 0..3 {
            questions.send(MessageRequest::ListServices(String::new())).await.unwrap();
            let answer = tokio::time::timeout(LIMIT, answers.next()).await.expect("an answer comes").unwrap().unwrap();
            let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
                panic!("{way}: round {round}: another answer")
            };
            assert!(list.service.iter().any(|service| service.name == "grpc.health.v1.Health"), "{way}: {list:?}");
        }
        questions.send(MessageRequest::FileContainingSymbol("no.such.Thing".to_owned())).await.unwrap();
        let error = tokio::time::timeout(LIMIT, answers.next()).await.expect("a status comes").unwrap().unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{way}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_down_is_unavailable() {
    let origin = Origin::start().await;
    let rig = Rig::start(&origin.service()).await;
    drop(origin);
    for way in rig.ways_over(&OVER) {
        let error = HealthClient::new(channel(&way).await).check(about("")).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{way}: {error}");
    }
}
