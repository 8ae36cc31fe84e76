//! Flows of datagrams: between our own ends on both transports, and sessions as stock agents have them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;
use wire::datagram::V3_FEATURE;
use wire::{
    Destination, Dropped, ExchangeError, Extensions, Flow, FlowRequest, FlowService, MAX_DATAGRAM, OriginFault,
    StreamRefusal, Transport,
};

use crate::rig::{Origin, Rig, both, no_answer, registration, soon, until};

both!(
    a_flow_carries_datagrams_of_every_size_both_ways,
    a_flow_ends_at_both_ends_whoever_ends_it,
    an_agent_that_refuses_says_why,
    an_agent_without_the_extension_is_asked_for_no_service,
    a_flow_keeps_a_draining_connection_and_learns_of_it,
    a_lost_connection_ends_its_flows,
    what_nobody_takes_is_dropped_and_counted,
);

fn to(destination: Destination) -> FlowRequest {
    FlowRequest { destination, flow: "192.0.2.7:4711".into(), idle: None }
}

fn service() -> FlowRequest {
    to(Destination::Service("game.example.test".into()))
}

fn address() -> FlowRequest {
    let destination = Destination::Address("10.0.0.5:53".parse().unwrap());
    FlowRequest { idle: Some(Duration::from_secs(30)), ..to(destination) }
}

/// Hands out the far end of each flow, and what was asked for. The flow ends, as the agent's doing, when that is dropped.
fn recorder() -> (Arc<Origin>, mpsc::UnboundedReceiver<(FlowRequest, Far)>) {
    let (accepted, flows) = mpsc::unbounded_channel();
    let origin = Origin::accepting(move |request| {
        let accepted = accepted.clone();
        async move {
            let service: FlowService = Box::new(move |flow| {
                Box::pin(async move {
                    let (ended, end) = tokio::sync::oneshot::channel();
                    accepted.send((request, Far { flow: Some(flow), _ended: ended })).unwrap();
                    let _ = end.await;
                    Some("the origin is gone".to_owned())
                })
            });
            Ok(service)
        }
    });
    (origin, flows)
}

struct Far {
    flow: Option<Flow>,
    _ended: tokio::sync::oneshot::Sender<()>,
}

impl Far {
    fn flow(&mut self) -> &mut Flow {
        self.flow.as_mut().unwrap()
    }
}

async fn open(rig: &Rig, request: &FlowRequest) -> Result<Flow, ExchangeError> {
    soon(rig.edge.open_flow(request)).await
}

/// Sends until it arrives: datagrams may be lost where much is under way. What was sent before may arrive once more, at either end.
async fn passes(from: &mut Flow, to: &mut Flow, payload: &Bytes) {
    let arrives = async |from: &mut Flow, to: &mut Flow| {
        loop {
            tokio::select! {
                biased;
                heard = to.recv() => if heard.expect("the flow goes on") == *payload {
                    return;
                },
                heard = from.recv() => assert!(heard.is_some(), "the flow goes on"),
            }
        }
    };
    soon(async {
        loop {
            from.send(payload.clone()).unwrap();
            if tokio::time::timeout(Duration::from_secs(1), arrives(from, to)).await.is_ok() {
                return;
            }
        }
    })
    .await;
}

async fn a_flow_carries_datagrams_of_every_size_both_ways(transport: Transport) {
    let (origin, mut flows) = recorder();
    let rig = Rig::new(transport, origin).await;
    let mut near = open(&rig, &service()).await.unwrap();
    let (asked, mut far) = soon(flows.recv()).await.unwrap();
    assert_eq!(asked, service());
    assert_eq!((rig.edge.in_flight(), rig.agent.in_flight()), (1, 1));
    for size in [0, 1, 1100, 1200, 1500, 9000, MAX_DATAGRAM] {
        let payload = Bytes::from(vec![u8::try_from(size % 251).unwrap(); size]);
        passes(&mut near, far.flow(), &payload).await;
        passes(far.flow(), &mut near, &payload).await;
    }
    assert_eq!(near.send(Bytes::from(vec![0; MAX_DATAGRAM + 1])), Err(Dropped::TooLarge));
    drop((near, far));
    rig.idle().await;
}

