//! Bodies of answers: each reads its connection, and returns it at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http_body::{Frame, SizeHint};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use wire::{Body, BodyError};

use super::Pool;
use crate::origin::http1::{Line, Part, Reader, Rest, Sending, Unsent, Writer};
use crate::origin::{AnswerBody, broken};

/// How long an origin may take for the rest of a request once its answer is complete: as long as the edge may take to send it.
const AFTER_ANSWER: Duration = Duration::from_secs(5 * 60);

/// Where a connection goes that takes another request.
pub(super) struct Home {
    pub(super) pool: Arc<Pool>,
    pub(super) host: Authority,
}

impl Home {
    fn receive(self, line: Line) {
        self.pool.put(self.host, line);
    }
}

/// Begins the body of an answer, and leaves what is still to be `sent` of the request to a task: an origin may answer and
/// still want the rest, and a visitor may read nothing of the answer before it has sent that.
pub(super) fn begin(mut rest: Rest, mut line: Line, home: Option<Home>, sent: Option<Sending>) -> AnswerBody {
    let mut input = line.take();
    let Some(sending) = sent else {
        if let Rest::Length(length) = rest
            && let Ok(length) = usize::try_from(length)
            && length <= input.len()
        {
            // Most answers are here with their head.
            let whole = input.split_to(length);
            if let Some(home) = home.filter(|_| input.is_empty()) {
                home.receive(line);
            }
            return AnswerBody::Own(Body::full(whole));
        }
        return AnswerBody::Http1(Box::new(Answer { rest, input, source: Source::Line(line), home }));
    };
    let (line, writer) = line.split();
    let upload = AbortOnDropHandle::new(tokio::spawn(sending.finish(writer)));
    let over = rest.is_over();
    if over {
        rest = Rest::Length(0);
    }
    let mut answer = Answer { rest, input, source: Source::Half(line, Some(upload)), home };
    if over {
        // Nobody polls a body that is empty.
        answer.release();
    }
    AnswerBody::Http1(Box::new(answer))
}

/// The body of an answer.
pub(crate) struct Answer {
    rest: Rest,
    /// What has been read and not been taken.
    input: Bytes,
    source: Source,
    home: Option<Home>,
}

type Upload = AbortOnDropHandle<Result<Writer, Unsent>>;

/// Where the rest comes from.
enum Source {
    Nowhere,
    Line(Line),
    /// The request is still being sent on the other half, or (`None`) was not taken to its end.
    Half(Line<Reader>, Option<Upload>),
}

impl Answer {
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Part, BodyError>> {
        loop {
            let part = self.rest.take(&mut self.input).map_err(broken)?;
            if part != Part::Missing {
                return Poll::Ready(Ok(part));
            }
            let read = match &mut self.source {
                Source::Nowhere => Ok(false),
                Source::Line(line) => ready!(line.poll_fill(context)),
                Source::Half(line, upload) => {
                    if let Some(sent) = upload
                        && let Poll::Ready(sent) = Pin::new(sent).poll(context)
                    {
                        self.sent(sent.unwrap_or_else(|panic| Err(Unsent::Body(BodyError(panic.to_string())))))?;
                        continue;
                    }
                    ready!(line.poll_fill(context))
                }
            };
            if !read.map_err(broken)? {
                self.rest.end().map_err(broken)?;
                return Poll::Ready(Ok(Part::End));
            }
            self.input = match &mut self.source {
                Source::Nowhere => Bytes::new(),
                Source::Line(line) => line.take(),
                Source::Half(line, _) => line.take(),
            };
        }
    }

    /// The request has been sent to its end, or will not be.
    fn sent(&mut self, sent: Result<Writer, Unsent>) -> Result<(), BodyError> {
        match (std::mem::replace(&mut self.source, Source::Nowhere), sent) {
            (Source::Half(line, _), Ok(writer)) => self.source = Source::Line(line.join(writer)),
            // What the origin has to say to it can be read nevertheless.
            (Source::Half(line, _), Err(Unsent::Connection(_))) => {
                self.source = Source::Half(line, None);
                self.home = None;
            }
            (_, Err(Unsent::Body(error))) => return Err(broken(format!("the request's body ended early: {error}"))),
            (source, _) => self.source = source,
        }
        Ok(())
    }

    /// Gives the connection up, since the body has ended.
    fn release(&mut self) {
        self.rest = Rest::Length(0);
        let home = self.home.take().filter(|_| self.input.is_empty());
        match std::mem::replace(&mut self.source, Source::Nowhere) {
            Source::Line(line) => {
                if let Some(home) = home {
                    home.receive(line);
                }
            }
            Source::Half(line, Some(upload)) => {
                tokio::spawn(async move {
                    if let (Ok(Ok(Ok(writer))), Some(home)) = (timeout(AFTER_ANSWER, upload).await, home) {
                        home.receive(line.join(writer));
                    }
                });
            }
            Source::Half(_, None) | Source::Nowhere => {}
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let part = ready!(self.poll_part(context));
        if part.is_err() {
            self.source = Source::Nowhere;
            self.rest = Rest::Length(0);
        } else if self.rest.is_over() || matches!(part, Ok(Part::End)) {
            self.release();
        }
        Poll::Ready(match part {
            Ok(Part::Data(bytes)) => Some(Ok(Frame::data(bytes))),
            Ok(Part::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(Part::End | Part::Missing) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_over()
    }

    fn size_hint(&self) -> SizeHint {
        match self.rest {
            Rest::Length(length) => SizeHint::with_exact(length),
            Rest::Chunks(_) | Rest::UntilEnd => SizeHint::default(),
        }
    }
}
