//! The layers of an image, given to imago from the deepest up.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use imago::FormatAccess;
use imago::qcow2::Qcow2;
use imago::raw::Raw;
use moirai_image_wire::{FileStart, Format, Layer};

use crate::storage::{Beginning, ImageFile};

/// An image and everything below it.
pub(crate) type Access = FormatAccess<ImageFile>;

/// An image that cannot be opened: which of its layers is at fault, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) layer: u32,
    pub(crate) error: io::Error,
}

/// Opens the image that these layers make of these files. `l1` is where the level-1 table of the
/// top layer is, from and to.
pub(crate) fn open(
    layers: &[Layer],
    l1: (u64, u64),
    mut files: impl Iterator<Item = OwnedFd>,
) -> Result<Access, Refusal> {
    let mut below: Option<Arc<Access>> = None;
    let mut top = None;
    for (number, layer) in (0..).zip(layers) {
        if let Some(access) = top.take() {
            below = Some(Arc::new(access));
        }
        let opened = open_layer(layer, l1, &mut files, below.take());
        top = Some(opened.map_err(|error| Refusal { layer: number, error })?);
    }
    let nothing = || Refusal { layer: 0, error: io::Error::other("an image without a layer") };
    top.ok_or_else(nothing)
}

fn open_layer(
    layer: &Layer,
    l1: (u64, u64),
    files: &mut impl Iterator<Item = OwnedFd>,
    below: Option<Arc<Access>>,
) -> io::Result<Access> {
    let mut storage = |start: FileStart, beginning| {
        let file = files.next().ok_or_else(|| io::Error::other("a file is missing"))?;
        ImageFile::new(File::from(file), layer.writable, start.alignment, beginning)
    };
    let (marked, data) = match layer.format {
        Format::Raw => {
            let main = storage(layer.file, Beginning::Data)?;
            return Ok(FormatAccess::new(Raw::open_image(main, layer.writable)?));
        }
        Format::Qcow2 { marked, data } => (marked, data),
    };
    let beginning = if marked { Beginning::MarkedHeader } else { Beginning::Header };
    let main = storage(layer.file, beginning)?;
    let main = if layer.writable { main.with_table(l1) } else { main };
    let mut image: Qcow2<ImageFile, Arc<Access>> = Qcow2::open_image(main, layer.writable)?;
    image.set_backing(below);
    image.set_data_file(data.map(|start| storage(start, Beginning::Data)).transpose()?);
    Ok(FormatAccess::new(image))
}
