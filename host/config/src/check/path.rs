//! Paths that no file can have, refused at their key before anybody opens them.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::problem::Problems;

/// Longest path that Linux takes; a zero byte follows.
const MAX_PATH_BYTES: usize = 4095;
/// Longest path of a unix socket on Linux; a zero byte follows.
const MAX_SOCKET_BYTES: usize = 107;

/// Notes a path that leads nowhere on any machine; `example` is one that could.
pub(super) fn check(path: &Path, at: &str, example: &str, problems: &mut Problems) {
    let bytes = path.as_os_str().as_bytes();
    let wrong = if bytes.is_empty() {
        "the path is empty".to_owned()
    } else if bytes.contains(&0) {
        format!("{path:?} has a zero byte, which ends every path")
    } else if bytes.len() > MAX_PATH_BYTES {
        format!("a path of {} bytes is longer than {MAX_PATH_BYTES}", bytes.len())
    } else {
        return;
    };
    problems.add(at, wrong, &format!("write for example \"{example}\""));
}

/// Notes a path at which no socket can be made.
pub(super) fn check_socket(path: &Path, at: &str, example: &str, problems: &mut Problems) {
    let bytes = path.as_os_str().as_bytes();
    if path.file_name().is_none() || bytes.len() > MAX_SOCKET_BYTES || bytes.contains(&0) {
        let shown = path.display().to_string();
        let long = bytes.len() > MAX_SOCKET_BYTES;
        let why = if long { format!(": it has {} bytes", bytes.len()) } else { String::new() };
        let message = format!("{shown:?} cannot be the path of a socket{why}");
        let help = format!(
            "write for example \"{example}\": a file, by a path of at most {MAX_SOCKET_BYTES} bytes"
        );
        problems.add(at, message, &help);
    }
}

#[cfg(test)]
mod tests {
    use crate::{check, parse};

    /// A good configuration in which every path is `PATH`, by the key in which it is.
    const PATHS: [(&str, &str); 9] = [
        ("host.socket", "[host]\nsocket = PATH"),
        ("host.state_dir", "[host]\nstate_dir = PATH"),
        ("disk[0].path", "[[disk]]\nname = \"d\"\npath = PATH"),
        ("tenant[0].image", "[[tenant]]\nname = \"a\"\nimage = PATH"),
        ("tenant[0].kernel", "[[tenant]]\nname = \"a\"\nkernel = PATH"),
        ("tenant[0].initrd", "[[tenant]]\nname = \"a\"\nkernel = \"k\"\ninitrd = PATH"),
        (
            "tenant[0].disk[0].volume",
            "[[disk]]\nname = \"d\"\npath = \"/\"\n[[tenant]]\nname = \"a\"\nimage = \"i\"\n\
             [[tenant.disk]]\ndisk = \"d\"\nvolume = PATH",
        ),
        (
            "tenant[0].disk[0].stripe.files[1]",
            "[[disk]]\nname = \"d\"\npath = \"/\"\n[[tenant]]\nname = \"a\"\nimage = \"i\"\n\
             [[tenant.disk]]\ndisk = \"d\"\nstripe = { files = [\"a\", PATH] }",
        ),
        (
            "export[0].socket",
            "[[link]]\nname = \"l\"\nrate = \"1Mbit/s\"\n[[export]]\nname = \"e\"\n\
             socket = PATH\nnet = { link = \"l\" }",
        ),
    ];

    fn wrong(text: &str) -> Vec<String> {
        let document = parse("bad.toml", text).unwrap_or_else(|report| panic!("{report}"));
        let problems = check(&document).err().unwrap_or_default().into_iter();
        problems.map(|problem| problem.path).collect()
    }

    #[test]
    fn no_key_takes_a_path_that_is_empty_or_has_a_zero_byte_or_is_too_long() {
        for (key, text) in PATHS {
            let long = format!("\"{}\"", "a/".repeat(2100));
            for bad in ["\"\"", "\"a\\u0000b\"", &long] {
                assert_eq!(wrong(&text.replace("PATH", bad)), [key], "{text} {bad:.20}");
            }
            assert_eq!(wrong(&text.replace("PATH", "\"a/b\"")), [""; 0], "{text}");
        }
    }
}
