//! Accepts connections, a bounded number of them, and closes those that fall silent, or never come to a request's end.
//!
//! ```text
//!   nothing asked:  reads do not count as life, so the head of a request comes within SILENCE_MAX, however it drips
//!   being answered: what is read and what is written counts; the routes bound what they wait for
//! ```

use std::fmt;
use std::future::{Future, IntoFuture as _};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Extension, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use sluice_transport::{ApiStream, TlsListener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::unread::{Unread, read_what_is_left};

/// Open connections; more wait in the kernel. Operators are few, and each connection costs some 40 KiB.
pub const CONNECTIONS_MAX: usize = 256;

/// A connection on which nothing moved for this long is closed: twice the longest operation.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long running requests may take to end when the program stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves `router` until `stop`, then lets running requests end for at most 5 s.
pub async fn serve<L>(listener: L, router: Router, stop: CancellationToken) -> io::Result<()>
where
    L: Listener<Addr: fmt::Debug>,
{
    let bounded = Bounded {
        listener,
        connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    let unread = Unread::new(stop.clone());
    let router = router
        .layer(middleware::from_fn(count_requests))
        .layer(middleware::from_fn_with_state(
            unread.clone(),
            read_what_is_left,
        ))
        .into_make_service_with_connect_info::<Asked>();
    let serving = axum::serve(bounded, router)
        .with_graceful_shutdown(stop.clone().cancelled_owned())
        .into_future();
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => return result,
        () = stop.cancelled() => {}
    }
    // What does not end in time is cut when the future goes.
    let served = tokio::time::timeout(DRAIN_TIMEOUT, serving).await;
    unread.ended().await;
    served.unwrap_or(Ok(()))
}

/// The cluster's HTTPS port as something that [`serve`] takes.
#[derive(Debug)]
pub struct ApiListener(pub TlsListener);

impl Listener for ApiListener {
    type Io = ApiStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (ApiStream, SocketAddr) {
        self.0.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_addr())
    }
}

struct Bounded<L> {
    listener: L,
    connections: Arc<Semaphore>,
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Timed<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let permit = Arc::clone(&self.connections)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (io, address) = self.listener.accept().await;
        (Timed::new(io, permit), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// How many requests of a connection are being answered.
#[derive(Clone, Default)]
struct Asked(Arc<AtomicUsize>);

impl<L: Listener> Connected<IncomingStream<'_, Bounded<L>>> for Asked {
    fn connect_info(stream: IncomingStream<'_, Bounded<L>>) -> Self {
        stream.io().asked.clone()
    }
}

/// One of them, while it lasts.
struct Answering(Asked);

impl Answering {
    fn begin(asked: Asked) -> Self {
        asked.0.fetch_add(1, Ordering::Relaxed);
        Self(asked)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn count_requests(
    Extension(ConnectInfo(asked)): Extension<ConnectInfo<Asked>>,
    request: Request,
    next: Next,
) -> Response {
    let _answering = Answering::begin(asked);
    next.run(request).await
}

/// A connection that fails once nothing was written, or read for a request that is being answered, for [`SILENCE_MAX`].
/// Whoever has no token gets no further than to a refusal, so they hold a connection for so long at most.
struct Timed<I> {
    io: I,
    asked: Asked,
    silence: Pin<Box<Sleep>>,
    was_asked: bool,
    _permit: OwnedSemaphorePermit,
}

impl<I> Timed<I> {
    fn new(io: I, permit: OwnedSemaphorePermit) -> Self {
        Self {
            io,
            asked: Asked::default(),
            silence: Box::pin(tokio::time::sleep(SILENCE_MAX)),
            was_asked: false,
            _permit: permit,
        }
    }

    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
        lives: bool,
    ) -> Poll<io::Result<T>> {
        // An answer has all its time, however long the connection was idle before it.
        let is_asked = self.asked.0.load(Ordering::Relaxed) > 0;
        if is_asked && !self.was_asked {
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
        }
        self.was_asked = is_asked;
        if moved.is_ready() {
            if lives {
                self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
                return moved;
            }
            if !self.silence.is_elapsed() {
                return moved;
            }
        }
        match self.silence.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Timed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.io).poll_read(context, buffer);
        let lives = self.asked.0.load(Ordering::Relaxed) > 0;
        self.watch(context, moved, lives)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Timed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch(context, moved, true)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.io).poll_write_vectored(context, buffers);
        self.watch(context, moved, true)
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
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_that_drip_keep_a_connection_only_while_something_is_answered() {
        // How long a connection lives whose other end sends a byte every 20 s.
        async fn life(asked: usize) -> Duration {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let permit = Arc::new(Semaphore::new(1)).try_acquire_owned();
            let mut timed = Timed::new(ours, permit.unwrap());
            timed.asked.0.store(asked, Ordering::Relaxed);
            let begun = Instant::now();
            let dripping = async {
                let mut clock = tokio::time::interval(Duration::from_secs(20));
                while begun.elapsed() < Duration::from_secs(600) {
                    clock.tick().await;
                    theirs.write_all(b"x").await.unwrap();
                }
                std::future::pending::<()>().await;
            };
            let reading = async {
                let mut byte = [0];
                while timed.read_exact(&mut byte).await.is_ok() {}
                begun.elapsed()
            };
            tokio::select! {
                () = dripping => unreachable!("it goes on"),
                life = reading => life,
            }
        }
        assert_eq!(life(0).await, SILENCE_MAX);
        assert!(life(1).await >= Duration::from_secs(600));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_all_its_time_on_a_connection_that_was_idle_before() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned();
        let mut timed = Timed::new(ours, permit.unwrap());
        let asked = timed.asked.clone();
        let begun = Instant::now();
        let idle = SILENCE_MAX - Duration::from_secs(1);
        let read = async |timed: &mut Timed<_>, time| {
            tokio::time::timeout(time, timed.read_exact(&mut [0])).await
        };
        assert!(read(&mut timed, idle).await.is_err(), "nothing yet");
        let _answering = Answering::begin(asked);
        assert!(read(&mut timed, idle).await.is_err(), "it is not cut off");
        assert!(read(&mut timed, SILENCE_MAX).await.unwrap().is_err());
        assert_eq!(begun.elapsed(), idle + SILENCE_MAX);
    }
}
