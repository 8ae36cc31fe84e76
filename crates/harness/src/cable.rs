//! A cable between agents and an edge that loses packets, holds them up, or is pulled.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::network::command;
use crate::{Network, skip};

/// The device's name; the network is the test's own.
const DEVICE: &str = "cable";
/// What a cable between two houses carries.
const MTU: usize = 1500;
/// Packets that wait to arrive; more are lost, as in any queue on the way.
const QUEUE: usize = 4096;
/// Of the dice, so that two runs lose the same share at the same places of the sequence.
const SEED: u64 = 7844;

/// What a strand does to packets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// Everything is lost; nobody is told.
    pub cut: bool,
    /// Datagrams of UDP are lost.
    pub no_udp: bool,
    /// So many of a hundred packets are lost, each way.
    pub loss: u32,
    /// Each packet arrives so much later, each way.
    pub delay: Duration,
}

/// Several strands between agents and an edge that are both in this test's [`Network`]. The edge listens at
/// [`Cable::near`], and agents find it at [`Cable::far`]: packets to there pass through this process as they would over
/// a wire, one by one and no larger than 1500 bytes, so that TCP and QUIC feel the [`Weather`] as they do outside.
///
/// It is one TUN device that is its own other end: source and destination change places, and no checksum changes by
/// that.
#[derive(Debug)]
pub struct Cable {
    strands: Arc<Mutex<Vec<Weather>>>,
    tasks: [AbortHandle; 2],
}

impl Cable {
    /// Lays so many strands, all in good weather. Where TUN devices are not allowed, says so and answers `None`.
    ///
    /// # Panics
    /// The network has a cable already.
    pub fn lay(_network: &Network, strands: u8) -> Option<Self> {
        let device = match open() {
            Ok(device) => Arc::new(device),
            Err(error) => {
                skip(&format!("no TUN device can be had ({error}); run as root, with /dev/net/tun"));
                return None;
            }
        };
        for strand in 0..strands {
            command("ip", &["address", "add", &format!("{}/32", Self::near_of(strand)), "dev", DEVICE]);
        }
        command("ip", &["link", "set", DEVICE, "up", "mtu", &MTU.to_string()]);
        for strand in 0..strands {
            let (near, far) = (Self::near_of(strand).to_string(), Self::far_of(strand).to_string());
            command("ip", &["route", "add", &far, "dev", DEVICE, "src", &near]);
        }
        let weather = Arc::new(Mutex::new(vec![Weather::default(); strands.into()]));
        let (queue, arriving) = mpsc::channel(QUEUE);
        let tasks = [
            tokio::spawn(carry(Arc::clone(&device), Arc::clone(&weather), queue)).abort_handle(),
            tokio::spawn(arrive(device, arriving)).abort_handle(),
        ];
        Some(Self { strands: weather, tasks })
    }

    /// Where an edge listens to be at the end of this strand.
    pub fn near(&self, strand: u8) -> Ipv4Addr {
        Self::near_of(strand)
    }

    /// Where an agent finds what listens at the other end of this strand.
    pub fn far(&self, strand: u8) -> Ipv4Addr {
        Self::far_of(strand)
    }

    /// The weather on one strand from now on.
    ///
    /// # Panics
    /// There is no such strand.
    pub fn on(&self, strand: u8, weather: Weather) {
        self.strands.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(strand)] = weather;
    }

    /// The weather on all strands from now on.
    pub fn everywhere(&self, weather: Weather) {
        self.strands.lock().unwrap_or_else(PoisonError::into_inner).fill(weather);
    }

    fn near_of(strand: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 1, strand + 1)
    }

    fn far_of(strand: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 2, strand + 1)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // With the last handle the device goes.
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

type Device = AsyncFd<File>;

#[expect(unsafe_code, reason = "the runtime takes descriptors only by promise")]
fn open() -> io::Result<Device> {
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    attach(&device)?;
    // SAFETY: a `File` has one open descriptor from beginning to end.
    Ok(unsafe { AsyncFd::register(device) }?)
}

#[expect(unsafe_code, reason = "a request of the TUN driver without a safe form")]
fn attach(device: &File) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(DEVICE.bytes()) {
        *to = libc::c_char::try_from(from).expect("the name is ASCII");
    }
    let flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI).expect("both are low bits");
    let request = libc::ifreq { ifr_name: name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: the descriptor is open, and the request is a whole `ifreq` with a terminated name that outlives the call.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

struct Packet {
    due: Instant,
    bytes: Vec<u8>,
}

async fn carry(device: Arc<Device>, strands: Arc<Mutex<Vec<Weather>>>, queue: mpsc::Sender<Packet>) {
    let mut dice = StdRng::seed_from_u64(SEED);
    let mut buffer = vec![0; MTU];
    loop {
        let Ok(mut ready) = device.readable().await else { return };
        let Ok(read) = ready.try_io(|device| device.get_ref().read(&mut buffer)) else { continue };
        let Ok(length) = read else { return };
        let Some(packet) = buffer.get_mut(..length).and_then(Ip::read) else { continue };
        let weather = {
            let strands = strands.lock().unwrap_or_else(PoisonError::into_inner);
            strands.get(packet.strand).copied().unwrap_or_default()
        };
        let lost = weather.cut
            || weather.no_udp && packet.is_udp
            || weather.loss > 0 && dice.random_range(0..100) < weather.loss;
        if lost {
            continue;
        }
        packet.bytes[12..20].rotate_left(4);
        let packet = Packet { due: Instant::now() + weather.delay, bytes: packet.bytes.to_vec() };
        // A full queue loses it.
        let _ = queue.try_send(packet);
    }
}

async fn arrive(device: Arc<Device>, mut queue: mpsc::Receiver<Packet>) {
    while let Some(Packet { due, bytes }) = queue.recv().await {
        if due > Instant::now() {
            sleep_until(due).await;
        }
        loop {
            let Ok(mut ready) = device.writable().await else { return };
            // A packet that the kernel does not take is lost.
            if ready.try_io(|device| device.get_ref().write(&bytes)).is_ok() {
                break;
            }
        }
    }
}

/// A packet of IPv4 that left from the near end of a strand, as all do.
struct Ip<'a> {
    strand: usize,
    is_udp: bool,
    bytes: &'a mut [u8],
}

impl<'a> Ip<'a> {
    fn read(bytes: &'a mut [u8]) -> Option<Self> {
        const UDP: u8 = 17;
        let is_ours = bytes.len() >= 20 && bytes[0] >> 4 == 4 && bytes[12..15] == [10, 77, 1] && bytes[15] > 0;
        is_ours.then(|| Self { strand: usize::from(bytes[15]) - 1, is_udp: bytes[9] == UDP, bytes })
    }
}
