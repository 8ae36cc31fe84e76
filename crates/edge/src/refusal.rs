//! Every refusal of the edge: what a visitor is told, and what `snicket explain` knows about it.

mod accept;
mod grpc;
mod page;

pub(crate) use page::{Escaped, Page};

use wire::OriginFault;

/// One kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The number on the page; `snicket explain` takes it.
    pub code: u16,
    /// The HTTP status.
    pub status: u16,
    /// A few words.
    pub title: &'static str,
    /// What happened, for the visitor.
    pub what: &'static str,
    /// Why it usually happens.
    pub why: &'static str,
    /// What whoever runs the site can do.
    pub todo: &'static str,
}

/// Whether whoever sent this header would rather read HTML than anything else.
pub(crate) fn wants_html(headers: &http::HeaderMap) -> bool {
    accept::preferred(headers) == accept::Form::Html
}

/// Finds a refusal by its code.
pub fn find(code: u16) -> Option<&'static Refusal> {
    ALL.iter().copied().find(|refusal| refusal.code == code)
}

macro_rules! catalogue {
    ($($name:ident = $code:literal, $status:literal, $title:literal, $what:literal, $why:literal, $todo:literal;)*) => {
        $(
            #[doc = concat!($title, ".")]
            pub static $name: Refusal =
                Refusal { code: $code, status: $status, title: $title, what: $what, why: $why, todo: $todo };
        )*

        /// All refusals, in the order of their codes.
        pub static ALL: &[&Refusal] = &[$(&$name),*];
    };
}

