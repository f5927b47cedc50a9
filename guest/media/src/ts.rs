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
const OPCR_FLAG: u8 = 0x08;
const SPLICE_FLAG: u8 = 0x04;
const PRIVATE_FLAG: u8 = 0x02;
const EXTENSION_FLAG: u8 = 0x01;
const REFERENCE_LEN: usize = 6;
/// Bytes of a packet behind header and length of the adaptation field.
const FIELD_MAX: usize = 183;

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
    /// The adaptation field cannot be one: nothing in it is believed, and nobody knows where the
    /// payload is.
    pub broken: bool,
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
            broken: false,
        };
        let mut behind = rest;
        if control & ADAPTATION_FIELD != 0 {
            let (&field_len, field) = rest.split_first()?;
            let (field, payload) = match field.split_at_checked(usize::from(field_len)) {
                Some(whole) if has_room(usize::from(field_len), control) => whole,
                _ => return Some(Self { broken: true, ..packet }),
            };
            if let Some((&flags, optional)) = field.split_first() {
                if !holds(flags, optional) {
                    return Some(Self { broken: true, ..packet });
                }
                packet.discontinuity = flags & DISCONTINUITY_FLAG != 0;
                if flags & PCR_FLAG != 0 {
                    packet.pcr = optional.get(..REFERENCE_LEN).and_then(clock_reference);
                }
            }
            behind = payload;
        }
        if control & PAYLOAD != 0 {
            packet.payload = behind;
        }
        Some(packet)
    }
}

/// May an adaptation field be so long? A payload has at least one byte. Without one the field has
/// to fill the packet, but some multiplexers leave stuffing behind it, which does no harm.
fn has_room(field_len: usize, control: u8) -> bool {
    field_len < FIELD_MAX || field_len == FIELD_MAX && control & PAYLOAD == 0
}

/// Is there room behind the flags for all that they announce (section 2.4.3.5)?
fn holds(flags: u8, optional: &[u8]) -> bool {
    let sizes =
        [(PCR_FLAG, REFERENCE_LEN), (OPCR_FLAG, REFERENCE_LEN), (SPLICE_FLAG, 1)].into_iter();
    let fixed: usize = sizes.filter(|(flag, _)| flags & flag != 0).map(|(_, size)| size).sum();
    let Some(mut rest) = optional.get(fixed..) else { return false };
    for flag in [PRIVATE_FLAG, EXTENSION_FLAG] {
        if flags & flag != 0 {
            // Its length, and so many bytes.
            let Some((&len, behind)) = rest.split_first() else { return false };
            let Some(behind) = behind.get(usize::from(len)..) else { return false };
            rest = behind;
        }
    }
    true
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
