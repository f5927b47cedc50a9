//! Clocks, programs and pace.

use super::*;
use crate::pace::NoRate;

#[test]
fn packets_are_due_at_the_pace_of_the_clock() {
    let played = play(Fake::new(film(5000)), 65536, 4, false, usize::MAX);
    let expected = |packet: usize| packet as u64 * 7 * STEP_TICKS / STEP_PACKETS;
    for (packet, due) in played.due.iter().enumerate() {
        assert!(due.abs_diff(expected(packet)) <= 1, "packet {packet} is due at {due}");
    }
}

/// 7 packets at 8 Mbit/s, in ticks.
const FALLBACK_STEP: u64 = 7 * 188 * 27;

fn is_even(due: &[u64]) -> bool {
    due.windows(2).all(|pair| pair[1] - pair[0] == FALLBACK_STEP)
}

#[test]
fn film_without_a_clock_is_sent_whole_at_the_fallback_pace() {
    for references in [0, 1] {
        for count in [1, 4, 7, 8, 1000, 20_000] {
            let film = film_with_clock(count, |packet| packet < references);
            let played = played(&film);
            assert!(played.bytes == film, "{count} packets, {references} references");
            assert!(is_even(&played.due), "{count} packets, {references} references");
            assert_eq!(played.due[0], 0);
            assert_eq!(played.notes.len(), 1);
            let looped = play(Fake::new(film.clone()), 4096, 2, true, 500);
            assert!(looped.due.is_sorted());
            assert_eq!((looped.end, looped.notes.len()), (Ok(false), 1));
        }
    }
}

#[test]
fn fallback_pace_is_what_was_asked_for_and_is_told() {
    let film = film_with_clock(1000, |_| false);
    let settings = Settings { rate_bps: 4_000_000, ..Settings::default() };
    let played = play_with(Fake::new(film), settings, usize::MAX);
    assert_eq!(played.due[1] - played.due[0], 2 * FALLBACK_STEP);
    let told: Vec<_> = played.notes.iter().map(Note::to_string).collect();
    let sentence = "the film has no two clock references (PCR): it is sent at 4000000 bit/s, \
                    rate= sets another pace";
    assert_eq!(told, [sentence]);
    let long = play(Fake::new(film_with_clock(20_000, |_| false)), 4096, 2, false, 10);
    let told: Vec<_> = long.notes.iter().map(Note::to_string).collect();
    assert!(told[0].ends_with("; chunk=16384 looks further ahead"), "{told:?}");
    // No advice that would be refused.
    let most = play(Fake::new(film_with_clock(500_000, |_| false)), CHUNK_MAX, 4, true, 10);
    assert!(matches!(most.notes[..], [Note::LateClock { chunk: None, .. }]), "{:?}", most.notes);
}

#[test]
fn clock_that_does_not_go_on_is_told_as_what_it_is() {
    let tick = |film: &mut [u8], at: u64, base: u64| {
        let at = at as usize * 188;
        film[at + 6..at + 12].copy_from_slice(&(base << 15).to_be_bytes()[2..]);
    };
    let with = |base: &dyn Fn(u64) -> u64| {
        let mut film = film(1000);
        (0..10).for_each(|number| tick(&mut film, number * STEP_PACKETS, base(number)));
        film
    };
    let one = film_with_clock(1000, |packet| packet == 0);
    for (film, told) in [
        (with(&|_| 900), "the film's clock stands still: all its references (PCR) are the same"),
        (
            with(&|number| 90_000 - 1800 * number),
            "the film's clock never goes on: it jumps from each of its references (PCR) to the \
             next",
        ),
        (one, "the film has no two clock references (PCR)"),
    ] {
        // Also in the second pass and behind it, when all that was read is more than the film.
        for looped in [false, true] {
            let played = play(Fake::new(film.clone()), 65536, 4, looped, 500);
            let expected = format!("{told}: it is sent at 8000000 bit/s, rate= sets another pace");
            let notes: Vec<_> = played.notes.iter().map(Note::to_string).collect();
            assert_eq!(notes, [expected], "looped: {looped}");
        }
    }
    let long = play(
        Fake::new([with(&|_| 900), film_with_clock(9000, |_| false)].concat()),
        4096,
        2,
        false,
        9,
    );
    let note = long.notes[0].to_string();
    let told = "the film's clock stands still: all its references (PCR) in its first ";
    assert!(note.starts_with(told) && note.contains(" bytes are the same: until "), "{note}");
}

#[test]
fn note_of_a_looped_film_of_one_packet_speaks_of_the_whole_film() {
    let played = play(Fake::new(film(1)), 4096, 4, true, 50);
    let expected = Note::NoClock { why: NoRate::Missing, rate_bps: 8_000_000 };
    assert_eq!(played.notes, [expected]);
}

#[test]
fn adaptation_fields_that_cannot_be_one_cost_no_time_and_are_counted() {
    let whole = film(5000);
    for (control, len) in [(0x30, 255), (0x30, 183), (0x20, 184), (0x30, 1)] {
        let mut damaged = whole.clone();
        let broken: Vec<usize> = (0..5000_usize)
            .step_by(7)
            .filter(|it| !it.is_multiple_of(STEP_PACKETS as usize))
            .collect();
        for packet in &broken {
            damaged[packet * 188 + 3..packet * 188 + 6].copy_from_slice(&[control, len, 0xff]);
        }
        let played = played(&damaged);
        assert!(played.bytes == damaged, "they are sent as they are");
        assert_eq!(played.due, self::played(&whole).due, "{control:#x}, {len} bytes");
        assert_eq!(played.jumps, (0, 0));
        let Damage { broken: count, broken_at, places, .. } = played.damage;
        let last = broken[broken.len() - 1] as u64 * 188;
        assert_eq!((count, broken_at, places), (broken.len() as u64, last, 0));
    }
}