catalogue! {
    TOO_SLOW = 408, 408, "Request timed out",
        "The request's body stopped coming in the middle.",
        "The visitor's connection is too slow or broke, or the program that sends the body is stuck.",
        "Send the request again.";
    URI_TOO_LONG = 414, 414, "Address too long",
        "The path and query of the request are longer than this edge takes.",
        "A form was sent as a query, or a redirect adds to its own address again and again.",
        "Send long data in the body of a POST request.";
    EXPECTATION = 417, 417, "Expectation not understood",
        "The request holds an Expect header other than 100-continue.",
        "HTTP knows no other expectation.",
        "Leave the Expect header out.";
    HEADER_TOO_LARGE = 431, 431, "Header too large",
        "The request's header has too many fields or too many bytes.",
        "Most often cookies have piled up.",
        "Clear the site's cookies; have the site set fewer and smaller ones.";
    METHOD = 501, 501, "Method not supported",
        "The request's method cannot be passed on to a site.",
        "CONNECT asks for a proxy, which this is not; so does an extended CONNECT for anything but a WebSocket. TRACE would \
         show a page what its visitor's browser hides from it.",
        "Use an ordinary method, or a WebSocket.";
    BAD_GATEWAY = 502, 502, "Bad gateway",
        "The site's agent could not get an answer from the origin.",
        "The origin's service is down or broke off, or the agent's rule has the wrong address. The agent did not say.",
        "Look at the agent's log for this ray, and check that the service of its rule answers on the agent's machine.";
    ORIGIN_REFUSED = 521, 521, "Origin is down",
        "The site's agent is connected, but nothing listens at the address of the origin.",
        "The origin's service is not running, or it listens on another port or address.",
        "Start the service, or correct the address in the agent's rule.";
    ORIGIN_CONNECT_TIMEOUT = 522, 522, "Origin does not accept connections",
        "The agent's attempt to connect to the origin ran out of time.",
        "The origin's machine is overloaded or switched off, or a firewall drops the agent's packets.",
        "Check from the agent's machine that the origin's address can be reached.";
    ORIGIN_UNREACHABLE = 523, 523, "Origin is unreachable",
        "The agent found no way to the origin: its name does not resolve, or there is no route to its address.",
        "A mistyped host name in the agent's rule, or a network that is down.",
        "Correct the address in the agent's rule, or the name service and routes of the agent's machine.";
    ORIGIN_TIMEOUT = 524, 524, "Origin took too long",
        "The origin took the request but did not begin to answer in time.",
        "Long work in a request, a stuck process, or a lock in the site's database.",
        "Look at what the origin was doing. Answer long work at once and let visitors ask for the result later.";
    ORIGIN_TLS = 525, 525, "TLS handshake with the origin failed",
        "The agent reached the origin, but the two could not agree on TLS.",
        "The origin speaks plain HTTP on that port, or only versions of TLS that are no longer safe.",
        "Use http:// in the agent's rule if the origin has no TLS.";
    ORIGIN_CERTIFICATE = 526, 526, "Origin's certificate is not trusted",
        "The origin's certificate is not one that the agent's rule trusts.",
        "It is self-signed, has expired, or is for another name.",
        "Set originServerName or caPool in the agent's rule; noTLSVerify turns the check off.";
    ADDRESS = 1003, 403, "Address instead of a name",
        "The request asks for a bare IP address. Sites have names.",
        "Somebody typed the node's address, or a scanner came by.",
        "Open the site by its name. `snicket tunnel route dns` gives a tunnel a name.";
    RESERVED = 1014, 403, "Reserved name",
        "The name is the agents' own management name, which visitors cannot reach.",
        "Requests for it would be served by an agent itself, with nobody checking who asks.",
        "Use the commands and the API of this edge.";
    TOO_MANY_ATTEMPTS = 1015, 429, "Too many attempts",
        "Too many wrong passwords or PINs have come from this address.",
        "Somebody there has forgotten the password, or is guessing.",
        "Wait five minutes. Whoever shares the site can say what the password is.";
    UNKNOWN_HOST = 1016, 530, "Unknown name",
        "No tunnel of this edge has the name that was asked for.",
        "The name is mistyped, its tunnel was deleted, or it was never given to a tunnel.",
        "Check the name. `snicket tunnel route dns TUNNEL NAME` gives a name to a tunnel.";
    LOOP = 1019, 508, "Request goes in circles",
        "The request came back to this edge again and again.",
        "The tunnel's origin is the tunnel's own public name, directly or through others.",
        "Point the agent's rule at the service itself, for example http://localhost:8080.";
    NOT_ALLOWED = 1020, 403, "Access denied",
        "The site is open to certain networks, and this visitor's address is in none of them.",
        "Whoever shares the site has said which networks may visit it (`--allow`).",
        "Visit it from one of those networks, or have the address added.";
    NO_CONNECTION = 1033, 530, "Tunnel is not connected",
        "The name belongs to a tunnel, but no agent of it is connected.",
        "The agent is not running, or cannot reach this edge.",
        "Start the agent (`snicket tunnel run`, `snicket http`), and look at its log.";
    NO_MEMBER = 1034, 503, "Nobody is there to answer",
        "The name belongs to a load balancer, and none of its members can be reached.",
        "All origins of its pools are down or switched off, or their agents are not connected.",
        "Look at the health of the pools (`snicket api GET /accounts/ID/load_balancers/pools/ID/health`), and start an origin.";
    ORIGIN_CLOSED = 1052, 502, "Origin hung up",
        "The origin closed the connection before it answered.",
        "The origin's service crashed or was restarted, or it closes idle connections early.",
        "Look at the origin's log for the time of this request.";
    ORIGIN_NONSENSE = 1053, 502, "Origin does not speak HTTP",
        "What the origin sent back is not an HTTP answer.",
        "Another kind of service listens on that port, or it expects TLS.",
        "Check the port in the agent's rule, and whether it should say https://.";
    CONNECTION_LOST = 1054, 502, "Connection to the agent was lost",
        "The connection to the site's agent broke while the request was under way, and it cannot be sent twice.",
        "The agent stopped, or the network between it and this edge failed.",
        "Send the request again if that is safe. Agents reconnect by themselves.";
    AGENT_NONSENSE = 1055, 502, "Agent broke the protocol",
        "The agent's answer is not one that the tunnel protocol knows.",
        "The agent is of a very different version, or something in between changes its data.",
        "Update the agent, and look at this edge's log for this ray.";
    UNSUPPORTED = 1056, 502, "Agent cannot serve this",
        "The agent's rule for this name is of a kind that cannot serve such a request.",
        "The rule's service is not an HTTP one, or the agent is too old for it.",
        "Correct the service in the agent's rule.";
    NO_HOST = 1060, 400, "No name in the request",
        "The request does not say which site it is for.",
        "A program that speaks a very old HTTP, or forgets the Host header.",
        "Send exactly one Host header (or :authority).";
    CONFLICTING_HOST = 1061, 400, "More than one name in the request",
        "The request names more than one site.",
        "Two Host headers, or a request line that contradicts it: a broken program, or an attack on caches.",
        "Send exactly one Host header (or :authority).";
    MALFORMED_HOST = 1062, 400, "Malformed name",
        "What the request names as its host is not a name.",
        "Characters that names cannot have, or a port that is no number.",
        "Correct the address.";
    BAD_FRAMING = 1063, 400, "Contradictory length",
        "The request says in contradictory ways how long its body is.",
        "A broken program, or an attempt to smuggle a second request past the edge.",
        "Send one Content-Length, and only digits.";
    REQUEST_BODY = 1064, 400, "Request broke off",
        "The request's body ended before its announced end, or broke the rules of its encoding.",
        "The visitor left in the middle, or its program computed the length wrongly.",
        "Send the request again.";
    MALFORMED = 1065, 400, "Malformed request",
        "The request breaks the rules of its version of HTTP.",
        "A broken program, or an attempt to have two programs read the request in two ways.",
        "Correct the program that sent it.";
    PIN_NEEDED = 1070, 401, "PIN needed",
        "The site is shared with a PIN, which this visitor has not given.",
        "The visitor is a program that shows no pages, or its cookie has expired.",
        "Open the site in a browser and give the PIN. Programs are let in with the cookie that the browser gets.";
    LOGIN_NEEDED = 1071, 401, "Login needed",
        "The site is shared with a user name and a password, which this visitor has not given, or not correctly.",
        "Whoever shares the site has protected it (`--basic`).",
        "Give the user name and the password (`curl -u NAME`).";
}

