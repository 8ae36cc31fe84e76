use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

/// Bytes that cost a task one unit of the 128 that the runtime gives it for a turn, so that a turn is of 128 KiB. Those take some 50
/// to 100 µs with all that is done to them, and that is what everybody else on the thread waits for.
const UNIT: usize = 1 << 10;

/// A connection whose task lets others go first after so many bytes.
///
/// The runtime itself counts how often a task reads or writes, and not how much. Where as much comes as goes, from a fast origin to a
/// fast visitor, a turn may then be of megabytes; dozens of such tasks keep everybody else waiting, and whatever news there is of
/// sockets, for tens of milliseconds.
pub(crate) struct Turns<IO> {
    io: IO,
    /// Bytes that were moved and have not been paid for.
    owed: usize,
}

impl<IO> Turns<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io, owed: 0 }
    }

    pub(crate) fn get_ref(&self) -> &IO {
        &self.io
    }

    /// Pays for bytes. Who has nothing left is kept waiting by whatever it wants next, until it is its turn again.
    fn pay(&mut self, context: &mut Context<'_>, bytes: usize) {
        self.owed += bytes;
        while self.owed >= UNIT && coop::has_budget_remaining() {
            self.owed -= UNIT;
            if let Poll::Ready(turn) = coop::poll_proceed(context) {
                turn.made_progress();
            }
        }
        // Whoever moves more at once than there is in a turn has not to pay for it in the next.
        self.owed %= UNIT;
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Turns<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(context, buffer))?;
        self.pay(context, buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Turns<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(context, bytes))?;
        self.pay(context, written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(context, pieces))?;
        self.pay(context, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// Lets `busy` work beside a task that counts its own turns until the other is through.
    async fn turns_of_another(busy: impl Future<Output = ()>) -> usize {
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        busy.await;
        other.abort();
        turns.load(Ordering::Relaxed)
    }

    const PIECE: usize = 16 << 10;
    const PIECES: usize = 800;
    /// What the runtime gives a task.
    const TURN: usize = 128 * UNIT;

    /// Moves bytes between two ends in one task, so that neither has ever to wait for the other.
    async fn moved_by_one_task(mut near: impl AsyncRead + AsyncWrite + Unpin, mut far: DuplexStream) {
        for _ in 0..PIECES / 2 {
            near.write_all(&[1; PIECE]).await.unwrap();
            // Whoever is not counted must not count.
            coop::unconstrained(far.read_exact(&mut [0; PIECE])).await.unwrap();
            coop::unconstrained(far.write_all(&[2; PIECE])).await.unwrap();
            near.read_exact(&mut [0; PIECE]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn who_never_has_to_wait_lets_others_go_first() {
        let (near, far) = tokio::io::duplex(PIECE);
        let without = turns_of_another(moved_by_one_task(near, far)).await;
        let (near, far) = tokio::io::duplex(PIECE);
        let with = turns_of_another(moved_by_one_task(Turns::new(near), far)).await;
        let expected = PIECES * PIECE / TURN;
        assert!(without < expected / 2, "{without}: the runtime alone counts calls");
        assert!(with >= expected - 1, "{with} turns of others, and not {expected}");
    }

    #[tokio::test]
    async fn nothing_is_lost_between_two_turns() {
        const LENGTH: usize = 5 * TURN + 1;
        let (near, mut far) = tokio::io::duplex(2 * LENGTH);
        let mut near = Turns::new(near);
        let said: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
        near.write_all(&said).await.unwrap();
        let mut heard = vec![0; LENGTH];
        far.read_exact(&mut heard).await.unwrap();
        assert!(heard == said);
        far.write_all(&said).await.unwrap();
        heard.fill(0);
        near.read_exact(&mut heard).await.unwrap();
        assert!(heard == said);
    }
}
