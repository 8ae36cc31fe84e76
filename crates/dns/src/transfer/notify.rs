//! Telling peers that their zones have changed (RFC 1996), until they say that they have heard it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use registry::{TransferKey, ZoneId};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};

use crate::desk::{Sources, now};
use crate::message::SOA;
use crate::metrics::Metrics;
use crate::name::to_wire;
use crate::query::HEADER;
use crate::tsig::Signer;

/// How often it is looked whether a zone has changed: several changes at once are told once.
const LOOK: Duration = Duration::from_millis(500);
/// Peers that are told something at once.
const AT_ONCE: usize = 64;
/// For an answer. Between attempts it is first as long, then twice as long each time. Who has not heard it after the last one asks by himself, within
/// the hour that the zone's start says.
const WAIT: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 6;
/// An answer to an announcement of a zone: that, and no failure.
const NOTIFY: u16 = 4 << 11;
const AUTHORITATIVE: u16 = 1 << 10;
const IS_ANSWER: u16 = 1 << 15;

/// One message to one peer.
struct Call {
    to: SocketAddr,
    key: Option<TransferKey>,
    message: Vec<u8>,
}

/// Tells peers of all zones that are transferred what has changed, from this address of ours. Never ends.
pub(crate) async fn tell(sources: Arc<Sources>, metrics: Arc<Metrics>, from: IpAddr) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: HashMap<ZoneId, u32> = HashMap::new();
    let mut calls = Calls::default();
    let mut edition = None;
    loop {
        looks.tick().await;
        let book = sources.book.load_full();
        if edition == Some(book.edition) {
            continue;
        }
        edition = Some(book.edition);
        let snapshot = sources.registry.snapshot();
        told.retain(|zone, _| snapshot.transfer_out(*zone).is_some());
        calls.0.retain(|_, call| !call.is_finished());
        for (zone, out) in snapshot.transfers_out() {
            let serial = book.serial(zone);
            let Some(zone) = snapshot.zone(zone).filter(|zone| told.insert(zone.id, serial) != Some(serial)) else {
                continue;
            };
            let question = [&to_wire(zone.name.as_str())[..], &SOA.to_be_bytes(), &1_u16.to_be_bytes()].concat();
            for peer in snapshot.transfer_peers(out) {
                let Some(address) = peer.address else { continue };
                let to = SocketAddr::new(address, peer.port);
                let key = peer.key.and_then(|key| snapshot.transfer_key(key));
                let call = Call { to, key, message: announcement(&question) };
                let (places, metrics) = (Arc::clone(&places), Arc::clone(&metrics));
                let task = tokio::spawn(async move {
                    let is_heard = call.carry_out(from, &places).await;
                    metrics.told(is_heard);
                    if !is_heard {
                        tracing::warn!(peer = %call.to, "a name server does not say that it has heard of a change");
                    }
                });
                // What it was told before is outdated.
                if let Some(before) = calls.0.insert((zone.id, to), task.abort_handle()) {
                    before.abort();
                }
            }
        }
    }
}

/// Those that are on their way. They end with whoever has them.
#[derive(Default)]
struct Calls(HashMap<(ZoneId, SocketAddr), AbortHandle>);

impl Drop for Calls {
    fn drop(&mut self) {
        self.0.values().for_each(AbortHandle::abort);
    }
}

fn announcement(question: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + question.len());
    for number in [rand::random(), NOTIFY | AUTHORITATIVE, 1, 0, 0, 0] {
        message.extend_from_slice(&u16::to_be_bytes(number));
    }
    message.extend_from_slice(question);
    message
}

impl Call {
    /// Says it until it is heard, and answers whether it was. Takes a place for each attempt alone, so that those who do not
    /// hear hold nobody else back.
    async fn carry_out(&self, from: IpAddr, places: &Semaphore) -> bool {
        for attempt in 0..ATTEMPTS {
            let Ok(place) = places.acquire().await else { return false };
            let next = Instant::now() + WAIT * 2_u32.pow(attempt);
            match timeout(WAIT, self.say(from)).await {
                Ok(Ok(())) => return true,
                Ok(Err(problem)) => {
                    tracing::debug!(peer = %self.to, %problem, "a name server cannot be told of a change")
                }
                Err(_) => (),
            }
            drop(place);
            sleep_until(next).await;
        }
        false
    }

    async fn say(&self, from: IpAddr) -> io::Result<()> {
        let any: IpAddr = if self.to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        // Peers know us by the address at which they ask.
        let from = if from.is_ipv4() == self.to.is_ipv4() { from } else { any };
        let socket = UdpSocket::bind((from, 0)).await?;
        socket.connect(self.to).await?;
        let mut message = self.message.clone();
        if let Some(key) = &self.key {
            Signer::new(key).sign(&mut message, now());
        }
        socket.send(&message).await?;
        let mut answer = [0; HEADER];
        loop {
            // Longer ones are cut, which is no failure; on other systems it is one, and the answer has come nevertheless.
            let length = match socket.recv(&mut answer).await {
                Err(error) if error.raw_os_error() == Some(10_040) => HEADER,
                received => received?,
            };
            let is_ours = length == HEADER && answer[..2] == self.message[..2];
            let flags = u16::from_be_bytes([answer[2], answer[3]]);
            // It has heard it even if it does not take it: then the mistake is not one that another message mends.
            if is_ours && flags & (IS_ANSWER | 0x7800) == IS_ANSWER | NOTIFY {
                match flags & 0xf {
                    0 => return Ok(()),
                    code => {
                        tracing::warn!(peer = %self.to, code, "a name server refuses to hear of a change");
                        return Ok(());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_does_not_hear_holds_nobody_back() {
        let here = IpAddr::from(Ipv4Addr::LOCALHOST);
        let (silent, live) = (UdpSocket::bind((here, 0)).await.unwrap(), UdpSocket::bind((here, 0)).await.unwrap());
        let call =
            |to: &UdpSocket| Call { to: to.local_addr().unwrap(), key: None, message: announcement(b"\0\0\x06\0\x01") };
        let (to_silent, to_live, places) = (call(&silent), call(&live), Semaphore::new(1));
        let answer = async {
            let mut message = [0; 64];
            let (length, from) = live.recv_from(&mut message).await.unwrap();
            message[2] |= 0x80;
            live.send_to(&message[..length], from).await.unwrap();
        };
        let told = tokio::select! {
            // Has the only place first.
            biased;
            _ = to_silent.carry_out(here, &places) => panic!("nobody answers it"),
            (is_heard, ()) = async { tokio::join!(to_live.carry_out(here, &places), answer) } => is_heard,
            () = tokio::time::sleep(harness::LIMIT) => panic!("it was held back"),
        };
        assert!(told);
    }
}
