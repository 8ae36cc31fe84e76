//! gRPC by `tonic`, client and origin: its health service has a unary and a streaming call, its reflection service one that streams both ways.

use std::net::SocketAddr;

use tonic::transport::{Channel, Server};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

/// A gRPC origin over HTTP/2 without TLS, on a free port of loopback.
pub struct Origin {
    pub address: SocketAddr,
    /// Changes what the health service says, which its watchers are told.
    pub reporter: HealthReporter,
    task: tokio::task::JoinHandle<()>,
}

impl Origin {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (reporter, health) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let task = tokio::spawn(async move {
            Server::builder()
                .add_service(health)
                .add_service(reflection)
                .serve_with_incoming(incoming)
                .await
                .expect("the gRPC origin serves");
        });
        Self { address, reporter, task }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client of the health service over this channel.
pub fn health(channel: Channel) -> HealthClient<Channel> {
    HealthClient::new(channel)
}
