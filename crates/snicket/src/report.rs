//! What an agent and an edge do, as lines for people or events for programs.

use std::time::Duration;

use agent::{Event, FlowEvent, FlowOutcome, RequestEvent, RequestOutcome, StreamEvent, StreamOutcome};
use jiff::{Timestamp, Zoned};
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};

use crate::screen::{Paint, Screen};

/// Shows an agent's events until there are no more. Whoever reads standard output too slowly misses some, and is told.
pub(crate) async fn agent_events(events: Receiver<Event>, screen: Screen) {
    let mut feed = Feed::new(events, screen);
    while let Some(event) = feed.next().await {
        agent_event(&event, screen);
    }
}

/// The same for an agent whose edge is in this process too: a request that it failed is left to [`refusals`], which
/// tell what the visitor was shown.
pub(crate) async fn answers(events: Receiver<Event>, screen: Screen) {
    let mut feed = Feed::new(events, screen);
    while let Some(event) = feed.next().await {
        let failed =
            matches!(&event, Event::Request(request) if matches!(request.outcome, RequestOutcome::Failed { .. }));
        if !failed {
            agent_event(&event, screen);
        }
    }
}

/// Shows the requests that the edge itself answered.
pub(crate) async fn refusals(events: Receiver<edge::RequestEvent>, screen: Screen) {
    let mut feed = Feed::new(events, screen);
    while let Some(event) = feed.next().await {
        if event.refusal.is_some() {
            edge_request(&event, screen);
        }
    }
}

/// Shows all requests of an edge.
pub(crate) async fn edge_requests(events: Receiver<edge::RequestEvent>, screen: Screen) {
    let mut feed = Feed::new(events, screen);
    while let Some(event) = feed.next().await {
        edge_request(&event, screen);
    }
}

/// Lines a second for people, who read fewer. What comes beyond costs next to nothing, and is counted.
const LINES: u32 = 100;

/// What happens, as fast as whoever is to see it can take it.
struct Feed<T> {
    events: Receiver<T>,
    screen: Screen,
    since: Instant,
    lines: u32,
}

impl<T: Clone> Feed<T> {
    fn new(events: Receiver<T>, screen: Screen) -> Self {
        Self { events, screen, since: Instant::now(), lines: 0 }
    }

    async fn next(&mut self) -> Option<T> {
        self.keep_pace().await;
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Closed) => return None,
                Err(RecvError::Lagged(count)) => {
                    self.screen.say(format!("({count} requests not shown)"));
                    self.screen.event(&json!({ "event": "missed", "time": now(), "count": count }));
                }
            }
        }
    }

    /// Programs get everything.
    async fn keep_pace(&mut self) {
        if self.screen.is_json() {
            return;
        }
        self.lines += 1;
        if self.lines > LINES {
            sleep_until(self.since + Duration::from_secs(1)).await;
        }
        if self.since.elapsed() >= Duration::from_secs(1) {
            (self.since, self.lines) = (Instant::now(), 0);
        }
    }
}

fn agent_event(event: &Event, screen: Screen) {
    match event {
        Event::Request(request) => agent_request(request, screen),
        Event::Stream(stream) => agent_stream(stream, screen),
        Event::Flow(flow) => agent_flow(flow, screen),
        Event::Connected(status) => screen.event(&json!({
            "event": "connection", "time": now(), "state": "connected", "index": status.index, "id": status.id,
            "location": status.location, "protocol": status.transport.to_string(), "edge": status.edge,
        })),
        Event::Disconnected { index, reason } => {
            screen.event(&json!({
                "event": "connection", "time": now(), "state": "disconnected", "index": index, "reason": reason,
            }));
        }
        Event::ConnectFailed { index, edge, transport, reason, permanent } => screen.event(&json!({
            "event": "connection", "time": now(), "state": "failed", "index": index, "edge": edge,
            "protocol": transport.to_string(), "reason": reason, "permanent": permanent,
        })),
        Event::LookUpFailed { reason } => {
            screen.event(&json!({ "event": "connection", "time": now(), "state": "failed", "reason": reason }));
        }
        Event::FellBack { reason } => {
            screen.say(reason.to_string());
            screen.event(&json!({ "event": "notice", "time": now(), "text": reason.to_string() }));
        }
        Event::ConfigurationApplied { rules, .. } => {
            screen.event(&json!({ "event": "configuration", "time": now(), "applied": true, "rules": rules }));
        }
        Event::ConfigurationRefused { reason, .. } => {
            screen.event(&json!({ "event": "configuration", "time": now(), "applied": false, "reason": reason }));
        }
    }
}

fn agent_request(request: &RequestEvent, screen: Screen) {
    let RequestEvent { method, host, path, outcome, duration, bytes, .. } = request;
    let status = outcome.status();
    let remark = match outcome {
        RequestOutcome::Answered(_) => None,
        RequestOutcome::Cut(_) => Some("cut short".to_owned()),
        RequestOutcome::Failed { text, .. } => Some(text.clone()),
        RequestOutcome::Left => Some("the visitor left".to_owned()),
    };
    screen.event(&json!({
        "event": "request", "time": now(), "method": method.as_str(), "host": host, "path": path, "status": status,
        "duration_ms": millis(*duration), "bytes": bytes, "remark": remark,
    }));
    say_request(method.as_str(), path, status, *duration, Some(*bytes), remark.as_deref(), screen);
}

