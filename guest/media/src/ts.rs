//! MPEG-2 transport streams (ISO/IEC 13818-1, section 2.4.3): what the head of a packet says.

/// Length of a transport stream packet.
pub const PACKET_LEN: u64 = 188;
/// First byte of every packet.
pub const SYNC_BYTE: u8 = 0x47;
/// The program clock reference wraps at this many ticks.
pub const PCR_WRAP: u64 = (1 << 33) * 300;

const UNIT_START: u8 = 0x40;
const PAYLOAD: u8 = 0x10;
const ADAPTATION_FIELD: u8 = 0x20;
const DISCONTINUITY_FLAG: u8 = 0x80;
const PCR_FLAG: u8 = 0x10;
/// Adaptation field bytes that a reference needs: flags and the six of the reference.
const PCR_FIELD_LEN: u8 = 7;

/// There is no packet where one should start: the volume holds no film.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPacket {
    /// Bytes from the start of the film.
    pub position: u64,
    /// What stands there instead of [`SYNC_BYTE`].
    pub byte: u8,
}

/// A packet, as far as a sender needs to understand it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Which elementary stream or table it belongs to.
    pub pid: u16,
    /// A section or a PES packet begins in it.
    pub unit_start: bool,
    /// The discontinuity indicator (section 2.4.3.5): the clock may be another one from here on.
    pub discontinuity: bool,
    /// The clock reference in ticks, less than [`PCR_WRAP`].
    pub pcr: Option<u64>,
    /// What follows header and adaptation field.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet of [`PACKET_LEN`] bytes; `None` if there is no sync byte or no header.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&[sync, pid_high, pid_low, control], rest) = bytes.split_first_chunk()?;
        if sync != SYNC_BYTE {
            return None;
        }
        let mut packet = Self {
            pid: u16::from_be_bytes([pid_high & 0x1f, pid_low]),
            unit_start: pid_high & UNIT_START != 0,
            discontinuity: false,
            pcr: None,
            payload: &[],
        };
        let mut behind = rest;
        if control & ADAPTATION_FIELD != 0 {
            let (&field_len, field) = rest.split_first()?;
            if field_len > 0 {
                let &flags = field.first()?;
                packet.discontinuity = flags & DISCONTINUITY_FLAG != 0;
                if field_len >= PCR_FIELD_LEN && flags & PCR_FLAG != 0 {
                    packet.pcr = field.get(1..7).and_then(clock_reference);
                }
            }
            behind = field.get(usize::from(field_len)..).unwrap_or_default();
        }
        if control & PAYLOAD != 0 {
            packet.payload = behind;
        }
        Some(packet)
    }
}

/// 33 bits of base at 90 kHz, 6 reserved, 9 bits of extension at 27 MHz.
fn clock_reference(bytes: &[u8]) -> Option<u64> {
    let &[a, b, c, d, e, f] = <&[u8; 6]>::try_from(bytes).ok()?;
    let field = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let (base, extension) = (field >> 15, field & 0x1ff);
    Some((base * 300 + extension) % PCR_WRAP)
}

#[cfg(test)]
#[path = "ts_tests.rs"]
mod tests;
