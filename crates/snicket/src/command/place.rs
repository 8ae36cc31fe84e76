//! The origins of `snicket tcp` and `snicket udp`: a place, or several ports in a row of one host.

use std::fmt;

use agent::ingress::{Document, Overrides};
use anyhow::Context as _;
use registry::PortProtocol;
use serde_json::json;

use crate::connector;
use crate::problem::Problem;

/// A service as an ingress rule writes it, `tcp://host:port`, or a row of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    protocol: PortProtocol,
    host: String,
    first: u16,
    last: u16,
}

/// `tcp://host:port`, or `udp://host:first-last`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.protocol, self.host, self.first)?;
        if self.last > self.first { write!(f, "-{}", self.last) } else { Ok(()) }
    }
}

impl Place {
    /// Reads what people write for a TCP service.
    pub(crate) fn tcp(text: &str) -> Result<Self, String> {
        Self::parse(PortProtocol::Tcp, text)
    }

    /// Reads what people write for a UDP service.
    pub(crate) fn udp(text: &str) -> Result<Self, String> {
        Self::parse(PortProtocol::Udp, text)
    }

    fn parse(protocol: PortProtocol, text: &str) -> Result<Self, String> {
        let wrong = || {
            let (name, port) = match protocol {
                PortProtocol::Tcp => ("TCP", 22),
                PortProtocol::Udp => ("UDP", 53),
            };
            format!(
                "{text:?} is no {name} service; write a port ({port}), host:port, host:first-last, or a URL such as \
                 {protocol}://localhost:{port}"
            )
        };
        let rest = text.strip_prefix(&format!("{protocol}://")).unwrap_or(text);
        let (host, ports) = rest.rsplit_once(':').unwrap_or(("localhost", rest));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
        let (first, last) = number(first).zip(number(last)).filter(|(first, last)| first <= last).ok_or_else(wrong)?;
        let url = url::Url::parse(&format!("tcp://{host}:{first}")).map_err(|_| wrong())?;
        let is_plain = url.username().is_empty() && url.password().is_none() && url.path().is_empty();
        let found = url.host_str().filter(|found| !found.is_empty() && is_plain).ok_or_else(wrong)?;
        Ok(Self { protocol, host: found.to_owned(), first, last })
    }

    /// How many ports it has.
    pub(crate) fn count(&self) -> u16 {
        (self.last - self.first).saturating_add(1)
    }

    /// What visitors speak.
    pub(crate) fn protocol(&self) -> PortProtocol {
        self.protocol
    }

    /// The agent's rules, by the names under which the edge asks for each port's service.
    pub(crate) fn document(&self, hostname: &str) -> anyhow::Result<Document> {
        if self.count() == 1 {
            return connector::single(&self.to_string(), Overrides::default());
        }
        let service = |port: u16| format!("{}://{}:{port}", self.protocol, self.host);
        let mut rules: Vec<_> = (self.first..=self.last)
            .enumerate()
            .map(|(index, port)| json!({ "hostname": format!("port-{index}.{hostname}"), "service": service(port) }))
            .collect();
        rules.push(json!({ "service": "http_status:404" }));
        Document::from_json(json!({ "ingress": rules }).to_string().as_bytes())
            .with_context(|| Problem::usage(format!("{self} cannot be served"), "correct the origin"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_becomes_a_service() {
        for (text, service) in [
            ("22", "tcp://localhost:22"),
            ("db.internal:5432", "tcp://db.internal:5432"),
            ("tcp://192.0.2.1:25", "tcp://192.0.2.1:25"),
            ("[::1]:25", "tcp://[::1]:25"),
            ("db:5000-5010", "tcp://db:5000-5010"),
            ("7-7", "tcp://localhost:7"),
        ] {
            assert_eq!(Place::tcp(text).map(|place| place.to_string()).as_deref(), Ok(service));
        }
        assert_eq!(Place::udp("53").map(|place| place.to_string()).as_deref(), Ok("udp://localhost:53"));
        assert_eq!(Place::udp("5000-5010").map(|place| place.count()), Ok(11));
        for text in ["", "0", "70000", "ssh", "db:", ":22", "me@db:22", "http://db:80", "tcp://db:1/x", "a b:1", "5-4"]
        {
            assert!(Place::tcp(text).is_err(), "{text}");
        }
        assert!(Place::udp("tcp://db:1").is_err());
    }

    #[test]
    fn each_port_of_a_row_has_a_rule_of_its_own() {
        let document = Place::udp("192.0.2.1:5000-5002").unwrap().document("two-words.test").unwrap();
        for (index, port) in (0..).zip(5000..=5002) {
            let (_, rule) = document.rules.find(&format!("port-{index}.two-words.test"), "/");
            assert_eq!(rule.service.to_string(), format!("udp://192.0.2.1:{port}"));
        }
        assert_eq!(document.rules.find("two-words.test", "/").1.service.to_string(), "http_status:404");
    }
}
