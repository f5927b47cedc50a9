//! The words for virtio-mmio devices on a guest's command line, and where they go.
//!
//! Linux reads its own parameters up to the first word `--` and hands the rest to init as it is. It
//! takes `"` as a quote anywhere in a word (`next_arg` in its `lib/cmdline.c`), and a quote that is
//! not closed lasts to the end of the line. So this module puts words for the kernel in front of
//! both.

use moirai_abi::machine::{VIRTIO_MMIO_BASE, VIRTIO_MMIO_FIRST_GSI, VIRTIO_MMIO_SIZE};

/// The line `words` with a word for each of `devices` virtio-mmio windows. What was there before
/// stays as it was, byte for byte.
#[must_use]
pub fn with_devices(words: &str, devices: usize) -> String {
    let windows = (0..).map(|n| VIRTIO_MMIO_BASE + n * VIRTIO_MMIO_SIZE);
    let named: Vec<_> = windows
        .zip(VIRTIO_MMIO_FIRST_GSI..)
        .take(devices)
        .map(|(base, gsi)| format!("virtio_mmio.device=4K@{base:#x}:{gsi}"))
        .collect();
    let named = named.join(" ");
    let (kernels, rest) = words.split_at(end_of_kernel_words(words));
    if named.is_empty() {
        return words.to_owned();
    }
    let before = if kernels.is_empty() || kernels.ends_with(is_blank) { "" } else { " " };
    let after = if rest.is_empty() { "" } else { " " };
    format!("{kernels}{before}{named}{after}{rest}")
}

/// Where the words end that Linux reads itself: at a bare `--`, at a word whose quote is not
/// closed, or at the end of the line.
fn end_of_kernel_words(line: &str) -> usize {
    let (mut start, mut quoted) = (0, false);
    for (at, letter) in line.char_indices() {
        if letter == '"' {
            quoted = !quoted;
        } else if is_blank(letter) && !quoted {
            if is_end(line.get(start..at)) {
                return start;
            }
            start = at + 1;
        }
    }
    if quoted || is_end(line.get(start..)) { start } else { line.len() }
}

/// Linux strips the quotes of a word that is quoted as a whole before it looks.
fn is_end(word: Option<&str>) -> bool {
    matches!(word, Some("--" | "\"--\""))
}

/// What separates words for Linux, within ASCII.
fn is_blank(letter: char) -> bool {
    letter.is_ascii_whitespace() || letter == '\x0b'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::with_devices;

    const ONE: &str = "virtio_mmio.device=4K@0xd0000000:5";

    #[test]
    fn every_device_gets_its_word_on_the_command_line() {
        assert_eq!(with_devices("", 0), "");
        assert_eq!(with_devices("", 1), ONE);
        assert_eq!(
            with_devices("ip=10.0.0.2/24", 2),
            "ip=10.0.0.2/24 virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6"
        );
    }

    #[test]
    fn words_for_devices_stand_before_what_linux_hands_to_init() {
        for (line, wanted) in [
            ("init=/bin/cat -- /etc/passwd", "init=/bin/cat DEVICE -- /etc/passwd"),
            ("-- a", "DEVICE -- a"),
            ("quiet --", "quiet DEVICE --"),
            ("--", "DEVICE --"),
            ("a -- b -- c", "a DEVICE -- b -- c"),
            ("a \t--\tb", "a \tDEVICE --\tb"),
            ("a \"--\" b", "a DEVICE \"--\" b"),
            // Not closed: the rest of the line belongs to that word.
            ("quiet x=\"a b", "quiet DEVICE x=\"a b"),
            ("quiet x=\"a -- b", "quiet DEVICE x=\"a -- b"),
        ] {
            assert_eq!(with_devices(line, 1), wanted.replace("DEVICE", ONE), "{line}");
            assert_eq!(with_devices(line, 0), line);
        }
    }

    #[test]
    fn quoted_dashes_and_words_that_begin_with_dashes_end_nothing() {
        for line in [
            "dyndbg=\"file a.c +p -- b\" quiet",
            "\"x= -- y\"",
            "--x",
            "---",
            "a--",
            "x=--",
            "a=\"b\"-- c",
        ] {
            assert_eq!(with_devices(line, 1), format!("{line} {ONE}"), "{line}");
        }
        assert_eq!(with_devices("quiet ", 1), format!("quiet {ONE}"));
    }

    /// The words of a line as Linux takes them apart (`parse_args`): those that the kernel reads,
    /// and what is left for init, if there is a `--`.
    fn as_linux_reads(line: &str) -> (Vec<String>, Option<String>) {
        let (mut words, mut rest) = (Vec::new(), line.trim_start());
        while !rest.is_empty() {
            let mut quoted = false;
            let end = rest.find(|letter: char| {
                quoted ^= letter == '"';
                letter.is_ascii_whitespace() && !quoted
            });
            let (word, left) = rest.split_at(end.unwrap_or(rest.len()));
            rest = left.trim_start();
            let bare = word.strip_prefix('"').map(|word| word.strip_suffix('"').unwrap_or(word));
            if bare.unwrap_or(word) == "--" && (bare.is_none() || word.ends_with('"')) {
                return (words, Some(rest.to_owned()));
            }
            words.push(word.to_owned());
        }
        (words, None)
    }

    proptest! {
        /// Also where words with dashes, quotes and tabs stand in any order.
        #[test]
        fn linux_reads_a_word_for_the_device_and_everything_else_as_before(
            words in prop::collection::vec(
                prop::sample::select(vec![
                    "--", "\"--\"", "--x", "---", "-", "a", "x=--", "x=\"a -- b\"", "\"c d\"",
                    "\"a", "b\"", "--\"\"", "\"\"--", "\"-- ", "--=1",
                ]),
                0..7,
            ),
            blank in prop::sample::select(vec![" ", "\t", "  ", " \t"]),
        ) {
            let line = words.join(blank);
            let (kernels, init) = as_linux_reads(&line);
            let (read, init_then) = as_linux_reads(&with_devices(&line, 1));
            prop_assert_eq!(init_then, init);
            let is_device = |word: &String| word == ONE;
            prop_assert_eq!(read.iter().filter(|word| is_device(word)).count(), 1);
            let others: Vec<_> = read.into_iter().filter(|word| !is_device(word)).collect();
            prop_assert_eq!(others, kernels);
        }

        #[test]
        fn nothing_of_a_line_is_lost_or_moved(line in "[-a=\" \t]{0,40}") {
            let made = with_devices(&line, 1);
            let (before, after) = made.split_once(ONE).expect("the word is there");
            let joined = format!("{before}{after}");
            let without = |text: &str| text.replace([' ', '\t'], "");
            prop_assert_eq!(without(&joined), without(&line));
            prop_assert!(line.starts_with(before.strip_suffix(' ').unwrap_or(before)));
            prop_assert!(line.ends_with(after.strip_prefix(' ').unwrap_or(after)));
            prop_assert_eq!(before.matches('"').count() % 2, 0);
        }
    }
}
