//! Who is connected, and who has to go when there are too many.
//!
//! Connections are few things each, so many may be open, but not any number. When all places are
//! taken, whoever comes gets that of the client that has moved nothing for the longest time, one
//! that does not read its answer first: clients that hang, or follow what never speaks, cannot shut
//! out who wants to stop a tenant.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::sync::Notify;

/// A client that has not taken a byte of its answer for so long does not read, in milliseconds.
const DOES_NOT_READ_MS: u64 = 1000;

/// All that are connected.
#[derive(Debug)]
pub(super) struct Clients {
    most: usize,
    begin: Instant,
    connected: Mutex<Vec<Arc<Client>>>,
}

/// One of them. Times are milliseconds since the table was made.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// When it last sent or took something.
    moved: AtomicU64,
    /// Since when it has taken nothing of what is for it; `u64::MAX` if there is nothing for it.
    owes: AtomicU64,
    /// It has said something and waits for what we say.
    asks: AtomicBool,
    go: Notify,
}

/// The place of a client; free again with the value.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl Clients {
    /// A table of so many places.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let begin = moirai_runtime::instant();
        Arc::new(Self { most, begin, connected: Mutex::new(Vec::new()) })
    }

    /// A place for a client that has come, if need be that of another.
    pub(super) fn seat(self: &Arc<Self>) -> Seat {
        let client = Arc::new(Client::default());
        client.owes.store(u64::MAX, Ordering::Relaxed);
        client.moved.store(self.now(), Ordering::Relaxed);
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.len() >= self.most {
            let now = self.now();
            let last = connected.iter().enumerate().min_by_key(|(_, client)| client.rank(now));
            if let Some((place, _)) = last {
                connected.swap_remove(place).go.notify_one();
            }
        }
        connected.push(Arc::clone(&client));
        drop(connected);
        Seat { clients: Arc::clone(self), client }
    }

    fn now(&self) -> u64 {
        let passed = moirai_runtime::since(self.begin).as_millis();
        u64::try_from(passed).unwrap_or(u64::MAX)
    }
}

impl Client {
    /// Whoever is least goes first: who does not read, who is idle or follows something, who waits
    /// for an answer.
    fn rank(&self, now: u64) -> (bool, bool, u64) {
        let owes = self.owes.load(Ordering::Relaxed);
        let reads = owes == u64::MAX || now.saturating_sub(owes) < DOES_NOT_READ_MS;
        (reads, self.asks.load(Ordering::Relaxed), self.moved.load(Ordering::Relaxed))
    }
}

impl Seat {
    /// Waits until another client needs the place.
    pub(super) async fn is_wanted(&self) {
        self.client.go.notified().await;
    }

    /// A connection that notes here what it moves.
    pub(super) fn watch<T>(&self, inner: T) -> Watched<T> {
        let (clients, client) = (Arc::clone(&self.clients), Arc::clone(&self.client));
        Watched { inner, clients, client }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let connected = self.clients.connected.lock();
        let mut connected = connected.unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = connected.iter().position(|it| Arc::ptr_eq(it, &self.client)) {
            connected.swap_remove(place);
        }
    }
}

/// A connection that notes when something moves on it.
pub(super) struct Watched<T> {
    inner: T,
    clients: Arc<Clients>,
    client: Arc<Client>,
}

impl<T> Watched<T> {
    fn note<R>(&self, done: &Poll<io::Result<R>>) {
        if done.is_ready() {
            self.client.moved.store(self.clients.now(), Ordering::Relaxed);
        }
    }
}

impl<T: Read + Unpin> Read for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.note(&done);
        if done.is_ready() {
            self.client.asks.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl<T: Write + Unpin> Write for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.note(&done);
        let owes = &self.client.owes;
        self.client.asks.store(false, Ordering::Relaxed);
        if done.is_ready() {
            owes.store(u64::MAX, Ordering::Relaxed);
        } else {
            owes.fetch_min(self.clients.now(), Ordering::Relaxed);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn is_told(seat: &Seat) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let wait = async {
            tokio::time::timeout(Duration::from_millis(20), seat.is_wanted()).await.is_ok()
        };
        runtime.expect("a runtime").block_on(wait)
    }

    #[test]
    fn who_has_moved_nothing_for_longest_makes_room_and_who_does_not_read_does_first() {
        let clients = Clients::new(3);
        let seats = [0, 1, 2].map(|_| clients.seat());
        for (at, seat) in [20, 10, 30].into_iter().zip(&seats) {
            seat.client.moved.store(at, Ordering::Relaxed);
        }
        let fourth = clients.seat();
        assert_eq!(seats.each_ref().map(is_told), [false, true, false]);
        // Who waits for an answer stays for longer than who moved later.
        seats[0].client.asks.store(true, Ordering::Relaxed);
        assert!(seats[0].client.rank(0) > fourth.client.rank(0));
        // The last one has moved latest, but what is for it waits.
        let [first, second, third] = seats;
        third.client.owes.store(0, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(DOES_NOT_READ_MS + 50));
        let fifth = clients.seat();
        assert_eq!([&first, &third, &fourth, &fifth].map(is_told), [false, true, false, false]);
        drop((second, third));
        assert_eq!(clients.connected.lock().expect("whole").len(), 3);
        drop((first, fourth, fifth));
        assert!(clients.connected.lock().expect("whole").is_empty());
    }
}
