//! The port that a program's numbers are read from: plain HTTP, `GET /metrics`, nothing else.
//!
//! ```text
//!   accept (8 at once, 10 s each) --request, 8 KiB--> owner: fresh? else look --> answer, close
//! ```
//!
//! It must not be able to hurt: connections, bytes and time are bounded, one request a connection, and whatever number
//! of scrapers asks, the program is looked at once a second at most, and for a tenth of the time at most. It takes no credentials, so whoever opens the port
//! decides who reaches it. One task owns the text; connections ask it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait in the kernel. Scrapers are one or two.
pub const CONNECTIONS_MAX: usize = 8;

/// Longest request: a scraper's headers have some hundred bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// How long one connection may last, from its start to the last byte: Prometheus gives up after 10 s, too.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a look at the program may take.
const LOOK_TIME_MAX: Duration = Duration::from_secs(5);

/// A text is good for so long at least: more scrapers cost nothing.
const FRESH_FOR_MIN: Duration = Duration::from_secs(1);

/// And for so many times as long as the look took: a program with very much to tell does its own work first.
const FRESH_FOR_LOOKS: u32 = 10;

/// The pause before a port that could not be opened is tried again.
const OPEN_RETRY_AFTER: Duration = Duration::from_secs(30);

/// How long to wait after the system refused a connection: it has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the metrics port {address}; choose another with --metrics ADDR:PORT")]
pub struct PortError {
    address: SocketAddr,
    source: io::Error,
}

/// An open port that nobody serves yet.
#[derive(Debug)]
pub struct MetricsPort {
    listener: TcpListener,
    address: SocketAddr,
    connection_time_max: Duration,
}

impl MetricsPort {
    /// Opens it. Port 0 takes a free one.
    pub async fn open(address: SocketAddr) -> Result<Self, PortError> {
        let failed = |source| PortError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        tracing::info!(event = "metrics.ready", %address);
        Ok(Self {
            listener,
            address,
            connection_time_max: CONNECTION_TIME_MAX,
        })
    }

