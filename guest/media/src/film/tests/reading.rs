//! Reading: order, retries, loops, arbitrary bytes.

use super::*;

#[test]
fn film_comes_out_byte_for_byte_however_it_is_read() {
    let film = film(5000);
    for (chunk, reads) in [(65536, 4), (4096, 1), (4096, 32), (1 << 20, 2), (8192, 3), (1536, 5)] {
        let played = play(Fake::new(film.clone()), chunk, reads, false, usize::MAX);
        assert_eq!(played.end, Ok(true));
        assert!(played.bytes == film, "chunks of {chunk}, {reads} in flight");
    }
}

#[test]
fn looped_film_goes_on_without_a_gap_in_bytes_or_time() {
    let film = film(1000);
    let packets = 143 * 3 + 50; // 143 to a pass, the last one short
    for padding in [0, 100_000] {
        let mut padded = film.clone();
        padded.resize(film.len() + padding, 0);
        let played = play(Fake::new(padded), 8192, 4, true, packets);
        assert_eq!(played.end, Ok(false));
        let again: Vec<u8> = film.iter().copied().cycle().take(played.bytes.len()).collect();
        assert!(played.bytes == again, "padding of {padding}");
        let steps = played.due.windows(2).map(|pair| pair[1] - pair[0]);
        let even = 7 * STEP_TICKS / STEP_PACKETS;
        assert!(steps.clone().all(|step| step <= even + 1), "{:?}", steps.max());
    }
}

#[test]
fn chunk_that_fails_is_read_again() {
    let film = film(1000);
    let mut volume = Fake::new(film.clone());
    volume.failures = RETRIES_MAX;
    assert!(play(volume, 8192, 4, false, usize::MAX).bytes == film);
    let mut volume = Fake::new(film);
    volume.failures = u32::MAX;
    let end = play(volume, 8192, 1, false, usize::MAX).end;
    assert_eq!(end, Err(FilmError::Unreadable { offset: 0, error: RequestError::Io }));
}

#[test]
fn volume_without_a_film_is_refused() {
    let end = play(Fake::new(vec![0; 65536]), 4096, 2, false, usize::MAX).end;
    assert_eq!(end, Err(FilmError::NoPacket(NoPacket { position: 0, byte: 0 })));
}

#[test]
fn all_before_a_place_that_cannot_be_read_is_sent_before_the_error() {
    let whole = film(4000);
    for looped in [false, true] {
        let mut volume = Fake::new(whole.clone());
        volume.bad_at = Some(400_000);
        let played = play(volume, 4096, 4, looped, usize::MAX);
        let offset = 400_000 / 4096 * 4096;
        assert_eq!(played.end, Err(FilmError::Unreadable { offset, error: RequestError::Io }));
        let sent = played.bytes.len();
        assert!(played.bytes == whole[..sent]);
        assert_eq!(sent as u64, offset / 188 * 188);
    }
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let mut seed = 1u64;
    let mut dice = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as usize
    };
    for _ in 0..200 {
        let mut bytes = film(300);
        for _ in 0..dice() % 20 {
            let (from, len) = (dice() % bytes.len(), dice() % 3000);
            let end = (from + len).min(bytes.len());
            bytes[from..end].iter_mut().for_each(|byte| *byte = dice() as u8);
        }
        let played = play(Fake::new(bytes), 1536, 3, false, usize::MAX);
        assert!(played.bytes.len().is_multiple_of(188));
        assert!(played.bytes.chunks(188).all(|packet| packet[0] == SYNC_BYTE));
    }
}
