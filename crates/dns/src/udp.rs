//! Questions over UDP: each thread receives many at once, answers them, and sends the answers at once.

#[cfg(target_os = "linux")]
mod batch;
#[cfg(not(target_os = "linux"))]
#[path = "udp/single.rs"]
mod batch;

use std::io;
use std::net::UdpSocket;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::desk::{Desk, Reply};
use crate::metrics::{Metrics, Tally, Transport};
use batch::Batch;

/// How long a thread without questions takes to find that it is to end.
const LOOK_UP: Duration = Duration::from_millis(500);
/// A socket that fails is left alone for so long: nothing that is known makes one fail for good.
const PAUSE: Duration = Duration::from_millis(100);

/// With so many questions at once they come faster than one look at the socket costs; they gather for a moment, then, so that
/// one look is for more of them, as network cards have it with interrupts. More at once need no help.
const GATHERS: Range<usize> = 4..32;
/// That moment; the system makes 100 µs of it. A sixth less CPU for an answer at 150,000 a second.
const MOMENT: Duration = Duration::from_micros(50);

/// Makes a socket fit for [`serve`].
pub(crate) fn prepare(socket: &UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(LOOK_UP))?;
    batch::prepare(socket)
}

/// Answers what comes until it is told to stop.
pub(crate) fn serve(socket: &UdpSocket, mut desk: Desk, metrics: &Arc<Metrics>, stop: &Arc<AtomicBool>) {
    let mut batch = Batch::new();
    while !stop.load(Ordering::Relaxed) {
        let count = match batch.receive(socket) {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(%error, "no questions can be received");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        desk.refresh();
        let mut tally = Tally::default();
        for place in 0..count {
            let Some((packet, from, message)) = batch.at(place) else { continue };
            let reply = desk.over_udp(packet, from, message);
            tally.note(reply);
            if matches!(reply, Reply::Answer { .. }) {
                batch.is_answered(place);
            }
        }
        tally.unsent = batch.send(socket);
        metrics.add(Transport::Udp, &tally);
        if GATHERS.contains(&count) {
            std::thread::sleep(MOMENT);
        }
    }
}
