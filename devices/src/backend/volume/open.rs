//! Opens a volume: the files that it is made of, and what they make together.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::super::error::VolumeError;
use super::super::file::{DiskFile, open_below};
use super::super::qcow2::{Image, ImageProcesses};
use super::super::stripe::Stripes;
use super::{Shape, Volume};

impl Volume {
    /// Opens a raw file or block device, with O_DIRECT where the file system has it.
    ///
    /// # Errors
    /// See [`VolumeError`]; each says what to do.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, VolumeError> {
        Self::open_below(None, path, read_only)
    }

    /// The same; if it is said to lie below a folder, no symlink leads out of that.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn open_below(
        root: Option<&Path>,
        path: &Path,
        read_only: bool,
    ) -> Result<Self, VolumeError> {
        Self::from_file(open_below(root, path, read_only)?, path.display().to_string(), read_only)
    }

    /// Takes over an open raw file; `name` is for messages. Its file status flags are changed.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn from_file(file: File, name: String, read_only: bool) -> Result<Self, VolumeError> {
        let file = DiskFile::new(file, &name, read_only)?;
        let size_bytes = file.size_bytes();
        if size_bytes == 0 {
            return Err(VolumeError::Empty(name));
        }
        Ok(Self::of(vec![file], Shape::Raw, size_bytes, read_only))
    }

    /// Opens the files of a stripe set with a unit of `unit_bytes`; they lie where
    /// [`Volume::open_below`] says.
    ///
    /// # Errors
    /// See [`VolumeError`]; also if the files do not make a set.
    pub fn open_striped_below(
        root: Option<&Path>,
        paths: &[PathBuf],
        unit_bytes: u64,
        read_only: bool,
    ) -> Result<Self, VolumeError> {
        let opened = paths.iter().map(|path| {
            DiskFile::new(
                open_below(root, path, read_only)?,
                &path.display().to_string(),
                read_only,
            )
        });
        let files = opened.collect::<Result<Vec<_>, _>>()?;
        let (stripes, size_bytes) = Stripes::of(&files, paths, unit_bytes)?;
        Ok(Self::of(files, Shape::Striped(stripes), size_bytes, read_only))
    }

    /// Opens the files of a stripe set, wherever they lie.
    ///
    /// # Errors
    /// See [`VolumeError`]; also if the files do not make a set.
    pub fn open_striped(
        paths: &[PathBuf],
        unit_bytes: u64,
        read_only: bool,
    ) -> Result<Self, VolumeError> {
        Self::open_striped_below(None, paths, unit_bytes, read_only)
    }

    /// Opens the qcow2 image at `path` below the folder `root`, with all that it is made of; what
    /// it names has to lie below `root`, too. One of `processes` reads it from now on. Give what
    /// [`Volume::take_worker`] returns a thread before the first request.
    ///
    /// # Errors
    /// See [`VolumeError`].
    pub fn open_qcow2(
        root: &Path,
        path: &Path,
        read_only: bool,
        processes: &dyn ImageProcesses,
    ) -> Result<Self, VolumeError> {
        let (image, files, warnings) = Image::open(root, path, read_only, processes)?;
        let size_bytes = image.size_bytes();
        let mut volume = Self::of(files, Shape::Image(Box::new(image)), size_bytes, read_only);
        volume.files.iter_mut().for_each(DiskFile::set_grows);
        Ok(Self { warnings, ..volume })
    }
}
