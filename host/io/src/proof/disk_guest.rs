//! A guest with a disk: reads, writes, flushes, discards, zeroes, and compares what it reads with
//! what it has written.

use std::os::unix::net::UnixStream;

use moirai_devices::mock::{Guest, SLOT_BYTES, SLOTS, readable, writable};
use moirai_devices::virtqueue::Descriptor;
use moirai_scheduler::{Moment, Span};
use vm_memory::{Bytes as _, GuestAddress};

use super::chance::Chance;

const SECTOR: u64 = 512;
/// Sectors that each slot of each queue has for itself, so that requests do not meet.
const OWN: u64 = SLOT_BYTES / SECTOR;
/// Size of the disk for so many queues, in bytes.
pub(super) fn disk_bytes(queues: u16) -> u64 {
    u64::from(queues) * u64::from(SLOTS) * SLOT_BYTES
}

const FEATURES: u64 = 1 << 9 | 1 << 13 | 1 << 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write(u64),
    Flush,
    Discard,
    Zeroes,
    /// What it is called: answered at once.
    Name,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    kind: Kind,
    sector: u64,
    sectors: u64,
    at: Moment,
}

/// The guest.
pub(super) struct DiskGuest {
    pub(super) guest: Guest,
    asked: Vec<[Option<Asked>; SLOTS as usize]>,
    /// What is in each sector: the number that was written all over it; `None`: who knows.
    sectors: Vec<Option<u64>>,
    /// The ring completes operations with errors.
    pub(super) errors: bool,
    pub(super) answered: u64,
    pub(super) slowest: Span,
}

impl DiskGuest {
    /// `known`: nobody has written the disk before.
    pub(super) fn boot(
        socket: UnixStream,
        queues: u16,
        known: bool,
        errors: bool,
        chance: &mut Chance,
    ) -> Self {
        let sectors = usize::try_from(disk_bytes(queues) / SECTOR).unwrap();
        Self {
            guest: Guest::boot(socket, queues, FEATURES, chance.permille(500)),
            asked: vec![[None; SLOTS as usize]; usize::from(queues)],
            sectors: vec![known.then_some(0); sectors],
            errors,
            answered: 0,
            slowest: Span::ZERO,
        }
    }

    /// Asks for something, if there is room; whether it did.
    pub(super) fn ask(&mut self, chance: &mut Chance, now: Moment) -> bool {
        let number = usize::try_from(chance.below(self.guest.queues.len() as u64)).unwrap();
        if self.guest.queues[number].stopping {
            return false;
        }
        let Some(slot) = self.guest.free_slot(number) else { return false };
        let kind = match chance.below(100) {
            0..45 => Kind::Read,
            45..85 => Kind::Write(chance.next()),
            85..91 => Kind::Flush,
            91..94 => Kind::Discard,
            94..97 => Kind::Name,
            _ => Kind::Zeroes,
        };
        let most = if chance.permille(100) { OWN } else { 16 };
        let sectors = chance.between(1, most);
        let own = (number as u64 * u64::from(SLOTS) + u64::from(slot)) * OWN;
        let sector = own + chance.below(OWN - sectors + 1);
        let asked = Asked { kind, sector, sectors, at: now };
        let chain = self.chain(number, slot, asked);
        self.asked[number][usize::from(slot)] = Some(asked);
        self.guest.post(number, slot, &chain);
        true
    }

    fn chain(&self, number: usize, slot: u16, asked: Asked) -> Vec<Descriptor> {
        let (header, data) = (self.guest.header(number, slot), self.guest.data(number, slot));
        let Asked { kind, sector, sectors, .. } = asked;
        let write = |value: u64, at| self.guest.memory.write_obj(value, GuestAddress(at)).unwrap();
        let (code, at) = match kind {
            Kind::Read => (0_u64, sector),
            Kind::Write(_) => (1, sector),
            Kind::Flush => (4, 0),
            Kind::Name => (8, 0),
            Kind::Discard => (11, 0),
            Kind::Zeroes => (13, 0),
        };
        write(code, header);
        write(at, header + 8);
        self.guest.memory.write_obj(0xff_u8, GuestAddress(header + 32)).unwrap();
        let bytes = u32::try_from(sectors * SECTOR).unwrap();
        let body = match kind {
            Kind::Read => Some(writable(data, bytes)),
            Kind::Write(stamp) => {
                for place in 0..sectors {
                    let block = stamp.to_ne_bytes().repeat(64);
                    let at = GuestAddress(data + place * SECTOR);
                    self.guest.memory.write_slice(&block, at).unwrap();
                }
                Some(readable(data, bytes))
            }
            Kind::Flush => None,
            Kind::Name => Some(writable(data, 20)),
            Kind::Discard | Kind::Zeroes => {
                write(sector, data);
                write(sectors, data + 8);
                Some(readable(data, 16))
            }
        };
        let status = writable(header + 32, 1);
        [Some(readable(header, 16)), body, Some(status)].into_iter().flatten().collect()
    }

    /// Looks at what came back.
    pub(super) fn look(&mut self, now: Moment) {
        for number in 0..self.guest.queues.len() {
            if !self.guest.interrupted(number) {
                assert!(!self.guest.has_news(number), "an answer that nobody was told of");
                continue;
            }
            while let Some((slot, _)) = self.guest.returned(number) {
                let asked = self.asked[number][usize::from(slot)].take().expect("nobody asked");
                self.judge(number, slot, asked);
                self.answered += 1;
                self.slowest = self.slowest.max(now - asked.at);
            }
            self.guest.await_interrupt(number);
        }
        if let Some((number, base)) = self.guest.stopped() {
            self.guest.restart(number, base);
        }
    }

    fn judge(&mut self, number: usize, slot: u16, asked: Asked) {
        let status = GuestAddress(self.guest.header(number, slot) + 32);
        let status: u8 = self.guest.memory.read_obj(status).unwrap();
        assert!(status == 0 || status == 1 && self.errors, "{asked:?}: status {status}");
        let range = usize::try_from(asked.sector).unwrap()
            ..usize::try_from(asked.sector + asked.sectors).unwrap();
        let known = &mut self.sectors[range];
        match asked.kind {
            Kind::Flush | Kind::Name => {}
            Kind::Read if status == 0 => {
                let data = self.guest.data(number, slot);
                for (place, known) in (0..).zip(known) {
                    let at = data + place * SECTOR;
                    let word = |at| self.guest.memory.read_obj::<u64>(GuestAddress(at)).unwrap();
                    let got = (word(at), word(at + SECTOR - 8));
                    let same = known.is_none_or(|known| got == (known, known));
                    assert!(same, "{asked:?}: {got:x?} in sector {place}, {known:x?} was written");
                }
            }
            Kind::Read => {}
            Kind::Write(stamp) if status == 0 => known.fill(Some(stamp)),
            Kind::Zeroes if status == 0 => known.fill(Some(0)),
            Kind::Write(_) | Kind::Zeroes | Kind::Discard => known.fill(None),
        }
    }
}
