//! Cutting a film into packets: seven transport stream packets each (the most that fits an Ethernet
//! frame), taken from where the disk put them. A packet may straddle two chunks of the film; it has
//! two pieces then, so nothing is copied to make it whole.

use crate::ts::PACKET_LEN;

/// Payload of one RTP packet.
pub const PAYLOAD_LEN: u64 = 7 * PACKET_LEN;

/// A part of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which chunk of the film.
    pub chunk: u64,
    /// First byte in the chunk.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
}

/// The pieces of the packet that starts at byte `position` of a film of `film_len` bytes that is
/// read in chunks of `chunk_len`, at least [`PAYLOAD_LEN`]. The last packet of a film may be
/// shorter; behind the end there are no pieces.
#[must_use]
pub fn pieces(position: u64, film_len: u64, chunk_len: u64) -> [Option<Piece>; 2] {
    let end = position.saturating_add(PAYLOAD_LEN).min(film_len);
    let chunk = position / chunk_len;
    let boundary = chunk.saturating_add(1).saturating_mul(chunk_len);
    let first_end = end.min(boundary);
    if first_end <= position {
        return [None, None];
    }
    let first = Piece { chunk, start: position % chunk_len, len: first_end - position };
    let second =
        (end > boundary).then(|| Piece { chunk: chunk + 1, start: 0, len: end - boundary });
    [Some(first), second]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 65536;

    #[test]
    fn packet_inside_a_chunk_is_one_piece() {
        let expected = Piece { chunk: 1, start: 0, len: PAYLOAD_LEN };
        assert_eq!(pieces(CHUNK, 1 << 30, CHUNK), [Some(expected), None]);
    }

    #[test]
    fn packet_across_a_boundary_is_two_pieces_that_add_up() {
        let position = CHUNK - 100;
        let [first, second] = pieces(position, 1 << 30, CHUNK);
        assert_eq!(first, Some(Piece { chunk: 0, start: position, len: 100 }));
        assert_eq!(second, Some(Piece { chunk: 1, start: 0, len: PAYLOAD_LEN - 100 }));
    }

    #[test]
    fn last_packet_is_cut_at_the_end_of_the_film() {
        let film = 2 * PAYLOAD_LEN + PACKET_LEN;
        let last = Piece { chunk: 0, start: 2 * PAYLOAD_LEN, len: PACKET_LEN };
        assert_eq!(pieces(2 * PAYLOAD_LEN, film, CHUNK), [Some(last), None]);
        assert_eq!(pieces(film, film, CHUNK), [None, None]);
    }

    #[test]
    fn pieces_cover_every_byte_of_a_film_once() {
        let film = 5 * CHUNK + 3 * PACKET_LEN;
        let (mut position, mut covered) = (0, 0);
        while position < film {
            let packet = pieces(position, film, CHUNK);
            for piece in packet.into_iter().flatten() {
                assert_eq!(piece.chunk * CHUNK + piece.start, covered);
                covered += piece.len;
            }
            position += PAYLOAD_LEN;
        }
        assert_eq!(covered, film);
    }
}