/// Marks the answer to a request that its sender and the edge may have read in two ways: nothing that follows it on the
/// connection is to be believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Last;

impl Refusal {
    /// The request itself is at fault.
    pub(crate) fn is_of_the_request(&self) -> bool {
        matches!(self.status, 400 | 408 | 414 | 417 | 431 | 501)
    }

    /// The refusal that tells a fault of the origin.
    pub(crate) fn of_fault(fault: OriginFault) -> &'static Self {
        match fault {
            OriginFault::Refused => &ORIGIN_REFUSED,
            OriginFault::ConnectTimeout => &ORIGIN_CONNECT_TIMEOUT,
            OriginFault::Unreachable => &ORIGIN_UNREACHABLE,
            OriginFault::TlsHandshake => &ORIGIN_TLS,
            OriginFault::TlsCertificate => &ORIGIN_CERTIFICATE,
            OriginFault::ResponseTimeout => &ORIGIN_TIMEOUT,
            OriginFault::Closed => &ORIGIN_CLOSED,
            OriginFault::Nonsense => &ORIGIN_NONSENSE,
            OriginFault::Unsupported => &UNSUPPORTED,
            OriginFault::Unknown => &BAD_GATEWAY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_unique() {
        assert!(ALL.windows(2).all(|pair| pair[0].code < pair[1].code));
    }

    #[test]
    fn every_refusal_is_an_error_and_says_everything() {
        for refusal in ALL {
            assert!((400..600).contains(&refusal.status), "{refusal:?}");
            for text in [refusal.what, refusal.why, refusal.todo] {
                assert!(text.ends_with('.'), "{refusal:?}");
            }
        }
    }

    #[test]
    fn codes_lead_to_their_entry() {
        assert_eq!(find(1033), Some(&NO_CONNECTION));
        assert_eq!(find(1), None);
    }
}