async fn a_flow_ends_at_both_ends_whoever_ends_it(transport: Transport) {
    let (origin, mut flows) = recorder();
    let rig = Rig::new(transport, origin).await;
    let near = open(&rig, &service()).await.unwrap();
    let (_, mut far) = soon(flows.recv()).await.unwrap();
    drop(near);
    assert_eq!(soon(far.flow().recv()).await, None);
    drop(far);
    rig.idle().await;

    let mut near = open(&rig, &service()).await.unwrap();
    let (_, far) = soon(flows.recv()).await.unwrap();
    drop(far);
    assert_eq!(soon(near.recv()).await, None);
    drop(near);
    rig.idle().await;
}

async fn an_agent_that_refuses_says_why(transport: Transport) {
    let rig = Rig::new(transport, Origin::accepting(|_| async { Err(no_answer().into()) })).await;
    let Err(ExchangeError::Origin(error)) = open(&rig, &service()).await else { panic!("was not refused") };
    assert_eq!(error.fault, OriginFault::Refused);
    let full = Origin::accepting(|_| async { Err(StreamRefusal::TooMany("enough of them".into())) });
    let rig = Rig::new(transport, full).await;
    assert!(matches!(open(&rig, &service()).await, Err(ExchangeError::Origin(_))));
}

async fn an_agent_without_the_extension_is_asked_for_no_service(transport: Transport) {
    let (origin, mut flows) = recorder();
    let extensions = Extensions { flows: false, ..Extensions::ALL };
    let rig = Rig::with(transport, origin, extensions).await;
    let Err(ExchangeError::Origin(error)) = open(&rig, &service()).await else { panic!("was not refused") };
    assert_eq!(error.fault, OriginFault::Unsupported);
    assert!(flows.try_recv().is_err());
}

async fn a_flow_keeps_a_draining_connection_and_learns_of_it(transport: Transport) {
    let (origin, mut flows) = recorder();
    let rig = Rig::new(transport, origin).await;
    let mut near = open(&rig, &service()).await.unwrap();
    let (_, mut far) = soon(flows.recv()).await.unwrap();
    rig.edge.drain();
    soon(rig.edge.unavailable()).await;
    assert!(matches!(open(&rig, &service()).await, Err(ExchangeError::NotSent(_))));
    passes(&mut near, far.flow(), &Bytes::from_static(b"still")).await;
    drop(near);
    soon(rig.served).await.unwrap();
}

async fn a_lost_connection_ends_its_flows(transport: Transport) {
    let (origin, mut flows) = recorder();
    let rig = Rig::new(transport, origin).await;
    let mut near = open(&rig, &service()).await.unwrap();
    let (_, mut far) = soon(flows.recv()).await.unwrap();
    rig.edge.close("enough");
    assert_eq!(soon(near.recv()).await, None);
    assert_eq!(soon(far.flow().recv()).await, None);
    assert_eq!(near.send(Bytes::from_static(b"late")).map_err(|_| ()), Err(()));
}

