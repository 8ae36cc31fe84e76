//! Many packets by one system call (`recvmmsg`, `sendmmsg`). Each answer leaves from the address that its question came to.
#![expect(unsafe_code, reason = "system calls without a safe form")]

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::ptr;

use libc::{c_int, c_void, cmsghdr, iovec, mmsghdr, msghdr, sockaddr_storage};

/// Packets at once.
const PACKETS: usize = 64;
/// Longer ones are no questions, and come cut.
const PACKET: usize = 4096;
/// In words of 8 bytes, since it has to be aligned: what says to which address a packet came.
const CONTROL: usize = 8;

/// Lets the system say to which address packets come, if that is not clear by itself.
pub(super) fn prepare(socket: &UdpSocket) -> io::Result<()> {
    let address = socket.local_addr()?;
    if !address.ip().is_unspecified() {
        return Ok(());
    }
    let (level, option) = match address.is_ipv4() {
        true => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        false => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    let on: c_int = 1;
    let size = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: `on` lives through the call, and `size` is its size.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), size) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Packets and their answers.
pub(super) struct Batch {
    packets: Box<[[u8; PACKET]; PACKETS]>,
    from: Box<[sockaddr_storage; PACKETS]>,
    control: Box<[[u64; CONTROL]; PACKETS]>,
    /// What the system said of the packets. Only the lengths in it hold.
    received: [mmsghdr; PACKETS],
    messages: Vec<Vec<u8>>,
    answered: Vec<usize>,
}

impl Batch {
    pub(super) fn new() -> Self {
        // SAFETY: all zeros are a valid address, of no family.
        let nowhere: sockaddr_storage = unsafe { mem::zeroed() };
        Self {
            packets: Box::new([[0; PACKET]; PACKETS]),
            from: Box::new([nowhere; PACKETS]),
            control: Box::new([[0; CONTROL]; PACKETS]),
            received: [EMPTY; PACKETS],
            messages: vec![Vec::new(); PACKETS],
            answered: Vec::with_capacity(PACKETS),
        }
    }

    /// Waits for packets, for as long as the socket does, and takes all that are there, up to some number.
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.answered.clear();
        let mut parts: [iovec; PACKETS] = [iovec { iov_base: ptr::null_mut(), iov_len: 0 }; PACKETS];
        let mut heads = [EMPTY; PACKETS];
        for (place, head) in heads.iter_mut().enumerate() {
            let packet = &mut self.packets[place];
            parts[place] = iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
            head.msg_hdr.msg_name = (&raw mut self.from[place]).cast();
            head.msg_hdr.msg_namelen = size_of::<sockaddr_storage>() as libc::socklen_t;
            head.msg_hdr.msg_iov = &raw mut parts[place];
            head.msg_hdr.msg_iovlen = 1;
            head.msg_hdr.msg_control = self.control[place].as_mut_ptr().cast();
            head.msg_hdr.msg_controllen = size_of::<[u64; CONTROL]>() as _;
        }
        // SAFETY: each head names memory of this batch or of this function, with its size, and nothing else refers to it
        // while the call lasts.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                heads.as_mut_ptr(),
                PACKETS as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            let is_nothing = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
            return if is_nothing { Ok(0) } else { Err(error) };
        };
        self.received = heads;
        Ok(count)
    }

    /// A packet that was received, from whom, and where its answer goes; `None` if it is from nowhere.
    pub(super) fn at(&mut self, place: usize) -> Option<(&[u8], IpAddr, &mut Vec<u8>)> {
        let from = address(&self.from[place])?;
        let length = (self.received[place].msg_len as usize).min(PACKET);
        Some((&self.packets[place][..length], from, &mut self.messages[place]))
    }

    /// Says that the answer of this place is to be sent.
    pub(super) fn is_answered(&mut self, place: usize) {
        self.answered.push(place);
    }

    /// Sends the answers, and answers how many the system did not take.
    pub(super) fn send(&mut self, socket: &UdpSocket) -> u64 {
        let mut parts: [iovec; PACKETS] = [iovec { iov_base: ptr::null_mut(), iov_len: 0 }; PACKETS];
        let mut heads = [EMPTY; PACKETS];
        for (at, place) in self.answered.iter().copied().enumerate() {
            let message = &mut self.messages[place];
            parts[at] = iovec { iov_base: message.as_mut_ptr().cast(), iov_len: message.len() };
            let head = &mut heads[at].msg_hdr;
            head.msg_name = (&raw mut self.from[place]).cast();
            let received = &self.received[place].msg_hdr;
            head.msg_namelen = received.msg_namelen;
            head.msg_iov = &raw mut parts[at];
            head.msg_iovlen = 1;
            if received.msg_controllen > 0 {
                head.msg_control = self.control[place].as_mut_ptr().cast();
                head.msg_controllen = received.msg_controllen;
                // SAFETY: the system has written the control data, of this size.
                unsafe { turn_round(head) };
            }
        }
        let (mut sent, mut lost) = (0, 0);
        while sent < self.answered.len() {
            let rest = &mut heads[sent..self.answered.len()];
            // SAFETY: each head names memory of this batch or of this function, with its size.
            let count = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0) };
            match usize::try_from(count) {
                Ok(count @ 1..) => sent += count,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => (),
                // The first one cannot go: nobody has that address, or there is no way to it. The others can.
                _ => (sent, lost) = (sent + 1, lost + 1),
            }
        }
        lost
    }
}

