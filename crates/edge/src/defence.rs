use http2::Breach;

/// Why a connection of a visitor, an agent or a caller of the API was refused or ended in defence of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defence {
    /// [`crate::Limits::connections`] are open, or as many to the API as it takes.
    Full,
    /// [`crate::Limits::connections_per_address`] are open, or as many to the API as it takes from one address.
    AddressFull,
    /// [`registry::PortOptions::max_connections`] of one public port are open.
    PortFull,
    /// So many flows of one public port of UDP are being opened.
    PortOpenings,
    /// The access rules of a public port's tunnel keep the visitor out.
    NotAllowed,
    /// [`crate::Limits::unregistered`] connections of agents have not registered, in all or of one network.
    Unregistered,
    /// A connection where agents dial ended, or took longer than [`crate::Limits::registration`], before it was registered.
    NoRegistration,
    /// So many QUIC handshakes are under way that addresses have to be proven first. Who can does so and is served.
    UnprovenAddress,
    /// Too many QUIC handshakes are under way even so.
    Handshakes,
    /// A handshake took longer than [`crate::Limits::handshake`].
    SlowHandshake,
    /// What came instead of a TLS or QUIC handshake was none.
    BadHandshake,
    /// The header of a request, or the first one, took longer than [`crate::Limits::idle`].
    SlowHeader,
    /// No HTTP/1.1.
    Http1Malformed,
    /// An answer was not taken for [`crate::Limits::stall`].
    Stalled,
    /// Requests were taken back faster than [`crate::Limits::resets`] allows (CVE-2023-44487).
    Resets,
    /// Frames that carry nothing came faster than [`crate::Limits::idle_frames`] allows, or than an agent may send them
    /// (CVE-2019-9512, -9513, -9515, -9518); or questions whose answers nobody reads, or settings without end.
    IdleFrames,
    /// One header came in too many frames (CVE-2024-27316), or was too large even to be refused.
    HeaderBomb,
    /// The visitor or agent made the edge reset too many streams (CVE-2025-8671).
    MadeReset,
    /// Some other breach of HTTP/2.
    Http2Malformed,
    /// A breach of QUIC, by an agent.
    QuicMalformed,
}

impl Defence {
    /// All of them.
    pub(crate) const ALL: [Self; 20] = [
        Self::Full,
        Self::AddressFull,
        Self::PortFull,
        Self::PortOpenings,
        Self::NotAllowed,
        Self::Unregistered,
        Self::NoRegistration,
        Self::UnprovenAddress,
        Self::Handshakes,
        Self::SlowHandshake,
        Self::BadHandshake,
        Self::SlowHeader,
        Self::Http1Malformed,
        Self::Stalled,
        Self::Resets,
        Self::IdleFrames,
        Self::HeaderBomb,
        Self::MadeReset,
        Self::Http2Malformed,
        Self::QuicMalformed,
    ];

    /// The label in the metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Full => "connections",
            Self::AddressFull => "connections_per_address",
            Self::PortFull => "connections_per_port",
            Self::PortOpenings => "openings_per_port",
            Self::NotAllowed => "not_allowed",
            Self::Unregistered => "unregistered",
            Self::NoRegistration => "no_registration",
            Self::UnprovenAddress => "unproven_address",
            Self::Handshakes => "handshakes",
            Self::SlowHandshake => "slow_handshake",
            Self::BadHandshake => "bad_handshake",
            Self::SlowHeader => "slow_header",
            Self::Http1Malformed => "http1_malformed",
            Self::Stalled => "stalled",
            Self::Resets => "resets",
            Self::IdleFrames => "idle_frames",
            Self::HeaderBomb => "header_bomb",
            Self::MadeReset => "made_reset",
            Self::Http2Malformed => "http2_malformed",
            Self::QuicMalformed => "quic_malformed",
        }
    }

    /// Which defence ended a connection over HTTP/2, if one did.
    pub(crate) fn of_http2(error: &http2::Error) -> Option<Self> {
        let http2::Error::Breach(breach) = error else { return None };
        Some(Self::of_breach(*breach))
    }

    /// Which one ended the connection of an agent.
    pub(crate) fn of_agent(breach: wire::Breach) -> Self {
        match breach {
            wire::Breach::Http2(breach) => Self::of_breach(breach),
            wire::Breach::Quic(_) => Self::QuicMalformed,
        }
    }

    fn of_breach(breach: Breach) -> Self {
        match breach {
            Breach::Violation(..) => Self::Http2Malformed,
            Breach::Header => Self::HeaderBomb,
            Breach::Mistakes => Self::MadeReset,
            Breach::Resets => Self::Resets,
            Breach::Idle | Breach::Questions | Breach::Settings => Self::IdleFrames,
        }
    }

    /// The same of the HTTP/1.1 library.
    pub(crate) fn of_http1(error: &hyper::Error) -> Option<Self> {
        if error.is_timeout() { Some(Self::SlowHeader) } else { error.is_parse().then_some(Self::Http1Malformed) }
    }
}
