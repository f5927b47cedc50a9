//! Where the packets of a film are: every 188 bytes, or every 192 (with a time stamp in front, as
//! on Blu-ray discs) or 204 (with a check behind, as broadcast); and where they go on after damage.
//!
//! Packets begin where three sync bytes stand at the right distances. From there on one sync byte
//! per packet is enough. What lies between the last packet and the next such place is lost and
//! counted, also in front of the first packet: a film that begins later and one whose beginning is
//! damaged look the same. A few zeros behind the last packet are the padding of a volume that has
//! whole blocks only; more of them are lost packets. If a film was cut within a packet, the padding
//! looks like a part of that packet: see [`Framer::is_cut`].

use crate::damage::Damage;
use crate::ts::{PACKET_LEN, SYNC_BYTE};

/// Distances of packets that are known, the usual one first.
const STRIDES: [u64; 3] = [PACKET_LEN, 192, 204];
/// A time stamp stands in front of packets with this distance.
const STAMPED: (u64, u64) = (192, 4);
/// So many zeros at the end of a packet are no accident; a few less are, in sound and pictures.
const ZEROS: u64 = 8;

/// A chunk of the film and what comes behind it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Where the chunk starts in the film, in bytes.
    pub start: u64,
    /// Packets that start in here are looked for.
    pub chunk: &'a [u8],
    /// The chunk behind it, at least 512 bytes unless the film ends in it.
    pub ahead: &'a [u8],
    /// The film ends with `ahead`.
    pub ends: bool,
    /// Less than so many zeros at the end of the film may be none of it; 0: its end is known.
    pub padding: u64,
}

impl View<'_> {
    fn chunk_end(&self) -> u64 {
        self.start + self.chunk.len() as u64
    }

    fn end(&self) -> u64 {
        self.chunk_end() + self.ahead.len() as u64
    }

    fn byte(&self, position: u64) -> Option<u8> {
        let at = usize::try_from(position.checked_sub(self.start)?).ok()?;
        match at.checked_sub(self.chunk.len()) {
            None => self.chunk.get(at).copied(),
            Some(behind) => self.ahead.get(behind).copied(),
        }
    }

    fn is_sync(&self, position: u64) -> bool {
        self.byte(position) == Some(SYNC_BYTE)
    }

    fn three_syncs(&self, position: u64, stride: u64) -> bool {
        (0..3).all(|count| self.is_sync(position + count * stride))
    }

    /// The packet at `position`, which starts in the chunk; `joined` is used if it ends behind it.
    #[must_use]
    pub fn packet<'b>(&'b self, position: u64, joined: &'b mut [u8; 188]) -> Option<&'b [u8]> {
        let at = usize::try_from(position.checked_sub(self.start)?).ok()?;
        if let Some(whole) = self.chunk.get(at..at + joined.len()) {
            return Some(whole);
        }
        let bytes = self.chunk.get(at..)?.iter().chain(self.ahead);
        for (to, from) in joined.iter_mut().zip(bytes) {
            *to = *from;
        }
        Some(joined)
    }

    /// Where the zeros start that fill the rest; 0 if there is nothing else.
    fn data_end(&self) -> u64 {
        let last = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte != 0).map(|at| at as u64 + 1);
        match (last(self.ahead), last(self.chunk)) {
            (Some(len), _) => self.chunk_end() + len,
            (None, Some(len)) => self.start + len,
            (None, None) => 0,
        }
    }
}

/// Walks over the packets of a film that comes in chunks, in order.
#[derive(Clone, Debug, Default)]
pub struct Framer {
    stride: Option<u64>,
    synced: bool,
    /// Where the next packet is, or the search goes on.
    next: u64,
    /// Behind the last packet; what lies between and the next packet is lost.
    expected: u64,
    /// Behind the last packet's 188 bytes.
    packets_end: u64,
    /// Behind the last byte that is not zero, as far as was searched.
    data_end: u64,
    /// Zeros at the end of the last packet, at most [`ZEROS`]; known near the end of the film.
    zeros: u64,
    /// Lost bytes behind the last packet, and where: once seen, they are not read again.
    rest: Option<(u64, u64)>,
    damage: Damage,
}

impl Framer {
    /// The start of the next packet that starts in the view's chunk; `None`: in this one no more.
    pub fn next_packet(&mut self, view: &View<'_>) -> Option<u64> {
        loop {
            if !self.synced && !self.search(view) {
                return None;
            }
            let (at, stride) = (self.next, self.stride.unwrap_or(PACKET_LEN));
            if at >= view.chunk_end() || at + PACKET_LEN > view.end() {
                return None;
            }
            if !view.is_sync(at) {
                self.synced = false;
                self.expected = at;
                continue;
            }
            let following = at + stride;
            if self.is_cut(view, at) {
                (self.synced, self.expected, self.next) = (false, at, at + 1);
                continue;
            }
            if let Some(early) = next_if_short(view, at, following) {
                self.lose(at, early - at);
                self.next = early;
                continue;
            }
            self.next = following;
            self.packets_end = at + PACKET_LEN;
            if view.ends {
                self.zeros = zeros_before(view, self.packets_end);
            }
            return Some(at);
        }
    }

