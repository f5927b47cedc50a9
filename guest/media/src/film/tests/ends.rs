//! Where a film begins and ends.

use super::*;

#[test]
fn part_of_a_packet_at_the_end_is_not_sent() {
    let mut cut = film(1000);
    let whole = cut.clone();
    cut.extend([SYNC_BYTE; 24]); // 188512 bytes: not padded, ends inside a packet
    cut.truncate(cut.len() / 512 * 512);
    let played = play(Fake::new(cut.clone()), 4096, 4, false, usize::MAX);
    assert_eq!(played.end, Ok(true));
    assert!(played.bytes == whole[..cut.len() / 188 * 188]);
}

#[test]
fn film_may_begin_and_end_within_a_packet() {
    let whole = film(1001);
    let played = played(&whole[100..188 * 1000 + 3]);
    assert!(played.bytes == packets(&whole, 1..1000));
    assert_eq!(played.damage.places, 2);
    // What lies behind the end of the file is the volume's padding.
    assert_eq!(played.damage.bytes, 88 + 2); // the third of the last bytes is zero
}

#[test]
fn whole_packets_at_the_end_are_sent_whatever_the_length() {
    for count in [1, 2, 3, 4, 5, 7, 8, 201, 202, 203, 541, 4200] {
        let whole = film_with_clock(count, |packet| packet.is_multiple_of(STEP_PACKETS));
        let played = played(&whole);
        assert!(played.bytes == whole, "{count} packets");
        assert_eq!(played.damage, Damage::default());
    }
    // The first may be lost.
    let mut damaged = film(3);
    damaged[0] = 0;
    assert!(played(&damaged).bytes == packets(&damaged, 1..3));
    // The last two packets behind a hole have no third behind them.
    let mut damaged = film(1000);
    damaged[188 * 990..188 * 998].fill(0);
    let played = played(&damaged);
    assert!(played.bytes.ends_with(packets(&damaged, 998..1000)));
    assert_eq!(played.damage.packets, 8);
}

#[test]
fn end_of_a_film_on_a_larger_volume_is_found() {
    let whole = film(1000);
    let mut padded = whole.clone();
    padded.resize(whole.len() + 40_000_000, 0);
    let played = play(Fake::new(padded.clone()), 65536, 4, false, usize::MAX);
    assert_eq!(played.end, Ok(true));
    assert!(played.bytes == whole);
    let bytes = 40_000_000 / 512 * 512 + 512 - 188_000 % 512;
    let damage = Damage {
        places: 1,
        bytes,
        packets: bytes.div_ceil(188),
        last_at: 188_000,
        rest_at: Some(188_000),
        ..Damage::default()
    };
    assert_eq!(played.damage, damage, "nobody knows that they are no lost packets");
    // Who does can say so.
    let exact = Settings { bytes: Some(188_000), ..Settings::default() };
    let played = played_with(&padded, exact);
    assert!(played.bytes == whole);
    assert_eq!(played.damage, Damage::default());
}

#[test]
fn packets_that_are_zeros_at_the_end_are_counted() {
    for lost in [3, 4, 20, 997] {
        let mut damaged = film(1000);
        damaged[188 * (1000 - lost)..].fill(0);
        let played = played(&damaged);
        assert!(played.bytes == packets(&damaged, 0..1000 - lost));
        let from = 188 * (1000 - lost) as u64;
        let bytes = 188_000_u64.next_multiple_of(512) - from;
        assert_eq!((played.damage.bytes, played.damage.rest_at), (bytes, Some(from)), "{lost}");
        assert!(played.damage.packets >= lost as u64);
    }
}

#[test]
fn packet_that_is_cut_is_not_sent_wherever_it_is_cut() {
    for stride in [188, 192, 204] {
        let whole = film(1000);
        let longer: Vec<u8> = whole
            .chunks(188)
            .flat_map(|packet| match stride {
                192 => [&[1, 2, 3, 4], packet].concat(),
                204 => [packet, &[0x9c; 16]].concat(),
                _ => packet.to_vec(),
            })
            .collect();
        let stamp = if stride == 192 { 4 } else { 0 };
        // From the second last packet's end on, byte by byte.
        for cut in 1..2 * stride {
            let end = longer.len() - cut;
            let count = (end + stride - stamp - 188) / stride;
            // The time stamp of what is cut counts as that of the packet before.
            let rest = end.saturating_sub(count * stride + stamp);
            let data = longer[..end].to_vec();
            let exact = Settings { bytes: Some(end as u64), ..Settings::default() };
            let mut told = Fake::new(data.clone());
            told.data = Some(end as u64);
            let mut cases = vec![
                (Fake::new(data.clone()), exact),
                (told, Settings::default()),
                (Fake::new(data), Settings::default()),
            ];
            // Nobody knows the end: a packet that lacks a few bytes looks whole, as those with
            // zeros do.
            let missing = (stamp + 188 + count * stride).saturating_sub(end);
            if missing < 8 && missing > 0 || longer[end - 1] == 0 {
                cases.pop();
            }
            for (volume, settings) in cases {
                let played = play_with(volume, settings, usize::MAX);
                assert!(played.bytes == packets(&whole, 0..count), "{cut} of {stride}");
                assert_eq!(played.end, Ok(true));
                assert_eq!(played.damage.bytes, rest as u64, "{cut} of {stride}");
            }
        }
    }
}

#[test]
fn last_packet_that_ends_in_a_few_zeros_is_whole() {
    for (zeros, known) in [(1, false), (7, false), (7, true), (8, true), (150, true)] {
        let mut whole = film(1000);
        let end = whole.len();
        whole[end - zeros..].fill(0);
        let mut volume = Fake::new(whole.clone());
        volume.data = known.then_some(end as u64);
        let played = play_with(volume, Settings::default(), usize::MAX);
        assert!(played.bytes == whole, "{zeros} zeros");
        assert_eq!(played.damage, Damage::default());
    }
}

#[test]
fn last_packet_that_ends_in_zeros_as_those_before_it_do_is_whole() {
    let mut whole = film(1000);
    whole.chunks_mut(188).for_each(|packet| packet[100..].fill(0));
    let played = played(&whole);
    assert!(played.bytes == whole);
    assert_eq!(played.damage, Damage::default());
}

#[test]
fn what_is_in_front_of_the_first_packet_is_counted_as_guest_readme_says() {
    let whole = film(1000);
    for fill in [0, 0x11] {
        let junk = [vec![fill; 3000], whole.clone()].concat();
        let played = played(&junk);
        assert!(played.bytes == whole);
        let expected = Damage { places: 1, bytes: 3000, packets: 16, ..Damage::default() };
        assert_eq!(played.damage, expected);
    }
}

#[test]
fn film_longer_than_its_volume_is_refused() {
    let settings = Settings { bytes: Some(1025), ..Settings::default() };
    let error = Film::new(Fake::new(vec![0; 1024]), settings).err();
    assert_eq!(error, Some(FilmError::TooLong { bytes: 1025, capacity: 1024 }));
}
