//! Takes the uncompressed kernel out of a bzImage (Linux `Documentation/arch/x86/boot.rst`,
//! protocol 2.08: `payload_offset`, `payload_length`). The compressed part is unpacked by the
//! program of its format.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{ImageError, at};

/// First bytes of a format, the program that unpacks it, its package.
const FORMATS: [(&[u8], &str, &str); 4] = [
    (b"\x02\x21\x4c\x18", "lz4", "lz4"),
    (b"\xfd7zXZ", "xz", "xz-utils"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd"),
    (b"\x1f\x8b", "gzip", "gzip"),
];

/// Writes the uncompressed kernel of `bzimage` to `vmlinux`.
///
/// # Errors
/// No bzImage, an unknown format, a missing program.
pub(super) fn extract(bzimage: &Path, vmlinux: &Path) -> Result<(), ImageError> {
    let bad = |why| ImageError::Kernel { path: bzimage.to_owned(), why };
    let image = fs::read(bzimage).map_err(at(bzimage))?;
    let payload =
        payload(&image).ok_or_else(|| bad("is not a bzImage of protocol 2.08 or later"))?;
    let format = FORMATS.iter().find(|(magic, ..)| payload.starts_with(magic));
    let (_, tool, package) = *format.ok_or_else(|| bad("is compressed in an unknown format"))?;
    let out = File::create(vmlinux).map_err(at(vmlinux))?;
    let mut unpack = Command::new(tool)
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(out)
        // All of them complain of the length that follows the compressed data.
        .stderr(Stdio::null())
        .spawn()
        .map_err(|_| ImageError::NoTool { tool, package })?;
    if let Some(mut input) = unpack.stdin.take() {
        // The same length makes some of them end before they have read everything.
        let _ = input.write_all(payload);
    }
    let _ = unpack.wait().map_err(at(vmlinux))?;
    let mut magic = [0; 4];
    let read =
        File::open(vmlinux).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    if read.is_ok() && magic == *b"\x7fELF" {
        Ok(())
    } else {
        Err(bad("does not unpack to an ELF file"))
    }
}

/// The compressed kernel in a bzImage.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    let version = u16::from_le_bytes(image.get(0x206..0x208)?.try_into().ok()?);
    if image.get(0x202..0x206)? != b"HdrS" || version < 0x208 {
        return None;
    }
    // 0 means 4 in the oldest images.
    let sectors = usize::from(*image.get(0x1f1)?).max(1);
    let begin = (sectors + 1) * 512 + usize::try_from(word(0x248)?).ok()?;
    let end = begin.checked_add(usize::try_from(word(0x24c)?).ok()?)?;
    image.get(begin..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(offset: u32, length: u32) -> Vec<u8> {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&offset.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        image
    }

    #[test]
    fn the_payload_lies_behind_the_setup_code() {
        let mut good = image(16, 4);
        good[1040..1044].copy_from_slice(b"abcd");
        assert_eq!(payload(&good), Some(&b"abcd"[..]));
    }

    #[test]
    fn images_that_lie_about_their_payload_are_refused() {
        assert_eq!(payload(&image(16, 4000)), None);
        assert_eq!(payload(&image(u32::MAX, u32::MAX)), None);
        assert_eq!(payload(&[]), None);
        assert_eq!(payload(&vec![0; 4096]), None);
    }
}
