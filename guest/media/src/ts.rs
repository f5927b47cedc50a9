//! MPEG-2 transport streams (ISO/IEC 13818-1, section 2.4.3): packet boundaries and the program
//! clock reference. Only the first twelve bytes of each packet are looked at.

/// Length of a transport stream packet.
pub const PACKET_LEN: u64 = 188;
/// First byte of every packet.
pub const SYNC_BYTE: u8 = 0x47;
/// The program clock reference wraps at this many ticks.
pub const PCR_WRAP: u64 = (1 << 33) * 300;

/// Bytes up to and with a program clock reference.
const HEAD_LEN: usize = 12;
const ADAPTATION_FIELD: u8 = 0x20;
const PCR_FLAG: u8 = 0x10;
/// Adaptation field bytes that a reference needs: flags and the six of the reference.
const PCR_FIELD_LEN: u8 = 7;

/// A clock reference in a film.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReference {
    /// Where its packet starts, in bytes from the start of the film.
    pub position: u64,
    /// What the system clock shows there, in ticks, less than [`PCR_WRAP`].
    pub pcr: u64,
}

/// There is no packet where one should start: the film ends here, or it is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPacket {
    /// Bytes from the start of the film.
    pub position: u64,
    /// What stands there instead of [`SYNC_BYTE`].
    pub byte: u8,
}

/// Walks over the packets of a film that comes in pieces of any size, in order.
///
/// State: where the next packet starts, and the head of a packet that is split between two pieces.
/// The first PID with clock references is the film's clock; others are ignored.
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    /// Bytes of the film seen so far.
    seen: u64,
    next_packet: u64,
    head: [u8; HEAD_LEN],
    head_len: usize,
    clock_pid: Option<u16>,
}

impl Scanner {
    /// Looks through the next piece of the film; calls `found` for every clock reference.
    ///
    /// # Errors
    /// [`NoPacket`] at the first place that has no packet; what is behind it is not looked at.
    pub fn scan(
        &mut self,
        bytes: &[u8],
        mut found: impl FnMut(ClockReference),
    ) -> Result<(), NoPacket> {
        let piece_start = self.seen;
        self.seen = piece_start.saturating_add(bytes.len() as u64);
        while self.next_packet < self.seen {
            // What the head still lacks begins behind what an earlier piece gave.
            let wanted = self.next_packet + self.head_len as u64;
            let offset = usize::try_from(wanted - piece_start).unwrap_or(usize::MAX);
            let available = bytes.get(offset..).unwrap_or_default();
            let room = self.head.get_mut(self.head_len..).unwrap_or_default();
            let copied = room.len().min(available.len());
            for (to, from) in room.iter_mut().zip(available) {
                *to = *from;
            }
            self.head_len += copied;
            let [sync, ..] = self.head;
            if self.head_len > 0 && sync != SYNC_BYTE {
                return Err(NoPacket { position: self.next_packet, byte: sync });
            }
            if self.head_len < HEAD_LEN {
                return Ok(());
            }
            if let Some(pcr) = self.clock_of_head() {
                found(ClockReference { position: self.next_packet, pcr });
            }
            self.head_len = 0;
            self.next_packet += PACKET_LEN;
        }
        Ok(())
    }

    /// How far the film consists of whole packets, as far as seen.
    #[must_use]
    pub fn whole_packets_end(&self) -> u64 {
        self.seen - self.seen % PACKET_LEN
    }

    /// The clock reference of the packet in `head`, if it has one of the film's clock.
    fn clock_of_head(&mut self) -> Option<u64> {
        let [_, pid_high, pid_low, control, field_len, flags, a, b, c, d, e, f] = self.head;
        if control & ADAPTATION_FIELD == 0 || field_len < PCR_FIELD_LEN || flags & PCR_FLAG == 0 {
            return None;
        }
        let pid = u16::from_be_bytes([pid_high & 0x1f, pid_low]);
        if *self.clock_pid.get_or_insert(pid) != pid {
            return None;
        }
        // 33 bits of base at 90 kHz, 6 reserved, 9 bits of extension at 27 MHz.
        let field = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        let (base, extension) = (field >> 15, field & 0x1ff);
        Some((base * 300 + extension) % PCR_WRAP)
    }
}

#[cfg(test)]
#[path = "ts_tests.rs"]
mod tests;