async fn what_nobody_takes_is_dropped_and_counted(transport: Transport) {
    let (origin, mut flows) = recorder();
    let rig = Rig::new(transport, origin).await;
    let mut near = open(&rig, &service()).await.unwrap();
    let (_, mut far) = soon(flows.recv()).await.unwrap();
    let mut other = open(&rig, &service()).await.unwrap();
    let (_, mut other_far) = soon(flows.recv()).await.unwrap();
    let payload = Bytes::from(vec![7; 1000]);
    let mut full = 0_u64;
    // Nobody takes anything at the far end, and this end does not wait for it.
    for _ in 0..20_000 {
        match near.send(payload.clone()) {
            Ok(()) => {}
            Err(dropped) => {
                assert_eq!(dropped, Dropped::Full);
                full += 1;
            }
        }
        let _ = futures_util::FutureExt::now_or_never(near.recv());
    }
    // The neighbour passes.
    passes(&mut other, other_far.flow(), &Bytes::from_static(b"through")).await;
    let mut lost = 0;
    until(|| {
        lost += far.flow().take_lost();
        lost + full > 0
    })
    .await;
    // And the flow itself goes on.
    assert_eq!(soon(far.flow().recv()).await, Some(payload));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_lead_to_addresses_in_both_versions() {
    for newer in [false, true] {
        let (origin, mut flows) = recorder();
        let mut stock = registration(Extensions::default());
        stock.features.extend(newer.then(|| V3_FEATURE.to_owned()));
        let rig = Rig::announcing(Transport::Quic, origin, stock).await;
        let mut near = open(&rig, &address()).await.unwrap();
        let (asked, mut far) = soon(flows.recv()).await.unwrap();
        assert_eq!((&asked.destination, asked.idle), (&address().destination, address().idle));
        assert!(Uuid::try_parse(&asked.flow).is_ok());
        for size in [0, 1, 1100] {
            let payload = Bytes::from(vec![3; size]);
            passes(&mut near, far.flow(), &payload).await;
            passes(far.flow(), &mut near, &payload).await;
        }
        // A stock agent drops what is longer, so it is not even sent.
        assert_eq!(near.send(Bytes::from(vec![0; 1281])), Err(Dropped::TooLarge));

        if newer {
            // Version 3 tells nobody of an end.
            drop((near, far));
        } else {
            drop(near);
            assert_eq!(soon(far.flow().recv()).await, None);
            drop(far);
            rig.idle().await;
            let mut near = open(&rig, &address()).await.unwrap();
            let (_, far) = soon(flows.recv()).await.unwrap();
            drop(far);
            assert_eq!(soon(near.recv()).await, None);
            drop(near);
        }
        rig.idle().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_wait_for_their_turn() {
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let gate = watch::Sender::new(false);
    let origin = Origin::accepting({
        let (under_way, most, gate) = (Arc::clone(&under_way), Arc::clone(&most), gate.clone());
        move |_| {
            let (under_way, most, mut open) = (Arc::clone(&under_way), Arc::clone(&most), gate.subscribe());
            async move {
                most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                open.wait_for(|open| *open).await.unwrap();
                under_way.fetch_sub(1, Ordering::SeqCst);
                let service: FlowService = Box::new(|mut flow| {
                    Box::pin(async move {
                        while flow.recv().await.is_some() {}
                        None
                    })
                });
                Ok(service)
            }
        }
    });
    let rig = Rig::announcing(Transport::Quic, origin, registration(Extensions::default())).await;
    // An agent serves 16 streams for RPC at once, and refuses more.
    let edge = rig.edge.clone();
    let opening = tokio::spawn(async move {
        let request = address();
        let flows = (0..40).map(|_| edge.open_flow(&request));
        futures_util::future::join_all(flows).await
    });
    until(|| under_way.load(Ordering::SeqCst) == 8).await;
    gate.send_replace(true);
    let flows = soon(opening).await.unwrap();
    assert_eq!(flows.iter().filter(|flow| flow.is_ok()).count(), 40);
    assert_eq!(most.load(Ordering::SeqCst), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_refused_says_why() {
    for newer in [false, true] {
        let mut stock = registration(Extensions::default());
        stock.features.extend(newer.then(|| V3_FEATURE.to_owned()));
        let origin = Origin::accepting(|_| async { Err(StreamRefusal::TooMany("enough of them".into())) });
        let rig = Rig::announcing(Transport::Quic, origin, stock).await;
        let Err(ExchangeError::Origin(error)) = open(&rig, &address()).await else { panic!("was not refused") };
        assert!(error.text.contains("enough of them"), "{error:?}");
        rig.idle().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_http2_there_are_no_sessions() {
    let (origin, _flows) = recorder();
    let rig = Rig::stock(Transport::Http2, origin).await;
    let Err(error @ ExchangeError::NotSent(_)) = open(&rig, &address()).await else { panic!("was sent") };
    let text = "the connection did not take it: over HTTP/2 there are no datagrams to addresses";
    assert!(error.to_string().starts_with(text), "{error}");
}
