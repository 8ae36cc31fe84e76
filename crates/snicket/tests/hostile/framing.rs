//! Requests that two parsers could read in two ways (smuggling), over HTTP/1.1 byte for byte.
//!
//! Behind each attack goes one honest request, so that what is left of the attack's bytes in the edge's buffer shows as well.

use std::time::Duration;

use harness::{Agent, Edge};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::strict::{Seen, Strict};

/// A busy machine needs no longer for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What comes of an attack.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// An answer of the edge's own, and the end of the connection. The origin learns nothing.
    Refused,
    /// The same, but the body was the fault, so that the origin may have seen the beginning of a request that never
    /// becomes whole.
    Cut,
    /// The origin sees exactly these, and nothing that could be read otherwise. Answers come in this number.
    Seen(&'static [&'static str]),
    /// It is refused, or means exactly this. Which of them is the choice of the protocol's library.
    OneThing(&'static str),
}

use Fate::{Cut, OneThing, Refused, Seen as Sees};

/// Stands behind each attack. `~` is the number of the attack, `%` the host.
const NEXT: &str = "GET /~/next HTTP/1.1\r\nHost: %\r\nConnection: close\r\n\r\n";

/// Name, bytes without [`NEXT`], fate.
const ATTACKS: &[(&str, &str, Fate)] = &[
    // Honest requests, to know that the others fail for their own reasons.
    ("honest", "GET /~/a HTTP/1.1\r\nHost: %\r\n\r\n", Sees(&["GET /~/a", "GET /~/next"])),
    (
        "honest length",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5\r\n\r\nhello",
        Sees(&["POST /~/a hello", "GET /~/next"]),
    ),
    (
        "honest chunks",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Sees(&["POST /~/a hello", "GET /~/next"]),
    ),
    // Both framings. The body of the attack is whole in one reading and half in the other.
    // Where both stand the chunks count, and the connection ends (RFC 9112 section 6.3).
    (
        "CL.TE",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
        Sees(&["POST /~/a"]),
    ),
    (
        "TE.CL",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n1\r\nZ\r\n0\r\n\r\n",
        Sees(&["POST /~/a Z"]),
    ),
    (
        "TE.0",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        Sees(&["POST /~/a hello"]),
    ),
    (
        "CL.TE on a GET",
        "GET /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Sees(&["GET /~/a"]),
    ),
    // Transfer-Encoding in disguise.
    (
        "TE twice",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "TE identity first",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "TE chunked twice",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "TE list of two",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "TE list, not last",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    ("TE gzip before", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE unknown", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE quoted", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused),
    (
        "TE with a parameter",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked;x=y\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    ("TE empty", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: \r\n\r\n0\r\n\r\n", Refused),
    ("TE comma", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE null element", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", Refused),
    ("TE vertical tab", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", Refused),
    ("TE with a NUL", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", Refused),
    (
        "TE space before the colon",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "TE tab before the colon",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "TE space before the name",
        "POST /~/a HTTP/1.1\r\nHost: %\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    ("TE folded", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused),
    (
        "TE behind a bare CR",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "TE with underscore",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\nhello",
        Sees(&["POST /~/a hello", "GET /~/next"]),
    ),
    (
        "TE in capitals",
        "POST /~/a HTTP/1.1\r\nHost: %\r\ntRANSFER-eNCODING: CHUNKED\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Sees(&["POST /~/a hi", "GET /~/next"]),
    ),
    (
        "TE behind spaces and a tab",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: \t chunked \t\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Sees(&["POST /~/a hi", "GET /~/next"]),
    ),
    ("TE in HTTP/1.0", "POST /~/a HTTP/1.0\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused),
    (
        "TE in HTTP/1.0 that is kept alive",
        "POST /~/a HTTP/1.0\r\nHost: %\r\nConnection: keep-alive\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused,
    ),
    (
        "TE taken out by Connection",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        Sees(&["POST /~/a hi", "GET /~/next"]),
    ),
    (
        "CL taken out by Connection",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello",
        Sees(&["POST /~/a hello", "GET /~/next"]),
    ),
    (
        "Host taken out by Connection",
        "GET /~/a HTTP/1.1\r\nHost: %\r\nConnection: host, cf-ray\r\n\r\n",
        Sees(&["GET /~/a", "GET /~/next"]),
    ),
    // Lengths.
    (
        "CL twice, different",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
        Refused,
    ),
    ("CL list", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5, 5\r\n\r\nhello", Refused),
    ("CL list, different", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5, 0\r\n\r\nhello", Refused),
    ("CL plus", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: +5\r\n\r\nhello", Refused),
    ("CL minus", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: -5\r\n\r\nhello", Refused),
    ("CL minus nothing", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: -0\r\n\r\n", Refused),
    ("CL hexadecimal", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 0x5\r\n\r\nhello", Refused),
    ("CL underscore", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 1_0\r\n\r\nhellohello", Refused),
    ("CL inner space", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 1 0\r\n\r\nhellohello", Refused),
    ("CL point", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5.0\r\n\r\nhello", Refused),
    ("CL exponent", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5e0\r\n\r\nhello", Refused),
    ("CL empty", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: \r\n\r\n", Refused),
    ("CL semicolon", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5;\r\n\r\nhello", Refused),
    ("CL quoted", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: \"5\"\r\n\r\nhello", Refused),
    (
        "CL beyond 64 bits",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
        Refused,
    ),
    ("CL with a NUL", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5\0\r\n\r\nhello", Refused),
    ("CL space before the colon", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length : 5\r\n\r\nhello", Refused),
    ("CL folded", "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 1\r\n 0\r\n\r\nhellohello", Refused),
    (
        "CL with underscore",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nContent_Length: 100\r\nContent-Length: 5\r\n\r\nhello",
        Sees(&["POST /~/a hello", "GET /~/next"]),
    ),
    (
        "CL zeros before",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 005\r\n\r\nhello",
        Sees(&["POST /~/a hello", "GET /~/next"]),
    ),
    (
        "CL on a GET",
        "GET /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5\r\n\r\nhello",
        Sees(&["GET /~/a hello", "GET /~/next"]),
    ),
    (
        "CL on a HEAD",
        "HEAD /~/a HTTP/1.1\r\nHost: %\r\nContent-Length: 5\r\n\r\nhello",
        Sees(&["HEAD /~/a hello", "GET /~/next"]),
    ),
    // Sizes of chunks.
    (
        "chunk beyond 64 bits",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    ("chunk with 0x", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n", Cut),
    (
        "chunk with plus",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "chunk with minus",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "chunk with underscore",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n0_2\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "chunk without a size",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "chunk of only an extension",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n;x=y\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "chunk behind a space",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n 2\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "chunk not hexadecimal",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2g\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "chunk longer than it says",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n",
        Cut,
    ),
    (
        "chunk size ends in LF",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "chunk size ends in CR",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2\rhi\r\n0\r\n\r\n",
        Cut,
    ),
    ("chunk ends in LF", "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\n0\r\n\r\n", Cut),
    (
        "chunk extension with LF",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2;x\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "chunk extension with CR",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2;x\ry\r\nhi\r\n0\r\n\r\n",
        Cut,
    ),
    (
        "last chunk of zeros",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n000\r\n\r\n",
        Sees(&["POST /~/a hi", "GET /~/next"]),
    ),
    (
        "chunk extension",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2;x=\"y\"\r\nhi\r\n0;z\r\n\r\n",
        Sees(&["POST /~/a hi", "GET /~/next"]),
    ),
    // Trailers that would frame or address the message.
    (
        "trailers",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\nTrailer: Content-Length, Transfer-Encoding, Host, X-Real-IP\r\n\r\n\
      2\r\nhi\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\nHost: other\r\nX-Real-IP: 1\r\n\r\n",
        Sees(&["POST /~/a hi", "GET /~/next"]),
    ),
    (
        "trailers without end",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX Y: Z\r\n\r\n",
        Cut,
    ),
    // Ends of lines, control bytes, space.
    // A line may end in LF alone (RFC 9112 section 2.2); at the origin it ends in CR LF.
    ("LF alone", "GET /~/a HTTP/1.1\nHost: %\n\n", Sees(&["GET /~/a", "GET /~/next"])),
    ("LF ends a field", "GET /~/a HTTP/1.1\r\nHost: %\r\nX: y\nZ: z\r\n\r\n", Sees(&["GET /~/a", "GET /~/next"])),
    ("LF ends the header", "GET /~/a HTTP/1.1\r\nHost: %\r\n\n", Sees(&["GET /~/a", "GET /~/next"])),
    ("CR in a value", "GET /~/a HTTP/1.1\r\nHost: %\r\nX: a\rb\r\n\r\n", Refused),
    ("CR CR LF", "GET /~/a HTTP/1.1\r\nHost: %\r\nX: a\r\r\n\r\n", Refused),
    ("folded", "GET /~/a HTTP/1.1\r\nHost: %\r\nX: a\r\n b\r\n\r\n", Refused),
    ("folded first field", "GET /~/a HTTP/1.1\r\n Host: %\r\n\r\n", Refused),
    ("space before the colon", "GET /~/a HTTP/1.1\r\nHost: %\r\nX : a\r\n\r\n", Refused),
    ("no colon", "GET /~/a HTTP/1.1\r\nHost: %\r\nX\r\n\r\n", Refused),
    ("no name", "GET /~/a HTTP/1.1\r\nHost: %\r\n: a\r\n\r\n", Refused),
    ("space in a name", "GET /~/a HTTP/1.1\r\nHost: %\r\nX Y: a\r\n\r\n", Refused),
    ("NUL in a name", "GET /~/a HTTP/1.1\r\nHost: %\r\nX\0: a\r\n\r\n", Refused),
    ("NUL in a value", "GET /~/a HTTP/1.1\r\nHost: %\r\nX: a\0b\r\n\r\n", Refused),
    ("bell in a value", "GET /~/a HTTP/1.1\r\nHost: %\r\nX: a\x07b\r\n\r\n", Refused),
    ("DEL in a value", "GET /~/a HTTP/1.1\r\nHost: %\r\nX: a\x7fb\r\n\r\n", Refused),
    ("a letter beyond ASCII in a name", "GET /~/a HTTP/1.1\r\nHost: %\r\nX\u{e9}: a\r\n\r\n", Refused),
    ("NUL in the target", "GET /~/a\0b HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("tab in the target", "GET /~/a\tb HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("DEL in the target", "GET /~/a\x7f HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("space in the target", "GET /~/a b HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("CR in the target", "GET /~/a\rb HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("tab for a space", "GET\t/~/a\tHTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("space before the method", " GET /~/a HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("no method", "/~/a HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("method that is no token", "GE(T /~/a HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("method with a colon", "GET: /~/a HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    // Versions.
    ("HTTP/0.9", "GET /~/a\r\n\r\n", Refused),
    ("HTTP/1.2", "GET /~/a HTTP/1.2\r\nHost: %\r\n\r\n", Refused),
    ("HTTP/1.10", "GET /~/a HTTP/1.10\r\nHost: %\r\n\r\n", Refused),
    ("HTTP/2.0 as text", "GET /~/a HTTP/2.0\r\nHost: %\r\n\r\n", Refused),
    ("http/1.1 in small letters", "GET /~/a http/1.1\r\nHost: %\r\n\r\n", Refused),
    ("something behind the version", "GET /~/a HTTP/1.1 HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("HTTP/1.0 closes", "GET /~/a HTTP/1.0\r\nHost: %\r\n\r\n", Sees(&["GET /~/a"])),
    // Whom it is for.
    ("no Host", "GET /~/a HTTP/1.1\r\n\r\n", Refused),
    ("no Host in HTTP/1.0", "GET /~/a HTTP/1.0\r\n\r\n", Refused),
    ("Host twice", "GET /~/a HTTP/1.1\r\nHost: %\r\nHost: %\r\n\r\n", Refused),
    ("Host twice, one of another", "GET /~/a HTTP/1.1\r\nHost: other.localhost\r\nHost: %\r\n\r\n", Refused),
    ("Host empty", "GET /~/a HTTP/1.1\r\nHost: \r\n\r\n", Refused),
    ("Host empty, absolute", "GET http://%/~/a HTTP/1.1\r\nHost: \r\n\r\n", Refused),
    ("Host list", "GET /~/a HTTP/1.1\r\nHost: %, other.localhost\r\n\r\n", Refused),
    ("Host with a user", "GET /~/a HTTP/1.1\r\nHost: x@%\r\n\r\n", Refused),
    ("Host with a path", "GET /~/a HTTP/1.1\r\nHost: %/x\r\n\r\n", Refused),
    ("Host with a bad port", "GET /~/a HTTP/1.1\r\nHost: %:80:80\r\n\r\n", Refused),
    ("Host disagrees", "GET http://other.localhost/~/a HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("Host disagrees the other way", "GET http://%/~/a HTTP/1.1\r\nHost: other.localhost\r\n\r\n", Refused),
    ("Host disagrees about a user", "GET http://x@%/~/a HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("absolute and equal", "GET http://%/~/a HTTP/1.1\r\nHost: %\r\n\r\n", Sees(&["GET /~/a", "GET /~/next"])),
    ("absolute without a path", "GET http://%?~ HTTP/1.1\r\nHost: %\r\n\r\n", Sees(&["GET /?~", "GET /~/next"])),
    (
        "two slashes are a path",
        "GET //other.localhost/~/a HTTP/1.1\r\nHost: %\r\n\r\n",
        Sees(&["GET //other.localhost/~/a", "GET /~/next"]),
    ),
    // Methods and forms that make something else of the connection.
    ("CONNECT", "CONNECT %:80 HTTP/1.1\r\nHost: %:80\r\nX: /~/\r\n\r\n", Refused),
    ("CONNECT to a path", "CONNECT /~/a HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("target is an authority", "GET %:80 HTTP/1.1\r\nHost: %:80\r\nX: /~/\r\n\r\n", Refused),
    ("target is a star", "OPTIONS * HTTP/1.1\r\nHost: %\r\nX: /~/\r\n\r\n", Refused),
    ("target is a star of a GET", "GET * HTTP/1.1\r\nHost: %\r\nX: /~/\r\n\r\n", Refused),
    ("target without a slash", "GET ~/a HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    ("TRACE", "TRACE /~/a HTTP/1.1\r\nHost: %\r\n\r\n", Refused),
    (
        "h2c",
        "GET /~/a HTTP/1.1\r\nHost: %\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        Sees(&["GET /~/a", "GET /~/next"]),
    ),
    (
        "Upgrade to something",
        "GET /~/a HTTP/1.1\r\nHost: %\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
        Sees(&["GET /~/a", "GET /~/next"]),
    ),
    (
        "preface behind a request",
        "GET /~/a HTTP/1.1\r\nHost: %\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        Sees(&["GET /~/a"]),
    ),
    (
        "WebSocket that the origin does not accept",
        "GET /~/a HTTP/1.1\r\nHost: %\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        Sees(&["GET /~/a", "GET /~/next"]),
    ),
    (
        "WebSocket with a body",
        "GET /~/a HTTP/1.1\r\nHost: %\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: 2\r\n\r\nhi",
        Sees(&["GET /~/a hi", "GET /~/next"]),
    ),
    // Expectations.
    (
        "Expect",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Sees(&["POST /~/a hello", "GET /~/next"]),
    ),
    (
        "Expect without a body",
        "GET /~/a HTTP/1.1\r\nHost: %\r\nExpect: 100-continue\r\n\r\n",
        Sees(&["GET /~/a", "GET /~/next"]),
    ),
    (
        "Expect twice",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nExpect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Sees(&["POST /~/a hello", "GET /~/next"]),
    ),
    (
        "Expect something else",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nExpect: 100-continuance\r\nContent-Length: 5\r\n\r\nhello",
        Refused,
    ),
    (
        "Expect disguised",
        "POST /~/a HTTP/1.1\r\nHost: %\r\nExpect: y 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        Refused,
    ),
];

/// An answer that refuses. Only where the visitor's bytes were no request there may be none.
fn refuses(answer: &str) -> bool {
    let status = answer.get(9..12).unwrap_or_default();
    answer.starts_with("HTTP/1.") && matches!(status.parse(), Ok(400..=499 | 501 | 505)) || answer.is_empty()
}

/// Sends it, and reads until the edge closes.
async fn exchange(edge: &Edge, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(edge.http()).await.unwrap();
    // The edge may close before it has all.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let mut answer: String = answer.iter().copied().map(char::from).collect();
    // A reset is an end too.
    if read.is_err() {
        answer.push_str("... and the edge keeps the connection");
    }
    answer
}

/// Compares what the origin saw with what it was to see.
#[derive(Default)]
pub(crate) struct Judge {
    problems: Vec<String>,
    expected: Vec<Expected>,
}

struct Expected {
    name: String,
    fate: Fate,
    /// Stands in every request of this attack.
    tag: String,
    requests: Vec<String>,
}

impl Judge {
    /// Something is wrong, whatever the origin saw.
    pub(crate) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// An attack was made. `tag` is part of every target in it.
    pub(crate) fn expect(&mut self, name: String, fate: Fate, tag: &str, fill: impl Fn(&str) -> String) {
        let requests = match fate {
            Refused | Cut => Vec::new(),
            Sees(requests) => requests.iter().map(|request| fill(request)).collect(),
            OneThing(request) => vec![fill(request)],
        };
        self.expected.push(Expected { name, fate, tag: format!("{tag}/"), requests });
    }

    /// Fails if anything was otherwise.
    pub(crate) fn judge(mut self, all: &[Seen]) {
        for Expected { name, fate, tag, requests } in self.expected {
            let is_its = |seen: &&Seen| seen.mentions(&tag) || requests.iter().any(|text| seen.mentions(text));
            let (mut texts, mut rest) = (Vec::new(), Vec::new());
            for seen in all.iter().filter(is_its) {
                match seen {
                    Seen::Whole { text, .. } => texts.push(text.as_str()),
                    Seen::Cut { .. } if matches!(fate, Cut | OneThing(_)) => (),
                    Seen::Cut { .. } | Seen::Ambiguous { .. } => rest.push(seen),
                }
            }
            let fits = texts == requests || texts.is_empty() && matches!(fate, OneThing(_));
            if !fits || !rest.is_empty() {
                let problem = format!("{name}: the origin gets {texts:?} and {rest:?}, not {requests:?}");
                self.problems.push(problem);
            }
        }
        let strays: Vec<_> = all.iter().filter(|seen| matches!(seen, Seen::Ambiguous { .. })).collect();
        assert!(self.problems.is_empty() && strays.is_empty(), "{}\n{strays:#?}", self.problems.join("\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_refused_or_means_one_thing() {
    let origin = Strict::start().await;
    let edge = Edge::start().await;
    let mut judge = Judge::default();
    for transport in ["http2", "quic"] {
        let mut agent = Agent::start(&edge, &origin.service(), &["--protocol", transport]).await;
        let host = agent.host();
        for (number, (name, attack, fate)) in ATTACKS.iter().enumerate() {
            let tag = format!("{transport}-1-{number}");
            let fill = |text: &str| text.replace('~', &tag).replace('%', &host);
            // Each letter is one byte.
            let bytes: Vec<u8> = fill(&format!("{attack}{NEXT}")).chars().map(|letter| letter as u8).collect();
            let answer = exchange(&edge, &bytes).await;
            let answers = answer.matches("HTTP/1.1 200").count() + answer.matches("HTTP/1.0 200").count();
            let fits = match fate {
                Refused | Cut => answers == 0 && refuses(&answer),
                Sees(requests) => answers == requests.len(),
                OneThing(_) => answers == 1 || answers == 0 && refuses(&answer),
            };
            if !fits {
                let lines =
                    answer.lines().filter(|line| line.contains("HTTP/1.") || line.contains("...")).collect::<Vec<_>>();
                judge.problem(format!("{name}: the visitor gets {lines:?}"));
            }
            judge.expect((*name).to_owned(), *fate, &tag, fill);
        }
        agent.process.terminate().await;
    }
    judge.judge(&origin.seen().await);
}
