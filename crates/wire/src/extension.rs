use std::fmt;

use crate::OriginFault;

/// What our own two ends can do beyond the reference protocol.
///
/// The agent announces each as a feature at registration. The edge then marks each request towards such an agent with
/// the header (over QUIC: the metadata key) [`Extensions::HEADER`]; without the mark the agent behaves as the reference
/// does, so neither end ever surprises a stock peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    /// Interim answers (1xx) of the origin are passed on.
    pub interim: bool,
    /// Trailers of requests, and over QUIC of answers too, are passed on; an answer that breaks off ends behind its head,
    /// visibly short, where the reference resets the stream.
    pub trailers: bool,
    /// A failed request says why ([`crate::OriginFault`]).
    pub faults: bool,
    /// Over HTTP/2, the header of an answer travels as header fields, where the reference packs it into the value of one: that
    /// costs both ends more than anything else about a small answer. A WebSocket's stays packed.
    pub fields: bool,
    /// Byte streams lead to services by name ([`crate::Destination::Service`]).
    pub services: bool,
    /// Flows of datagrams do so, too, over either transport. Needs `services`.
    pub flows: bool,
    /// The answer to the registration names the authority of the edge's certificates for origins
    /// ([`crate::registration::Registered::origin_ca`]), and if there are others later, they come as a configuration of
    /// version [`Extensions::ORIGIN_CA_VERSION`].
    pub origin_ca: bool,
}

impl Extensions {
    /// Everything this version can do.
    pub const ALL: Self = Self {
        interim: true,
        trailers: true,
        faults: true,
        fields: true,
        services: true,
        flows: true,
        origin_ca: true,
    };

    /// The header that marks a request; it begins with `cf-cloudflared-`, so every edge keeps visitors from setting it.
    pub const HEADER: &'static str = "cf-cloudflared-snicket";

    /// What is pushed under this version is no configuration but the authorities of the edge's certificates for origins: a
    /// JSON string of PEM text, in the place of those before. Configurations have no versions below −1.
    pub const ORIGIN_CA_VERSION: i32 = -2;

    /// The prefix of the feature names at registration: `snicket_interim` and so on.
    const FEATURE_PREFIX: &'static str = "snicket_";

    /// The feature names to announce at registration.
    pub fn features(self) -> impl Iterator<Item = String> {
        let marked = self.mark().split(',').filter(|name| !name.is_empty());
        let others = [(self.services, "services"), (self.flows, "flows"), (self.origin_ca, "origin_ca")].into_iter();
        let names = marked.chain(others.filter_map(|(has, name)| has.then_some(name)));
        names.map(|name| format!("{}{name}", Self::FEATURE_PREFIX))
    }

    /// Those of our extensions among the features that an agent announced.
    pub fn from_features<'a>(features: impl IntoIterator<Item = &'a str>) -> Self {
        Self::from_names(features.into_iter().filter_map(|feature| feature.strip_prefix(Self::FEATURE_PREFIX)))
    }

    /// Reads the value of [`Extensions::HEADER`]; names that this version does not know are passed over.
    pub fn from_mark(value: &str) -> Self {
        Self::from_names(value.split(','))
    }

    /// The value of [`Extensions::HEADER`]: those that change how a request is answered. Empty when there is none.
    pub const fn mark(self) -> &'static str {
        Self::MARKS[self.interim as usize
            | (self.trailers as usize) << 1
            | (self.faults as usize) << 2
            | (self.fields as usize) << 3]
    }

    /// The marks, by a bit for each extension in the order of the names.
    const MARKS: [&'static str; 16] = [
        "",
        "interim",
        "trailers",
        "interim,trailers",
        "faults",
        "interim,faults",
        "trailers,faults",
        "interim,trailers,faults",
        "fields",
        "interim,fields",
        "trailers,fields",
        "interim,trailers,fields",
        "faults,fields",
        "interim,faults,fields",
        "trailers,faults,fields",
        "interim,trailers,faults,fields",
    ];

    fn from_names<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut extensions = Self::default();
        for name in names {
            match name {
                "interim" => extensions.interim = true,
                "trailers" => extensions.trailers = true,
                "faults" => extensions.faults = true,
                "fields" => extensions.fields = true,
                "services" => extensions.services = true,
                "flows" => extensions.flows = true,
                "origin_ca" => extensions.origin_ca = true,
                _ => {}
            }
        }
        extensions
    }
}

/// The value of [`Extensions::HEADER`].
impl fmt::Display for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.mark())
    }
}

impl OriginFault {
    /// Every fault there is.
    pub const ALL: [Self; 10] = [
        Self::Refused,
        Self::ConnectTimeout,
        Self::Unreachable,
        Self::TlsHandshake,
        Self::TlsCertificate,
        Self::ResponseTimeout,
        Self::Closed,
        Self::Nonsense,
        Self::Unsupported,
        Self::Unknown,
    ];

    /// The fault's name with the extension `faults`, in logs and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Unreachable => "unreachable",
            Self::TlsHandshake => "tls_handshake",
            Self::TlsCertificate => "tls_certificate",
            Self::ResponseTimeout => "response_timeout",
            Self::Closed => "closed",
            Self::Nonsense => "nonsense",
            Self::Unsupported => "unsupported",
            Self::Unknown => "unknown",
        }
    }

    /// The reverse of [`OriginFault::name`]; a name that this version does not know is [`OriginFault::Unknown`].
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|fault| fault.name() == name).unwrap_or(Self::Unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every() -> impl Iterator<Item = Extensions> {
        (0..128).map(|bits| Extensions {
            interim: bits & 1 != 0,
            trailers: bits & 2 != 0,
            faults: bits & 4 != 0,
            fields: bits & 8 != 0,
            services: bits & 16 != 0,
            flows: bits & 32 != 0,
            origin_ca: bits & 64 != 0,
        })
    }

    #[test]
    fn marks_and_features_say_the_same() {
        for extensions in every() {
            let marked = Extensions { services: false, flows: false, origin_ca: false, ..extensions };
            assert_eq!(Extensions::from_mark(extensions.mark()), marked);
            let features: Vec<String> = extensions.features().collect();
            assert_eq!(Extensions::from_features(features.iter().map(String::as_str)), extensions);
            assert_eq!(extensions.to_string(), extensions.mark());
        }
    }

    #[test]
    fn unknown_names_are_passed_over() {
        let faults = Extensions { faults: true, ..Extensions::default() };
        assert_eq!(Extensions::from_mark("later,faults,"), faults);
        assert_eq!(Extensions::from_features(["faults", "snicket_later", "snicket_faults", "postquantum"]), faults);
    }

    #[test]
    fn fault_names_lead_back() {
        for fault in OriginFault::ALL {
            assert_eq!(OriginFault::from_name(fault.name()), fault);
        }
        assert_eq!(OriginFault::from_name("later"), OriginFault::Unknown);
    }
}
