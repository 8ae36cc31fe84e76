//! One question to one member, and what the answer has to be.

use std::time::Duration;

use registry::{MonitorTerms, MonitorType, Origin};
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout};

use super::{Asker, grpc, icmp, web};
use crate::health::Outcome;
use crate::plan::Target;

/// Whom a question is for.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) target: Target,
    /// What it is told of the host, if the pool says so.
    host: Option<Box<str>>,
    address: Box<str>,
    port: u16,
}

/// What came of a question: the status, if there was one.
pub(super) type Answer = Result<Option<u16>, Problem>;

/// Why a member is not well, in a sentence, and the status that it answered with.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) reason: Box<str>,
    pub(super) code: Option<u16>,
    /// It could not be asked, which says nothing about it.
    pub(super) is_unasked: bool,
}

impl Problem {
    /// It cannot be asked, and why.
    pub(super) fn unasked(reason: impl Into<Box<str>>) -> Self {
        Self { is_unasked: true, ..reason.into().into() }
    }
}

impl<T: Into<Box<str>>> From<T> for Problem {
    fn from(reason: T) -> Self {
        Self { reason: reason.into(), code: None, is_unasked: false }
    }
}

impl Subject {
    pub(super) fn new(origin: &Origin) -> Self {
        Self {
            target: Target::of(origin),
            host: origin.header.host.first().cloned(),
            address: origin.address.clone(),
            port: origin.port,
        }
    }

    /// The name by which it is asked, perhaps with a port: as the monitor says, else as the pool does, else where it is.
    pub(super) fn host(&self, monitor: &MonitorTerms) -> String {
        let said = monitor.header.iter().find(|(name, _)| name.eq_ignore_ascii_case("host"));
        match said.and_then(|(_, values)| values.first()).or(self.host.as_ref()) {
            Some(host) => host.to_string(),
            // Of IPv6, in brackets.
            None if self.address.contains(':') => format!("[{}]", self.address),
            None => self.address.to_string(),
        }
    }

    /// The port at which it is asked: as the monitor says, else as the pool does, else the usual one.
    pub(super) fn port(&self, monitor: &MonitorTerms, usual: u16) -> u16 {
        [monitor.port, self.port].into_iter().find(|port| *port != 0).unwrap_or(usual)
    }
}

/// Asks once. Takes no longer than the monitor says.
///
/// # Errors
/// Why it cannot be asked, which says nothing about it.
pub(super) async fn ask(asker: &Asker, subject: &Subject, monitor: &MonitorTerms) -> Result<Outcome, Box<str>> {
    let asked = Instant::now();
    let limit = Duration::from_secs(monitor.timeout.into());
    let answer = timeout(limit, async {
        match monitor.kind {
            MonitorType::Http | MonitorType::Https => web::ask(asker, subject, monitor).await,
            MonitorType::Grpc | MonitorType::Grpcs => grpc::ask(asker, subject, monitor).await,
            MonitorType::Tcp => connect(asker, subject, monitor).await,
            MonitorType::Smtp => greeting(asker, subject, monitor).await,
            MonitorType::UdpIcmp => icmp::datagram(asker, subject, monitor).await,
            MonitorType::IcmpPing => icmp::ping(asker, subject).await,
        }
    });
    let answer = answer.await.unwrap_or_else(|_| Err(format!("no answer within {} s", monitor.timeout).into()));
    match answer {
        Ok(code) => Ok(Outcome { problem: None, code, time: Some(asked.elapsed()) }),
        Err(Problem { reason, is_unasked: true, .. }) => Err(reason),
        Err(Problem { reason, code, .. }) => {
            Ok(Outcome { problem: Some(reason), code, time: code.map(|_| asked.elapsed()) })
        }
    }
}

async fn connect(asker: &Asker, subject: &Subject, monitor: &MonitorTerms) -> Answer {
    let host = subject.host(monitor);
    asker.reach.connect(&subject.target, &host, subject.port(monitor, 0)).await?;
    Ok(None)
}

/// A mail server greets whoever connects (RFC 5321 section 3.1).
async fn greeting(asker: &Asker, subject: &Subject, monitor: &MonitorTerms) -> Answer {
    let host = subject.host(monitor);
    let mut stream = asker.reach.connect(&subject.target, &host, subject.port(monitor, 25)).await?;
    let mut code = [0; 4];
    stream.read_exact(&mut code).await.map_err(|problem| format!("it does not greet: {problem}"))?;
    match &code {
        b"220 " | b"220-" => Ok(Some(220)),
        other => Err(format!("it greets with {:?} instead of 220", String::from_utf8_lossy(other)).into()),
    }
}

/// Whether a status code is one of these: `200`, `2xx`, `200-299`, or several with commas between.
pub(super) fn is_expected(codes: &str, status: u16) -> bool {
    let number = |text: &str| text.parse::<u16>().ok();
    codes.split(',').any(|part| match (part.split_once('-'), part.strip_suffix("xx")) {
        (Some((first, last)), _) => {
            number(first).zip(number(last)).is_some_and(|(first, last)| (first..=last).contains(&status))
        }
        (None, Some(class)) => number(class) == Some(status / 100),
        (None, None) => number(part) == Some(status),
    })
}

/// Looks for a text in an answer as it comes, in any case of the letters A to Z.
pub(super) struct Search {
    text: Vec<u8>,
    /// What came last, as far as the text may begin in it, in lower case.
    tail: Vec<u8>,
}

impl Search {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_ascii_lowercase().into_bytes(), tail: Vec::new() }
    }

    /// Whether the text is in what has come with this.
    pub(super) fn is_found(&mut self, more: &[u8]) -> bool {
        if self.text.is_empty() {
            return true;
        }
        self.tail.extend(more.iter().map(u8::to_ascii_lowercase));
        let is_found = self.tail.windows(self.text.len()).any(|part| part == self.text);
        let kept = self.tail.len().min(self.text.len() - 1);
        self.tail.drain(..self.tail.len() - kept);
        is_found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_lists_of_codes_ranges_and_classes() {
        for (codes, well, unwell) in [
            ("200", &[200][..], &[201, 404][..]),
            ("2xx", &[200, 299], &[300, 199]),
            ("200-204,302", &[200, 204, 302], &[205, 301]),
            ("2xx,500-599", &[250, 503], &[404]),
            ("", &[], &[200]),
        ] {
            assert!(well.iter().all(|code| is_expected(codes, *code)), "{codes}");
            assert!(!unwell.iter().any(|code| is_expected(codes, *code)), "{codes}");
        }
    }

    #[test]
    fn a_text_is_found_in_any_case() {
        let has = |body: &[u8], text: &str, piece: usize| {
            let mut search = Search::new(text);
            body.chunks(piece).any(|more| search.is_found(more)) || search.is_found(b"")
        };
        for piece in 1..13 {
            assert!(has(b"All is WELL.", "is well", piece), "{piece}");
            assert!(!has(b"All is WELL.", "unwell", piece), "{piece}");
            assert!(has(b"all is well, as is all", "as is all", piece), "{piece}");
        }
        assert!(has(b"", "", 1) && !has(b"", "a", 1));
    }
}
