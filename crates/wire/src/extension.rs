use std::fmt;

/// What our own two ends can do beyond the reference protocol.
///
/// The agent announces each as a feature at registration. The edge then marks each request towards such an agent with
/// the header (over QUIC: the metadata key) [`Extensions::HEADER`]; without the mark the agent behaves as the reference
/// does, so neither end ever surprises a stock peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    /// Interim answers (1xx) of the origin are passed on.
    pub interim: bool,
    /// Trailers of requests, and over QUIC of answers too, are passed on.
    pub trailers: bool,
    /// A failed request says why ([`crate::OriginFault`]).
    pub faults: bool,
}

impl Extensions {
    /// Everything this version can do.
    pub const ALL: Self = Self { interim: true, trailers: true, faults: true };

    /// The header that marks a request; it begins with `cf-cloudflared-`, so every edge keeps visitors from setting it.
    pub const HEADER: &'static str = "cf-cloudflared-snicket";

    const NAMES: [(&'static str, fn(&mut Self) -> &mut bool); 3] = [
        ("interim", |extensions| &mut extensions.interim),
        ("trailers", |extensions| &mut extensions.trailers),
        ("faults", |extensions| &mut extensions.faults),
    ];

    /// The prefix of the feature names at registration: `snicket_interim` and so on.
    const FEATURE_PREFIX: &'static str = "snicket_";

    /// No extension at all: the peer is a stock one.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// The feature names to announce at registration.
    pub fn features(mut self) -> impl Iterator<Item = String> {
        Self::NAMES
            .into_iter()
            .filter(move |(_, field)| *field(&mut self))
            .map(|(name, _)| format!("{}{name}", Self::FEATURE_PREFIX))
    }

    /// Those of our extensions among the features that an agent announced.
    pub fn from_features<'a>(features: impl IntoIterator<Item = &'a str>) -> Self {
        Self::from_names(features.into_iter().filter_map(|feature| feature.strip_prefix(Self::FEATURE_PREFIX)))
    }

    /// Reads the value of [`Extensions::HEADER`]; names that this version does not know are passed over.
    pub fn from_mark(value: &str) -> Self {
        Self::from_names(value.split(','))
    }

    fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut extensions = Self::default();
        for name in names {
            if let Some((_, field)) = Self::NAMES.iter().find(|(known, _)| *known == name) {
                *field(&mut extensions) = true;
            }
        }
        extensions
    }
}

/// The value of [`Extensions::HEADER`].
impl fmt::Display for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut extensions = *self;
        let mut separator = "";
        for (name, field) in Self::NAMES {
            if *field(&mut extensions) {
                write!(f, "{separator}{name}")?;
                separator = ",";
            }
        }
        Ok(())
    }
}
