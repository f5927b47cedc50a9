//! Names of files in an image, as QEMU reads them.

use moirai_abi::shell::Word;

use crate::backend::error::ImageError;

/// The file that `name` means: all of it, or what stands behind `file:`. A name that needs a driver
/// of QEMU is refused; it says which and what to do.
pub(super) fn file_name<'a>(image: &str, name: &'a str) -> Result<&'a str, ImageError> {
    // As in QEMU, a colon before the first slash ends the name of a driver.
    let driver = name.split('/').next().and_then(|first| first.split_once(':'));
    let shown = Word(image);
    let what = match driver {
        None => return Ok(name),
        Some(("file", _)) => return Ok(name.strip_prefix("file:").unwrap_or(name)),
        Some(("json", _)) => format!(
            "names {name}: descriptions in JSON are not supported; name the file itself: `qemu-img \
             rebase -u -b FILE -F FORMAT {shown}`"
        ),
        Some((driver, _)) => format!(
            "names {name}: the protocol {driver} of QEMU is not supported; copy what it names \
             below the disk's path and name that (`qemu-img rebase -u -b FILE -F FORMAT {shown}`), \
             or make one image of both: `qemu-img convert -O qcow2 {shown} {shown}.new`"
        ),
    };
    Err(ImageError::Unsupported { image: image.to_owned(), what })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_unless_a_driver_stands_before_it() {
        for (name, file) in [
            ("base.raw", "base.raw"),
            ("dir/a:b", "dir/a:b"),
            ("./a:b", "./a:b"),
            ("/srv/a:b", "/srv/a:b"),
            ("file:base.raw", "base.raw"),
            ("file:/srv/base.raw", "/srv/base.raw"),
            ("", ""),
        ] {
            assert_eq!(file_name("i", name).unwrap(), file);
        }
        for (name, said) in [
            ("json:{\"driver\":\"raw\"}", "descriptions in JSON are not supported"),
            ("nbd://host/export", "the protocol nbd of QEMU"),
            ("nbd+unix:///e?socket=/s", "the protocol nbd+unix of QEMU"),
            ("https://host/a.raw", "the protocol https of QEMU"),
            ("rbd:pool/image", "the protocol rbd of QEMU"),
            ("host_device:/dev/sda", "the protocol host_device of QEMU"),
        ] {
            let refusal = file_name("i", name).unwrap_err().to_string();
            assert!(refusal.contains(said) && refusal.contains("qemu-img rebase"), "{refusal}");
        }
    }
}
