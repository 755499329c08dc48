//! Accepts connections, a bounded number of them, and closes those that fall silent.

use std::fmt;
use std::future::{Future, IntoFuture as _};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use axum::{Router, middleware};
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
    let router = router.layer(middleware::from_fn_with_state(
        unread.clone(),
        read_what_is_left,
    ));
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
        let timed = Timed {
            io,
            silence: Box::pin(tokio::time::sleep(SILENCE_MAX)),
            _permit: permit,
        };
        (timed, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that fails once nothing was read or written for [`SILENCE_MAX`].
struct Timed<I> {
    io: I,
    silence: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

impl<I> Timed<I> {
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        moved: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            self.silence.as_mut().reset(Instant::now() + SILENCE_MAX);
            return moved;
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
        self.watch(context, moved)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Timed<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch(context, moved)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.io).poll_write_vectored(context, buffers);
        self.watch(context, moved)
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
