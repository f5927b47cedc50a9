//! The documented error body for what hyper answers by itself.
//!
//! A request that is no HTTP never reaches a handler: hyper answers 400, 414 or 431 without a body.
//! [`Answering`] lies below hyper and gives those answers the body that every other one has.

use moirai_api::ErrorKind;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};

/// Longest head of which is said what is wrong with it, in bytes.
const HEAD_BYTES: usize = 8 << 10;
/// Read in place of the rest of a head that will not come: hyper answers what is no header, and
/// leaves without an answer who closes his half within a head.
const BREAK: &[u8] = b"\r\n\0\r\n\r\n";

/// A connection whose answers all have a body.
pub(super) struct Answering<T> {
    inner: T,
    /// What was read since the last answer: its beginning, as long as it may be a head.
    head: Vec<u8>,
    /// The client has closed its half within a head.
    ended: bool,
    /// An answer under way in place of hyper's: its bytes, how many are sent, how many hyper's had.
    instead: Option<(Vec<u8>, usize, usize)>,
}

impl<T> Answering<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, head: Vec::new(), ended: false, instead: None }
    }
}

impl<T: Read + Unpin> Read for Answering<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut space = [0; HEAD_BYTES];
        let room = space.len().min(buf.remaining());
        let mut read = ReadBuf::new(space.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut this.inner).poll_read(cx, read.unfilled()))?;
        let read = read.filled();
        buf.put_slice(read);
        let left = HEAD_BYTES.saturating_sub(this.head.len());
        this.head.extend_from_slice(read.get(..left).unwrap_or(read));
        let is_end = read.is_empty() && room > 0 && !this.ended;
        if is_end && is_within_a_head(&this.head) && buf.remaining() >= BREAK.len() {
            this.ended = true;
            buf.put_slice(BREAK);
        }
        Poll::Ready(Ok(()))
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
            this.instead = with_body(buf, || what_is_wrong(&this.head, this.ended))
                .map(|answer| (answer, 0, buf.len()));
            this.head.clear();
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
fn with_body(head: &[u8], wrong: impl FnOnce() -> String) -> Option<Vec<u8>> {
    const EMPTY: &str = "content-length: 0\r\n";
    let head = str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?;
    let has_no_body = head.ends_with("\r\n\r\n") && head.contains(EMPTY);
    if !has_no_body || !status.starts_with('4') || head.contains("content-type") {
        return None;
    }
    let long = |what| (ErrorKind::TooLarge, format!("{what} is longer than any that makes sense"));
    let (kind, text) = match status.get(..3)? {
        "414" => long("the path"),
        "431" => long("the head of the request"),
        _ => (ErrorKind::Malformed, wrong()),
    };
    let body = serde_json::to_string(&moirai_api::ErrorBody::new(kind, text)).unwrap_or_default();
    let length = format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
    Some((head.replace(EMPTY, &length) + &body).into_bytes())
}

/// Whether a head has begun and not ended.
fn is_within_a_head(head: &[u8]) -> bool {
    let ends = |end: &[u8]| head.windows(end.len()).any(|bytes| bytes == end);
    !head.is_empty() && head.len() < HEAD_BYTES && !ends(b"\r\n\r\n") && !ends(b"\n\n")
}

/// What is wrong with a head that hyper does not take.
fn what_is_wrong(head: &[u8], ended: bool) -> String {
    if ended {
        return "the request ended within its head: send all of it and an empty line".to_owned();
    }
    let text = String::from_utf8_lossy(head);
    let lines = text.lines().take_while(|line| !line.is_empty());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let lengths = headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let lengths: Vec<_> = lengths.map(|(_, value)| value.trim().to_owned()).collect();
    let is_number = |text: &String| text.parse::<u64>().is_ok() && !text.starts_with('+');
    match lengths.iter().find(|length| !is_number(length)) {
        Some(length) => {
            format!("Content-Length {length:?} is no length: send how many bytes the body has")
        }
        None if lengths.len() > 1 => "Content-Length is there more than once: send one".to_owned(),
        None => "the request is not HTTP/1.1".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::what_is_wrong;

    fn with_body(head: &[u8]) -> Option<Vec<u8>> {
        super::with_body(head, || what_is_wrong(b"", false))
    }

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
