//! `moirai image`: makes what tenants boot.

use super::args::{DebianArgs, ImageCommand, LibosArgs};
use super::{Failure, Status, print};
use crate::image::{self, Debian, ImageError};
use moirai_config::units::Size;

pub(super) fn run(command: &ImageCommand) -> Result<Status, Failure> {
    match command {
        ImageCommand::Debian(args) => debian(args),
        ImageCommand::Libos(LibosArgs { app, out }) => {
            image::libos(app, out)?;
            print(format!("[[tenant]]\nname = \"{app}\"\nimage = \"{}\"\n", out.display()))
        }
    }
}

fn debian(args: &DebianArgs) -> Result<Status, Failure> {
    let Size(size_bytes) = args.size;
    let qcow2 = args.format == "qcow2";
    let built = image::debian(&Debian {
        out: args.out.clone(),
        size_bytes,
        qcow2,
        ssh_key: args.ssh_key.clone(),
        user: args.user.clone(),
        hostname: args.hostname.clone(),
    })?;
    let [root, vmlinux, initrd] = [&built.root, &built.vmlinux, &built.initrd].map(|p| p.display());
    let volume = built.root.file_name().unwrap_or_default().display();
    // What a configuration needs, ready to be pasted.
    print(format!(
        "# {root}, {}\n[[tenant]]\nname = \"{}\"\nkernel = \"{vmlinux}\"\ninitrd = \"{initrd}\"\n\
         cmdline = \"root=/dev/vda console=ttyS0\"\nmemory = \"512M\"\n\n[[tenant.disk]]\n\
         disk = \"DISK\" # one whose path has the volume in it\nvolume = \"{volume}\"\n\
         format = \"{}\"\n",
        built.vmlinuz.display(),
        args.hostname,
        args.format,
    ))
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let status = match &error {
            ImageError::Name { .. }
            | ImageError::Size { .. }
            | ImageError::Key { .. }
            | ImageError::NoApp { .. } => Status::Bad,
            _ => Status::Failed,
        };
        Self::new(status, error)
    }
}
