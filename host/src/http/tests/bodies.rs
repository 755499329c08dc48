//! Bodies that nobody wanted: who writes all of one before reading gets the answer, and the connection goes on.

use super::*;

/// One request on a connection that stays: everything is written before anything is read.
pub(super) async fn written_first(
    stream: &mut TcpStream,
    (method, path): (&str, &str),
    head: &str,
    body: &[u8],
) -> (u16, String) {
    let bytes = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{head}Content-Length: {bytes}\r\n\r\n");
    let what = format!("{method} {path}, {bytes} bytes");
    let written = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body).await
    };
    written
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    read_answer(stream, &what).await
}

async fn read_answer(stream: &mut TcpStream, what: &str) -> (u16, String) {
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_ascii_lowercase()
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok())
                .unwrap_or_else(|| panic!("{what}: {head}"));
            if body.len() >= length {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return (status, body.to_owned());
            }
        }
        let read = stream.read_buf(&mut answer).await;
        let read = read.unwrap_or_else(|error| panic!("{what}: {error} after {text:?}"));
        assert_ne!(read, 0, "{what}: closed after {text:?}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_who_writes_the_whole_body_first_and_the_connection_goes_on() {
    let served = Served::start().await;
    let operator = format!("Authorization: Bearer {}\r\n", served.token.as_str());
    let reader = format!("Authorization: Bearer {}\r\n", token_of(Role::Reader));
    let form = format!("{operator}Content-Type: text/plain\r\n");
    let artifact = routes::fill(routes::ARTIFACT, &[DIGEST]);
    // More than what sockets hold between two programs.
    let body = vec![b' '; 7 << 20];
    let refused = [
        ("POST", routes::DEPLOY, operator.as_str(), 413),
        ("POST", routes::ARTIFACTS_MISSING, &operator, 413),
        ("POST", routes::DEPLOY, &form, 415),
        ("POST", routes::DEPLOY, &reader, 403),
        ("PUT", &artifact, &reader, 403),
        ("POST", routes::DEPLOY, "", 401),
        ("PUT", "/v1/nothing", &operator, 404),
        ("PUT", routes::JOBS, &operator, 405),
    ];
    for _ in 0..10 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        for (method, path, head, expected) in refused {
            let asked = (method, path);
            let (status, answer) = written_first(&mut stream, asked, head, &body).await;
            assert_eq!(status, expected, "{method} {path}: {answer}");
            assert_eq!(error(&answer).code.http_status(), expected);
            if expected == 401 {
                // A stranger's ends: who asks now and then would hold one for ever.
                assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
                stream = TcpStream::connect(served.address).await.unwrap();
            }
        }
        let asked = ("GET", routes::STATUS);
        let (status, _) = written_first(&mut stream, asked, &operator, b"").await;
        assert_eq!(status, 200, "the connection goes on");
    }
}

#[tokio::test]
async fn a_body_without_an_end_is_read_up_to_a_bound() {
    let served = Served::start().await;
    let (mut from, mut to) = TcpStream::connect(served.address)
        .await
        .unwrap()
        .into_split();
    let head = "POST /v1/deploy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    to.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".as_slice(), &[b' '; 1 << 16], b"\r\n"].concat();
    let writing = async {
        let mut written = 0_usize;
        while to.write_all(&chunk).await.is_ok() {
            written += chunk.len();
        }
        written
    };
    let reading = async {
        let mut answer = Vec::new();
        let _ = from.read_to_end(&mut answer).await;
        answer
    };
    let both = async { tokio::join!(writing, reading) };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
    let (written, answer) = ended.expect("it is closed");
    assert!(written < 64 << 20, "{written}");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}

#[tokio::test]
async fn who_waits_to_be_told_to_send_is_not_told_so_by_a_refusal() {
    let served = Served::start().await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let head = "POST /v1/deploy HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    let ended = tokio::time::timeout(Duration::from_secs(60), reading).await;
    ended.expect("it is closed").unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
}
