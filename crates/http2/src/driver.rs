//! The connection's socket, and whoever moves bytes between it and the streams.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

use crate::core::{Core, Role};
use crate::{Accepted, Breach, Error, RecvStream, SendStream, Settings};

/// Bytes read at once: four full TLS records.
const READ: usize = 64 << 10;

/// So many waiting bytes are written without regard to who else has something to say: four full TLS records.
const BATCH: usize = 64 << 10;

/// A connection that has written within this time will probably have more to write: some ten thousand requests a second on
/// four connections are three in this time on each.
const BUSY: Duration = Duration::from_millis(1);

/// A connection that several tasks share.
pub(crate) type Shared = Arc<Mutex<Core>>;

/// Does something with a connection, and wakes those who have waited for it.
pub(crate) fn with<T>(shared: &Shared, act: impl FnOnce(&mut Core) -> T) -> T {
    let mut core = lock(shared);
    let result = act(&mut core);
    while let Some(waker) = core.next_woken() {
        // Whoever is woken may run at once, and want the lock.
        drop(core);
        waker.wake();
        core = lock(shared);
    }
    result
}

fn lock(shared: &Shared) -> MutexGuard<'_, Core> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens requests on a connection; cheap to clone.
#[derive(Clone)]
pub struct Handle(Shared);

impl Handle {
    /// A client: opens a stream. With `end` the request has no body.
    ///
    /// # Errors
    /// The connection takes no new streams; the other end has seen nothing of this one.
    pub fn request(&self, head: &Request<()>, end: bool) -> Result<(SendStream, RecvStream), Error> {
        let key = with(&self.0, |core| core.open(head, end))?;
        Ok((SendStream::new(Arc::clone(&self.0), key), RecvStream::new(Arc::clone(&self.0), key)))
    }

    /// Streams that the other end allows at once; `None` if it has not limited them.
    pub fn allowed_streams(&self) -> Option<u32> {
        lock(&self.0).allowed_streams()
    }

    /// Asks the other end for a sign of life.
    pub fn ping(&self) {
        with(&self.0, Core::ping);
    }

    /// Changes with every sign of life of the other end: whatever comes from it, and that it takes what had to wait.
    pub fn signs(&self) -> u64 {
        lock(&self.0).signs()
    }

    /// When the last of these signs came, or when the connection began.
    pub fn heard(&self) -> Instant {
        lock(&self.0).heard()
    }

    /// When bytes of a body came last on a stream that had not ended, or when the connection began.
    pub fn fed(&self) -> Instant {
        lock(&self.0).fed()
    }

    /// Opens no new streams, and ends the connection with its last one. A client is told, and may go on until it knows.
    pub fn close(&self) {
        with(&self.0, Core::close);
    }
}

/// Moves the bytes of a connection for as long as it is polled. Dropping it fails all streams.
pub struct Driver<IO> {
    io: IO,
    shared: Shared,
    input: BytesMut,
    output: BytesMut,
    /// What was written may still be held by the stream.
    flushing: bool,
    /// The stream took no more.
    held: bool,
    /// Nothing was read because too much waits to be written.
    behind: bool,
    /// Others have had their chance to say something since there was something to write.
    waited: bool,
    /// When something was last taken to be written.
    wrote: Option<Instant>,
    /// Everything has been said; what is left is to be written.
    leaving: Option<Result<(), Error>>,
    woken: Vec<Waker>,
}

/// The client's end of a connection over a stream that is ready for it.
pub fn client<IO: AsyncRead + AsyncWrite + Unpin>(io: IO, settings: Settings) -> (Driver<IO>, Handle) {
    Driver::new(io, Core::new(Role::Client, settings, Instant::now()))
}

