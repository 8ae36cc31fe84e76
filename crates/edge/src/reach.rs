//! How questions about the health of members reach them: by the ways that visitors take.

use std::net::IpAddr;
use std::sync::Arc;

use agent::Directs;
use balance::Target;
use balance::prober::{ByteStream, ProbeBody, Reach};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use uuid::Uuid;
use wire::{Body, Destination, Interim, Kind, StreamRequest};

use crate::dispatch::{Carrier as _, Pool as _};
use crate::tunnels::{Live, Tunnels};

/// What a byte stream that asks for health is called in the logs of agents.
const FLOW: &str = "health";

/// The ways of this node.
pub(crate) struct Ways {
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) directs: Arc<Directs>,
}

impl Ways {
    fn connection(&self, tunnel: Uuid) -> Result<Arc<Live>, Box<str>> {
        self.tunnels.pool(tunnel).pick(&[]).ok_or_else(|| "no agent of its tunnel is connected to this node".into())
    }
}

impl Reach for Ways {
    fn exchange(&self, tunnel: Uuid, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<ProbeBody>, Box<str>>> {
        async move {
            let live = self.connection(tunnel)?;
            let answer = live.exchange(Kind::Http, request.map(Body::full), Interim::unwanted()).await;
            let answer = answer.map_err(told)?;
            Ok(answer.map(|body| body.map_err(|error| error.to_string().into()).boxed_unsync()))
        }
        .boxed()
    }

    fn connect<'a>(
        &'a self,
        target: &'a Target,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn ByteStream>, Box<str>>> {
        let dial = async move |name: &str| {
            let stream = self.directs.connect(name, port).await.map_err(told)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        };
        async move {
            match target {
                Target::Address(address, _) => dial(&address.to_string()).await,
                Target::Name(name, _) => dial(name).await,
                Target::Tunnel(tunnel) => {
                    let live = self.connection(*tunnel)?;
                    let request =
                        StreamRequest { destination: Destination::Service(host.to_owned()), flow: FLOW.to_owned() };
                    let stream = live.connect_stream(&request).await.map_err(told)?;
                    Ok(Box::new(stream) as Box<dyn ByteStream>)
                }
            }
        }
        .boxed()
    }

    fn addresses<'a>(&'a self, target: &'a Target) -> BoxFuture<'a, Result<Vec<IpAddr>, Box<str>>> {
        async move {
            match target {
                Target::Address(address, _) => self.directs.addresses(&address.to_string()).await.map_err(told),
                Target::Name(name, _) => self.directs.addresses(name).await.map_err(told),
                Target::Tunnel(_) => Err("it is behind a tunnel".into()),
            }
        }
        .boxed()
    }
}

fn told(error: impl std::fmt::Display) -> Box<str> {
    error.to_string().into()
}