    /// Opens it, however long that takes: a program's work matters more than its numbers, and the address may come up
    /// later than the program.
    pub async fn open_when_possible(address: SocketAddr) -> Self {
        loop {
            match Self::open(address).await {
                Ok(port) => return port,
                Err(error) => {
                    let source = &error.source;
                    tracing::warn!(event = "metrics.no_port", %error, %source);
                }
            }
            tokio::time::sleep(OPEN_RETRY_AFTER).await;
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`. `look` makes the text; `None` when the program cannot be asked.
    pub async fn serve<L, F>(self, look: L, stop: CancellationToken)
    where
        L: Fn() -> F + Send + 'static,
        F: Future<Output = Option<String>> + Send + 'static,
    {
        let (asks, asked) = mpsc::channel(CONNECTIONS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(own(look, asked));
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Some(accepted) = stop.run_until_cancelled(self.accept(&places)).await {
            // What has ended is forgotten; the owner ends only with this loop.
            while tasks.try_join_next().is_some() {}
            match accepted {
                Ok((stream, place)) => {
                    let (asks, limit) = (asks.clone(), self.connection_time_max);
                    tasks.spawn(async move {
                        // Who is slow is cut, and who is gone hears nothing.
                        let _ = tokio::time::timeout(limit, answer(stream, asks)).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(event = "metrics.refused", %error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn accept(
        &self,
        places: &Arc<Semaphore>,
    ) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let place = Arc::clone(places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (stream, _) = self.listener.accept().await?;
        Ok((stream, place))
    }
}

type Text = Option<Arc<str>>;

/// Holds the text, and looks anew when it is asked for an old one.
async fn own<L, F>(look: L, mut asked: mpsc::Receiver<oneshot::Sender<Text>>)
where
    L: Fn() -> F,
    F: Future<Output = Option<String>>,
{
    let mut kept: Option<(Instant, Arc<str>)> = None;
    while let Some(reply) = asked.recv().await {
        let fresh = kept.as_ref().filter(|(until, _)| Instant::now() < *until);
        let text = match fresh {
            Some((_, text)) => Some(Arc::clone(text)),
            None => {
                let begun = Instant::now();
                let seen = tokio::time::timeout(LOOK_TIME_MAX, look()).await;
                let text: Text = seen.ok().flatten().map(Into::into);
                let fresh_for = FRESH_FOR_MIN.max(begun.elapsed() * FRESH_FOR_LOOKS);
                kept = text.clone().map(|text| (Instant::now() + fresh_for, text));
                text
            }
        };
        // The connection may be gone.
        let _ = reply.send(text);
    }
}

async fn answer(
    mut stream: TcpStream,
    asks: mpsc::Sender<oneshot::Sender<Text>>,
) -> io::Result<()> {
    let wanted = read_request(&mut stream).await?;
    let (status, body, with_body): (&str, Arc<str>, bool) = match wanted {
        Wanted::Metrics { with_body } => {
            let (reply, text) = oneshot::channel();
            let text = match asks.send(reply).await {
                Ok(()) => text.await.ok().flatten(),
                Err(_) => None,
            };
            match text {
                Some(text) => ("200 OK", text, with_body),
                None => (
                    "503 Service Unavailable",
                    "the program is busy or stopping\n".into(),
                    with_body,
                ),
            }
        }
        Wanted::OtherPath => ("404 Not Found", "only /metrics is here\n".into(), true),
        Wanted::OtherMethod => ("405 Method Not Allowed", "only GET is taken\n".into(), true),
        Wanted::Nonsense => ("400 Bad Request", "this is no HTTP request\n".into(), true),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if with_body {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Metrics { with_body: bool },
    OtherPath,
    OtherMethod,
    Nonsense,
}

/// Reads until the empty line that ends the head; a body is not looked at.
async fn read_request(stream: &mut TcpStream) -> io::Result<Wanted> {
    let mut head = Vec::with_capacity(1024);
    let mut limited = stream.take(REQUEST_BYTES_MAX as u64);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if limited.read_buf(&mut head).await? == 0 {
            return Ok(Wanted::Nonsense);
        }
    }
    Ok(wanted(&head))
}

fn wanted(head: &[u8]) -> Wanted {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Wanted::Nonsense;
    };
    if !version.starts_with("HTTP/1.") {
        return Wanted::Nonsense;
    }
    let path = target.split('?').next().unwrap_or_default();
    match (method, path) {
        ("GET", "/metrics") => Wanted::Metrics { with_body: true },
        ("HEAD", "/metrics") => Wanted::Metrics { with_body: false },
        (_, "/metrics") => Wanted::OtherMethod,
        _ => Wanted::OtherPath,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Served {
        address: SocketAddr,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    async fn serve(text: Option<&'static str>) -> Served {
        serve_for(text, CONNECTION_TIME_MAX).await
    }

    async fn serve_for(text: Option<&'static str>, connection_time_max: Duration) -> Served {
        let mut port = MetricsPort::open(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .unwrap();
        port.connection_time_max = connection_time_max;
        let (address, stop) = (port.address(), CancellationToken::new());
        let look = move || std::future::ready(text.map(str::to_owned));
        let task = tokio::spawn(port.serve(look, stop.clone()));
        Served {
            address,
            stop,
            task,
        }
    }

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        // What was said before a reset counts.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn the_text_is_given_and_nothing_else_is_there() {
        let served = serve(Some("a 1\n")).await;
        let get = ask(
            served.address,
            b"GET /metrics?x=1 HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
        assert!(
            get.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"),
            "{get}"
        );
        assert!(
            get.ends_with("Content-Length: 4\r\nConnection: close\r\n\r\na 1\n"),
            "{get}"
        );
        let head = ask(served.address, b"HEAD /metrics HTTP/1.1\r\n\r\n").await;
        assert!(
            head.ends_with("Content-Length: 4\r\nConnection: close\r\n\r\n"),
            "{head}"
        );
        for (request, status) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"\x16\x03\x01\r\n\r\n", "400"),
            (b"GET /metrics HTTP/2 x\r\n\r\n", "400"),
        ] {
            let answer = ask(served.address, request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
        }
        served.stop.cancel();
        served.task.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_takes_long_to_look_at_is_looked_at_less_often() {
        for (takes_ms, fresh_ms) in [(0, 1000), (90, 1000), (500, 5000)] {
            let (asks, asked) = mpsc::channel(1);
            let looks = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&looks);
            let look = move || {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                async move {
                    tokio::time::advance(Duration::from_millis(takes_ms)).await;
                    Some(number.to_string())
                }
            };
            tokio::spawn(own(look, asked));
            let text = async || {
                let (reply, text) = oneshot::channel();
                asks.send(reply).await.unwrap();
                text.await.unwrap().unwrap().to_string()
            };
            assert_eq!(text().await, "0");
            tokio::time::advance(Duration::from_millis(fresh_ms - 1)).await;
            assert_eq!(text().await, "0", "{takes_ms} ms");
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(text().await, "1", "{takes_ms} ms");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_is_taken_is_opened_when_it_is_free() {
        let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = holder.local_addr().unwrap();
        let opening = MetricsPort::open_when_possible(address);
        tokio::pin!(opening);
        let waits = tokio::time::timeout(OPEN_RETRY_AFTER * 3, &mut opening).await;
        assert!(waits.is_err(), "it is taken");
        drop(holder);
        assert_eq!(opening.await.address(), address);
    }

    #[tokio::test]
    async fn a_program_that_cannot_be_asked_is_no_reason_to_hang() {
        let served = serve(None).await;
        let get = ask(served.address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(get.starts_with("HTTP/1.1 503 "), "{get}");
    }

    #[tokio::test]
    async fn a_request_without_an_end_gets_no_more_than_its_bytes() {
        let served = serve(Some("a 1\n")).await;
        let answer = ask(served.address, &vec![b'x'; REQUEST_BYTES_MAX]).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }

    #[tokio::test]
    async fn silent_scrapers_hold_no_place_for_ever() {
        let served = serve_for(Some("a 1\n"), Duration::from_millis(300)).await;
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(served.address).await.unwrap());
        }
        // All places are taken: this one waits until the silent ones are cut.
        let answer = ask(served.address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        drop(silent);
    }

    #[tokio::test(start_paused = true)]
    async fn many_scrapers_cost_one_look() {
        let (asks, asked) = mpsc::channel(CONNECTIONS_MAX);
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let look = move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                // Longer than nothing, so that others ask meanwhile.
                tokio::time::advance(Duration::from_millis(10)).await;
                Some(number.to_string())
            }
        };
        tokio::spawn(own(look, asked));
        let mut scrapers = JoinSet::new();
        for _ in 0..50 {
            let asks = asks.clone();
            scrapers.spawn(async move {
                let (reply, text) = oneshot::channel();
                asks.send(reply).await.unwrap();
                text.await.unwrap().unwrap().to_string()
            });
        }
        let texts = scrapers.join_all().await;
        assert!(texts.iter().all(|text| text == "0"), "{texts:?}");
        assert_eq!(looks.load(Ordering::Relaxed), 1);
    }
}
