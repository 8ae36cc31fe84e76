use std::fmt;
use std::sync::Arc;

/// An error code (RFC 9113 section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reason(pub u32);

impl Reason {
    /// All is well.
    pub const NO_ERROR: Self = Self(0);
    /// The other end broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// Something unexpected at this end.
    pub const INTERNAL_ERROR: Self = Self(2);
    /// More was sent than the window allowed.
    pub const FLOW_CONTROL_ERROR: Self = Self(3);
    /// A frame for a stream that has ended.
    pub const STREAM_CLOSED: Self = Self(5);
    /// A frame of a wrong size.
    pub const FRAME_SIZE_ERROR: Self = Self(6);
    /// Not processed at all; may be sent again.
    pub const REFUSED_STREAM: Self = Self(7);
    /// No longer wanted.
    pub const CANCEL: Self = Self(8);
    /// The header tables are out of step.
    pub const COMPRESSION_ERROR: Self = Self(9);
    /// The other end makes too much work.
    pub const ENHANCE_YOUR_CALM: Self = Self(11);
}

/// Its name, or its number if it has none.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        match NAMES.get(self.0 as usize) {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {}", self.0),
        }
    }
}

/// What the other end has done that a connection cannot go on after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Breach {
    /// It broke the protocol.
    #[error("{1}")]
    Violation(Reason, &'static str),
    /// A header that comes in far too many frames, or unpacks to far more than is allowed.
    #[error("a header without end")]
    Header,
    /// More streams had to be reset for its mistakes than [`Settings::mistakes`](crate::Settings::mistakes) allows.
    #[error("one stream after the other that breaks the protocol")]
    Mistakes,
    /// It asks, and does not read the answers.
    #[error("questions whose answers it does not read")]
    Questions,
    /// Settings that change too often or are too many.
    #[error("settings without end")]
    Settings,
    /// More streams were taken back than [`Settings::resets`](crate::Settings::resets) allows (CVE-2023-44487).
    #[error("one stream after the other that is taken back")]
    Resets,
    /// More frames that carry nothing than [`Settings::idle_frames`](crate::Settings::idle_frames) allows (CVE-2019-9512,
    /// -9513, -9515, -9518).
    #[error("frames without end that carry nothing")]
    Idle,
}

impl Breach {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Violation(reason, _) => reason,
            Self::Header | Self::Mistakes | Self::Questions | Self::Settings | Self::Resets | Self::Idle => {
                Reason::ENHANCE_YOUR_CALM
            }
        }
    }
}

/// Why a stream, or a whole connection, came to no good end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The other end reset the stream.
    #[error("the other end reset the stream: {0}")]
    Reset(Reason),
    /// The other end broke the protocol on this stream alone, which was reset for it.
    #[error("the other end broke HTTP/2 on the stream: {0}")]
    Broken(&'static str),
    /// The other end goes away, and has not processed the stream.
    #[error("the other end goes away: {0}")]
    GoneAway(Reason),
    /// The other end did what no connection goes on after.
    #[error("the other end broke HTTP/2: {0}")]
    Breach(Breach),
    /// The connection ended under the stream, or can take no new one.
    #[error("{0}")]
    Lost(Arc<str>),
}