    /// The film ends with the view: what it has behind its last packet is lost, in this pass as in
    /// those before, in which the view may have reached further.
    pub fn finish(&mut self, view: &View<'_>) {
        // A check or time stamp that belongs to the last packet is no loss.
        let from = if self.synced { self.next } else { self.expected };
        let data_end = self.data_end.max(view.data_end()).max(from);
        let zeros = view.end().saturating_sub(data_end);
        let end = if zeros < view.padding { data_end } else { view.end() };
        if self.packets_end == 0 {
            return;
        }
        if end > from {
            let before = self.rest.map_or(0, |(_, bytes)| bytes);
            self.rest = Some((from, before + end - from));
        }
        if let Some((at, bytes)) = self.rest {
            self.lose(at, bytes);
            self.damage.rest_at = Some(at);
        }
    }

    /// Is the packet at `at` the film's last and cut, so that its end is the padding of the volume?
    /// If it ends in several zeros that go on to the volume's end, and the padding may have begun
    /// in it. The padding cannot be told from a packet that ends in zeros itself: where the one
    /// before does so, too, it is whole. Who knows the length of the film need not guess
    /// ([`View::padding`]).
    fn is_cut(&self, view: &View<'_>, at: u64) -> bool {
        let end = at + PACKET_LEN;
        if !view.ends || end + view.padding <= view.end() || view.padding == 0 {
            return false;
        }
        let zeros = end.saturating_sub(view.data_end());
        zeros >= ZEROS && self.zeros < ZEROS
    }

    /// The packet at `at` has an adaptation field that cannot be one.
    pub fn note_broken(&mut self, at: u64) {
        self.damage.add_broken(at);
    }

    /// The next view is of the start of the film.
    pub fn restart(&mut self) {
        let Self { damage, stride, rest, .. } = *self;
        *self = Self { damage, stride, rest, ..Self::default() };
    }

    /// Behind the last packet so far; 0: there was none.
    #[must_use]
    pub fn packets_end(&self) -> u64 {
        self.packets_end
    }

    /// So many bytes were searched since the last packet.
    #[must_use]
    pub fn searched(&self) -> u64 {
        if self.synced { 0 } else { self.next.saturating_sub(self.expected) }
    }

    /// What was lost, in all passes.
    #[must_use]
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Looks for the next place with packets.
    fn search(&mut self, view: &View<'_>) -> bool {
        while self.next < view.chunk_end() {
            let from = usize::try_from(self.next - view.start).unwrap_or(usize::MAX);
            let rest = view.chunk.get(from..).unwrap_or_default();
            let Some(skipped) = rest.iter().position(|&byte| byte == SYNC_BYTE) else {
                if let Some(last) = rest.iter().rposition(|&byte| byte != 0) {
                    self.data_end = self.next + last as u64 + 1;
                }
                self.next = view.chunk_end();
                return false;
            };
            let at = self.next + skipped as u64;
            if let Some(stride) = self.stride_at(view, at) {
                let at = self.in_phase(view, at, stride);
                let first = self.packets_end == 0;
                let stamp = if first && stride == STAMPED.0 { STAMPED.1 } else { 0 };
                self.stride = Some(stride);
                self.lose(self.expected, (at - self.expected).saturating_sub(stamp));
                (self.next, self.synced) = (at, true);
                return true;
            }
            self.next = at + 1;
            self.data_end = self.next;
        }
        false
    }

    /// Sync bytes at `at` may be others that repeat, as in time stamps: if there are some within a
    /// packet's length where packets were expected, that is the place.
    fn in_phase(&self, view: &View<'_>, at: u64, stride: u64) -> u64 {
        let expected = match self.packets_end {
            0 if stride == STAMPED.0 => STAMPED.1,
            0 => 0,
            _ => self.expected,
        };
        let phase = (expected % stride + stride - at % stride) % stride;
        if view.three_syncs(at + phase, stride) { at + phase } else { at }
    }

    /// The distance of the packets that start at `at`, if some do.
    fn stride_at(&self, view: &View<'_>, at: u64) -> Option<u64> {
        let mut strides = self.stride.into_iter().chain(STRIDES);
        if let Some(stride) = strides.find(|&stride| view.three_syncs(at, stride)) {
            return Some(stride);
        }
        if !view.ends || at + PACKET_LEN > view.end() || at + 2 * STRIDES[2] < view.data_end() {
            return None;
        }
        // The last two packets have no third behind them; they must be where they were expected.
        let data_end = view.data_end();
        let beyond = |place: u64| place >= data_end || view.is_sync(place);
        let mut strides = self.stride.into_iter().chain(STRIDES);
        strides.find(|&stride| {
            let from = match self.packets_end {
                0 if stride == STAMPED.0 => STAMPED.1,
                0 => 0,
                _ => self.expected,
            };
            let in_phase = at.abs_diff(from).is_multiple_of(stride);
            in_phase && beyond(at + stride) && beyond(at + 2 * stride)
        })
    }

    fn lose(&mut self, at: u64, bytes: u64) {
        self.damage.add(at, bytes, self.stride.unwrap_or(PACKET_LEN));
    }
}

/// Zeros in front of `end`, at most [`ZEROS`].
fn zeros_before(view: &View<'_>, end: u64) -> u64 {
    (1..=ZEROS).take_while(|back| view.byte(end - back) == Some(0)).count() as u64
}

/// Bytes are missing from the packet at `at` if the packets go on before its end: there.
fn next_if_short(view: &View<'_>, at: u64, following: u64) -> Option<u64> {
    let stride = following - at;
    if view.byte(following).is_none_or(|byte| byte == SYNC_BYTE) {
        return None;
    }
    // Only the next packet's sync byte is damaged.
    if view.is_sync(following + stride) && view.is_sync(following + 2 * stride) {
        return None;
    }
    (at + 1..following).find(|&early| view.three_syncs(early, stride))
}