fn agent_stream(stream: &StreamEvent, screen: Screen) {
    let StreamEvent { service, flow, outcome, duration, received, sent, .. } = stream;
    let (word, paint, remark) = match outcome {
        StreamOutcome::Ended => ("ended", Paint::Green, None),
        StreamOutcome::Cut => ("cut", Paint::Yellow, None),
        StreamOutcome::Failed { text, .. } => ("failed", Paint::Red, Some(text.as_str())),
    };
    screen.event(&json!({
        "event": "stream", "time": now(), "service": service, "visitor": flow, "outcome": word,
        "duration_ms": millis(*duration), "received": received, "sent": sent, "remark": remark,
    }));
    if screen.is_json() {
        return;
    }
    let line = format!(
        "{}  {}  {:>8}  {:>8} in  {:>8} out  {}{}",
        screen.paint(Paint::Dim, &Zoned::now().strftime("%H:%M:%S").to_string()),
        screen.paint(paint, &format!("{word:<6}")),
        short(*duration),
        size(*received),
        size(*sent),
        visible(flow),
        remark.map(|remark| screen.paint(Paint::Dim, &format!("  ({})", visible(remark)))).unwrap_or_default(),
    );
    screen.say(line.trim_end());
}

fn agent_flow(flow: &FlowEvent, screen: Screen) {
    let FlowEvent { service, flow, outcome, duration, received, sent, dropped, .. } = flow;
    let (word, paint, remark) = match outcome {
        FlowOutcome::Ended => ("ended", Paint::Green, None),
        FlowOutcome::Refused => ("refused", Paint::Red, Some("nobody listens at the origin")),
        FlowOutcome::Failed { text, .. } => ("failed", Paint::Red, Some(text.as_str())),
    };
    screen.event(&json!({
        "event": "flow", "time": now(), "service": service, "visitor": flow, "outcome": word,
        "duration_ms": millis(*duration), "received": received, "sent": sent, "dropped": dropped, "remark": remark,
    }));
    if screen.is_json() {
        return;
    }
    let lost = if *dropped > 0 { format!("{dropped} dropped") } else { String::new() };
    let remarks: Vec<&str> =
        [remark, Some(lost.as_str())].into_iter().flatten().filter(|text| !text.is_empty()).collect();
    let remarks = if remarks.is_empty() { String::new() } else { format!("  ({})", visible(&remarks.join(", "))) };
    let line = format!(
        "{}  {}  {:>8}  {:>8} in  {:>8} out  {}{}",
        screen.paint(Paint::Dim, &Zoned::now().strftime("%H:%M:%S").to_string()),
        screen.paint(paint, &format!("{word:<7}")),
        short(*duration),
        received,
        sent,
        visible(flow),
        screen.paint(Paint::Dim, &remarks),
    );
    screen.say(line.trim_end());
}

fn edge_request(event: &edge::RequestEvent, screen: Screen) {
    let edge::RequestEvent { ray, method, host, path, status, refusal, detail, time } = event;
    screen.event(&json!({
        "event": "request", "time": now(), "method": method.as_str(), "host": host, "path": path, "status": status,
        "duration_ms": millis(*time), "remark": detail, "code": refusal, "ray": ray,
    }));
    let remark = refusal.map(|code| {
        let what = detail.as_deref().unwrap_or(host);
        format!("{what}: snicket explain {code}")
    });
    say_request(method.as_str(), path, Some(*status), *time, None, remark.as_deref(), screen);
}

fn say_request(
    method: &str,
    path: &str,
    status: Option<u16>,
    duration: Duration,
    bytes: Option<u64>,
    remark: Option<&str>,
    screen: Screen,
) {
    if screen.is_json() {
        return;
    }
    let clock = Zoned::now().strftime("%H:%M:%S").to_string();
    let shown = status.map_or_else(|| "---".to_owned(), |status| status.to_string());
    let paint = match status {
        Some(100..=299) => Paint::Green,
        Some(300..=399) => Paint::Yellow,
        _ => Paint::Red,
    };
    let size = bytes.map(size).unwrap_or_default();
    let line = format!(
        "{}  {method:<6} {}  {:>8}  {size:>8}  {}{}",
        screen.paint(Paint::Dim, &clock),
        screen.paint(paint, &shown),
        short(duration),
        visible(path),
        remark.map(|remark| screen.paint(Paint::Dim, &format!("  ({})", visible(remark)))).unwrap_or_default(),
    );
    screen.say(line.trim_end());
}

/// A visitor chooses the path, and must not write escape sequences to somebody's terminal with it.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// RFC 3339 with milliseconds.
pub(crate) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

fn millis(duration: Duration) -> f64 {
    // Microseconds are finer than anybody's clock, and keep the number short.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn short(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 9.95 {
        format!("{millis:.1} ms")
    } else if millis < 9_999.5 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.0} s", millis / 1e3)
    }
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for next in UNITS {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_are_short() {
        assert_eq!([0, 999, 1000, 123_456, 5_000_000_000].map(size), ["0 B", "999 B", "1.0 kB", "123.5 kB", "5.0 GB"]);
        let durations = [Duration::from_micros(1234), Duration::from_millis(250), Duration::from_secs(90)];
        assert_eq!(durations.map(short), ["1.2 ms", "250 ms", "90 s"]);
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(visible("/\x1b[2Ja"), "/\u{fffd}[2Ja");
    }
}
