//! The faults: what strikes, what is mended and when, and what can be expected at best.

use std::time::Duration;

use harness::{Passing, Weather};

use crate::rig::Rig;

const QUIC: &str = "quic";
const HTTP2: &str = "http2";
pub(crate) const BOTH: &[&str] = &[QUIC, HTTP2];
/// QUIC first, and HTTP/2 where that does not get through.
const AUTO: &[&str] = &["auto"];

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    AgentKilled,
    EdgeKilled,
    StrandPulled,
    CablePulled,
    Lossy(u32),
    Far,
    OriginDown,
    OriginStalls,
    OriginResets,
    UdpBlocked,
    ClockJumps,
    DiskFull,
    FewDescriptorsAtEdge,
    FewDescriptorsAtAgent,
}

/// What the table has a line of for each transport.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) fault: Fault,
    pub(crate) transports: &'static [&'static str],
    pub(crate) agents: usize,
    /// Flows of datagrams go on beside the requests.
    pub(crate) flows: bool,
    /// How long the fault lasts at most, in the whole form; `None`: nobody mends it before the end.
    pub(crate) lasts: Option<Duration>,
    pub(crate) note: &'static str,
}

const fn seconds(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

pub(crate) const CASES: &[Case] = &[
    Case {
        what: "one agent of two killed (-9)",
        fault: Fault::AgentKilled,
        transports: BOTH,
        agents: 2,
        flows: false,
        lasts: None,
        note: "Streams and WebSockets that ran over the killed agent end with it, and a POST that it may have seen \
            is not sent twice. Over QUIC nothing tells of a dead process but its silence: GETs leave after 1.5 s \
            of it, which is the slowest, and POSTs that begin before that may be lost.",
    },
    Case {
        what: "the only agent killed, started again after 1 s",
        fault: Fault::AgentKilled,
        transports: BOTH,
        agents: 1,
        flows: false,
        lasts: seconds(1),
        note: "As above; the rest waits for the agent, which is the gap. Over QUIC the old connections look alive \
            for 1.5 s, beside the new ones too.",
    },
    Case {
        what: "the edge killed, started again after 1 s",
        fault: Fault::EdgeKilled,
        transports: BOTH,
        agents: 1,
        flows: false,
        lasts: seconds(1),
        note: "While nobody listens, visitors are refused: there is one edge here. Once it listens, they wait for \
            the agent.",
    },
    Case {
        what: "cable of one of four connections pulled",
        fault: Fault::StrandPulled,
        transports: BOTH,
        agents: 1,
        flows: false,
        lasts: seconds(30),
        note: "What runs over that connection is cut when it is given up (5 s over QUIC, 9 s over HTTP/2), and a \
            POST that the agent may have seen is not sent twice. GETs leave after 1.5 and 2 s of silence, which \
            is the slowest.",
    },
    Case {
        what: "cable of one of four connections pulled, with UDP flows",
        fault: Fault::StrandPulled,
        transports: BOTH,
        agents: 1,
        flows: true,
        lasts: seconds(30),
        note: "As above. A flow leaves its connection when that has been silent for 2.75 s over QUIC and 3.75 s over HTTP/2, asked \
            for a sign of life twice, while another one gives one: the origin takes a flow that moves for another \
            visitor.",
    },
    Case {
        what: "cables of all four pulled for 15 s",
        fault: Fault::CablePulled,
        transports: BOTH,
        agents: 1,
        flows: false,
        lasts: seconds(15),
        note: "Nobody can be reached. POSTs of the first 2 s may have been seen and are lost; what comes later \
            waits 5 s for a way and is refused then (530).",
    },
    Case {
        what: "1 % of packets lost, each way",
        fault: Fault::Lossy(1),
        transports: BOTH,
        agents: 1,
        flows: false,
        lasts: seconds(45),
        note: "TCP holds up everything behind a lost packet, QUIC only the request that it belongs to.",
    },
    Case {
        what: "5 % lost",
        fault: Fault::Lossy(5),
        transports: BOTH,
        agents: 1,
        flows: false,
        lasts: seconds(45),
        note: "As above; a GET that TCP holds up is the slowest.",
    },
    Case {
        what: "20 % lost",
        fault: Fault::Lossy(20),
        transports: BOTH,
        agents: 1,
        flows: false,
        lasts: seconds(45),
        note: "As above.",
    },
    Case {
        what: "200 ms more to each round trip",
        fault: Fault::Far,
        transports: BOTH,
        agents: 1,
        flows: false,
        lasts: seconds(45),
        note: "One round trip is the least that a request takes.",
    },
    Case {
        what: "UDP blocked midway, `--protocol auto`",
        fault: Fault::UdpBlocked,
        transports: AUTO,
        agents: 1,
        flows: false,
        lasts: None,
        note: "Until the silence is certain (5 s), UDP may come back; then HTTP/2 is dialled, for which the rest \
            waits. POSTs of the first 1.5 s may have been seen and are lost.",
    },
    Case {
        what: "origin restarted, away for 1 s",
        fault: Fault::OriginDown,
        transports: &[QUIC],
        agents: 1,
        flows: false,
        lasts: seconds(1),
        note: "There is one origin, and who asks while it is away is told so at once (521). That connections of the \
            agent's pool ended with it fails nobody.",
    },
    Case {
        what: "origin takes connections and answers nothing for 10 s",
        fault: Fault::OriginStalls,
        transports: &[QUIC],
        agents: 1,
        flows: false,
        lasts: seconds(10),
        note: "The gap is the origin's. It would be given up after 100 s (524), which visitors here do not wait \
            for.",
    },
    Case {
        what: "origin resets every connection for 5 s",
        fault: Fault::OriginResets,
        transports: &[QUIC],
        agents: 1,
        flows: false,
        lasts: seconds(5),
        note: "The failures are the origin's: all that come while it resets. The agent cannot know whether a reset \
            request was carried out, and tells.",
    },
    Case {
        what: "clocks of edge and agent jump 25 hours ahead, and back after 20 s",
        fault: Fault::ClockJumps,
        transports: BOTH,
        agents: 1,
        flows: false,
        lasts: seconds(20),
        note: "Set by libfaketime for both programs; what measures durations goes on, as when a real clock is set.",
    },
    Case {
        what: "disk of edge and agent full for 20 s",
        fault: Fault::DiskFull,
        transports: &[QUIC],
        agents: 1,
        flows: false,
        lasts: seconds(20),
        note: "Requests need no disk. A tunnel cannot be made meanwhile, which is said, and can be as soon as there \
            is room.",
    },
    Case {
        what: "edge at its limit of descriptors for 20 s",
        fault: Fault::FewDescriptorsAtEdge,
        transports: &[HTTP2],
        agents: 1,
        flows: false,
        lasts: seconds(20),
        note: "Visitors wait in the system's queue until another one leaves.",
    },
    Case {
        what: "agent at its limit of descriptors for 20 s",
        fault: Fault::FewDescriptorsAtAgent,
        transports: &[HTTP2],
        agents: 1,
        flows: false,
        lasts: seconds(20),
        note: "Requests wait for a connection to the origin until another one ends.",
    },
];

impl Fault {
    /// Lies between agent and origin.
    pub(crate) fn is_in_front_of_the_origin(self) -> bool {
        matches!(self, Self::OriginStalls | Self::OriginResets)
    }

    /// Somebody without whom there is no answer is away.
    pub(crate) fn leaves_nobody_to_ask(self) -> bool {
        matches!(self, Self::EdgeKilled | Self::OriginDown | Self::OriginResets | Self::CablePulled | Self::UdpBlocked)
    }

    /// Ends no connection, so that nothing at all may fail.
    pub(crate) fn is_mild(self) -> bool {
        matches!(self, Self::Lossy(_) | Self::Far | Self::ClockJumps | Self::DiskFull)
    }

    /// Begins; answers what the mending needs to know.
    pub(crate) async fn strike(self, rig: &mut Rig<'_>) -> String {
        match self {
            Self::AgentKilled => rig.kill_agent().await,
            Self::EdgeKilled => rig.edge.kill().await,
            Self::StrandPulled => rig.cable.on(0, Weather { cut: true, ..Weather::default() }),
            Self::CablePulled => rig.cable.everywhere(Weather { cut: true, ..Weather::default() }),
            Self::Lossy(loss) => rig.cable.everywhere(Weather { loss, ..Weather::default() }),
            // Half of it each way.
            Self::Far => rig.cable.everywhere(Weather { delay: Duration::from_millis(100), ..Weather::default() }),
            Self::UdpBlocked => rig.cable.everywhere(Weather { no_udp: true, ..Weather::default() }),
            Self::OriginDown => rig.stop_origin().await,
            Self::OriginStalls => rig.front(Passing::Nothing),
            Self::OriginResets => rig.front(Passing::Reset),
            Self::ClockJumps => rig.clock("+25h"),
            Self::DiskFull => {
                rig.fill_disk();
                assert!(!rig.can_create("while-full").await, "a full disk takes nothing");
            }
            Self::FewDescriptorsAtEdge => return rig.limit_edge(),
            Self::FewDescriptorsAtAgent => return rig.limit_agent(),
        }
        String::new()
    }

    /// Ends, where somebody mends it.
    pub(crate) async fn mend(self, rig: &mut Rig<'_>, before: &str) {
        match self {
            Self::AgentKilled => rig.start_agent().await,
            Self::EdgeKilled => rig.edge.start_again().await,
            Self::StrandPulled | Self::CablePulled | Self::Lossy(_) | Self::Far | Self::UdpBlocked => {
                rig.cable.everywhere(Weather::default());
            }
            Self::OriginDown => rig.start_origin().await,
            Self::OriginStalls | Self::OriginResets => rig.front(Passing::All),
            Self::ClockJumps => rig.clock("+0"),
            Self::DiskFull => {
                rig.empty_disk();
                assert!(rig.can_create("after-full").await, "there is room again");
            }
            Self::FewDescriptorsAtEdge => rig.unlimit_edge(before),
            Self::FewDescriptorsAtAgent => rig.unlimit_agent(before),
        }
    }
}