/// The server's end of a connection over a stream that is ready for it.
pub fn server<IO: AsyncRead + AsyncWrite + Unpin>(io: IO, settings: Settings) -> (Driver<IO>, Handle) {
    Driver::new(io, Core::new(Role::Server, settings, Instant::now()))
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    fn new(io: IO, core: Core) -> (Self, Handle) {
        let shared = Arc::new(Mutex::new(core));
        let handle = Handle(Arc::clone(&shared));
        let (input, output) = (BytesMut::new(), BytesMut::new());
        let driver = Self {
            io,
            shared,
            input,
            output,
            flushing: false,
            held: false,
            behind: false,
            waited: false,
            wrote: None,
            leaving: None,
            woken: Vec::new(),
        };
        (driver, handle)
    }

    /// What is said until [`Driver::poll`] comes next, in the same turn of the task, needs no waking of it. It would be the
    /// task waking itself, which the runtime takes for work to share, and wakes another thread for.
    pub(crate) fn attend(&self) {
        lock(&self.shared).rise();
    }

    /// Drives the connection to its end.
    ///
    /// # Errors
    /// It did not end in order.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        lock(&self.shared).rise();
        if self.leaving.is_none()
            && let Poll::Ready(ended) = self.poll_input(context)
        {
            self.leave(ended);
        }
        let flushed = self.poll_output(context);
        if self.behind && !lock(&self.shared).is_behind() {
            // There may be something to read, which nobody has asked for.
            context.waker().wake_by_ref();
        }
        match self.leaving.take() {
            None => match flushed {
                Poll::Ready(Err(error)) => {
                    let error = lost(&error);
                    self.fail(&error);
                    Poll::Ready(Err(error))
                }
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            },
            // A leave that finds no room for itself is not waited for.
            Some(Err(error)) => Poll::Ready(Err(error)),
            Some(Ok(())) => {
                if flushed.is_ready() && Pin::new(&mut self.io).poll_shutdown(context).is_ready() {
                    return Poll::Ready(Ok(()));
                }
                self.leaving = Some(Ok(()));
                Poll::Pending
            }
        }
    }

    /// A server: the next request; `None`: the connection has ended in order.
    ///
    /// # Errors
    /// It has ended otherwise.
    pub fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Accepted, Error>>> {
        loop {
            let accepted = lock(&self.shared).accept();
            if let Some((key, head)) = accepted {
                let send = SendStream::new(Arc::clone(&self.shared), key);
                let recv = RecvStream::new(Arc::clone(&self.shared), key);
                return Poll::Ready(Some(Ok(Accepted { head, send, recv })));
            }
            match self.poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(None),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending if lock(&self.shared).has_accepted() => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Drives the connection until the other end has said what it allows.
    ///
    /// # Errors
    /// The connection ended before.
    pub fn poll_settled(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.poll(context) {
            Poll::Pending if lock(&self.shared).is_settled() => return Poll::Ready(Ok(())),
            polled => ready!(polled)?,
        }
        Poll::Ready(Err(Error::Lost("the other end closed the connection at its start".into())))
    }

    /// Reads all that is there. Ready at the end.
    fn poll_input(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Breach>> {
        loop {
            self.behind = lock(&self.shared).is_behind();
            if self.behind {
                return Poll::Pending;
            }
            if self.input.capacity() - self.input.len() < READ / 4 {
                self.input.reserve(READ);
            }
            let read = match poll_read_buf(Pin::new(&mut self.io), context, &mut self.input) {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    if self.input.len() < READ / 4 {
                        // An idle connection needs no buffer, and one that has stopped in the middle of a frame hardly any.
                        self.input = BytesMut::from(&*self.input);
                    }
                    return Poll::Pending;
                }
            };
            match read {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {
                    let mut core = lock(&self.shared);
                    core.hear(Instant::now());
                    let fed = core.feed(&mut self.input);
                    core.woken(&mut self.woken);
                    drop(core);
                    self.woken.drain(..).for_each(Waker::wake);
                    if let Err(breach) = fed {
                        return Poll::Ready(Err(breach));
                    }
                }
                Err(error) => {
                    self.fail(&lost(&error));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Writes all that there is to say. Pending: the socket is full, or nothing is left and the connection goes on.
    fn poll_output(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.output.is_empty() {
                let written = Pin::new(&mut self.io).poll_write(context, &self.output);
                let written = ready!(self.sent(written))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.output.advance(written);
                if self.output.is_empty() {
                    lock(&self.shared).written(0);
                    (self.output, self.flushing) = (BytesMut::new(), true);
                }
            }
            if self.flushing {
                let flushed = Pin::new(&mut self.io).poll_flush(context);
                ready!(self.sent(flushed))?;
                self.flushing = false;
            }
            if !self.poll_more(context) {
                return if self.leaving.is_some() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
    }

    /// Room that was not there before has been made by the other end, which acknowledged what came earlier.
    fn sent<T>(&mut self, poll: Poll<T>) -> Poll<T> {
        if std::mem::replace(&mut self.held, poll.is_pending()) && poll.is_ready() {
            lock(&self.shared).hear(Instant::now());
        }
        poll
    }

    /// Takes what is to be written next; `false`: nothing is, or others go first.
    ///
    /// On a busy connection whoever else is ready on this thread goes first, once: they have more to say, which then leaves
    /// in one write. On others that would only move the driver to another thread, which has to be woken for it.
    fn poll_more(&mut self, context: &mut Context<'_>) -> bool {
        let mut core = lock(&self.shared);
        if core.is_done() && self.leaving.is_none() {
            core.finish();
            self.leaving = Some(Ok(()));
        }
        if !core.has_output() {
            self.waited = false;
            core.rest(context);
            return false;
        }
        if !self.waited && self.leaving.is_none() && core.waiting_output() < BATCH && self.is_busy() {
            self.waited = true;
            context.waker().wake_by_ref();
            return false;
        }
        self.waited = false;
        self.wrote = Some(Instant::now());
        self.output = core.take_out();
        core.woken(&mut self.woken);
        drop(core);
        self.woken.drain(..).for_each(Waker::wake);
        if self.output.is_empty() {
            // Those that were woken have the next word.
            context.waker().wake_by_ref();
            return false;
        }
        true
    }

    /// Whether something was written a moment ago.
    fn is_busy(&self) -> bool {
        self.wrote.is_some_and(|wrote| wrote.elapsed() < BUSY)
    }

    /// The other end has nothing more to say, or nothing that can be understood.
    fn leave(&mut self, ended: Result<(), Breach>) {
        let mut core = lock(&self.shared);
        let result = match ended {
            Ok(()) => match (core.death(), core.complaint()) {
                (Some(error), _) => Err(error),
                (None, Some(reason)) => Err(Error::Lost(format!("the other end went away: {reason}").into())),
                (None, None) if !self.input.is_empty() => Err(Error::Lost("it ended in the middle of a frame".into())),
                (None, None) => Ok(()),
            },
            Err(breach) => {
                core.say_goodbye(breach.reason(), &breach.to_string());
                Err(Error::Breach(breach))
            }
        };
        drop(core);
        let error = result.clone().err().unwrap_or_else(|| Error::Lost("the other end closed the connection".into()));
        self.fail(&error);
        self.leaving = Some(result);
    }

    fn fail(&mut self, error: &Error) {
        with(&self.shared, |core| core.die(error));
    }
}

impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        with(&self.shared, |core| core.die(&Error::Lost("the connection was closed".into())));
    }
}

fn lost(error: &io::Error) -> Error {
    Error::Lost(error.to_string().into())
}
