#!/bin/sh
# Run by mmdebstrap when all packages are installed; $1 is the new root. Beside this file,
# "settings" says HOSTNAME, USER and SIZE_BYTES, "out" links to where the file system is to be, and
# "key" is there if there is one.
set -eu
root=$1
here=$(dirname "$0")
. "$here/settings"
out=$(readlink "$here/out")

echo "$HOSTNAME" >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n::1 localhost\n' "$HOSTNAME" >"$root/etc/hosts"
echo '/dev/vda / ext4 rw,discard,errors=remount-ro 0 1' >"$root/etc/fstab"
: >"$root/etc/machine-id" # made at the first boot: two copies of the image are two machines

# The user. No password: the console is the operator's, and sshd refuses accounts without one
# unless they have a key.
chroot "$root" useradd --create-home --shell /bin/bash --groups sudo,adm "$USER"
chroot "$root" passwd --quiet --delete "$USER"
echo "$USER ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$USER"
chmod 440 "$root/etc/sudoers.d/$USER"
if [ -e "$here/key" ]; then
    install -d -m 700 "$root/home/$USER/.ssh"
    install -m 600 "$here/key" "$root/home/$USER/.ssh/authorized_keys"
    chroot "$root" chown -R "$USER:$USER" "/home/$USER/.ssh"
fi
# Host keys would be the same in every copy. No RSA: to find its primes takes a tenant with a small slice
# minutes.
rm -f "$root"/etc/ssh/ssh_host_*_key*
echo 'HostKey /etc/ssh/ssh_host_ed25519_key' >"$root/etc/ssh/sshd_config.d/host-key.conf"
cat >"$root/etc/systemd/system/ssh-keys.service" <<'END'
[Unit]
Description=SSH host keys of this machine
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
[Install]
WantedBy=multi-user.target
END

# Network: by the kernel's `ip=`, else DHCP. systemd makes a 90-NAME or 91-default of the former; the
# first that matches is taken.
cat >"$root/etc/systemd/network/99-wired.network" <<'END'
[Match]
Type=ether
[Network]
DHCP=yes
END
chroot "$root" systemctl --quiet enable systemd-networkd systemd-network-generator ssh-keys \
    serial-getty@ttyS0
chroot "$root" systemctl --quiet disable systemd-networkd-wait-online
# What a tenant has no use for and what takes seconds of a small slice at each boot: file systems on
# LVM, a partition table to repair (and drivers of device mapper and loop devices for it), crash logs
# in EFI variables, a graphics card, a terminal on it, the control of FUSE mounts. Their drivers are
# still loaded when somebody opens their devices.
chroot "$root" systemctl --quiet disable e2scrub_reap.service e2scrub_all.timer getty@tty1.service
chroot "$root" systemctl --quiet mask systemd-repart.service systemd-pstore.service \
    modprobe@drm.service sys-fs-fuse-connections.mount

# Out of it: the kernel, its RAM disk, the file system. A bind mount shows the root without what is
# mounted on it.
cp "$root"/boot/vmlinuz-* "$out.vmlinuz"
cp "$root"/boot/initrd.img-* "$out.initrd"
chmod 644 "$out.vmlinuz" "$out.initrd"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
unshare --mount sh -euc '
    mkdir "$1/root"
    mount --bind "$2" "$1/root"
    mke2fs -q -t ext4 -L root -d "$1/root" "$3" "$4"
' sh "$here" "$root" "$out" "$((SIZE_BYTES / 1024))k"
