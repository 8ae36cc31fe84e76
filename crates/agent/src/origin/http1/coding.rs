//! How bodies are framed on a connection.

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::head::MAX_FIELDS;

/// Bytes of the extensions of all chunks of a body; nobody uses any.
const MAX_EXTENSIONS: usize = 16 << 10;
/// Bytes of the trailers of a body.
const MAX_TRAILERS: usize = 16 << 10;

/// How a request's body goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// It does not.
    Nothing,
    /// So many bytes are still to go.
    Length(u64),
    Chunks,
}

/// What is still to come of an answer's body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::origin) enum Rest {
    /// So many bytes.
    Length(u64),
    Chunks(Chunks),
    /// Whatever comes before the connection ends.
    UntilEnd,
}

/// Where the reading of chunks is.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::origin) struct Chunks {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// In the digits of a size; `None`: before the first.
    Size(Option<u64>),
    /// Between the digits and the end of their line.
    Extension {
        size: u64,
    },
    SizeFeed {
        size: u64,
    },
    /// So many bytes, more than none.
    Data(u64),
    DataReturn,
    DataFeed,
    Trailers(Vec<u8>),
    Over,
}

/// A part of a body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::origin) enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
    /// The next part has not come yet.
    Missing,
    /// There are no further parts.
    End,
}

/// A body that cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::origin) enum BadBody {
    #[error("a chunk's size is no number")]
    Size,
    #[error("a chunk is not as long as it says")]
    Chunk,
    #[error("the chunks' extensions are longer than {MAX_EXTENSIONS} bytes")]
    Extensions,
    #[error("the trailers are no header fields, or longer than {MAX_TRAILERS} bytes")]
    Trailers,
    #[error("the connection ended before the body")]
    Short,
}

impl Rest {
    pub(super) fn chunks() -> Self {
        Self::Chunks(Chunks { state: State::Size(None), extensions: 0 })
    }

    /// The next part, out of what has come.
    pub(in crate::origin) fn take(&mut self, input: &mut Bytes) -> Result<Part, BadBody> {
        Ok(match self {
            Self::Length(0) => Part::End,
            Self::Length(_) | Self::UntilEnd if input.is_empty() => Part::Missing,
            Self::Length(left) => Part::Data(split(input, left)),
            Self::UntilEnd => Part::Data(std::mem::take(input)),
            Self::Chunks(chunks) => chunks.take(input)?,
        })
    }

    /// Nothing more can come, not even an end.
    pub(in crate::origin) fn is_over(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunks(Chunks { state: State::Over, .. }))
    }

    /// The connection has ended.
    pub(in crate::origin) fn end(&self) -> Result<(), BadBody> {
        if matches!(self, Self::UntilEnd) || self.is_over() { Ok(()) } else { Err(BadBody::Short) }
    }
}

impl Chunks {
    fn take(&mut self, input: &mut Bytes) -> Result<Part, BadBody> {
        self.skip(input)?;
        match &mut self.state {
            State::Over => Ok(Part::End),
            State::Data(left) if !input.is_empty() => {
                let data = split(input, left);
                if *left == 0 {
                    self.state = State::DataReturn;
                    // Whoever reads is to know with the last data that it is the last.
                    self.skip(input)?;
                }
                Ok(Part::Data(data))
            }
            State::Trailers(lines) => match trailers(lines, input)? {
                None => Ok(Part::Missing),
                Some(trailers) => {
                    self.state = State::Over;
                    Ok(if trailers.is_empty() { Part::End } else { Part::Trailers(trailers) })
                }
            },
            _ => Ok(Part::Missing),
        }
    }

    /// Reads on to the next data, trailers or end.
    fn skip(&mut self, input: &mut Bytes) -> Result<(), BadBody> {
        loop {
            // An end without trailers is seen at once; more bytes than that are trailers.
            if matches!(&self.state, State::Trailers(lines) if lines.is_empty()) && input.starts_with(b"\r\n") {
                input.advance(2);
                self.state = State::Over;
            }
            if matches!(self.state, State::Data(_) | State::Trailers(_) | State::Over) {
                return Ok(());
            }
            let Some(byte) = input.first().copied() else { return Ok(()) };
            input.advance(1);
            self.state = match (&self.state, byte) {
                (State::Size(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                    let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                    let size = size.unwrap_or(0).checked_mul(16).and_then(|size| size.checked_add(digit));
                    State::Size(Some(size.ok_or(BadBody::Size)?))
                }
                (State::Size(Some(size)) | State::Extension { size }, b'\r') => State::SizeFeed { size: *size },
                (State::Size(Some(size)), b';' | b' ' | b'\t') => State::Extension { size: *size },
                (State::Extension { .. }, b'\n') => return Err(BadBody::Extensions),
                (State::Extension { size }, _) => {
                    self.extensions += 1;
                    if self.extensions > MAX_EXTENSIONS {
                        return Err(BadBody::Extensions);
                    }
                    State::Extension { size: *size }
                }
                (State::SizeFeed { size: 0 }, b'\n') => State::Trailers(Vec::new()),
                (State::SizeFeed { size }, b'\n') => State::Data(*size),
                (State::DataReturn, b'\r') => State::DataFeed,
                (State::DataFeed, b'\n') => State::Size(None),
                (State::DataReturn | State::DataFeed, _) => return Err(BadBody::Chunk),
                _ => return Err(BadBody::Size),
            };
        }
    }
}

/// As much as there is of what is `left`.
fn split(input: &mut Bytes, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    input.split_to(length)
}

/// Collects trailers up to the empty line behind them.
fn trailers(lines: &mut Vec<u8>, input: &mut Bytes) -> Result<Option<HeaderMap>, BadBody> {
    while !(lines == b"\r\n" || lines.ends_with(b"\r\n\r\n")) {
        if lines.len() == MAX_TRAILERS {
            return Err(BadBody::Trailers);
        }
        let Some(byte) = input.first().copied() else { return Ok(None) };
        input.advance(1);
        lines.push(byte);
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let Ok(httparse::Status::Complete((length, fields))) = httparse::parse_headers(lines, &mut fields) else {
        return Err(BadBody::Trailers);
    };
    // What a line feed alone has ended is not read to its end.
    if length != lines.len() {
        return Err(BadBody::Trailers);
    }
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BadBody::Trailers)?;
        trailers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| BadBody::Trailers)?);
    }
    Ok(Some(trailers))
}