fn address(from: &sockaddr_storage) -> Option<IpAddr> {
    let from: *const sockaddr_storage = from;
    // SAFETY: the family says which of its forms an address has, and each is smaller than the storage.
    unsafe {
        match c_int::from((*from).ss_family) {
            libc::AF_INET => {
                Some(Ipv4Addr::from((*from.cast::<libc::sockaddr_in>()).sin_addr.s_addr.to_ne_bytes()).into())
            }
            libc::AF_INET6 => Some(Ipv6Addr::from((*from.cast::<libc::sockaddr_in6>()).sin6_addr.s6_addr).into()),
            _ => None,
        }
    }
}

const EMPTY: mmsghdr = mmsghdr {
    // SAFETY: all zeros are a message without anything.
    msg_hdr: unsafe { mem::zeroed::<msghdr>() },
    msg_len: 0,
};

/// Makes of the address that a packet came to the one that its answer leaves from.
///
/// # Safety
/// The head's control data is what the system wrote when it received a packet.
unsafe fn turn_round(head: &mut msghdr) {
    // SAFETY: by the above, the first of the control data is whole or absent.
    let Some(control) = (unsafe { libc::CMSG_FIRSTHDR(head).cast::<cmsghdr>().as_mut() }) else { return };
    // SAFETY: its data follows it.
    let data: *mut c_void = unsafe { libc::CMSG_DATA(control) }.cast();
    match (control.cmsg_level, control.cmsg_type) {
        (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
            // SAFETY: data of this type is that, though perhaps not aligned.
            unsafe {
                let mut info: libc::in_pktinfo = ptr::read_unaligned(data.cast());
                info.ipi_spec_dst = info.ipi_addr;
                // The way back is for the routing table to choose.
                info.ipi_ifindex = 0;
                ptr::write_unaligned(data.cast(), info);
            }
        }
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
            // SAFETY: as above.
            unsafe {
                let mut info: libc::in6_pktinfo = ptr::read_unaligned(data.cast());
                // Addresses of one link mean something on that link only (RFC 4291, section 2.5.6).
                let is_of_link = info.ipi6_addr.s6_addr[..2] == [0xfe, 0x80];
                info.ipi6_ifindex = if is_of_link { info.ipi6_ifindex } else { 0 };
                ptr::write_unaligned(data.cast(), info);
            }
        }
        _ => (head.msg_control, head.msg_controllen) = (ptr::null_mut(), 0),
    }
}
