//! Control streams and request streams: order, bounds, priorities, ends.

use std::future::Future as _;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::{Pair, pair, soon};
use crate::{
    CloseCode, FRAME_BYTES_MAX, Priority, REQUEST_FRAME_BYTES_MAX, STREAMS_MAX, SessionError,
};

const MIB: usize = 1024 * 1024;

/// A request stream of a peer that keeps no rule.
async fn raw_stream(session: &crate::Session) -> quinn::SendStream {
    session.raw().open_bi().await.unwrap().0
}

#[tokio::test]
async fn a_frame_of_the_longest_size_passes_and_one_byte_more_does_not() {
    let Pair {
        server: _server,
        mut edge,
        mut orchestrator,
    } = pair().await;
    let longest = Bytes::from(vec![7; FRAME_BYTES_MAX]);
    let sending = tokio::spawn(async move {
        edge.sender.send(longest).await.unwrap();
        let too_long = edge.sender.send(vec![7; FRAME_BYTES_MAX + 1].into()).await;
        let expected = SessionError::FrameTooLarge {
            bytes: FRAME_BYTES_MAX + 1,
            bytes_max: FRAME_BYTES_MAX,
        };
        assert_eq!(too_long, Err(expected));
        // Nothing of it was sent, so the stream is as good as before.
        edge.sender.send("after".into()).await.unwrap();
        edge
    });
    assert_eq!(
        soon(orchestrator.receiver.recv())
            .await
            .unwrap()
            .unwrap()
            .len(),
        FRAME_BYTES_MAX
    );
    assert_eq!(
        soon(orchestrator.receiver.recv()).await.unwrap().unwrap(),
        "after"
    );
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn a_length_over_the_bound_is_refused_before_its_bytes_come() {
    let Pair {
        server: _server,
        mut edge,
        mut orchestrator,
    } = pair().await;
    edge.sender
        .raw_write(Bytes::from_static(&[0, 0x10, 0, 1]))
        .await
        .unwrap();
    let error = soon(orchestrator.receiver.recv()).await.unwrap_err();
    assert_eq!(
        error,
        SessionError::FrameTooLarge {
            bytes: FRAME_BYTES_MAX + 1,
            bytes_max: FRAME_BYTES_MAX
        }
    );
    assert!(edge.session.close_reason().is_none());
}

#[tokio::test]
async fn half_a_frame_is_no_frame() {
    let Pair {
        server: _server,
        mut edge,
        mut orchestrator,
    } = pair().await;
    edge.sender
        .raw_write(Bytes::from_static(&[0, 0, 0, 5, b'a', b'b']))
        .await
        .unwrap();
    edge.sender.finish().unwrap();
    assert_eq!(
        soon(orchestrator.receiver.recv()).await,
        Err(SessionError::Truncated)
    );
}

#[tokio::test]
async fn a_dropped_recv_loses_nothing() {
    let Pair {
        server: _server,
        mut edge,
        mut orchestrator,
    } = pair().await;
    let mut wire = BytesMut::new();
    for index in 0..50u8 {
        wire.put_u32(100);
        wire.put_bytes(index, 100);
    }
    let wire = wire.freeze();
    let sending = tokio::spawn(async move {
        for piece in wire.chunks(7) {
            edge.sender
                .raw_write(Bytes::copy_from_slice(piece))
                .await
                .unwrap();
            tokio::task::yield_now().await;
        }
        edge
    });
    for index in 0..50u8 {
        // Each call is polled once and dropped until one is ready.
        let frame = soon(async {
            loop {
                let polled = {
                    let mut receiving = pin!(orchestrator.receiver.recv());
                    std::future::poll_fn(|context| Poll::Ready(receiving.as_mut().poll(context)))
                        .await
                };
                match polled {
                    Poll::Ready(frame) => return frame.unwrap().unwrap(),
                    Poll::Pending => tokio::task::yield_now().await,
                }
            }
        })
        .await;
        assert_eq!(frame, vec![index; 100]);
    }
    soon(sending).await.unwrap();
}

#[tokio::test]
async fn a_dropped_send_leaves_whole_frames_only() {
    let Pair {
        server: _server,
        mut edge,
        mut orchestrator,
    } = pair().await;
    // Fill the windows until a send has to wait, then drop it in the middle.
    let mut accepted = 0u8;
    loop {
        let frame = Bytes::from(vec![accepted; MIB - 3]);
        let sending = tokio::time::timeout(Duration::from_millis(300), edge.sender.send(frame));
        if sending.await.is_err() {
            break;
        }
        accepted += 1;
        assert!(accepted < 64, "a slow reader must make the sender wait");
    }
    let sending = tokio::spawn(async move {
        edge.sender.send("after".into()).await.unwrap();
        edge
    });
    // The one that was dropped had begun, so it arrives whole, and then the next.
    for index in 0..=accepted {
        let frame = soon(orchestrator.receiver.recv()).await.unwrap().unwrap();
        assert!(
            frame.len() == MIB - 3 && frame.iter().all(|byte| *byte == index),
            "frame {index}"
        );
    }
    assert_eq!(
        soon(orchestrator.receiver.recv()).await.unwrap().unwrap(),
        "after"
    );
    soon(sending).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_frames_pass_a_large_artifact() {
    const ARTIFACT_BYTES: usize = 64 * MIB;
    let Pair {
        server: _server,
        mut edge,
        mut orchestrator,
    } = pair().await;
    let serving = tokio::spawn(async move {
        let (request, mut responder) = orchestrator.requests.next().await.unwrap();
        assert_eq!(request, "pull");
        responder.send("size".into()).await.unwrap();
        let block = Bytes::from(vec![0x5a; 256 * 1024]);
        for _ in 0..ARTIFACT_BYTES / block.len() {
            responder.write(block.clone()).await.unwrap();
        }
        responder.finish().unwrap();
        orchestrator.requests
    });
    let echoing = tokio::spawn(async move {
        while let Ok(Some(frame)) = orchestrator.receiver.recv().await {
            orchestrator.sender.send(frame).await.unwrap();
        }
    });
    let session = edge.session.clone();
    let pulling = tokio::spawn(async move {
        let mut reply = session.open_request("pull".into()).await.unwrap();
        assert_eq!(reply.recv().await.unwrap().unwrap(), "size");
        let mut bytes = 0;
        while let Some(chunk) = reply.read(64 * 1024).await.unwrap() {
            assert!(chunk.iter().all(|byte| *byte == 0x5a));
            bytes += chunk.len();
        }
        bytes
    });
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    while !pulling.is_finished() {
        let started = Instant::now();
        edge.sender.send("beat".into()).await.unwrap();
        assert_eq!(soon(edge.receiver.recv()).await.unwrap().unwrap(), "beat");
        slowest = slowest.max(started.elapsed());
        rounds += 1;
    }
    assert_eq!(soon(pulling).await.unwrap(), ARTIFACT_BYTES);
    assert!(rounds >= 10, "only {rounds} heartbeats passed");
    assert!(
        slowest < Duration::from_secs(2),
        "a heartbeat took {slowest:?}"
    );
    soon(serving).await.unwrap();
    edge.session.close(CloseCode::DONE, "");
    soon(echoing).await.unwrap();
}

#[tokio::test]
async fn stalled_readers_never_take_the_control_streams_room() {
    let Pair {
        server: _server,
        mut edge,
        mut orchestrator,
    } = pair().await;
    // As many pulls as the orchestrator lets an edge have, none of which the edge reads.
    let mut replies = Vec::new();
    for _ in 0..STREAMS_MAX - 1 {
        replies.push(
            soon(edge.session.open_request("pull".into()))
                .await
                .unwrap(),
        );
    }
    let mut writing = tokio::task::JoinSet::new();
    for _ in 0..STREAMS_MAX - 1 {
        let (_, mut responder) = soon(orchestrator.requests.next()).await.unwrap();
        writing.spawn(async move {
            let block = Bytes::from(vec![1; 64 * 1024]);
            loop {
                if responder.write(block.clone()).await.is_err() {
                    return;
                }
            }
        });
    }
    // Let them fill what they can: nobody moves on without being read.
    let full = tokio::time::timeout(Duration::from_millis(500), writing.join_next()).await;
    assert!(full.is_err(), "a writer ended although nobody reads");
    for size in [10, FRAME_BYTES_MAX] {
        let frame = Bytes::from(vec![2; size]);
        let sending = async { orchestrator.sender.send(frame).await.unwrap() };
        let (_, received) = tokio::join!(soon(sending), soon(edge.receiver.recv()));
        assert_eq!(received.unwrap().unwrap().len(), size);
    }
    // Whoever gives up a pull ends its writer.
    drop(replies);
    while let Some(ended) = soon(writing.join_next()).await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn requests_beyond_the_stream_limit_wait_for_their_turn() {
    let Pair {
        server: _server,
        edge,
        mut orchestrator,
    } = pair().await;
    let mut replies = Vec::new();
    for _ in 0..STREAMS_MAX - 1 {
        replies.push(
            soon(edge.session.open_request("pull".into()))
                .await
                .unwrap(),
        );
    }
    let session = edge.session.clone();
    let waiting =
        tokio::spawn(async move { session.open_request("one more".into()).await.map(drop) });
    // QUIC announces room once more than an eighth of the limit has ended.
    for reply in &mut replies[..STREAMS_MAX as usize / 8 + 1] {
        let (_, responder) = soon(orchestrator.requests.next()).await.unwrap();
        assert!(!waiting.is_finished());
        responder.finish().unwrap();
        assert_eq!(soon(reply.recv()).await.unwrap(), None);
    }
    soon(waiting).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_orchestrator_can_ask_too_and_be_told_to_stop() {
    let Pair {
        server: _server,
        mut edge,
        orchestrator,
    } = pair().await;
    let mut reply = soon(orchestrator.session.open_request("logs".into()))
        .await
        .unwrap();
    let (request, mut responder) = soon(edge.requests.next()).await.unwrap();
    assert_eq!(request, "logs");
    responder.set_priority(Priority::Diagnostic);
    responder.send("line".into()).await.unwrap();
    assert_eq!(soon(reply.recv()).await.unwrap().unwrap(), "line");
    reply.stop(CloseCode::DONE);
    soon(responder.abandoned()).await;
    let error = responder.send("line".into()).await.unwrap_err();
    assert_eq!(
        error,
        SessionError::StreamAborted {
            code: CloseCode::DONE
        }
    );
    assert!(error.is_of_stream());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let Pair {
        server: _server,
        edge,
        mut orchestrator,
    } = pair().await;
    let mut reply = soon(edge.session.open_request("pull".into()))
        .await
        .unwrap();
    let (_, mut responder) = soon(orchestrator.requests.next()).await.unwrap();
    responder.write("part".into()).await.unwrap();
    drop(responder);
    let error = soon(async {
        loop {
            match reply.read(100).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a part was taken for the whole"),
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(
        error,
        SessionError::StreamAborted {
            code: CloseCode::ABANDONED
        }
    );
    // The session goes on.
    let mut reply = soon(edge.session.open_request("again".into()))
        .await
        .unwrap();
    let (_, responder) = soon(orchestrator.requests.next()).await.unwrap();
    responder.finish().unwrap();
    assert_eq!(soon(reply.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn bad_request_streams_are_refused_and_hold_up_nobody() {
    let Pair {
        server: _server,
        edge,
        mut orchestrator,
    } = pair().await;
    let too_long = edge
        .session
        .open_request(vec![0; REQUEST_FRAME_BYTES_MAX + 1].into())
        .await
        .unwrap_err();
    assert!(matches!(too_long, SessionError::FrameTooLarge { .. }));
    let mut empty = raw_stream(&edge.session).await;
    empty.finish().unwrap();
    let mut huge = raw_stream(&edge.session).await;
    huge.write_all(&[0xff; 4]).await.unwrap();
    let mut unfinished = raw_stream(&edge.session).await;
    unfinished.write_all(&[0, 0]).await.unwrap();
    let mut reply = soon(edge.session.open_request("good".into()))
        .await
        .unwrap();
    let (request, responder) = soon(orchestrator.requests.next()).await.unwrap();
    assert_eq!(request, "good");
    responder.finish().unwrap();
    assert_eq!(soon(reply.recv()).await.unwrap(), None);
    let refused = soon(async {
        tokio::select! {
            stopped = huge.stopped() => stopped,
            _ = orchestrator.requests.next() => panic!("no request is good"),
        }
    });
    assert_eq!(refused.await.unwrap(), Some(CloseCode::PROTOCOL.to_var()));
}