#[test]
fn clock_that_begins_late_does_not_make_a_burst_of_what_is_in_front_of_it() {
    let from = |first: u64| {
        film_with_clock(8000, |packet| packet >= first && packet.is_multiple_of(STEP_PACKETS))
    };
    let played_ = played(&from(5 * STEP_PACKETS));
    let even = 7 * STEP_TICKS / STEP_PACKETS;
    let steps = |due: &[u64]| due.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>();
    assert!(steps(&played_.due).iter().all(|step| step.abs_diff(even) <= 1));
    assert_eq!(played_.notes, []);
    // So late that all buffers are full before it comes.
    let film = from(40 * STEP_PACKETS);
    let late = played(&film);
    assert!(late.bytes == film);
    assert!(steps(&late.due).iter().all(|&step| step > 0));
    assert_eq!(late.notes.len(), 1);
}

#[test]
fn clock_that_pauses_for_longer_than_the_window_is_bridged_at_its_last_rate() {
    let sparse =
        |packet: u64| packet.is_multiple_of(STEP_PACKETS) && !(500..6000).contains(&packet);
    let film = film_with_clock(10_000, sparse);
    let played = play(Fake::new(film.clone()), 4096, 2, false, usize::MAX);
    assert_eq!(played.end, Ok(true));
    assert!(played.bytes == film);
    assert!(played.due.is_sorted());
}

/// A film with a table of programs, whose one program has `number` and its clock in all references.
fn film_with_tables(number: u16, sections: &[&[u16]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (place, numbers) in sections.iter().enumerate() {
        let entries = numbers.iter().flat_map(|&it| [(it >> 8) as u8, it as u8, 0xe0, 0x20]);
        let head = [0xc1, place as u8, sections.len() as u8 - 1];
        bytes.extend(table(0, 0, 1, &head, entries.collect()));
    }
    // The map table names the packets of `film` (PID 0x100) as those with the clock.
    bytes.extend(table(0x20, 2, number, &[0xc1, 0, 0], vec![0xe1, 0x00, 0xf0, 0]));
    bytes.extend(film(1000));
    bytes
}

fn table(pid: u8, id: u8, number: u16, head: &[u8], body: Vec<u8>) -> Vec<u8> {
    let mut section = vec![id, 0xb0, (body.len() + 9) as u8, (number >> 8) as u8, number as u8];
    section.extend(head);
    section.extend(body);
    section.extend(crate::psi::crc32(&section).to_be_bytes());
    let mut packet = vec![SYNC_BYTE, 0x40, pid, 0x10, 0];
    packet.extend(section);
    packet.resize(188, 0xff);
    packet
}

fn program(film: &[u8], wanted: u16) -> (Result<bool, FilmError<Fault>>, Vec<String>) {
    let settings = Settings { program: Some(wanted), ..Settings::default() };
    let played = play_with(Fake::new(film.to_vec()), settings, usize::MAX);
    assert!(played.end.is_err() || played.bytes == film);
    (played.end, played.notes.iter().map(Note::to_string).collect())
}

#[test]
fn program_that_is_there_is_followed_without_a_word() {
    assert_eq!(program(&film_with_tables(1, &[&[1]]), 1), (Ok(true), vec![]));
    assert_eq!(program(&film_with_tables(3, &[&[1, 2], &[3]]), 3), (Ok(true), vec![]));
}

#[test]
fn program_that_is_not_there_is_refused_and_those_that_are_are_named() {
    for (sections, told) in [
        (
            &[&[1_u16][..]][..],
            "the film has no program 7: it has only program=1; without program= the first counts",
        ),
        (
            &[&[1, 2], &[3]],
            "the film has no program 7: it has the programs 1, 2, 3; without program= the first \
             counts",
        ),
        (
            &[&[]],
            "the film has no program 7: its table of programs (PAT) names none; without program= \
             the first counts",
        ),
    ] {
        let (end, _) = program(&film_with_tables(1, sections), 7);
        assert_eq!(end.unwrap_err().to_string(), told);
    }
}

#[test]
fn program_of_a_film_without_a_table_is_told_to_be_ignored() {
    for packets in [20, 1000, 8000] {
        let (end, notes) = program(&film(packets), 7);
        assert_eq!(end, Ok(true));
        let told = "program=7 is not followed: the film has no table of its programs (PAT); ";
        assert!(notes.iter().any(|note| note.starts_with(told)), "{packets} packets: {notes:?}");
    }
}

#[test]
fn program_whose_clock_does_not_show_is_told_to_be_ignored() {
    // The map table is that of another program.
    let (end, notes) = program(&film_with_tables(1, &[&[1, 7]]), 7);
    assert_eq!(end, Ok(true));
    let told = "program=7 is not followed: its clock does not show (other programs are 1); ";
    assert!(notes.iter().any(|note| note.starts_with(told)), "{notes:?}");
    // A section of the table is missing.
    let mut cut = film_with_tables(1, &[&[1], &[7]]);
    cut.drain(188..376);
    let (_, notes) = program(&cut, 7);
    assert!(notes.iter().any(|note| note.contains("it has only program=1")), "{notes:?}");
}
