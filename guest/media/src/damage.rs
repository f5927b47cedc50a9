//! What a film has lost, and how that is reported.

use alloc::format;
use alloc::string::String;

/// What a film has lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Places at which packets were missing.
    pub places: u64,
    /// Bytes that belong to no whole packet.
    pub bytes: u64,
    /// Packets that these bytes would have been, rounded up.
    pub packets: u64,
    /// Where the last of these places is, in bytes from the start of the film.
    pub last_at: u64,
    /// Where the place is that reaches to the end of the volume, if there is one.
    pub rest_at: Option<u64>,
    /// Packets with an adaptation field that cannot be one. They are sent, so they are not lost.
    pub broken: u64,
    /// Where the last of them is, in bytes from the start of the film.
    pub broken_at: u64,
}

impl Damage {
    /// Adds a place with lost bytes, in a film with packets every `stride` bytes.
    pub(crate) fn add(&mut self, at: u64, bytes: u64, stride: u64) {
        if bytes > 0 {
            self.places += 1;
            self.bytes += bytes;
            self.packets += bytes.div_ceil(stride);
            self.last_at = at;
        }
    }

    /// Adds a packet that is there and whose adaptation field cannot be one.
    pub(crate) fn add_broken(&mut self, at: u64) {
        self.broken += 1;
        self.broken_at = at;
    }

    /// What is to be said of damaged packets to somebody who knows of the first `told`; `None`:
    /// nothing.
    #[must_use]
    pub fn broken_message(&self, told: u64) -> Option<String> {
        let new = self.broken.checked_sub(told).filter(|&new| new > 0)?;
        let (more, last) = (if told > 0 { " more" } else { "" }, self.broken_at);
        let (packets, have, the) = match new {
            1 => ("packet", "has", ""),
            _ => ("packets", "have", "the last "),
        };
        let were = if self.broken == 1 { "was" } else { "were" };
        Some(format!(
            "the film has {new}{more} damaged {packets}, {the}at byte {last}, that {have} an \
             adaptation field which cannot be one: what it says of the clock is not believed; so \
             far {} {were} sent as they are",
            count(self.broken, "damaged packet")
        ))
    }

    /// What is to be said to somebody who knows of the first `told` places; `None`: nothing.
    #[must_use]
    pub fn message(&self, told: u64) -> Option<String> {
        let Self { places, bytes, packets, last_at, rest_at, .. } = *self;
        let new = places.checked_sub(told).filter(|&new| new > 0)?;
        let more = if told > 0 { " more" } else { "" };
        let (places, last) = if new == 1 { ("place", "") } else { ("places", "the last ") };
        let rest = match rest_at {
            Some(at) if at == last_at => format!(
                ", behind which no whole packet follows (if the film ends there, bytes={at} says \
                 so)"
            ),
            _ => String::new(),
        };
        let (lost, are) = (count(bytes, "byte"), if bytes == 1 { "is" } else { "are" });
        let worth = count(packets, "packet");
        Some(format!(
            "the film is damaged at {new}{more} {places}, {last}at byte {last_at}{rest}; \
             so far {lost} ({worth}) {are} lost"
        ))
    }
}

fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_counts_in_english_and_names_the_place() {
        let mut damage = Damage::default();
        assert_eq!(damage.message(0), None);
        damage.add(188, 1, 188);
        assert_eq!(
            damage.message(0).unwrap(),
            "the film is damaged at 1 place, at byte 188; so far 1 byte (1 packet) is lost"
        );
        damage.add(376, 188, 188);
        assert_eq!(
            damage.message(1).unwrap(),
            "the film is damaged at 1 more place, at byte 376; so far 189 bytes (2 packets) are \
             lost"
        );
        assert!(damage.message(0).unwrap().contains("at 2 places, the last at byte 376;"));
        assert_eq!(damage.message(2), None);
    }

    #[test]
    fn damaged_packets_are_told_in_english() {
        let mut damage = Damage::default();
        assert_eq!(damage.broken_message(0), None);
        damage.add_broken(188);
        let one = damage.broken_message(0).unwrap();
        assert!(
            one.starts_with("the film has 1 damaged packet, at byte 188, that has an"),
            "{one}"
        );
        damage.add_broken(376);
        damage.add_broken(564);
        let more = damage.broken_message(1).unwrap();
        let told = "the film has 2 more damaged packets, the last at byte 564, that have an";
        assert!(more.starts_with(told), "{more}");
        assert!(more.ends_with("so far 3 damaged packets were sent as they are"), "{more}");
        assert_eq!((damage.broken_message(3), damage.message(0)), (None, None));
    }

    #[test]
    fn message_says_that_nothing_follows_and_how_to_say_that_the_film_ends_there() {
        let mut damage = Damage::default();
        damage.add(1880, 10_000, 188);
        damage.rest_at = Some(1880);
        let message = damage.message(0).unwrap();
        assert!(message.contains("no whole packet follows"), "{message}");
        assert!(message.contains("bytes=1880 "), "{message}");
        damage.add(376, 188, 188);
        assert!(!damage.message(1).unwrap().contains("follows"), "it is of the next pass");
    }
}
