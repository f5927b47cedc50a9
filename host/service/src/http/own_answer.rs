//! The documented error body for what hyper answers by itself.
//!
//! A request that is no HTTP never reaches a handler: hyper answers 400, 414 or 431 without a body.
//! [`Answering`] lies below hyper and gives those answers the body that every other one has.

use moirai_api::ErrorKind;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};

/// A connection whose answers all have a body.
pub(super) struct Answering<T> {
    inner: T,
    /// An answer under way in place of hyper's: its bytes, how many are sent, how many hyper's had.
    instead: Option<(Vec<u8>, usize, usize)>,
}

impl<T> Answering<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, instead: None }
    }
}

impl<T: Read + Unpin> Read for Answering<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<T: Write + Unpin> Write for Answering<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.instead.is_none() {
            this.instead = with_body(buf).map(|answer| (answer, 0, buf.len()));
        }
        let Some((answer, sent, length)) = &mut this.instead else {
            return Pin::new(&mut this.inner).poll_write(cx, buf);
        };
        while let Some(rest) = answer.get(*sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut this.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Ok(0)),
                written => *sent += written,
            }
        }
        let length = *length;
        this.instead = None;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The answer `head` of hyper's own with a body; `None` for any other bytes.
fn with_body(head: &[u8]) -> Option<Vec<u8>> {
    const EMPTY: &str = "content-length: 0\r\n";
    let head = str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?;
    let has_no_body = head.ends_with("\r\n\r\n") && head.contains(EMPTY);
    if !has_no_body || !status.starts_with('4') || head.contains("content-type") {
        return None;
    }
    let (kind, text) = match status.get(..3)? {
        "414" => (ErrorKind::TooLarge, "the path is longer than any that makes sense"),
        "431" => {
            (ErrorKind::TooLarge, "the head of the request is longer than any that makes sense")
        }
        _ => (ErrorKind::Malformed, "the request is not HTTP/1.1"),
    };
    let body = serde_json::to_string(&moirai_api::ErrorBody::new(kind, text)).unwrap_or_default();
    let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    Some((head.replace(EMPTY, &length) + &body).into_bytes())
}

#[cfg(test)]
mod tests {
    use super::with_body;

    #[test]
    fn only_answers_without_a_body_get_one() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                    content-length: 0\r\ndate: x\r\n\r\n";
        let answer = String::from_utf8(with_body(bare.as_bytes()).expect("a body")).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        assert!(body.contains("\"kind\":\"too_large\""), "{answer}");
        for other in [
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: \
             2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "anything",
        ] {
            assert_eq!(with_body(other.as_bytes()), None, "{other}");
        }
    }
}
