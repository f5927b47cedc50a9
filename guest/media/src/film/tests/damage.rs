//! Damage in the middle of a film, and packets of other lengths.

use super::*;

#[test]
fn film_goes_on_behind_a_hole_and_what_is_lost_is_counted() {
    let whole = film(4000);
    for (from, len, fill) in
        [(372_736, 4096, 0), (300_000, 1, 9), (188 * 70, 188, 0), (5, 65536, 0x47)]
    {
        let mut damaged = whole.clone();
        damaged[from..from + len].fill(fill);
        let played = played(&damaged);
        let (first_bad, first_good) = (from.div_ceil(188), (from + len).div_ceil(188));
        // The packet in which the hole begins has its sync byte and is sent.
        let expected =
            [packets(&damaged, 0..first_bad), packets(&whole, first_good..4000)].concat();
        if fill != 0x47 {
            assert!(played.bytes == expected, "{len} bytes at {from}");
        } else {
            assert!(played.bytes.ends_with(packets(&whole, first_good + 1..4000)));
        }
        let lost = (first_good - first_bad) as u64;
        if fill == 0 {
            let Damage { places, bytes, packets, .. } = played.damage;
            assert_eq!((places, bytes, packets), (1, lost * 188, lost), "{len} bytes at {from}");
        }
    }
}

#[test]
fn hole_of_any_length_is_searched_to_its_end_and_counted() {
    let mut holed = film(2000);
    let whole = holed.clone();
    // Longer than all buffers together, and than any bound on the search would be.
    for hole in [188 * 10_000, 20 << 20, (48 << 20) + 5] {
        holed.truncate(188 * 1000);
        holed.resize(188 * 1000 + hole, 0);
        holed.extend(packets(&whole, 1000..2000));
        for looped in [false, true] {
            let packets = if looped { 600 } else { usize::MAX };
            let played = play(Fake::new(holed.clone()), 65536, 4, looped, packets);
            let again: Vec<u8> = whole.iter().copied().cycle().take(played.bytes.len()).collect();
            assert!(played.bytes == again && played.bytes.len() >= whole.len(), "{hole} bytes");
            let (bytes, places) = (played.damage.bytes, played.damage.places);
            assert_eq!(bytes, hole as u64 * places);
            assert_eq!(played.damage.packets, (hole as u64).div_ceil(188) * places);
            assert_eq!(played.damage.rest_at, None);
            assert!(looped || played.end == Ok(true));
            let step = played.due.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(step <= 7 * STEP_TICKS / STEP_PACKETS + 1, "the hole costs no film time");
        }
    }
}

#[test]
fn long_hole_does_not_hold_up_what_is_in_front_of_it() {
    // The last reference is far in front of the hole, and the next one behind it.
    let mut holed = film(1000);
    holed.resize(188 * 1000 + (20 << 20), 0);
    holed.extend(film(1000));
    let mut film = Film::new(Fake::new(holed), Settings::default()).unwrap();
    let mut sent = 0;
    while film.bytes_read < 10 << 20 {
        film.poll().unwrap();
        if let Next::Packet { payload, .. } = film.peek().unwrap() {
            sent += payload.iter().flatten().map(|piece| piece.len).sum::<usize>();
            film.advance();
        }
    }
    // But for the last six, which may be sent together with those behind the hole.
    assert!(sent >= 188 * 994, "{sent} bytes");
}

#[test]
fn damaged_sync_byte_costs_its_packet_only() {
    let mut damaged = film(1000);
    let whole = damaged.clone();
    damaged[188 * 500] = 0x12;
    let played = played(&damaged);
    assert!(played.bytes == [packets(&whole, 0..500), packets(&whole, 501..1000)].concat());
    let expected =
        Damage { places: 1, bytes: 188, packets: 1, last_at: 188 * 500, ..Damage::default() };
    assert_eq!(played.damage, expected);
}

#[test]
fn bytes_that_are_missing_cost_the_packet_they_are_missing_from() {
    let whole = film(1000);
    for cut in [1, 100, 187] {
        let mut damaged = whole[..188 * 400 + 1].to_vec();
        damaged.extend(&whole[188 * 400 + 1 + cut..]);
        let played = played(&damaged);
        assert!(played.bytes == [packets(&whole, 0..400), packets(&whole, 401..1000)].concat());
        assert_eq!((played.damage.bytes, played.damage.packets), (188 - cut as u64, 1));
    }
}

#[test]
fn bytes_that_are_too_many_are_skipped() {
    let whole = film(1000);
    for more in [1, 188, 1000] {
        let mut damaged = packets(&whole, 0..400).to_vec();
        damaged.extend(vec![0x11; more]);
        damaged.extend(packets(&whole, 400..1000));
        let played = played(&damaged);
        assert!(played.bytes == whole, "{more} bytes");
        assert_eq!(played.damage.bytes, more as u64);
    }
}

#[test]
fn packets_of_192_and_204_bytes_are_sent_as_188() {
    let whole = film(4000);
    for (before, behind) in [(4, 0), (0, 16)] {
        for fill in [0, 0x47, 0x9c] {
            let longer: Vec<u8> = whole
                .chunks(188)
                .flat_map(|packet| {
                    [&vec![fill; before][..], packet, &vec![fill; behind][..]].concat()
                })
                .collect();
            let played = played(&longer);
            assert!(played.bytes == whole, "{before} before, {behind} behind, {fill:#x}");
            assert!(played.damage.packets <= u64::from(behind > 0), "{:?}", played.damage);
            let mut damaged = longer.clone();
            let stride = 188 + before + behind;
            damaged[stride * 2000..stride * 2010].fill(0);
            let played = self::played(&damaged);
            assert!(
                played.bytes == [packets(&whole, 0..2000), packets(&whole, 2010..4000)].concat()
            );
        }
    }
}

#[test]
fn looped_film_with_damage_is_the_same_in_every_pass() {
    let mut damaged = film(1000);
    damaged[188 * 500..188 * 520].fill(0);
    let good = [packets(&damaged, 0..500), packets(&damaged, 520..1000)].concat();
    let played = play(Fake::new(damaged), 8192, 4, true, 500);
    let again: Vec<u8> = good.iter().copied().cycle().take(played.bytes.len()).collect();
    assert!(played.bytes == again);
    assert!(played.due.is_sorted());
}

#[test]
fn every_pass_counts_what_it_lacks_wherever_that_is() {
    let whole = film(200);
    // A head, a hole, a damaged packet, the rest of one that is cut.
    let mut damaged = [&[0x11; 50][..], &whole, &[SYNC_BYTE; 100]].concat();
    damaged[50 + 188 * 100..50 + 188 * 102].fill(0);
    damaged[50 + 188 * 150 + 3..50 + 188 * 150 + 6].copy_from_slice(&[0x30, 255, 0xff]);
    for (chunk, known) in [(4096, true), (65536, true), (65536, false)] {
        let mut seen = Vec::new();
        let mut volume = Fake::new(damaged.clone());
        volume.data = known.then_some(damaged.len() as u64);
        let settings = Settings { chunk, looped: true, ..Settings::default() };
        let mut film = Film::new(volume, settings).unwrap();
        while film.passes() < 5 {
            film.poll().unwrap();
            if film.damage().rest_at.is_some() && seen.last() != Some(&film.damage()) {
                seen.push(film.damage());
            }
            if matches!(film.peek().unwrap(), Next::Packet { .. }) {
                film.advance();
            }
        }
        // Several passes may be looked through at once.
        let ends: Vec<_> = seen.iter().filter(|it| it.places.is_multiple_of(3)).collect();
        assert!(ends.last().unwrap().places >= 9);
        for damage in ends {
            let pass = damage.places / 3;
            assert_eq!(damage.broken, pass, "{chunk} {known}");
            assert_eq!((damage.bytes, damage.packets), (pass * (50 + 376 + 100), pass * 4));
        }
    }
}
